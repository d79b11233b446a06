"""Loaded before settings are: every test session has a data folder of its own and may talk to this machine's own ports."""

import atexit
import os
import shutil
import tempfile

if "DATA_DIR" not in os.environ:
    folder = tempfile.mkdtemp(prefix="rollcall-test-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ["DATA_DIR"] = folder
os.environ.setdefault("ALLOW_PRIVATE_DESTINATIONS", "1")
os.environ.setdefault("SECRET_KEY", "only-for-tests-" + "x" * 50)
