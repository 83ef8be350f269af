"""The ``tasks`` fixture: queued tasks run through the app, on a clock that the test moves."""

from __future__ import annotations

import datetime
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from appengine_compat import installation
from appengine_compat.backends.stub_queues import StubTask
from appengine_compat.core import headers as task_headers
from appengine_compat.core import retry
from appengine_compat.core.headers import Family
from appengine_compat.testing import attempts, deferred_calls
from appengine_compat.testing.attempts import (
    MOST_ATTEMPTS_OF_A_TASK,
    Attempt,
    TaskRunError,
    named,
)
from appengine_compat.testing.deferred_calls import DeferredCall
from appengine_compat.testing.delivery import deliver

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication
    from google.appengine.api.taskqueue.taskqueue_stub import TaskQueueServiceStub

MOST_ATTEMPTS = 1000
_DELAY_DIGITS = 1


@dataclass(slots=True)
class _Injection:
    remaining: int
    matches: Callable[[StubTask], bool]
    status: int = 0
    error: BaseException | None = None


class Tasks:
    """The queued tasks of a test: run them, step the time, and see what was deferred.

    Attributes:
        stub: the task queue stub, with its ``get_filtered_tasks`` and the rest.
        app: the WSGI app that takes the tasks; None runs deferred calls directly, as the
            deferred application does, and refuses others.
        apps: WSGI apps by service, for tasks with a target; ``app`` takes all others.
        attempts: every attempt made so far, in order.
    """

    def __init__(self, stub: TaskQueueServiceStub) -> None:
        self.stub = stub
        self.app: WSGIApplication | None = None
        self.apps: dict[str, WSGIApplication] = {}
        self.attempts: list[Attempt] = []
        self._created: list[StubTask] = []
        self._failures: list[_Injection] = []
        self._duplicates: list[_Injection] = []
        self._default_app: WSGIApplication | None = None
        self._now = stub.gettime()
        stub.on_create = self._created.append
        stub.gettime = self.now
        stub.due_at = self._due_at

    # --- time ---------------------------------------------------------------------------------

    def now(self) -> float:
        """Return the time of the queues, in seconds since the epoch; it moves only by steps."""
        return self._now

    def _due_at(self, eta: datetime.datetime) -> float:
        # The program made its ETA by the real clock, a moment ago. Without rounding, two tasks
        # of one countdown would be due in an order that depends on how long that moment was.
        delay = eta.timestamp() - time.time()
        return self._now + round(delay, _DELAY_DIGITS)

    def _step_to(self, moment: float) -> None:
        self._now = max(self._now, moment)

    # --- running ------------------------------------------------------------------------------

    def run_until_idle(self, *, check: bool = True) -> list[Attempt]:
        """Run what is due now, and what that enqueues, until nothing is due.

        Args:
            check: whether tasks that are given up raise.

        Returns:
            The attempts made.

        Raises:
            TaskRunError: a task was given up (after the others have run), or 1,000 attempts
                were made and tasks are still due.
        """
        return self._run(self._now, step=False, check=check)

    def run_all(self, *, check: bool = True) -> list[Attempt]:
        """Run every task, whatever its ETA, with retries and what they enqueue, until none waits.

        The time steps to each next task that is due. Queues with a rate of 0 are left alone.

        Args:
            check: whether tasks that are given up raise.

        Returns:
            The attempts made.

        Raises:
            TaskRunError: a task was given up or failed 25 times in this run (after the others
                have run), or 1,000 attempts were made and tasks still wait.
        """
        return self._run(math.inf, step=True, check=check)

    def advance(
        self,
        *,
        seconds: float = 0,
        minutes: float = 0,
        hours: float = 0,
        days: float = 0,
        check: bool = True,
    ) -> list[Attempt]:
        """Let time pass, and run what becomes due, each task at its own time.

        Only the queues' time moves; ``time.time()`` does not, and the queues' time does not move
        by itself. ETAs count from it, to a tenth of a second.

        Args:
            seconds: how long; all are added up.
            minutes: how long.
            hours: how long.
            days: how long.
            check: whether tasks that are given up raise.

        Returns:
            The attempts made.

        Raises:
            ValueError: time does not go back.
            TaskRunError: as ``run_all``.
        """
        duration = seconds + 60 * minutes + 3600 * hours + 86400 * days
        if duration < 0:
            raise ValueError(f"advance() by {duration} seconds: time does not go back")
        end = self._now + duration
        made = self._run(end, step=True, check=check)
        self._step_to(end)
        return made

    def _run(self, horizon: float, *, step: bool, check: bool) -> list[Attempt]:
        made: list[Attempt] = []
        failures: dict[StubTask, int] = {}
        while (task := self._next(horizon, failures)) is not None:
            if len(made) >= MOST_ATTEMPTS:
                raise TaskRunError(
                    f"{MOST_ATTEMPTS} attempts were made, and there is still work: next is "
                    f"{named(task)}. Does a task enqueue itself without end?"
                )
            if step:
                self._step_to(task.eta_microseconds / 1e6)
            attempt = self._attempt(task)
            made.append(attempt)
            if not attempt.ok:
                failures[task] = failures.get(task, 0) + 1
        if check:
            attempts.check(made, failures)
        return made

    def _next(self, horizon: float, failures: dict[StubTask, int]) -> StubTask | None:
        paused = {queue.name for queue in self.stub.queues() if queue.is_paused}
        for task in self.stub.tasks():
            # Stored in whole microseconds, so it may lie a fraction of one beyond a float.
            if task.eta_microseconds / 1e6 > horizon + 1e-6:
                return None
            if task.queue not in paused and failures.get(task, 0) < MOST_ATTEMPTS_OF_A_TASK:
                return task
        return None

    # --- one attempt --------------------------------------------------------------------------

    def _attempt(self, task: StubTask) -> Attempt:
        app = self._app_for(task)
        if task.first_attempt_at is None:
            task.first_attempt_at = self._now
        injected = _drawn(self._failures, task)
        if injected is not None:
            status, body, error = injected.status, b"", injected.error
        else:
            status, body, error = deliver(app, task)
        ok = 200 <= status <= 299
        if ok and injected is None and _drawn(self._duplicates, task) is not None:
            self._record(task, status, body, error, is_given_up=False)
            status, body, error = deliver(app, task)
            ok = 200 <= status <= 299
        number = task.retries + 1
        is_given_up = not ok and self._failed(task, status)
        if ok:
            self.stub.finish(task)
        attempt = Attempt(task, number, status, body, error, is_given_up)
        self.attempts.append(attempt)
        return attempt

    def _record(
        self,
        task: StubTask,
        status: int,
        body: bytes,
        error: BaseException | None,
        *,
        is_given_up: bool,
    ) -> None:
        self.attempts.append(Attempt(task, task.retries + 1, status, body, error, is_given_up))

    def _failed(self, task: StubTask, status: int) -> bool:
        """Schedule the next attempt of a task that failed; tell whether there is none."""
        now = self._now
        task.retries += 1
        task.executions += task_headers.counts_as_execution(Family.APP_ENGINE, status)
        task.previous_response = status
        config = retry.effective_retry_config(
            self.stub.queue(task.queue).retry_config, task.request.retry
        )
        started = now if task.first_attempt_at is None else task.first_attempt_at
        if retry.is_exhausted(config, task.retries, now - started):
            self.stub.finish(task)
            return True
        task.eta_microseconds = round((now + retry.backoff_seconds(config, task.retries)) * 1e6)
        return False

    def _app_for(self, task: StubTask) -> WSGIApplication:
        service = task.request.target.rpartition(".")[2]
        app = self.apps.get(service, self.app)
        if app is not None:
            return app
        if not deferred_calls.is_deferred(task):
            raise TaskRunError(
                f"{named(task)} is no deferred call, and there is no app to take it: set "
                "tasks.app to the WSGI app that serves its URL."
            )
        if self._default_app is None:
            self._default_app = _deferred_app()
        return self._default_app

    # --- failures on request --------------------------------------------------------------------

    def fail_next(
        self,
        times: int = 1,
        *,
        status: int = 500,
        error: BaseException | None = None,
        function: Any = None,
        queue: str | None = None,
    ) -> None:
        """Let the next attempts fail before they reach the app.

        Args:
            times: how many attempts.
            status: what they are answered; 0 for no answer at all.
            error: what the app is said to have raised.
            function: only attempts of deferred calls of this function.
            queue: only attempts of tasks of this queue.
        """
        if 200 <= status <= 299:
            raise ValueError(f"status {status} is no failure")
        self._failures.append(_Injection(times, _matching(function, queue), status, error))

    def duplicate_next(
        self, times: int = 1, *, function: Any = None, queue: str | None = None
    ) -> None:
        """Let the next tasks that succeed be delivered a second time, as queues may do.

        The second delivery has the same name and headers; its result is the one that counts.

        Args:
            times: how many tasks.
            function: only deferred calls of this function.
            queue: only tasks of this queue.
        """
        self._duplicates.append(_Injection(times, _matching(function, queue)))

    # --- what was deferred ------------------------------------------------------------------------

    @property
    def deferred(self) -> list[DeferredCall]:
        """Every call that was deferred since the test began, run or not, in order."""
        calls = (deferred_calls.read(task) for task in self._created)
        return [call for call in calls if call is not None]

    def assert_deferred(self, function: Any, /, *args: Any, **kwargs: Any) -> DeferredCall:
        """Assert that this call was deferred, and return it (the last, if there are several).

        Args:
            function: the callable, as it was given to ``defer``.
            args: its positional arguments.
            kwargs: its keyword arguments, and what else must hold: ``_queue``, ``_url``,
                ``_name``, ``_target``, ``_countdown`` (seconds, to one second).

        Raises:
            AssertionError: it was not; the text says what was.
        """
        calls = self.deferred
        for call in reversed(calls):
            if call.matches(function, args, kwargs):
                return call
        parts = [repr(value) for value in args]
        parts += [f"{name}={value!r}" for name, value in kwargs.items()]
        name = getattr(function, "__qualname__", repr(function))
        raise AssertionError(f"{name}({', '.join(parts)}) was not deferred. {_told(calls)}")

    def assert_nothing_deferred(self) -> None:
        """Assert that nothing was deferred since the test began.

        Raises:
            AssertionError: something was; the text says what.
        """
        calls = self.deferred
        if calls:
            raise AssertionError(_told(calls))


def _deferred_app() -> WSGIApplication:
    from google.appengine.ext import deferred

    app: WSGIApplication = deferred.application
    if installation.is_installed():
        return app  # beside Google's SDK wrapping replaces its stubs, which are the test's own
    from google.appengine.api import wrap_wsgi_app

    wrapped: WSGIApplication = wrap_wsgi_app(app, use_legacy_context_mode=False)
    return wrapped


def _matching(function: Any, queue: str | None) -> Callable[[StubTask], bool]:
    def matches(task: StubTask) -> bool:
        if queue is not None and task.queue != queue:
            return False
        if function is None:
            return True
        call = deferred_calls.read(task)
        return call is not None and bool(call.function == function)

    return matches


def _drawn(injections: list[_Injection], task: StubTask) -> _Injection | None:
    for injection in injections:
        if injection.remaining > 0 and injection.matches(task):
            injection.remaining -= 1
            return injection
    return None


def _told(calls: list[DeferredCall]) -> str:
    if not calls:
        return "Nothing was deferred."
    return "Deferred were:\n  " + "\n  ".join(map(str, calls))
