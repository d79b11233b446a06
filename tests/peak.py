"""How much memory a command takes, in a process whose figure is its own."""

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# Linux counts into a process's peak what its parent held when it was started: only a small parent tells the command's own.
_SMALL = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:], stderr=subprocess.STDOUT).returncode
print("\\npeak", resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
sys.exit(code if code >= 0 else 128 - code)
"""


@dataclass(frozen=True, slots=True)
class Ended:
    """`out`: what it printed, errors among it. `peak`: bytes resident at most."""

    code: int
    out: str
    peak: int


def run(*words: str, env: Mapping[str, str]) -> Ended:
    """This Python with these words, from the project's root."""
    command = [sys.executable, "-c", _SMALL, sys.executable, *words]
    done = subprocess.run(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True, errors="replace", check=False)
    out, _, peak = done.stdout.rpartition("\npeak ")
    return Ended(done.returncode, out, int(peak))
