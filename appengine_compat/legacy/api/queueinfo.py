"""``google.appengine.api.queueinfo``: queue.yaml as objects, in App Engine's terms.

It takes what App Engine's module took, which is more than can be deployed: a push queue without
a rate, negative numbers, a name of 400 characters. ``appengine_compat.queues`` is strict.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypeVar

from google.appengine.api import yaml_errors

from appengine_compat.errors import ConfigError, QueueYamlError

if TYPE_CHECKING:
    import yaml

QUEUE = "queue"
NAME = "name"
RATE = "rate"
BUCKET_SIZE = "bucket_size"
MODE = "mode"
TARGET = "target"
MAX_CONCURRENT_REQUESTS = "max_concurrent_requests"
TOTAL_STORAGE_LIMIT = "total_storage_limit"
RESUME_PAUSED_QUEUES = "resume_paused_queues"
RETRY_PARAMETERS = "retry_parameters"
TASK_RETRY_LIMIT = "task_retry_limit"
TASK_AGE_LIMIT = "task_age_limit"
MIN_BACKOFF_SECONDS = "min_backoff_seconds"
MAX_BACKOFF_SECONDS = "max_backoff_seconds"
MAX_DOUBLINGS = "max_doublings"
ACL = "acl"
USER_EMAIL = "user_email"
WRITER_EMAIL = "writer_email"
APPLICATION = "application"
BYTE_SUFFIXES = "BKMGT"
MODULE_ID_RE_STRING = r"(?!-)[a-z\d\-]{1,63}"
MODULE_VERSION_RE_STRING = r"(?!-)[a-z\d\-]{1,100}"

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_TRUE, _FALSE = ("true", "yes", "on", "y", "1"), ("false", "no", "off", "n", "0")


class MalformedQueueConfiguration(Exception):
    """The configuration file, or a value of it, means nothing."""


class ValidationError(ValueError):
    """A value does not fit the attribute that it is given to."""


# --- what a value may be: text in, value out, ValidationError if it does not fit ---

_Convert = Callable[[str, Any], Any]


def _matching(pattern: str, is_a: str) -> _Convert:
    compiled = re.compile(rf"(?:{pattern})\Z")

    def convert(name: str, value: Any) -> str:
        if compiled.match(str(value)) is None:
            raise ValidationError(f"Value {str(value)!r} for {name} is not {is_a}.")
        return str(value)

    return convert


def _number(kind: type[int] | type[float]) -> _Convert:
    def convert(name: str, value: Any) -> int | float:
        try:
            # App Engine takes 1.5 for an int, and cuts it.
            return kind(float(value))
        except (TypeError, ValueError, OverflowError):
            raise ValidationError(
                f"Value {value!r} for {name} could not be converted to type {kind.__name__}."
            ) from None

    return convert


def _boolean(name: str, value: Any) -> str:
    text = str(value).lower()
    if text not in (*_TRUE, *_FALSE):
        raise ValidationError(f"Value {value!r} for {name} is not True or False.")
    return str(text in _TRUE)


def _text(name: str, value: Any) -> str:  # noqa: ARG001 - the shape of a converter
    return str(value)


class _Record:
    """Attributes that are None until set, and are checked when they are."""

    _CONVERT: Mapping[str, _Convert] = {}

    def __init__(self, **attributes: Any) -> None:
        for name in self._CONVERT:
            object.__setattr__(self, name, None)
        for name, value in attributes.items():
            setattr(self, name, value)

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self._CONVERT:
            raise ValidationError(
                f"Unexpected attribute {name!r} for object of type {type(self).__name__}."
            )
        converted = value
        if value is not None and not isinstance(value, (_Record, list)):
            converted = self._CONVERT[name](name, value)
        object.__setattr__(self, name, converted)

    def ToDict(self) -> dict[str, Any]:
        """Return the attributes that are set, with what they hold as dicts and lists."""
        return {name: _plain(value) for name, value in vars(self).items() if value is not None}

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"<{type(self).__name__} {shown}>"


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.ToDict() if isinstance(value, _Record) else value


class RetryParameters(_Record):
    """``retry_parameters`` of a queue."""

    task_retry_limit: int | None
    task_age_limit: str | None
    min_backoff_seconds: float | None
    max_backoff_seconds: float | None
    max_doublings: int | None

    _CONVERT = {
        TASK_RETRY_LIMIT: _number(int),
        TASK_AGE_LIMIT: _matching(
            r"[0-9]+(\.[0-9]*)?[smhd]",
            "a string (must be a non-negative number followed by a time unit, such as 1h or 3.5d)",
        ),
        MIN_BACKOFF_SECONDS: _number(float),
        MAX_BACKOFF_SECONDS: _number(float),
        MAX_DOUBLINGS: _number(int),
    }


class Acl(_Record):
    """One address of a pull queue's ``acl``."""

    user_email: str | None
    writer_email: str | None

    _CONVERT = {USER_EMAIL: _text, WRITER_EMAIL: _text}


class QueueEntry(_Record):
    """One queue."""

    name: str | None
    rate: str | None
    mode: str | None
    bucket_size: int | None
    max_concurrent_requests: int | None
    retry_parameters: RetryParameters | None
    acl: list[Acl] | None
    target: str | None

    _CONVERT = {
        NAME: _matching(r"[A-Za-z0-9-]{0,499}", "up to 499 letters, digits and hyphens"),
        RATE: _matching(r"0|[0-9]+(\.[0-9]*)?/[smhd]", "a number with /s, /m, /h or /d, or 0"),
        MODE: _matching("pull|push", "pull or push"),
        BUCKET_SIZE: _number(int),
        MAX_CONCURRENT_REQUESTS: _number(int),
        RETRY_PARAMETERS: _text,
        ACL: _text,
        TARGET: _matching(
            rf"(?:{MODULE_VERSION_RE_STRING}\.)?{MODULE_ID_RE_STRING}",
            "a module, or version.module",
        ),
    }


class QueueInfoExternal(_Record):
    """A whole queue.yaml."""

    application: str | None
    total_storage_limit: str | None
    resume_paused_queues: str | None
    queue: list[QueueEntry] | None

    _CONVERT = {
        APPLICATION: _matching(
            r"(?:[a-z\d\-]{1,100}~)?(?:(?!-)[a-z\d\-.]{1,100}:)?(?!-)[a-z\d\-]{0,99}[a-z\d]",
            "an application id",
        ),
        TOTAL_STORAGE_LIMIT: _matching(
            r"[0-9]+(\.[0-9]*)?[BKMGT]?", "a number with B, K, M, G or T"
        ),
        RESUME_PAUSED_QUEUES: _boolean,
        QUEUE: _text,
    }


_Any = TypeVar("_Any", bound=_Record)

# What stands under a key: one record, or a list of them.
_RECORDS: dict[str, type[_Record]] = {RETRY_PARAMETERS: RetryParameters}
_LISTS: dict[str, type[_Record]] = {QUEUE: QueueEntry, ACL: Acl}


def LoadSingleQueue(queue_info: Any, open_fn: object = None) -> QueueInfoExternal:  # noqa: ARG001
    """Read a queue.yaml.

    Args:
        queue_info: its text, or a file that is open for reading.
        open_fn: accepted, and of no effect.

    Raises:
        MalformedQueueConfiguration: it is empty, or there is more than one document in it.
        yaml_errors.EventError: something is not allowed where it stands.
        yaml_errors.EventListenerYAMLError: it is not YAML.
        ConfigError: PyYAML is not installed.
    """
    text = queue_info.read() if hasattr(queue_info, "read") else queue_info
    if isinstance(text, bytes):
        text = text.decode("utf-8-sig")
    try:
        from appengine_compat.queues.nodes import Document
    except ModuleNotFoundError as error:
        if error.name != "yaml":
            raise
        raise ConfigError(
            "queueinfo needs PyYAML, which is not installed: "
            "pip install 'appengine-compat[dev]' (or pip install pyyaml)."
        ) from None
    try:
        document = Document(text, "queue.yaml")
    except QueueYamlError as error:
        if "expected a single document" in error.reason:
            raise MalformedQueueConfiguration(
                "Multiple queue: sections in configuration."
            ) from error
        raise yaml_errors.EventListenerYAMLError(str(error)) from error
    if document.root is None:
        raise MalformedQueueConfiguration("Empty queue configuration.")
    return _record(document.root, QueueInfoExternal)


def _record(node: yaml.Node, kind: type[_Any]) -> _Any:
    if node.__class__.__name__ != "MappingNode":
        raise _at(node, f"Value is not of the expected type {kind.__name__}")
    record = kind()
    seen = set()
    for key_node, value_node in node.value:
        name = str(key_node.value)
        if name not in kind._CONVERT:
            raise _at(
                key_node, f"Unexpected attribute {name!r} for object of type {kind.__name__}."
            )
        if name in seen:
            raise _at(key_node, f"Duplicate attribute {name!r}.")
        seen.add(name)
        value = _value(name, value_node)
        try:
            setattr(record, name, value)
        except ValidationError as error:
            raise _at(
                value_node, f"Unable to assign value {value!r} to attribute {name!r}:\n{error}"
            ) from error
    if kind is QueueEntry and NAME not in seen:
        raise _at(node, "Missing required value [name].")
    return record


def _value(name: str, node: yaml.Node) -> Any:
    from appengine_compat.queues.nodes import is_empty

    if is_empty(node):
        return None
    if name in _RECORDS:
        return _record(node, _RECORDS[name])
    if name in _LISTS:
        if node.__class__.__name__ != "SequenceNode":
            raise _at(node, f"Value for {name} should be a sequence but is not.")
        return [_record(item, _LISTS[name]) for item in node.value]
    if node.__class__.__name__ != "ScalarNode":
        raise _at(node, f"Value for {name} should be a single value but is not.")
    return str(node.value)


def _at(node: yaml.Node, message: str) -> yaml_errors.EventError:
    mark = node.start_mark
    return yaml_errors.EventError(message, mark.line + 1, mark.column + 1)


def ParseRate(rate: str) -> float | None:
    """Return a rate, such as ``5/s`` or ``0``, in tasks per second.

    Returns:
        The rate; None where the unit is several letters of "smhd" in their order, or none: App
        Engine looked for it within that text.

    Raises:
        MalformedQueueConfiguration: it is no rate.
    """
    if rate == "0":
        return 0.0
    parts = rate.split("/")
    if len(parts) != 2:
        raise MalformedQueueConfiguration(f'Rate "{rate}" is invalid.')
    number, unit = parts
    try:
        value = float(number)
    except ValueError:
        raise MalformedQueueConfiguration(
            f'Rate "{rate}" is invalid: "{number}" is not a number.'
        ) from None
    if unit not in "smhd":
        raise MalformedQueueConfiguration(
            f'Rate "{rate}" is invalid: "{unit}" is not one of s, m, h, d.'
        )
    return value / _SECONDS[unit] if unit in _SECONDS else None


def ParseTotalStorageLimit(limit: str) -> int:
    """Return a storage limit, such as ``120M`` or ``100``, in bytes.

    Raises:
        MalformedQueueConfiguration: it is none.
    """
    limit = limit.strip()
    if not limit:
        raise MalformedQueueConfiguration("Total Storage Limit must not be empty.")
    try:
        if limit[-1] in BYTE_SUFFIXES:
            return int(float(limit[:-1]) * 1024 ** BYTE_SUFFIXES.index(limit[-1]))
        return int(limit)
    except ValueError:
        raise MalformedQueueConfiguration(f'Total Storage Limit "{limit}" is invalid.') from None


def ParseTaskAgeLimit(age_limit: str) -> int:
    """Return an age limit, such as ``1.5h``, in seconds.

    Raises:
        MalformedQueueConfiguration: it is none, or has no unit.
    """
    age_limit = age_limit.strip()
    if not age_limit:
        raise MalformedQueueConfiguration("Task Age Limit must not be empty.")
    unit = age_limit[-1]
    if unit not in _SECONDS:
        raise MalformedQueueConfiguration(
            "Task Age_Limit must be in s (seconds), m (minutes), h (hours), or d (days)"
        )
    try:
        return int(float(age_limit[:-1]) * _SECONDS[unit])
    except ValueError:
        raise MalformedQueueConfiguration(f'Task Age_Limit "{age_limit}" is invalid.') from None


@dataclass(slots=True)
class TranslatedRetryParameters:
    """Retry parameters as the task queue service knew them.

    On App Engine this was a protocol buffer; its fields had the same names and defaults.
    """

    retry_limit: int = 0
    age_limit_sec: int = 0
    min_backoff_sec: float = 0.1
    max_backoff_sec: float = 3600.0
    max_doublings: int = 16
    given: frozenset[str] = frozenset()
    """The fields that do not stand for "not set"."""

    def HasField(self, name: str) -> bool:
        """Tell whether a field is set."""
        return name in self.given


def TranslateRetryParameters(retry: RetryParameters) -> TranslatedRetryParameters:
    """Return retry parameters with their defaults, checked against each other.

    Where only one backoff bound is given and passes the other's default, the other follows it.

    Raises:
        MalformedQueueConfiguration: a value is negative, or they contradict each other.
    """
    given: dict[str, Any] = {
        "retry_limit": retry.task_retry_limit,
        "age_limit_sec": None
        if retry.task_age_limit is None
        else ParseTaskAgeLimit(retry.task_age_limit),
        "min_backoff_sec": retry.min_backoff_seconds,
        "max_backoff_sec": retry.max_backoff_seconds,
        "max_doublings": retry.max_doublings,
    }
    given = {name: value for name, value in given.items() if value is not None}
    if given.get("retry_limit", 0) < 0:
        raise MalformedQueueConfiguration("Task retry limit must not be less than zero.")
    if given.get("age_limit_sec", 1) <= 0:
        raise MalformedQueueConfiguration("Task age limit must be greater than zero.")
    defaults = {field.name: field.default for field in fields(TranslatedRetryParameters)}
    low, high = given.get("min_backoff_sec"), given.get("max_backoff_sec")
    if low is not None and high is None and low > defaults["max_backoff_sec"]:
        given["max_backoff_sec"] = low
    if high is not None and low is None and high < defaults["min_backoff_sec"]:
        given["min_backoff_sec"] = high
    for name, word in (("min_backoff_sec", "Min"), ("max_backoff_sec", "Max")):
        if given.get(name, 0) < 0:
            raise MalformedQueueConfiguration(f"{word} backoff seconds must not be less than zero.")
    if given.get("max_doublings", 0) < 0:
        raise MalformedQueueConfiguration("Max doublings must not be less than zero.")
    translated = TranslatedRetryParameters(**given, given=frozenset(given))
    if translated.min_backoff_sec > translated.max_backoff_sec:
        raise MalformedQueueConfiguration(
            "Min backoff sec must not be greater than than max backoff sec."
        )
    return translated
