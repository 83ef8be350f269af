"""``google.appengine.api.queueinfo``: queue.yaml as objects, in App Engine's terms.

It takes what App Engine's module took, which is more than can be deployed: a push queue without
a rate, negative numbers, a name of 400 characters. ``appengine_compat.queues`` is strict.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypeVar

from google.appengine.api import yaml_errors
from google.appengine.api._queueinfo_records import (
    ACL,
    APPLICATION,
    BUCKET_SIZE,
    BYTE_SUFFIXES,
    MAX_BACKOFF_SECONDS,
    MAX_CONCURRENT_REQUESTS,
    MAX_DOUBLINGS,
    MIN_BACKOFF_SECONDS,
    MODE,
    MODULE_ID_RE_STRING,
    MODULE_VERSION_RE_STRING,
    NAME,
    QUEUE,
    RATE,
    RESUME_PAUSED_QUEUES,
    RETRY_PARAMETERS,
    TARGET,
    TASK_AGE_LIMIT,
    TASK_RETRY_LIMIT,
    TOTAL_STORAGE_LIMIT,
    USER_EMAIL,
    WRITER_EMAIL,
    Acl,
    QueueEntry,
    QueueInfoExternal,
    Record,
    RetryParameters,
    ValidationError,
)

from appengine_compat.errors import ConfigError, QueueYamlError

if TYPE_CHECKING:
    import yaml

__all__ = [
    "ACL",
    "APPLICATION",
    "BUCKET_SIZE",
    "BYTE_SUFFIXES",
    "MAX_BACKOFF_SECONDS",
    "MAX_CONCURRENT_REQUESTS",
    "MAX_DOUBLINGS",
    "MIN_BACKOFF_SECONDS",
    "MODE",
    "MODULE_ID_RE_STRING",
    "MODULE_VERSION_RE_STRING",
    "NAME",
    "QUEUE",
    "RATE",
    "RESUME_PAUSED_QUEUES",
    "RETRY_PARAMETERS",
    "TARGET",
    "TASK_AGE_LIMIT",
    "TASK_RETRY_LIMIT",
    "TOTAL_STORAGE_LIMIT",
    "USER_EMAIL",
    "WRITER_EMAIL",
    "Acl",
    "LoadSingleQueue",
    "MalformedQueueConfiguration",
    "ParseRate",
    "ParseTaskAgeLimit",
    "ParseTotalStorageLimit",
    "QueueEntry",
    "QueueInfoExternal",
    "RetryParameters",
    "TranslateRetryParameters",
    "TranslatedRetryParameters",
    "ValidationError",
]

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class MalformedQueueConfiguration(Exception):
    """The configuration file, or a value of it, means nothing."""


_Any = TypeVar("_Any", bound=Record)

# What stands under a key: one record, or a list of them.
_RECORDS: dict[str, type[Record]] = {RETRY_PARAMETERS: RetryParameters}
_LISTS: dict[str, type[Record]] = {QUEUE: QueueEntry, ACL: Acl}


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
