"""Tasks and queues as Cloud Tasks v2 knows them, as immutable values.

Times are aware UTC datetimes, durations float seconds. Header mappings keep the caller's
spelling and order; names compare without regard to case (see ``core.headers``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum

UNLIMITED = -1

TOMBSTONE_TTL_SECONDS = 3600.0
"""What a queue has to which nobody has given one."""

HTTP_METHODS = ("POST", "GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS")


class QueueState(Enum):
    """Whether a queue dispatches."""

    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    DISABLED = "DISABLED"


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimits:
    """How fast a queue may dispatch."""

    max_dispatches_per_second: float = 500.0
    max_burst_size: int = 100
    max_concurrent_dispatches: int = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryConfig:
    """When a failed task is tried again, and when it is given up."""

    max_attempts: int = 100
    """Attempts in all, the first included; ``UNLIMITED`` (-1) for no limit."""
    max_retry_duration_seconds: float = 0.0
    """Seconds since the first attempt; 0 for no limit."""
    min_backoff_seconds: float = 0.1
    max_backoff_seconds: float = 3600.0
    max_doublings: int = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryOverrides:
    """A task's own retry settings; a field that is None is the queue's."""

    max_attempts: int | None = None
    max_retry_duration_seconds: float | None = None
    min_backoff_seconds: float | None = None
    max_backoff_seconds: float | None = None
    max_doublings: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AppEngineRouting:
    """Which service, version and instance get the request; "" means the default one."""

    service: str = ""
    version: str = ""
    instance: str = ""
    host: str = ""
    """Output only: the host that the routing stands for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OidcToken:
    """The identity token that an HTTP target asks for."""

    service_account_email: str
    audience: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OAuthToken:
    """The access token that an HTTP target asks for (``*.googleapis.com`` only)."""

    service_account_email: str
    scope: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpRequest:
    """What an HTTP target receives."""

    url: str
    method: str = "POST"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    token: OidcToken | OAuthToken | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AppEngineRequest:
    """What a service of the App Engine family receives."""

    relative_uri: str = "/"
    method: str = "POST"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    routing: AppEngineRouting = AppEngineRouting()


Request = HttpRequest | AppEngineRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One try at delivering a task."""

    schedule_time: datetime | None = None
    dispatch_time: datetime | None = None
    response_time: datetime | None = None
    """None while the attempt runs, and when no reply ever came."""
    response_code: int = 0
    """The canonical (google.rpc) code of the outcome; 0 is OK."""
    response_message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A task, as stored and as answered in the FULL view."""

    name: str
    """``projects/P/locations/L/queues/Q/tasks/T``; "" when created: the service chooses."""
    request: Request | None = None
    schedule_time: datetime | None = None
    create_time: datetime | None = None
    dispatch_deadline_seconds: float = 0.0
    """Longest allowed attempt; 0 lets the kind of target decide."""
    dispatch_count: int = 0
    response_count: int = 0
    first_attempt: Attempt | None = None
    last_attempt: Attempt | None = None
    retry_config: RetryOverrides | None = None


class EnforceMode(Enum):
    """When a queue's URI override applies."""

    UNSPECIFIED = "URI_OVERRIDE_ENFORCE_MODE_UNSPECIFIED"
    IF_NOT_EXISTS = "IF_NOT_EXISTS"
    ALWAYS = "ALWAYS"


@dataclass(frozen=True, slots=True, kw_only=True)
class UriOverride:
    """Parts of the task's URL that the queue replaces; None leaves a part alone, "" clears it."""

    scheme: str | None = None
    host: str | None = None
    port: int | None = None
    path: str | None = None
    query: str | None = None
    mode: EnforceMode = EnforceMode.UNSPECIFIED


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpTarget:
    """Queue-level routing of HTTP tasks, applied at dispatch."""

    uri_override: UriOverride | None = None
    method: str = ""
    """"" leaves the task's own."""
    header_overrides: Mapping[str, str] = field(default_factory=dict)
    token: OidcToken | OAuthToken | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """A queue with its settings."""

    name: str
    """``projects/P/locations/L/queues/Q``."""
    rate_limits: RateLimits = RateLimits()
    retry_config: RetryConfig = RetryConfig()
    state: QueueState = QueueState.RUNNING
    purge_time: datetime | None = None
    app_engine_routing_override: AppEngineRouting | None = None
    http_target: HttpTarget | None = None
    log_sampling_ratio: float | None = None
    """None: no operations log."""
    task_ttl_seconds: float = 31 * 86400.0
    """How long after its creation a task is deleted, run or not."""
    tombstone_ttl_seconds: float = TOMBSTONE_TTL_SECONDS
    """How long a finished or deleted task's name stays reserved."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueStats:
    """What a queue is doing now."""

    tasks_count: int = 0
    oldest_arrival_time: datetime | None = None
    """Schedule time of the task that has been due longest; None without a backlog."""
    executed_last_minute_count: int = 0
    concurrent_dispatches_count: int = 0
    effective_execution_rate: float = 0.0
