"""Calls that were deferred: read back from their tasks, and compared with what a test expects."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from appengine_compat.backends.stub_queues import StubTask

OPTIONS = ("_queue", "_url", "_name", "_target", "_countdown")
_COUNTDOWN_TOLERANCE_SECONDS = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class DeferredCall:
    """One call of ``deferred.defer``, as its task holds it."""

    function: Any
    """The callable; of a method, the method bound to its unpickled object."""
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    task: StubTask

    @property
    def queue(self) -> str:
        """The queue that the task was added to."""
        return self.task.queue

    @property
    def name(self) -> str:
        """The task's name."""
        return self.task.id

    @property
    def url(self) -> str:
        """The path that the task goes to."""
        return self.task.request.relative_url

    @property
    def target(self) -> str:
        """The service that runs the task; "" for the one that deferred."""
        return self.task.request.target

    @property
    def countdown(self) -> float:
        """Seconds from the call until the task is due."""
        return self.task.eta_at_creation - self.task.created_at

    def matches(self, function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
        """Tell whether this is that call; ``kwargs`` may hold options, such as ``_queue``."""
        options = {name: kwargs[name] for name in OPTIONS if name in kwargs}
        if not all(self._has(name, value) for name, value in options.items()):
            return False
        from google.appengine.ext.deferred import deferred

        plain = {name: value for name, value in kwargs.items() if name not in options}
        held = _load(self.task)
        try:
            expected = deferred._curry_callable(function, *args, **plain)
        except ValueError:
            return False
        if len(held[1]) != len(expected[1]) or held[2].keys() != expected[2].keys():
            return False
        return (
            _same(held[0], expected[0])
            and all(map(_same, held[1], expected[1]))
            and all(_same(value, expected[2][name]) for name, value in held[2].items())
        )

    def _has(self, option: str, value: Any) -> bool:
        if option == "_countdown":
            return math.isclose(
                self.countdown, value, rel_tol=0, abs_tol=_COUNTDOWN_TOLERANCE_SECONDS
            )
        return bool(getattr(self, option[1:]) == value)

    def __str__(self) -> str:
        from appengine_compat.payload.description import describe

        text = str(describe(self.task.request.payload))
        return f"{text} in queue {self.queue!r}"


def read(task: StubTask) -> DeferredCall | None:
    """Return the call that a task holds; None if it was not made by ``deferred``."""
    if not is_deferred(task):
        return None
    from google.appengine.ext.deferred import deferred

    function, args, kwargs = _load(task)
    if function is deferred.invoke_member:
        function, args = getattr(args[0], args[1]), args[2:]
    return DeferredCall(function, args, kwargs, task)


def is_deferred(task: StubTask) -> bool:
    """Tell whether a task holds a deferred call, without unpickling it."""
    from appengine_compat.payload.description import describe

    request = task.request
    return request.method == "POST" and describe(request.payload) is not None


def _load(task: StubTask) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    from appengine_compat.payload import pickles

    return pickles.loads(task.request.payload)


def _same(held: Any, expected: Any) -> bool:
    """Equal, or equal as payloads: most classes have no equality, and unpickling makes copies."""
    if held is expected or bool(held == expected):
        return True
    if type(held) is not type(expected):
        return False
    from google.appengine.ext.deferred import deferred

    try:
        return bool(deferred.serialize(len, held) == deferred.serialize(len, expected))
    except Exception:  # what cannot be pickled was not deferred
        return False
