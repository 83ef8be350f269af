"""Logs that tell which task they belong to, and join a task with the request that enqueued it.

Nothing here happens until ``setup`` is called.
"""

from __future__ import annotations

import logging
from typing import Any

from appengine_compat import platform
from appengine_compat.core import telemetry, trace
from appengine_compat.handler import running

GOOGLE = frozenset(
    {platform.Platform.APP_ENGINE, platform.Platform.CLOUD_RUN, platform.Platform.KUBERNETES}
)
"""Where what is written to standard output becomes entries of Cloud Logging."""

_handler: logging.Handler | None = None
_factory_before: Any = None


def setup(level: int | str = logging.INFO) -> logging.Handler:
    """Set up the root logger: JSON for Cloud Logging on Google's platforms, else lines to read.

    From then on every record of the process has the attributes ``aec_queue``, ``aec_task``,
    ``aec_function``, ``aec_attempt``, ``aec_retry_count`` and ``aec_trace``, empty outside of
    tasks (``aec_trace`` outside of requests), for handlers and formatters of your own; and each
    task ends with a line of the logger ``appengine_compat.tasks``. A second call changes the
    level, and follows the platform.

    Args:
        level: of the root logger.

    Returns:
        The handler, on the root logger.
    """
    global _handler
    root = logging.getLogger()
    if _handler is not None:
        root.removeHandler(_handler)
        _handler.close()
    if platform.detect() in GOOGLE:
        from appengine_compat.handler import cloud_logging

        _handler, project = cloud_logging.structured_handler()
        # Before the handler's own, which reads what this one leaves in the record.
        _handler.filters.insert(0, _ForCloudLogging(project))
    else:
        _handler = logging.StreamHandler()
        _handler.setFormatter(_Lines())
    root.addHandler(_handler)
    root.setLevel(level)
    _install_factory()
    running.log_summaries(True)
    return _handler


def reset() -> None:
    """Undo ``setup``, for tests; the root logger's level stays."""
    global _handler, _factory_before
    if _handler is not None:
        logging.getLogger().removeHandler(_handler)
        _handler.close()
        _handler = None
    if _factory_before is not None:
        if logging.getLogRecordFactory() is _record:
            logging.setLogRecordFactory(_factory_before)
        _factory_before = None
    running.log_summaries(False)


def _install_factory() -> None:
    global _factory_before
    if _factory_before is None:
        _factory_before = logging.getLogRecordFactory()
        logging.setLogRecordFactory(_record)


def _record(*args: Any, **kwargs: Any) -> logging.LogRecord:
    # Here and not in a filter: a handler that hands records to another thread (QueueHandler)
    # must find them complete.
    record: logging.LogRecord = (_factory_before or logging.LogRecord)(*args, **kwargs)
    task = running.CURRENT.get()
    place = telemetry.current() or trace.CURRENT.get()
    record.__dict__.update(
        aec_queue=task.queue if task else "",
        aec_task=task.name if task else "",
        aec_function=task.function if task else "",
        aec_attempt=task.attempt if task else 0,
        aec_retry_count=task.retry_count if task else 0,
        aec_trace=place.trace_id if place else "",
        aec_span=place.span_id if place else "",
        aec_trace_sampled=place.is_sampled if place else False,
    )
    return record


class _ForCloudLogging(logging.Filter):
    """Puts a record's task into the labels of its entry, and its trace where the console looks."""

    def __init__(self, project: str) -> None:
        super().__init__()
        self._project = project

    def filter(self, record: logging.LogRecord) -> bool:
        found = record.__dict__
        if found.get("aec_task"):
            labels = {
                "queue": found["aec_queue"],
                "task_name": found["aec_task"],
                "function": found["aec_function"],
                "attempt": str(found["aec_attempt"]),
                "retry_count": str(found["aec_retry_count"]),
            }
            # What the program itself says of a record goes before.
            found["labels"] = {**labels, **(found.get("labels") or {})}
        if found.get("aec_trace") and "trace" not in found:
            name = found["aec_trace"]
            found["trace"] = f"projects/{self._project}/traces/{name}" if self._project else name
            found.setdefault("span_id", found["aec_span"])
            found.setdefault("trace_sampled", found["aec_trace_sampled"])
        return True


class _Lines(logging.Formatter):
    """``12:00:44 INFO work: message  [default/task1 work.thank, attempt 2]``."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s", "%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:
        line = super().formatMessage(record)
        found = record.__dict__
        # The line that sums a task up names it already.
        if not found.get("aec_task") or record.name == "appengine_compat.tasks":
            return line
        return (
            f"{line}  [{found['aec_queue']}/{found['aec_task']} {found['aec_function']}, "
            f"attempt {found['aec_attempt']}]"
        )


__all__ = ["reset", "setup"]
