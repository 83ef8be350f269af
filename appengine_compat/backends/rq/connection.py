"""The Redis client of this process, and what it means when Redis does not answer."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit, urlunsplit

import redis
from redis.backoff import ConstantBackoff
from redis.exceptions import AuthenticationError, NoPermissionError
from redis.retry import Retry

from appengine_compat import settings
from appengine_compat.backends.base import BackendError, Reason
from appengine_compat.errors import ConfigError

CONNECT_SECONDS = 2.0
"""How long whoever enqueues waits for Redis to take the connection."""
ANSWER_SECONDS = 10.0

GONE = (redis.ConnectionError, redis.TimeoutError)
"""What is raised while Redis cannot be reached, or has just been started and still loads."""


def url() -> str:
    """Return the address of Redis.

    Raises:
        ConfigError: it is not set.
    """
    address = settings.REDIS_URL.get()
    if address is None:
        raise ConfigError(
            f"Tasks go to Redis and RQ, and {settings.REDIS_URL.variable} does not say where that "
            "is: set it, for instance to redis://localhost:6379/0.",
            setting=settings.REDIS_URL.variable,
        )
    return address


def shown(address: str) -> str:
    """Return an address without its password."""
    parts = urlsplit(address)
    user, at, host = parts.netloc.rpartition("@")
    if at and ":" in user:
        user = user.partition(":")[0] + ":…"
    return urlunsplit((parts.scheme, user + at + host, parts.path, "", ""))


def client(address: str, *, answer_seconds: float | None = ANSWER_SECONDS) -> redis.Redis:
    """Return a client; it connects when it is used, and again after a fork.

    Args:
        address: the URL.
        answer_seconds: how long an answer may take; None for as long as it takes.

    Raises:
        ConfigError: the address is malformed.
    """
    try:
        made: redis.Redis = redis.Redis.from_url(
            address,
            socket_connect_timeout=CONNECT_SECONDS,
            socket_timeout=answer_seconds,
            # Once more at once: a connection that was idle may have been closed by Redis. The
            # scripts are such that a second call changes nothing.
            retry=Retry(ConstantBackoff(0.05), 1),
        )
    except ValueError as error:
        raise ConfigError(
            f"{settings.REDIS_URL.variable} is no address of a Redis server ({error}): set it to "
            "one such as redis://localhost:6379/0.",
            setting=settings.REDIS_URL.variable,
        ) from None
    return made


def failure(error: redis.RedisError, address: str, doing: str, queue: str) -> BackendError:
    """Return what Redis' refusal or silence means for whoever called.

    Args:
        error: as the client raised it.
        address: of Redis.
        doing: what was asked for, such as "tasks cannot be added".
        queue: the queue's id, or "".
    """
    reason = Reason.TRANSIENT
    advice = "Try again."
    if isinstance(error, AuthenticationError | NoPermissionError):
        reason = Reason.PERMISSION_DENIED
        advice = f"Put a user and password that Redis knows into {settings.REDIS_URL.variable}."
    elif isinstance(error, redis.ConnectionError) and "connecting to" in str(error):
        advice = (
            f"Nothing was done. Start it (redis-server), or correct {settings.REDIS_URL.variable}."
        )
    elif isinstance(error, redis.ConnectionError | redis.TimeoutError):
        advice = "Whether it was done is not known; a named task cannot be added twice."
    where = f"Queue {queue!r}: " if queue else ""
    return BackendError(
        reason,
        f"{where}{doing}: Redis at {shown(address)} says: {str(error).rstrip('.')}. {advice}",
        queue=queue,
    )


def text(value: Any) -> str:
    """Return a value that Redis answered as text."""
    return value.decode() if isinstance(value, bytes) else str(value)


def answers(client: redis.Redis) -> bool:
    """Tell whether Redis can be reached now."""
    try:
        return bool(client.ping())
    except GONE:
        return False
