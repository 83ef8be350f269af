"""``Task``: one unit of work, checked when it is made."""

from __future__ import annotations

import datetime
import urllib.parse
from typing import TYPE_CHECKING, Any

from google.appengine.api.taskqueue import _construction as construction
from google.appengine.api.taskqueue import _limits
from google.appengine.api.taskqueue import _sending as sending
from google.appengine.api.taskqueue._errors import (
    InvalidTagError,
    InvalidTaskError,
    InvalidTaskNameError,
    TaskTooLargeError,
)

if TYPE_CHECKING:
    from types import ModuleType

    from appengine_compat.backends.base import TaskRequest

_NAMES = frozenset(
    {
        "countdown",
        "dispatch_deadline_usec",
        "eta",
        "headers",
        "method",
        "name",
        "params",
        "retry_options",
        "tag",
        "target",
        "url",
        "_query_check",
        "_size_check",
    }
)
_SHOWN = (
    "eta",
    "headers",
    "method",
    "name",
    "payload",
    "queue_name",
    "retry_options",
    "size",
    "target",
    "url",
    "was_deleted",
    "was_enqueued",
)


class Task:
    """One unit of work: a request that a queue makes to the application.

    A task is changed only by adding it to a queue or deleting it; its attributes are read-only.
    """

    # The mangled names are App Engine's: code in the wild sets them on tasks that it rebuilds.
    def __init__(self, payload: Any = None, **kwargs: Any) -> None:
        """Make a task; nothing is sent until it is added to a queue.

        Args:
            payload: the body, for POST, PUT and PULL; text goes as UTF-8.
            **kwargs: ``url``, a path (default: ``/_ah/queue/`` and the queue's name);
                ``method`` (POST); ``params``, a dict, as a form or query; ``headers``, a dict;
                ``name``, unique in its queue; ``countdown``, seconds from now, or ``eta``, a
                datetime (a naive one is local time); ``target``, the service or
                ``version.service`` that runs the task (default: the one that enqueues it);
                ``retry_options``, ``TaskRetryOptions``; ``dispatch_deadline_usec``, the longest
                attempt in microseconds; ``tag``, for pull tasks.

        Raises:
            TypeError: another name is given, or a value is of the wrong type.
            InvalidTaskError: the arguments do not go together; its subclasses name the one at
                fault.
            InvalidTagError: the tag is over 500 bytes.
            InvalidDispatchDeadlineError: the deadline is under 15 seconds or over 24 hours.
        """
        unknown = kwargs.keys() - _NAMES
        if unknown:
            raise TypeError(f"Invalid arguments: {', '.join(sorted(unknown))}")
        self.__name: Any = kwargs.get("name")
        if self.__name and not _limits.TASK_NAME_RE.match(self.__name):
            raise InvalidTaskNameError(
                f'The task name does not match expression "{_limits.TASK_NAME_PATTERN}"; '
                f"found {self.__name}"
            )
        url = kwargs.get("url", "")
        path, query = construction.split_url(url)
        self.__default_url = not path
        params = kwargs.get("params") or {}
        if query and params:
            raise InvalidTaskError(
                "Query string and parameters both present; only one of these can be supplied"
            )
        headers = construction.Headers(kwargs.get("headers"))
        self.__method: str = kwargs.get("method", "POST").upper()
        self.__tag: Any = kwargs.get("tag")
        is_pull = self.__method == "PULL"
        if is_pull:
            for name in ("url", "headers", "target"):
                if kwargs.get(name):
                    raise InvalidTaskError(f"{name} must not be specified for pull tasks")
        elif self.__tag is not None:
            raise InvalidTaskError("tag can only be specified for pull tasks")
        construction.add_namespaces(headers)
        self.__relative_url, self.__payload = construction.place_payload(
            self.__method,
            path,
            query,
            payload,
            params,
            headers,
            checks_query=kwargs.get("_query_check", True),
        )
        self.__retry_count = 0
        self.__queue_name: str | None = None
        self.__dispatch_deadline_usec: int | None = kwargs.get("dispatch_deadline_usec")
        self.__host_given: Any = headers.get("host")
        self.__target_given = self.__host_given is not None or kwargs.get("target") is not None
        self.__target: Any = construction.resolve_host(headers, kwargs.get("target"))
        self.__headers = headers
        self.__headers_list = construction.flat_headers(headers)
        eta, countdown = kwargs.get("eta"), kwargs.get("countdown")
        self.__eta_given = eta is not None or countdown is not None
        self.__eta_posix = construction.eta_posix(eta, countdown)
        self.__eta: datetime.datetime | None = None
        self.__retry_options: Any = kwargs.get("retry_options")
        self.__enqueued = False
        self.__deleted = False
        limit = _limits.MAX_PULL_TASK_SIZE_BYTES if is_pull else _limits.MAX_PUSH_TASK_SIZE_BYTES
        if kwargs.get("_size_check", True) and self.size > limit:
            raise TaskTooLargeError(f"Task size must be less than {limit}; found {self.size}")
        if self.__tag and len(self.__tag) > _limits.MAX_TAG_LENGTH:
            raise InvalidTagError(
                f"Tag must be <= {_limits.MAX_TAG_LENGTH} bytes. Got a {len(self.__tag)} byte tag."
            )
        if self.__dispatch_deadline_usec is not None:
            construction.check_dispatch_deadline(self.__dispatch_deadline_usec)

    @property
    def dispatch_deadline_usec(self) -> int | None:
        """The longest attempt, in microseconds, or None for the default of the target."""
        return self.__dispatch_deadline_usec

    @property
    def eta_posix(self) -> float:
        """The ETA as seconds since the epoch."""
        return self.__eta_posix

    @property
    def eta(self) -> datetime.datetime:
        """When the task may first run, aware, in UTC; the time it was made by default."""
        if self.__eta is None:
            self.__eta = datetime.datetime.fromtimestamp(self.__eta_posix, construction.UTC)
        return self.__eta

    @property
    def _eta_usec(self) -> int:
        return round(self.__eta_posix * 1e6)

    @property
    def headers(self) -> dict[Any, Any]:
        """A copy of the headers, those that were added included."""
        return dict(self.__headers)

    @property
    def method(self) -> str:
        """The HTTP method, in capitals, or PULL."""
        return self.__method

    @property
    def name(self) -> str | None:
        """The name that was given, or that the queue chose when the task was added."""
        return self.__name  # type: ignore[no-any-return]

    @property
    def on_queue_url(self) -> bool:
        """Whether the task goes to its queue's own URL."""
        return self.__default_url

    @property
    def payload(self) -> Any:
        """The body: bytes, ``str`` if it was made of ``params``, or None."""
        return self.__payload

    @property
    def queue_name(self) -> str | None:
        """The queue that the task was added to, or None."""
        return self.__queue_name

    @property
    def retry_count(self) -> int:
        """How often a pull task was leased; 0 for others."""
        return self.__retry_count

    @property
    def retry_options(self) -> Any:
        """The ``TaskRetryOptions`` that were given, or None."""
        return self.__retry_options

    @property
    def size(self) -> int:
        """The bytes of the task: method, payload, URL and headers."""
        return construction.task_size(
            self.__method, self.__payload, self.__relative_url, self.__headers_list
        )

    @property
    def tag(self) -> Any:
        """The tag of a pull task, or None."""
        return self.__tag

    @property
    def target(self) -> Any:
        """The service or version that runs the task, as given or told by the Host header."""
        return self.__target

    @property
    def url(self) -> str:
        """The path with its query; "" for the queue's own URL."""
        return self.__relative_url

    @property
    def was_enqueued(self) -> bool:
        """Whether the task was added to a queue."""
        return self.__enqueued

    @property
    def was_deleted(self) -> bool:
        """Whether the task was deleted from its queue by ``Queue.delete_tasks``."""
        return self.__deleted

    def add_async(
        self,
        queue_name: str = _limits.DEFAULT_QUEUE,
        transactional: bool = False,
        rpc: Any = None,
        *,
        _client: object = None,
    ) -> Any:
        """Start to add the task to a queue, as ``Queue.add_async`` does."""
        queue = _surface().Queue(queue_name)
        if _client is None:
            return queue.add_async(self, transactional, rpc)
        return queue.add_async(self, transactional, rpc, _client=_client)

    def add(
        self,
        queue_name: str = _limits.DEFAULT_QUEUE,
        transactional: bool = False,
        *,
        _client: object = None,
    ) -> Any:
        """Add the task to a queue, as ``Queue.add`` does.

        Returns:
            The task itself.
        """
        surface = _surface()
        # Tests and wrappers replace add_async, and App Engine's add went through it.
        is_replaced = (
            type(self).add_async is not _ADD_ASYNC
            or surface.Queue.add_async is not surface._ADD_ASYNC
        )
        if is_replaced and _client is None:
            return self.add_async(queue_name, transactional).get_result()
        return surface.Queue(queue_name)._add_now(self, transactional, _client)

    def _to_request(self, queue_name: str) -> TaskRequest:
        return sending.task_request(
            queue_name,
            name=self.__name or "",
            method=self.__method,
            relative_url=self.__relative_url,
            headers=self.__headers_list,
            payload=self.__payload,
            schedule_posix=self.__eta_posix if self.__eta_given else None,
            target=construction.routing_target(self.__target, self.__host_given)
            if self.__target_given
            else "",
            retry_options=self.__retry_options,
            dispatch_deadline_usec=self.__dispatch_deadline_usec,
        )

    def _mark_added(self, name: str, queue_name: str) -> None:
        self.__name = name
        self.__queue_name = queue_name
        self.__enqueued = True

    def _mark_deleted(self) -> None:
        self.__deleted = True

    def extract_params(self) -> dict[Any, Any]:
        """Return the parameters of the payload or of the query.

        Returns:
            Values as bytes, lists of them where a name is repeated; names as ``str``, or as
            bytes where the payload is bytes.

        Raises:
            ValueError: they are not form-encoded.
        """
        if self.__method in ("POST", "PULL"):
            text: Any = self.__payload
        else:
            text = urllib.parse.urlsplit(self.__relative_url).query
        if not text:
            return {}
        params: dict[Any, Any] = {}
        for key, value in urllib.parse.parse_qsl(text, keep_blank_values=True, strict_parsing=True):
            params.setdefault(key, []).append(construction.encoded(value))
        return {key: found[0] if len(found) == 1 else found for key, found in params.items()}

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in _SHOWN)
        return f"Task<{fields}>"


_ADD_ASYNC = Task.add_async


def _surface() -> ModuleType:
    # Queue is looked up at each call in the module that old code knows: tests put their own there.
    from google.appengine.api.taskqueue import taskqueue

    return taskqueue
