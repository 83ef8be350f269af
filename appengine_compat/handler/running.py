"""The task that runs now, for logs and spans: who it is, how it began and how it ended.

Nothing is noted until somebody looks: ``appengine_compat.logging.setup``, or OpenTelemetry.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, MutableMapping
from contextvars import ContextVar, copy_context
from typing import TYPE_CHECKING, Any

from appengine_compat.core import telemetry, trace
from appengine_compat.handler import view

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse

KEY = "appengine_compat.running"
"""Where a task that runs stands in its WSGI environ."""
_PAYLOAD_KEY = "appengine_compat.payload"

_log = logging.getLogger("appengine_compat.tasks")

Environ = MutableMapping[str, Any]

SUCCEEDED = "succeeded"
FAILED = "failed"
FAILED_FOR_GOOD = "failed for good"

_are_logged = False


class RunningTask:
    """An attempt of a task, from its arrival to its answer."""

    def __init__(self, environ: Environ) -> None:
        self._environ = environ
        self._function = ""
        self.queue: str = environ.get("HTTP_X_APPENGINE_QUEUENAME", "")
        self.name: str = environ.get("HTTP_X_APPENGINE_TASKNAME", "")
        retries = environ.get("HTTP_X_APPENGINE_TASKRETRYCOUNT", "")
        self.retry_count = int(retries) if retries.isascii() and retries.isdigit() else 0
        self.enqueued = trace.CURRENT.get()
        """Where in its trace the request stood that enqueued it."""
        self.age_seconds = _age_seconds(environ.get("HTTP_X_APPENGINE_TASKETA", ""))
        """How long it had been due when it began; None when that is not known."""
        self.status = 0
        """Of the answer; 0 as long as there is none."""
        self.error: BaseException | None = None
        self.is_kept = False
        self.span: tuple[Any, Any] | None = None
        self._began = time.monotonic()

    @property
    def attempt(self) -> int:
        """The attempt's number, from 1."""
        return self.retry_count + 1

    @property
    def function(self) -> str:
        """What a deferred task calls; method and path of any other."""
        if not self._function:
            payload = self._environ.get(_PAYLOAD_KEY)
            if payload is None:
                path = self._environ.get("SCRIPT_NAME", "") + self._environ.get("PATH_INFO", "")
                return f"{self._environ.get('REQUEST_METHOD', 'POST')} {path}"
            from appengine_compat.payload import description

            described = description.describe(payload)
            self._function = "(unreadable)" if described is None else described.function
        return self._function

    @property
    def outcome(self) -> str:
        """What became of the attempt."""
        if self.is_kept:
            return FAILED_FOR_GOOD
        return SUCCEEDED if self.error is None and 200 <= self.status <= 299 else FAILED

    @property
    def milliseconds(self) -> int:
        """How long it has run."""
        return round((time.monotonic() - self._began) * 1000)


CURRENT: ContextVar[RunningTask | None] = ContextVar("appengine_compat_running", default=None)


def log_summaries(enabled: bool) -> None:
    """Log a line for each task that ends, or stop to."""
    global _are_logged
    _are_logged = enabled


def is_watched() -> bool:
    """Tell whether anybody wants to know of tasks that run."""
    return _are_logged or telemetry.is_set_up()


def begin(environ: Environ) -> RunningTask | None:
    """Note in this context that a task runs, if the request is one and somebody looks.

    Args:
        environ: the request's WSGI environ, as ``view.prepare`` has left it.

    Returns:
        What ``end`` takes; None when there is nothing to end here.
    """
    if "HTTP_X_APPENGINE_TASKNAME" not in environ or KEY in environ or not is_watched():
        return None
    task = RunningTask(environ)
    environ[KEY] = task
    CURRENT.set(task)
    task.span = telemetry.begin_running(
        f"run {task.queue}",
        {
            "messaging.system": "gcp_cloud_tasks",
            "messaging.operation.type": "process",
            "messaging.destination.name": task.queue,
            "messaging.message.id": task.name,
            "appengine_compat.attempt": task.attempt,
        },
        task.enqueued,
    )
    if task.span is not None:
        trace.CURRENT.set(telemetry.place_of(task.span) or task.enqueued)
    return task


def end(task: RunningTask) -> None:
    """Tell how a task ended: in a line of the log, and by its span."""
    outcome, milliseconds = task.outcome, task.milliseconds
    if task.span is not None:
        telemetry.end_running(
            task.span,
            {"appengine_compat.function": task.function, "appengine_compat.outcome": outcome},
            "" if outcome == SUCCEEDED else outcome,
            task.error,
        )
    if not _are_logged:
        return
    age = task.age_seconds
    _log.log(
        logging.INFO if outcome == SUCCEEDED else logging.WARNING,
        "Task %s of queue %s: %s %s%s in %d ms, attempt %d%s",
        task.name,
        task.queue,
        task.function,
        outcome,
        f" with {task.status}" if task.status else "",
        milliseconds,
        task.attempt,
        "" if age is None else f", begun {age:.1f} s after it was due",
        extra={
            "json_fields": {
                "outcome": outcome,
                "status": task.status,
                "milliseconds": milliseconds,
                "age_seconds": age,
            }
        },
    )


def noting(task: RunningTask, start_response: StartResponse) -> StartResponse:
    """Return a ``start_response`` that notes the status of a task's answer."""

    def start(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:
        task.status = int(status[:3]) if status[:3].isdigit() else 0
        return start_response(status, headers, *exc_info)

    return start


def note_error(environ: Environ, error: BaseException) -> None:
    """Note what was raised by the task of a request, if that is one that is watched."""
    task = environ.get(KEY)
    if type(task) is RunningTask:
        task.error = error


def note_kept(environ: Mapping[str, Any]) -> None:
    """Note that the task of a request failed for good, if it is watched."""
    task = environ.get(KEY)
    if type(task) is RunningTask:
        task.is_kept = True


def around(environ: Environ, post: Callable[[Any], Any]) -> Any:
    """Answer a task's request outside of ``wrap_wsgi_app``, and tell how it went.

    Args:
        environ: the request's WSGI environ.
        post: returns the answer; its second item is the status.
    """
    view.prepare(environ)

    def run() -> Any:
        trace.enter(environ)
        task = begin(environ)
        if task is None:
            return post(environ)
        try:
            answer = post(environ)
            task.status = int(answer[1])
            return answer
        except BaseException as error:
            task.error = error
            raise
        finally:
            end(task)

    return copy_context().run(run)


def _age_seconds(eta: str) -> float | None:
    try:
        due = float(eta)
    except ValueError:
        return None
    age = time.time() - due
    # A moment's difference between two clocks is no age; what is no time at all is none either.
    return max(age, 0.0) if abs(age) < 1e10 else None
