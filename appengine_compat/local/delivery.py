"""One attempt, from the claim to what observers are told: values that rooms hand each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Claim:
    """A task taken out for one attempt. Fields without a word of their own are the row's."""

    seq: int
    claim: int
    queue: int
    queue_id: str
    task_id: str
    lane: str
    """The service that the task itself names, or ""."""
    service: str
    """Where it goes: the service after the queue's override, or "" for an HTTP target."""
    due: int
    forced: int
    """When RunTask was called, or 0."""
    is_named: bool
    method: str
    url: str
    headers: Mapping[str, str]
    """As stored."""
    extra: Mapping[str, Any]
    body: bytes
    deadline_ms: int
    attempt: int
    """1 for the first."""
    executions: int
    previous_status: int | None
    """HTTP status of the attempt before, 0 when no reply came, None on the first attempt."""
    first_dispatch: int

    @property
    def path(self) -> str:
        """Path with query."""
        if self.service:
            return self.url
        return "/" + self.url.partition("://")[2].partition("/")[2]


@dataclass(frozen=True, slots=True)
class Delivery:
    """The request of one attempt, whole."""

    claim: Claim
    headers: tuple[tuple[str, str], ...]
    """All that are sent, but ``Host`` and ``Content-Length``."""
    deadline_seconds: float


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back."""

    status: int
    """HTTP status; ``core.outcome.NO_REPLY`` when there was none."""
    body: bytes = b""
    """The beginning of it."""
    error: str = ""
    """Why there was no reply, or what the target raised."""
    retry_after_seconds: float = 0.0


class Transport(Protocol):
    """Delivers to targets. Called by several threads at once."""

    def services(self) -> frozenset[str] | None:
        """Return the services that it reaches ("" for HTTP targets); None for all."""
        ...

    def send(self, delivery: Delivery) -> Reply:
        """Make one attempt and return the reply; whatever goes wrong is told in it."""
        ...


class Outcome(Enum):
    """What an attempt meant for its task."""

    DONE = "done"
    RETRY = "retry"
    """It will be tried again."""
    FAILED = "failed"
    """Its attempts are spent: it is dropped, and kept aside."""
    GONE = "gone"
    """It was deleted, or another attempt decided, while this one ran."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptEvent:
    """One attempt that has ended, as observers are told of it once that is on disk."""

    queue_id: str
    task_id: str
    service: str
    """"" for an HTTP target."""
    method: str
    path: str
    """Path with query, or the whole url of an HTTP target."""
    body: bytes
    attempt: int
    status: int
    """HTTP status; 0 or below when no reply came."""
    milliseconds: float
    outcome: Outcome
    next_try: float | None = None
    """Seconds since the epoch of the next attempt's schedule time; None when there is none."""
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class InFlight:
    """An attempt that had not ended when the service was closed; it will be made again."""

    queue_id: str
    task_id: str
    service: str
    method: str
    path: str
    body: bytes
    attempt: int
    seconds: float
    """How long it has been running."""
