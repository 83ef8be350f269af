"""What the scheduler says: to the log, and to those who look on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence

from appengine_compat.core import moments
from appengine_compat.local.claims import Finished
from appengine_compat.local.delivery import AttemptEvent, Outcome
from appengine_compat.local.workers import Ended

_logger = logging.getLogger("appengine_compat.local.scheduler")


def nobody_serves(service: str, served_here: Iterable[str]) -> None:
    """Say that tasks wait for a service without an app."""
    here = ", ".join(sorted(served_here)) or "none"
    _logger.warning(
        "Tasks wait for the service %r, and no running process has an app for it (here: %s). "
        "Start the app of that service, or name another with _target.",
        service,
        here,
    )


def attempt_ended(
    ended: Ended, finished: Finished, observers: Sequence[Callable[[AttemptEvent], None]]
) -> None:
    """Say how an attempt has ended, once that is written down."""
    claim, reply = ended.delivery.claim, ended.reply
    if finished.outcome is Outcome.FAILED:
        _logger.error(
            "Task %s of queue %s failed for good: %s, and this was attempt %d, the last that "
            "its retry settings allow. It is no longer in the queue; what it carried is kept "
            "in the database.",
            claim.task_id,
            claim.queue_id,
            f"status {reply.status}" if reply.status > 0 else reply.error or "no reply",
            claim.attempt,
        )
    if not observers:
        return
    due = finished.next_due
    event = AttemptEvent(
        queue_id=claim.queue_id,
        task_id=claim.task_id,
        service=claim.service,
        method=claim.method,
        path=claim.path if claim.service else claim.url,
        body=claim.body,
        attempt=claim.attempt,
        status=reply.status,
        milliseconds=ended.milliseconds,
        outcome=finished.outcome,
        next_try=None if due is None else due / moments.SECOND,
        error=reply.error,
    )
    for observer in list(observers):
        try:
            observer(event)
        # Whoever looks on must not be able to stop the work.
        except Exception:  # noqa: PERF203
            _logger.exception("An observer of attempts raised an exception.")
