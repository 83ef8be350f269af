"""The parts of a queue.yaml as ``queueinfo`` gives them: attributes that are checked when set."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

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

_TRUE, _FALSE = ("true", "yes", "on", "y", "1"), ("false", "no", "off", "n", "0")


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


class Record:
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
        if value is not None and not isinstance(value, (Record, list)):
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
    return value.ToDict() if isinstance(value, Record) else value


class RetryParameters(Record):
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


class Acl(Record):
    """One address of a pull queue's ``acl``."""

    user_email: str | None
    writer_email: str | None

    _CONVERT = {USER_EMAIL: _text, WRITER_EMAIL: _text}


class QueueEntry(Record):
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


class QueueInfoExternal(Record):
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
