"""What ``Task(...)`` makes of its arguments: URL, headers, payload, host and target, ETA, size.

The rules and their order are App Engine's: old code, and old tests, depend on which of two
mistakes is told first.
"""

from __future__ import annotations

import datetime
import time
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from google.appengine.api import namespace_manager
from google.appengine.api.taskqueue import _limits
from google.appengine.api.taskqueue._errors import (
    InvalidDispatchDeadlineError,
    InvalidEtaError,
    InvalidTaskError,
    InvalidUrlError,
    _RelativeUrlError,
)
from google.appengine.runtime import context

FORM_CONTENT_TYPE = "application/x-www-form-urlencoded"
TEXT_CONTENT_TYPE = "text/plain; charset=utf-8"


class UTCTimeZone(datetime.tzinfo):
    """UTC, as the ``tzinfo`` of a task's ETA."""

    def utcoffset(self, dt: datetime.datetime | None) -> datetime.timedelta:  # noqa: ARG002
        return datetime.timedelta(0)

    def dst(self, dt: datetime.datetime | None) -> datetime.timedelta:  # noqa: ARG002
        return datetime.timedelta(0)

    def tzname(self, dt: datetime.datetime | None) -> str:  # noqa: ARG002
        return "UTC"

    def __repr__(self) -> str:
        return "_UTCTimeZone()"


UTC = UTCTimeZone()
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=UTC)


class DefaultAppVersion:
    """Stands for the default version of the default service."""

    def __reduce__(self) -> str:
        return "DEFAULT_APP_VERSION"

    def __repr__(self) -> str:
        return "<DefaultApplicationVersion>"


class UnknownAppVersion:
    """Stands for a version that cannot be told from what is known here."""

    def __reduce__(self) -> str:
        return "UNKNOWN_APP_VERSION"

    def __repr__(self) -> str:
        return "<UnknownApplicationVersion>"


DEFAULT_APP_VERSION = DefaultAppVersion()
UNKNOWN_APP_VERSION = UnknownAppVersion()


class Headers:
    """Headers whose names compare without regard to case; the last spelling is kept."""

    __slots__ = ("_items",)

    def __init__(self, headers: Any = None) -> None:
        self._items: dict[Any, tuple[Any, Any]] = {}
        if headers:
            for name, value in dict(headers).items():
                self[name] = value

    def __setitem__(self, name: Any, value: Any) -> None:
        self._items[name.lower()] = (name, value)

    def __contains__(self, name: str) -> bool:
        return name.lower() in self._items

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        return iter(self._items.values())

    def get(self, name: str) -> Any:
        """Return a header's value, or None."""
        found = self._items.get(name.lower())
        return None if found is None else found[1]

    def add_missing(self, name: str, value: Any) -> None:
        """Set a header unless one of this name is there."""
        if name not in self:
            self[name] = value


def flatten_params(params: Mapping[Any, Any]) -> list[tuple[bytes, bytes]]:
    """Return parameters as pairs of bytes, a name repeated for each value of an iterable."""
    pairs = []
    for name, value in params.items():
        key = encoded(name)
        if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
            pairs.append((key, encoded(value)))
        else:
            pairs.extend((key, encoded(item)) for item in value)
    return pairs


def encoded(value: object) -> bytes:
    """Return text as UTF-8, bytes as they are, and anything else as its text."""
    if isinstance(value, bytes):
        return value
    return (value if isinstance(value, str) else str(value)).encode()


def parse_relative_url(url: str) -> tuple[str, str]:
    """Split a relative URL into path and query.

    Raises:
        _RelativeUrlError: it has a scheme, a host or a fragment, or its path is not absolute.
    """
    if not url:
        raise _RelativeUrlError("The relative URL is empty")
    scheme, host, path, query, fragment = urllib.parse.urlsplit(url)
    if scheme or host:
        raise _RelativeUrlError("Relative URL cannot have a scheme or location")
    if fragment:
        raise _RelativeUrlError("Relative URL cannot specify a fragment")
    if not path or path[0] != "/":
        raise _RelativeUrlError('The relative URL path must start with "/"')
    return path, query


def split_url(url: str) -> tuple[str, str]:
    """Check the URL of a task and split it into path and query; "" is the queue's own URL.

    Raises:
        InvalidUrlError: it is not an absolute path, or longer than 2083 characters without
            its query.
    """
    if not url:
        len(url)  # None is a mistake that App Engine told by this TypeError
        return "", ""
    try:
        path, query = parse_relative_url(url)
    except _RelativeUrlError as error:
        raise InvalidUrlError(str(error)) from error
    if len(path) > _limits.MAX_URL_LENGTH:
        raise InvalidUrlError(
            f"The task URL must be less than {_limits.MAX_URL_LENGTH} characters; found {len(path)}"
        )
    return path, query


def convert_payload(payload: Any, headers: Headers) -> Any:
    """Return a payload as bytes; text brings its content type along.

    A false value of any other type passes as it is, as it did on App Engine: "no payload".

    Raises:
        InvalidTaskError: it is neither text nor bytes.
    """
    if not payload:
        return b"" if isinstance(payload, (str, bytes)) else payload
    if isinstance(payload, str):
        headers.add_missing("content-type", TEXT_CONTENT_TYPE)
        return payload.encode()
    if not isinstance(payload, bytes):
        raise InvalidTaskError(f"Task payloads must be strings; invalid payload: {payload!r}")
    return payload


def place_payload(
    method: str,
    path: str,
    query: str,
    payload: Any,
    params: Mapping[Any, Any],
    headers: Headers,
    *,
    checks_query: bool = True,
) -> tuple[str, Any]:
    """Put payload and parameters where the method carries them.

    Args:
        method: in capitals.
        path: of the URL.
        query: of the URL.
        payload: as given.
        params: as given.
        headers: get the content type that belongs to the body.
        checks_query: whether POST with a query is refused, App Engine's rule.

    Returns:
        The relative URL with its query, and the payload (None for a method without one).

    Raises:
        InvalidTaskError: they do not go together.
    """
    text = urllib.parse.urlencode(flatten_params(params)) if params else ""
    if method == "POST":
        if payload and params:
            raise InvalidTaskError(
                "Message body and parameters both present for POST method; only one of these "
                "can be supplied"
            )
        if query and checks_query:
            raise InvalidTaskError(
                'POST method cannot have a query string; use the "params" keyword argument instead'
            )
        if params:
            headers.add_missing("content-type", FORM_CONTENT_TYPE)
            return path, text
        return (f"{path}?{query}" if query else path), convert_payload(payload, headers)
    if method in _limits.QUERY_METHODS:
        if payload and method not in _limits.BODY_METHODS:
            raise InvalidTaskError(
                "Payload can only be specified for methods "
                + ", ".join(sorted(_limits.BODY_METHODS))
            )
        body = convert_payload(payload, headers) if payload else None
        query = text or query
        return (f"{path}?{query}" if query else path), body
    if method == "PULL":
        if payload and params:
            raise InvalidTaskError(
                "Message body and parameters both present for PULL method; only one of these "
                "can be supplied"
            )
        if payload is None and not params:
            raise InvalidTaskError("payload must be specified for pull task")
        return path, convert_payload(text if params else payload, headers)
    raise InvalidTaskError(f"Invalid method: {method}")


def resolve_host(headers: Headers, target: Any) -> Any:
    """Set the Host header that the target stands for, or find the target of the one that is set.

    Without either, the request's own host stands: the task stays on the version that enqueues
    it. Outside of a request nothing is known, and nothing is warned about: a backend sends such
    a task to the enqueuing service.

    Returns:
        The task's ``target``.

    Raises:
        InvalidTaskError: a Host header beside a target.
    """
    if "host" in headers:
        if target is not None:
            raise InvalidTaskError("A host header cannot be set when a target is specified.")
        return target_of_host(headers.get("host"))
    if target is not None:
        host = _host_of_target(target)
        if host:
            headers["Host"] = host
        return target
    host = context.get("HTTP_HOST")
    if not host:
        return UNKNOWN_APP_VERSION
    headers["Host"] = host
    return target_of_host(host)


def target_of_host(host: str) -> Any:
    """Return the target that a Host header stands for, by the application's default hostname."""
    default = context.get("DEFAULT_VERSION_HOSTNAME")
    if not default:
        return UNKNOWN_APP_VERSION
    if host.endswith(default):
        version = host[: -(len(default) + 1)]
        if version:
            return version
    return DEFAULT_APP_VERSION


def _host_of_target(target: Any) -> str | None:
    default = context.get("DEFAULT_VERSION_HOSTNAME")
    if not default:
        return None
    return default if target is DEFAULT_APP_VERSION else f"{target}.{default}"


def routing_target(target: Any, host: Any) -> str:
    """Return which service a backend sends the task to; "" for the one that enqueues.

    Args:
        target: the task's ``target``.
        host: the Host header that its maker gave, or None.
    """
    if target is DEFAULT_APP_VERSION:
        # A host outside of the application's own names no service.
        own = host is None or host == context.get("DEFAULT_VERSION_HOSTNAME")
        return "default" if own else ""
    if target is UNKNOWN_APP_VERSION:
        if not isinstance(host, str) or not host.endswith(".appspot.com"):
            return ""
        # No default hostname to cut off: VERSION-dot-SERVICE-dot-PROJECT says where it begins.
        return ".".join(host.split("-dot-")[:-1])
    return ".".join(part for part in str(target).removesuffix("-dot").split("-dot-") if part)


def add_namespaces(headers: Headers) -> None:
    """Let the task carry the namespaces in which it is made, unless its maker set them."""
    domain = namespace_manager.google_apps_namespace()
    if domain:
        headers.add_missing("X-AppEngine-Default-Namespace", domain)
    headers.add_missing("X-AppEngine-Current-Namespace", namespace_manager.get_namespace())


def eta_posix(eta: Any, countdown: Any) -> float:
    """Return a task's ETA as seconds since the epoch.

    Args:
        eta: a datetime; a naive one is *local time*, as it was on App Engine (whose machines ran
            in UTC), or None.
        countdown: seconds from now, or None.

    Raises:
        InvalidTaskError: both are given, or one is of the wrong type.
        InvalidEtaError: it lies more than 30 days ahead.
    """
    now = time.time()
    if eta is not None and countdown is not None:
        raise InvalidTaskError("Cannot use a countdown and ETA together")
    if eta is not None:
        if not isinstance(eta, datetime.datetime):
            raise InvalidTaskError("ETA must be a datetime.datetime instance")
        if eta.tzinfo is not None:
            moment = (eta.replace(microsecond=0) - _EPOCH).total_seconds()
        else:
            moment = time.mktime(eta.timetuple())
        moment += eta.microsecond * 1e-6
    elif countdown is not None:
        try:
            moment = now + float(countdown)
        except ValueError:
            raise InvalidTaskError("Countdown must be a number") from None
        except OverflowError:
            raise InvalidTaskError("Countdown out of range") from None
    else:
        return now
    if moment > now + _limits.MAX_COUNTDOWN_SECONDS:
        raise InvalidEtaError("ETA too far in the future")
    return moment


def check_dispatch_deadline(deadline_usec: Any) -> None:
    """Check a dispatch deadline, in microseconds.

    Raises:
        TypeError: it is not a whole number.
        InvalidDispatchDeadlineError: it is under 15 seconds or over 24 hours.
    """
    if not isinstance(deadline_usec, int):
        raise TypeError("deadline must be an integer")
    deadline = datetime.timedelta(microseconds=deadline_usec)
    if deadline < _limits.MIN_DISPATCH_DEADLINE:
        raise InvalidDispatchDeadlineError(
            f"Deadline cannot be less than {_limits.MIN_DISPATCH_DEADLINE}"
        )
    if deadline > _limits.MAX_DISPATCH_DEADLINE:
        raise InvalidDispatchDeadlineError(
            f"Deadline cannot be more than {_limits.MAX_DISPATCH_DEADLINE}"
        )


def flat_headers(headers: Headers) -> list[tuple[bytes, bytes]]:
    """Return headers as pairs of bytes, a name repeated for each value of an iterable."""
    pairs = []
    for name, value in headers:
        key = encoded(name)
        if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
            pairs.append((key, encoded(value)))
        else:
            pairs.extend((key, encoded(item)) for item in value)
    return pairs


def task_size(
    method: str, payload: Any, relative_url: str, headers: Iterable[tuple[bytes, bytes]]
) -> int:
    """Return the bytes of a task, as App Engine's client counted them."""
    # 4 for ": " and the end of the line.
    return (
        len(method)
        + len(payload or "")
        + len(relative_url)
        + sum(len(name) + len(value) + 4 for name, value in headers)
    )
