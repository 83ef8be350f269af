"""Attempts that a test's run made, and the error that tells of those that came to nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from appengine_compat.backends.stub_queues import StubTask
from appengine_compat.errors import CompatError

MOST_ATTEMPTS_OF_A_TASK = 25
"""In one run: a task that is retried without end would otherwise never let a run end."""


class TaskRunError(CompatError):
    """Tasks of a run failed for good, or the run did not come to its end.

    Its cause is what the last attempt raised.
    """


@dataclass(frozen=True, slots=True)
class Attempt:
    """One delivery of a task to the app."""

    task: StubTask
    number: int
    """1 for the task's first."""
    status: int
    """What the app answered; 500 if it raised."""
    body: bytes
    error: BaseException | None
    """What the app raised; of a task that is ``ok``, why it failed for good, if it did."""
    is_given_up: bool
    """Whether the queue gives the task up after this attempt."""

    @property
    def ok(self) -> bool:
        """Whether the task is done."""
        return 200 <= self.status <= 299

    def __str__(self) -> str:
        raised = f" ({type(self.error).__name__}: {self.error})" if self.error else ""
        return f"{named(self.task)}: attempt {self.number} gave {self.status}{raised}"


def check(made: Sequence[Attempt], failures: Mapping[StubTask, int]) -> None:
    """Raise if a run left tasks behind that failed.

    Args:
        made: the attempts of the run.
        failures: how often each task failed in it.

    Raises:
        TaskRunError: tasks were given up, or failed too often in one run.
    """
    hopeless = [
        attempt
        for attempt in made
        if attempt.is_given_up
        or (not attempt.ok and failures[attempt.task] >= MOST_ATTEMPTS_OF_A_TASK)
    ]
    if not hopeless:
        return
    last = {attempt.task: attempt for attempt in hopeless}
    lines = [
        f"{attempt}; it is {'given up' if attempt.is_given_up else 'left in the queue'}"
        for attempt in last.values()
    ]
    raise TaskRunError("Tasks failed:\n  " + "\n  ".join(lines)) from hopeless[-1].error


def named(task: StubTask) -> str:
    """Return how errors name a task: its name, its queue, and what it would run."""
    from appengine_compat.payload.description import describe

    request = task.request
    call = describe(request.payload) if request.payload else None
    what = call or f"{request.method} {request.relative_url}"
    return f"task {task.id!r} of queue {task.queue!r}, {what}"
