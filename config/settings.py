"""Every setting of Rollcall, each environment variable read once. Nothing here decides how the product behaves."""

import contextlib
import os
import secrets
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import environ
from csp.constants import NONE, SELF

BASE_DIR = Path(__file__).resolve().parent.parent
env = environ.Env()

DATA_DIR = Path(env.str("DATA_DIR", str(BASE_DIR / "var"))).resolve()
DATA_DIR.mkdir(parents=True, exist_ok=True)
PORT = env.int("PORT", 8000)
DEBUG = env.bool("DEBUG", False)
DEMO = env.bool("DEMO", False)

# --- Where things are. Left out, each falls back to the embedded mode under DATA_DIR.
DATABASE_URL = env.str("DATABASE_URL", "")
BROKER_URL = env.str("BROKER_URL", "memory://")
LAKE_URL = env.str("LAKE_URL", str(DATA_DIR / "lake"))
ENGINE_URL = env.str("ENGINE_URL", "duckdb://")
ENGINE_MEMORY = env.str("ENGINE_MEMORY", "1GB")
ENGINE_THREADS = env.int("ENGINE_THREADS", 2)
IMPORT_CHECKPOINT_ROWS = env.int("IMPORT_CHECKPOINT_ROWS", 500_000)  # about 300 MB of events in hand
PUBLIC_URL = env.str("PUBLIC_URL", f"http://127.0.0.1:{PORT}")
SANDBOX_PORT = env.int("SANDBOX_PORT", 9009)
EMBEDDED = BROKER_URL == "memory://"

# --- Secrets. Left out, each is made once and kept in DATA_DIR with mode 0600.
SECRET_KEY_FILE = DATA_DIR / "secret_key"
CREDENTIALS_KEY_FILE = DATA_DIR / "credentials_key"


def _kept_secret(path: Path) -> str:
    """The secret in `path`, made by whichever process comes first."""
    if not path.exists():
        scratch = path.with_name(f"{path.name}.{os.getpid()}")
        descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(48))
        with contextlib.suppress(FileExistsError):  # another process was first: its secret stands
            os.link(scratch, path)
        scratch.unlink()
    return path.read_text().strip()


SECRET_KEY = env.str("SECRET_KEY", "") or _kept_secret(SECRET_KEY_FILE)
# Newest first: the first encrypts, every one decrypts.
CREDENTIALS_KEYS = env.list("CREDENTIALS_KEYS", default=[]) or [_kept_secret(CREDENTIALS_KEY_FILE)]

METRICS_TOKEN = env.str("METRICS_TOKEN", "")  # without it /metrics answers this machine alone
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=["127.0.0.1", "localhost", "[::1]"])
CSRF_TRUSTED_ORIGINS = env.list("CSRF_TRUSTED_ORIGINS", default=[])
ALLOW_PRIVATE_DESTINATIONS = env.bool("ALLOW_PRIVATE_DESTINATIONS", False)
HEARTBEAT_URL = env.str("HEARTBEAT_URL", "")
CANARY_SECONDS = env.int(
    "CANARY_SECONDS", 120
)  # a queue or a worker that took nothing for so long has stopped (audiences/pulse.py)
PULSE_FILE = env.str(
    "PULSE_FILE", ""
)  # touched by a worker or beat that is at work, for whatever watches its container
LOG_LEVEL = env.str("LOG_LEVEL", "INFO")
LOG_JSON = env.bool("LOG_JSON", False)

ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
AUTH_USER_MODEL = "audiences.User"
LOGIN_URL = "audiences:sign-in"
LOGIN_REDIRECT_URL = "/"

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "django_htmx",
    "template_partials",
    "django_structlog",
    "audiences",
    "destinations",
    "qa",
]
MIDDLEWARE = [
    "config.middleware.MachinesFirst",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "config.middleware.LargeBodies",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "config.middleware.RequestMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

# --- Database. `default` writes; `snapshot` reads several tables as of one moment.
# SQLite: a read inside atomic() on `default` takes the write lock, so such reads go through `snapshot`.
_SQLITE_PRAGMAS = "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA journal_size_limit=67108864; PRAGMA secure_delete=ON; PRAGMA temp_store=MEMORY; PRAGMA cache_size=-32000"
if DATABASE_URL:
    _database = {**env.db_url_config(DATABASE_URL), "CONN_MAX_AGE": 60, "CONN_HEALTH_CHECKS": True}
    _database.setdefault("OPTIONS", {})
    if "postgresql" in _database["ENGINE"]:
        _database["OPTIONS"].setdefault("connect_timeout", 5)  # seconds
    _snapshot = {**_database, "OPTIONS": {**_database["OPTIONS"], "isolation_level": 3}}  # REPEATABLE READ
else:
    _database = {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": DATA_DIR / "rollcall.sqlite3",
        "OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 20, "init_command": _SQLITE_PRAGMAS},
        "CONN_MAX_AGE": None,  # the last connection to close a WAL checkpoints it: several fsyncs at the end of every request
        "TEST": {"NAME": env.str("TEST_SQLITE", "") or str(DATA_DIR / "test.sqlite3")},
    }
    _snapshot = {**_database, "OPTIONS": {**_database["OPTIONS"], "transaction_mode": "DEFERRED"}}
DATABASES = {"default": _database, "snapshot": {**_snapshot, "TEST": {"MIRROR": "default"}}}

# --- Time and language.
USE_TZ = True
TIME_ZONE = "UTC"
USE_I18N = False

# --- Static files, served by WhiteNoise; where they were collected, under hashed names and for good.
STATIC_URL = "/static/"
STATICFILES_DIRS = [BASE_DIR / "static"]
STATIC_ROOT = Path(env.str("STATIC_ROOT", str(DATA_DIR / "static")))
STATIC_ROOT.mkdir(exist_ok=True)  # empty where nobody runs collectstatic: the files are then found where they lie
COLLECTED = "STATIC_ROOT" in os.environ  # as an image does when it is built
WHITENOISE_USE_FINDERS = not COLLECTED
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"
        if COLLECTED
        else "django.contrib.staticfiles.storage.StaticFilesStorage"
    },
}
WHITENOISE_AUTOREFRESH = DEBUG

# --- Security.
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_AGE = int(timedelta(hours=12).total_seconds())
_https = PUBLIC_URL.startswith("https://")
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = _https
SECURE_SSL_REDIRECT = env.bool("SECURE_SSL_REDIRECT", _https)
SECURE_HSTS_SECONDS = 31_536_000 if _https else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = _https
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if env.bool("BEHIND_PROXY", False) else None
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [SELF],
        "object-src": [NONE],
        "base-uri": [NONE],
        "frame-ancestors": [NONE],
        "form-action": [SELF],
    },
}
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
]
DATA_UPLOAD_MAX_MEMORY_SIZE = 1_000_000
DATA_UPLOAD_MAX_NUMBER_FIELDS = 30_000  # a rule of a thousand rows has a dozen fields each
FILE_UPLOAD_HANDLERS = ["django.core.files.uploadhandler.TemporaryFileUploadHandler"]
FILE_UPLOAD_TEMP_DIR = env.str("UPLOAD_DIR", "") or None  # where /tmp is small or in memory
if FILE_UPLOAD_TEMP_DIR:
    Path(FILE_UPLOAD_TEMP_DIR).mkdir(parents=True, exist_ok=True)

# --- Mail. Without EMAIL_URL (smtp://, smtp+tls:// or smtp+ssl://user:password@host:port), mails are files in DATA_DIR/outbox.
if env.str("EMAIL_URL", ""):
    vars().update(env.email_url("EMAIL_URL"))
else:
    EMAIL_BACKEND = "qa.outbox.Files"
EMAIL_TIMEOUT = 15  # seconds that a mail server may take to answer
_host = urlsplit(PUBLIC_URL).hostname or "localhost"
DEFAULT_FROM_EMAIL = env.str("MAIL_FROM", f"Rollcall <rollcall@{'localhost' if _host[-1].isdigit() else _host}>")

# --- Celery. The broker carries wake-ups only: every piece of work is a row with a lease (audiences/jobs.py).
CELERY_BROKER_URL = "memory://localhost" if EMBEDDED else BROKER_URL  # without a host kombu complains of none
CELERY_TASK_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TASK_IGNORE_RESULT = True
# At least once, and every doubled, late or lost message is harmless: docs/operations.md says why these values.
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_TASK_PUBLISH_RETRY = False  # whoever is not told now is told by the next sweep
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CONNECTION_MAX_RETRIES = None  # an outage of any length ends by itself
CELERY_BEAT_SCHEDULER = "config.celery:Ticker"
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_TIMEZONE = "UTC"
if EMBEDDED:
    CELERY_BROKER_TRANSPORT_OPTIONS = {"polling_interval": 0.02}
elif BROKER_URL.startswith("redis"):
    CELERY_BROKER_TRANSPORT_OPTIONS = {
        "visibility_timeout": env.int(
            "VISIBILITY_TIMEOUT", 3600
        ),  # longer than tasks take: what comes back sooner finds its row held
        "unacked_restore_interval": 2,
        "unacked_restore_throttle": 1,
        "socket_connect_timeout": 2,  # seconds; nobody waits longer for a broker that is away
        "socket_timeout": 15,
    }

# --- Logs: structured, with request, job and run ids, never with a person's data (config/logs.py).
DJANGO_STRUCTLOG_IP_LOGGING_ENABLED = False
_form_only = {"filters": ["form only"]}
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"()": "config.logs.formatter", "json": LOG_JSON}},
    "filters": {"discreet": {"()": "config.logs.Discreet"}, "form only": {"()": "config.logs.FormOnly"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line", "filters": ["discreet"]}},
    "root": {"handlers": ["console"], "level": LOG_LEVEL},
    "loggers": {
        "httpx": {"level": "WARNING"},  # its INFO lines carry whole URLs
        "httpcore": {"level": "WARNING"},
        "django_structlog": {"level": "WARNING"},
        "django.request": {"level": "CRITICAL"},  # its lines carry whole addresses; config/middleware.py logs requests
        "django.db.backends": {"level": "WARNING"},  # its DEBUG lines carry values
        "django.template": {"level": "WARNING", **_form_only},
        "django.security.csrf": _form_only,
        "django.security.DisallowedHost": _form_only,
        "celery": {"level": "WARNING"},
        "celery.app.trace": _form_only,
    },
}
