"""Every setting, once: name, environment variable, default, what is allowed, and one sentence.

Settings are read from the environment at each call, so that tests and late configuration work;
``configure`` puts a value over the environment's. ``docs/configuration.md`` is generated from
``SETTINGS`` and ``GOOGLE_VARIABLES``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from appengine_compat import services_file
from appengine_compat.errors import ConfigError

T = TypeVar("T")
PREFIX = "APPENGINE_COMPAT_"


def _encoded_name(variable: str) -> Any:
    return getattr(os.environ, "encodekey", str)(variable)


@dataclass(frozen=True, slots=True)
class Setting(Generic[T]):
    """One setting: its value comes from ``configure``, else the environment, else the default."""

    name: str
    """The keyword of ``configure``."""
    variable: str
    parse: Callable[[str], T]
    """Text to value; raises ValueError with words that say what is allowed."""
    default: T
    allowed: str
    """What the value may be, units included, as the documentation and the errors say it."""
    sentence: str
    default_text: str = ""
    """How the documentation shows the default, where ``str(default)`` would not do."""
    _encoded: Any = field(init=False, repr=False, compare=False, default=None)
    """The variable's name as the mapping below ``os.environ`` has it."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "_encoded", _encoded_name(self.variable))

    def get(self, environ: Mapping[str, str] | None = None) -> T:
        """Return the value that holds now.

        Raises:
            ConfigError: the environment variable's text is not allowed.
        """
        if self.name in _configured:
            value: T = _configured[self.name]
            return value
        text = (os.environ if environ is None else environ).get(self.variable, "")
        if not text.strip():
            return self.default
        return self.read(text)

    def read(self, text: str) -> T:
        """Parse a text as this setting's value.

        Raises:
            ConfigError: it is not allowed; the text names variable, value and what is.
        """
        try:
            return self.parse(text.strip())
        except ValueError as error:
            detail = f" ({error})" if str(error) else ""
            shown = "a value (not shown: it may be secret)" if self.is_secret else repr(text)
            raise ConfigError(
                f"{self.variable} is {shown}, which is not allowed{detail}: "
                f"set it to {self.allowed}, or unset it.",
                setting=self.variable,
            ) from None

    @property
    def is_set(self) -> bool:
        """Whether anything but the default holds."""
        return self.name in _configured or bool(os.environ.get(self.variable, "").strip())

    @property
    def is_set_for_process(self) -> bool:
        """The same at a fraction of the cost, and blind to what a request set for itself."""
        if self.name in _configured:
            return True
        below = getattr(os.environ, "_data", None)
        if below is None:
            return self.is_set
        text = below.get(self._encoded)
        return text is not None and bool(text.strip())

    @property
    def is_secret(self) -> bool:
        """Whether the value must never be shown."""
        return self.name in {"signing_keys", "redis_url"}


class _TargetsSetting(Setting[Mapping[str, str]]):
    """The table of services, which a file beside queue.yaml may hold where nothing is set."""

    def get(self, environ: Mapping[str, str] | None = None) -> Mapping[str, str]:
        """Return the table that holds now: as it was set, else that of the file.

        Raises:
            ConfigError: the variable's text, or the file, is not allowed.
        """
        table = Setting.get(self, environ)
        return table or services_file.load(_services_directory(environ))


def _services_directory(environ: Mapping[str, str] | None = None) -> str:
    return os.path.dirname(QUEUE_YAML.get(environ) or "")  # noqa: PTH120 (asked at every request)


def targets_place() -> str:
    """Return where the table of services stands or would stand, as errors name it."""
    if not TARGETS.is_set and TARGETS.get():
        directory = _services_directory()
        path = f"{directory}/{services_file.NAME}" if directory else services_file.NAME
        return f"[{services_file.TABLE}] of {path}"
    return TARGETS.variable


_configured: dict[str, Any] = {}
_configured_count = 0


def configure(**values: object) -> None:
    """Set settings from code; they win over the environment until set to None.

    Args:
        values: setting names (the variable's name, in lower case, without its prefix) and
            their values, as text like the environment's.

    Raises:
        ConfigError: an unknown name, or a value that is not allowed.
    """
    global _configured_count
    by_name = {setting.name: setting for setting in SETTINGS}
    parsed: dict[str, Any] = {}
    for name, value in values.items():
        if name not in by_name:
            raise ConfigError(
                f"There is no setting {name!r}{_nearest(name, by_name)}.", setting=name
            )
        parsed[name] = None if value is None else by_name[name].read(str(value))
    for name, value in parsed.items():
        if value is None:
            _configured.pop(name, None)
        else:
            _configured[name] = value
    _configured_count += 1


def fingerprint() -> tuple[object, ...]:
    """Return a value that stays equal as long as nothing that settings are read from changes.

    It takes about a microsecond, so that what was derived from settings can be kept and yet
    follow them.
    """
    environ = os.environ
    # Each look-up through os.environ's own methods costs a microsecond for what is not set,
    # which is the usual case; the mapping below it costs a thirtieth.
    below = getattr(environ, "_data", None)
    if below is None:
        return (_configured_count, *map(environ.get, _WATCHED))
    return (_configured_count, *map(below.get, _WATCHED_ENCODED))


def check(environ: Mapping[str, str] | None = None) -> None:
    """Refuse unknown ``APPENGINE_COMPAT_*`` names and values that are not allowed.

    Raises:
        ConfigError: naming the first variable at fault, its value and what is allowed.
    """
    environ = os.environ if environ is None else environ
    known = {setting.variable: setting for setting in SETTINGS}
    for variable in sorted(environ):
        if variable.startswith(PREFIX) and variable not in known:
            raise ConfigError(
                f"{variable} is set, but there is no such setting{_nearest(variable, known)}. "
                "Unset it, or see docs/configuration.md for those that exist.",
                setting=variable,
            )
    for setting in SETTINGS:
        setting.get(environ)


def _nearest(name: str, known: Mapping[str, object]) -> str:
    import difflib

    # Compared without what all have in common, which would make anything look near.
    rests = {each.removeprefix(PREFIX): each for each in known}
    close = difflib.get_close_matches(name.removeprefix(PREFIX), rests, n=1, cutoff=0.6)
    return f" (did you mean {rests[close[0]]}?)" if close else ""


# --- parsers -------------------------------------------------------------------------------


def _text(text: str) -> str:
    return text


def _comma_list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _one_of(*allowed: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.lower() not in allowed:
            raise ValueError
        return text.lower()

    return parse


def _whole_number(lowest: int, highest: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        number = int(text) if text.isascii() and text.isdigit() else lowest - 1
        if not lowest <= number <= highest:
            raise ValueError
        return number

    return parse


def _yes_or_no(text: str) -> bool:
    try:
        return {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}[
            text.lower()
        ]
    except KeyError:
        raise ValueError from None


def _http_address(text: str) -> str:
    if not text.startswith(("http://", "https://")):
        raise ValueError
    return text


def _path_prefixes(text: str) -> tuple[str, ...]:
    prefixes = _comma_list(text)
    if not all(prefix.startswith("/") for prefix in prefixes):
        raise ValueError
    return prefixes


def _targets(text: str) -> Mapping[str, str]:
    """``service=address`` pairs; a bare address, ``appengine`` or ``ngrok`` stands under ""."""
    table: dict[str, str] = {}
    for part in _comma_list(text):
        service, separator, address = part.partition("=")
        if not separator or "://" in service:
            service, address = "", part
        service = service.strip()
        try:
            address = services_file.checked_address(address)
        except ValueError:
            raise ValueError(f"{part!r} has no http:// or https:// address") from None
        if service in table:
            raise ValueError(f"{service or 'the address for all services'!r} is given twice")
        table[service] = address
    return table


def _key_pairs(text: str) -> tuple[tuple[str, str], ...]:
    pairs = []
    for number, part in enumerate(_comma_list(text), 1):
        key_id, separator, secret = part.partition(":")
        if not separator or not key_id or len(secret) < 16:
            raise ValueError(f"pair {number} is not id:secret with 16 characters or more")
        pairs.append((key_id, secret))
    if len({key_id for key_id, _ in pairs}) != len(pairs):
        raise ValueError("a key id is given twice")
    return tuple(pairs)


@dataclass(frozen=True, slots=True)
class AllowedNames:
    """What payloads may refer to."""

    names: tuple[str, ...]
    """Modules, packages, and dotted names of what lies in a module."""
    is_log_only: bool


_LOG_ONLY = "log-only"


def _allowed_names(text: str) -> AllowedNames:
    parts = _comma_list(text)
    names = tuple(part.removesuffix(".*") for part in parts if part != _LOG_ONLY)
    for name in names:
        if not all(part.isidentifier() for part in name.split(".")):
            raise ValueError(f"{name!r} is no dotted name")
    return AllowedNames(names, _LOG_ONLY in parts)


# --- the table -----------------------------------------------------------------------------

BACKEND: Setting[str | None] = Setting(
    "backend",
    PREFIX + "BACKEND",
    _one_of("cloudtasks", "embedded", "rq"),
    None,
    "cloudtasks, embedded or rq",
    "Where tasks go.",
    "chosen by platform",
)
PROJECT: Setting[str | None] = Setting(
    "project",
    PREFIX + "PROJECT",
    _text,
    None,
    "a Google Cloud project id",
    "The project that holds the queues; else Google's own variables, else the metadata server.",
    "found",
)
LOCATION: Setting[str | None] = Setting(
    "location",
    PREFIX + "LOCATION",
    _text,
    None,
    "a region, such as us-central1",
    "The location of the queues; else Google's own variables, else the metadata server.",
    "found",
)
TARGETS: Setting[Mapping[str, str]] = _TargetsSetting(
    "targets",
    PREFIX + "TARGETS",
    _targets,
    {},
    "service=https://… pairs, comma-separated, or one address for all services, or appengine, "
    "or ngrok",
    "Which address each service's tasks are delivered to. It stands instead of the table "
    "`[services]` of a file `appengine-compat.toml` beside queue.yaml.",
    "that file's, if there; on Cloud Run also the service's own address",
)
SERVICE_ACCOUNT: Setting[tuple[str, ...]] = Setting(
    "service_account",
    PREFIX + "SERVICE_ACCOUNT",
    _comma_list,
    (),
    "service account e-mail addresses, comma-separated",
    "Who tasks come as: the first is put on tasks, all are believed on arrival.",
    "none",
)
AUDIENCE: Setting[str | None] = Setting(
    "audience",
    PREFIX + "AUDIENCE",
    _text,
    None,
    "the audience of the identity token, usually the service's address",
    "For whom tasks come: put on tasks, and required on arrival.",
    "the target's address",
)
OIDC_ISSUER: Setting[str | None] = Setting(
    "oidc_issuer",
    PREFIX + "OIDC_ISSUER",
    _http_address,
    None,
    "an http:// or https:// address",
    "Who issues the identity tokens of tasks, where that is not Google: the local service, whose "
    "keys are then found below this address.",
    "Google",
)
TRUST_PROXY: Setting[bool] = Setting(
    "trust_proxy",
    PREFIX + "TRUST_PROXY",
    _yes_or_no,
    False,
    "1 or 0",
    "Whether a proxy in front sets X-Forwarded-Proto and X-Forwarded-Host on every request, so "
    "that they may be believed.",
    "0; X-Forwarded-Proto is believed on App Engine and Cloud Run",
)
TASK_PATHS: Setting[tuple[str, ...]] = Setting(
    "task_paths",
    PREFIX + "TASK_PATHS",
    _path_prefixes,
    ("/_ah/queue/",),
    "paths that begin with /, comma-separated",
    "Which paths `require_task` keeps for tasks: those that begin with one of these.",
    "/_ah/queue/",
)
SIGNING_KEYS: Setting[tuple[tuple[str, str], ...]] = Setting(
    "signing_keys",
    PREFIX + "SIGNING_KEYS",
    _key_pairs,
    (),
    "id:secret pairs, comma-separated, secrets of 16 characters or more",
    "Keys that sign payloads: the first signs, all verify.",
    "none",
)
SIGNATURES: Setting[str | None] = Setting(
    "signatures",
    PREFIX + "SIGNATURES",
    _one_of("off", "accept-unsigned", "require"),
    None,
    "off, accept-unsigned or require",
    "Whether tasks are signed when enqueued and must be when they arrive; accept-unsigned lets "
    "tasks without a signature in that are known otherwise, and counts and logs them.",
    "require with the backend rq; else accept-unsigned with signing keys, off without",
)
SIGNATURE_MAX_AGE: Setting[int] = Setting(
    "signature_max_age",
    PREFIX + "SIGNATURE_MAX_AGE",
    _whole_number(60, 366 * 24 * 3600),
    31 * 24 * 3600,
    "seconds, a whole number from 60 to 31622400",
    "How long after the time that a task was first to run its signature is believed; retries "
    "after that are refused.",
    "2678400, the 31 days that Cloud Tasks keeps a task",
)
ALLOWED_CALLABLES: Setting[AllowedNames | None] = Setting(
    "allowed_callables",
    PREFIX + "ALLOWED_CALLABLES",
    _allowed_names,
    None,
    "modules, packages or dotted names of functions and classes, comma-separated; log-only as "
    "one of them to refuse nothing and log what is missing",
    "What deferred payloads may refer to; a payload that names anything else is not run, and kept.",
    "everything",
)
QUEUE_YAML: Setting[str | None] = Setting(
    "queue_yaml",
    PREFIX + "QUEUE_YAML",
    _text,
    None,
    "a path",
    "The queue.yaml that the embedded service reads.",
    "queue.yaml in the working directory, if there",
)
DB: Setting[str] = Setting(
    "db",
    PREFIX + "DB",
    _text,
    ".appengine-compat/tasks.db",
    "a path",
    "The embedded service's database file.",
)
THREADS: Setting[int] = Setting(
    "threads",
    PREFIX + "THREADS",
    _whole_number(1, 1000),
    8,
    "a whole number from 1 to 1000",
    "How many tasks the embedded service runs at once in one process.",
)
PICKLE_PROTOCOL: Setting[int | None] = Setting(
    "pickle_protocol",
    PREFIX + "PICKLE_PROTOCOL",
    _whole_number(0, 5),
    None,
    "a whole number from 0 to 5",
    "The pickle protocol of deferred payloads: 2 for workers that still run Python 2.",
    "the highest, or 0 by Google's variable",
)
REDIS_URL: Setting[str | None] = Setting(
    "redis_url",
    PREFIX + "REDIS_URL",
    _text,
    None,
    "a redis:// address",
    "The Redis server of the rq backend.",
    "none",
)

SETTINGS: tuple[Setting[Any], ...] = (
    BACKEND,
    PROJECT,
    LOCATION,
    TARGETS,
    SERVICE_ACCOUNT,
    AUDIENCE,
    OIDC_ISSUER,
    TRUST_PROXY,
    TASK_PATHS,
    SIGNING_KEYS,
    SIGNATURES,
    SIGNATURE_MAX_AGE,
    ALLOWED_CALLABLES,
    QUEUE_YAML,
    DB,
    THREADS,
    PICKLE_PROTOCOL,
    REDIS_URL,
)

GOOGLE_VARIABLES: tuple[tuple[str, str], ...] = (
    ("CLOUD_TASKS_EMULATOR_HOST", "`host:port` of a plain-text Cloud Tasks endpoint to use."),
    ("GOOGLE_CLOUD_PROJECT", "The project, where `APPENGINE_COMPAT_PROJECT` is not set."),
    ("GAE_ENV", "Set by App Engine: `standard` there."),
    ("GAE_APPLICATION", "Set by App Engine: the application id, with its region prefix."),
    ("GAE_SERVICE", "Set by App Engine: the service that runs; tasks stay on it by default."),
    ("GAE_VERSION", "Set by App Engine: the version that runs; tasks stay on it by default."),
    ("K_SERVICE", "Set by Cloud Run: the service that runs."),
    ("K_CONFIGURATION", "Set by Cloud Run for services, which have an address, not for jobs."),
    ("LOCATION_ID", "The location, where `APPENGINE_COMPAT_LOCATION` is not set."),
    ("GAE_LOCATION", "The same, next in turn."),
    ("GAE_REGION", "The same, next in turn."),
    ("REGION_ID", "The same, last in turn; then the metadata server is asked."),
    (
        "DEFERRED_USE_CROSS_COMPATIBLE_PICKLE_PROTOCOL",
        "As on App Engine: any text makes payloads use pickle protocol 0.",
    ),
)

_WATCHED = (
    *(setting.variable for setting in SETTINGS),
    *(variable for variable, _ in GOOGLE_VARIABLES),
    "GAE_INSTANCE",
    "CLOUD_RUN_JOB",
    "K_CONFIGURATION",
    "KUBERNETES_SERVICE_HOST",
)
_WATCHED_ENCODED = tuple(map(_encoded_name, _WATCHED))
