"""What ``appengine-compat dev`` prints: a line per queue, attempt and task in flight."""

from __future__ import annotations

from datetime import datetime

from appengine_compat.core.model import UNLIMITED, Queue, QueueState
from appengine_compat.core.names import short_id
from appengine_compat.local.delivery import AttemptEvent, InFlight, Outcome
from appengine_compat.payload import description

_GAP = "  "
# A pickle of protocol 2 and later, and of 0 and 1; both in base64.
_STARTS_OF_PAYLOADS = (b"\x80", b"(", b"g", b"K")


def queue_line(queue: Queue, width: int) -> str:
    """Return a queue's name, rate and limits.

    Args:
        queue: as it stands in the local service.
        width: to which names are padded.
    """
    rates, retries = queue.rate_limits, queue.retry_config
    limits = []
    if retries.max_attempts != UNLIMITED:
        limits.append(_count(retries.max_attempts, "attempt"))
    if retries.max_retry_duration_seconds:
        limits.append(f"{retries.max_retry_duration_seconds:g} s")
    words = [
        f"{rates.max_dispatches_per_second:g}/s",
        f"{rates.max_concurrent_dispatches} at once",
        f"given up after {' and '.join(limits)}" if limits else "retried without end",
    ]
    if queue.state is not QueueState.RUNNING:
        words.append(queue.state.value.lower())
    return f"{short_id(queue.name):<{width}}{_GAP}{', '.join(words)}"


def attempt_line(event: AttemptEvent, ended_at: float, failure: str = "") -> str:
    """Return what ran, and how it went.

    Args:
        event: the attempt.
        ended_at: seconds since the epoch.
        failure: why the task failed for good, where it did though it was answered with success.
    """
    words = [
        datetime.fromtimestamp(ended_at).strftime("%H:%M:%S"),
        event.queue_id,
        what_runs(event.method, event.path, event.body),
        f"attempt {event.attempt}",
        str(event.status) if event.status > 0 else "no reply",
        f"{event.milliseconds:.0f} ms",
    ]
    if event.service:
        words.insert(2, event.service)
    if failure:
        words.append(f"failed for good: {plain(failure)}")
    elif event.outcome is not Outcome.DONE:
        words.append(_NEXT[event.outcome])
        if event.next_try is not None:
            words[-1] += f" in {_seconds(event.next_try - ended_at)}"
    return _GAP.join(words)


_NEXT = {
    Outcome.RETRY: "next try",
    Outcome.FAILED: "given up: its attempts are spent",
    Outcome.GONE: "deleted meanwhile",
}


def in_flight_line(task: InFlight) -> str:
    """Return a task that was being run when the service was closed."""
    return _GAP.join(
        [
            task.queue_id,
            what_runs(task.method, task.path, task.body),
            f"attempt {task.attempt}",
            f"running for {_seconds(task.seconds)}",
        ]
    )


def what_runs(method: str, path: str, body: bytes) -> str:
    """Return the call that a payload holds, or method and path where it holds none."""
    # Forms and texts are not asked what they call: some of them would make a pickle of sorts.
    described = description.describe(body) if body[:1] in _STARTS_OF_PAYLOADS else None
    return f"{method} {plain(path)}" if described is None else plain(str(described))


def plain(text: str) -> str:
    """Text that stays on its line and does nothing to a terminal."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def _seconds(seconds: float) -> str:
    seconds = max(0.0, seconds)
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
