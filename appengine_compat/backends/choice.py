"""Which backend takes the tasks of this process.

In this order: the one that a test has activated; the setting ``APPENGINE_COMPAT_BACKEND``;
``CLOUD_TASKS_EMULATOR_HOST``; the platform; else the embedded service. Where a wrong guess
would lose tasks, there is no guess but an error that names the settings.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from dataclasses import dataclass

from appengine_compat import platform, settings
from appengine_compat.backends import holding
from appengine_compat.backends.base import Backend
from appengine_compat.errors import BackendChoiceError
from appengine_compat.platform import Platform

CLOUD_TASKS = "cloudtasks"
EMBEDDED = "embedded"
RQ = "rq"

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Choice:
    fingerprint: tuple[object, ...]
    kind: str
    reason: str
    backend: Backend


_lock = threading.Lock()
_active: list[Backend] = []
_choice: _Choice | None = None
_wrapped: tuple[object, tuple[object, ...], Backend] | None = None
"""The last client that was given, the fingerprint then, and its backend."""


def current() -> Backend:
    """Return the backend that takes tasks now.

    It is chosen at the first call, logged with the reason, and kept until a setting or a
    variable that settings are read from changes.

    Raises:
        BackendChoiceError: none was chosen, and none is safe to guess here.
        ConfigError: a setting is unknown or its value not allowed.
    """
    if _active:
        return _active[-1]
    fingerprint = settings.fingerprint()
    choice = _choice
    if choice is not None and choice.fingerprint == fingerprint:
        return choice.backend
    return _choose(fingerprint).backend


def active() -> Backend | None:
    """Return the backend that was activated last, None when there is none."""
    return _active[-1] if _active else None


def describe() -> tuple[str, str]:
    """Return the kind of backend that takes tasks now, and why, without starting it.

    Raises:
        BackendChoiceError: none was chosen, and none is safe to guess here.
        ConfigError: a setting is unknown or its value not allowed.
    """
    if _active:
        return _active[-1].kind, "a test has activated it"
    return _decide()


def meant() -> str:
    """Return the kind of backend that is meant to take tasks, though it may lack settings.

    Raises:
        ConfigError: a value is not allowed.
    """
    if _active:
        return _active[-1].kind
    chosen = settings.BACKEND.get()
    if chosen is not None:
        return chosen
    is_here = platform.detect() is Platform.ELSEWHERE and not platform.emulator_host()
    return EMBEDDED if is_here else CLOUD_TASKS


def activate(backend: Backend) -> None:
    """Let this backend take every task of the process, until it is deactivated.

    Activations nest: the last one wins. Only an explicit ``_client=`` passes it by.
    """
    _active.append(backend)


def deactivate(backend: Backend) -> None:
    """End the last activation of this backend.

    Raises:
        ValueError: it is not active.
    """
    for index in range(len(_active) - 1, -1, -1):
        if _active[index] is backend:
            del _active[index]
            return
    raise ValueError(f"{backend!r} is not active, so it cannot be deactivated.")


def as_backend(client: object) -> Backend:
    """Return the backend that an explicit ``_client=`` stands for.

    Args:
        client: a backend, or a ``google.cloud.tasks_v2.CloudTasksClient``, whose transport is
            then used; project, location and targets come from the settings.

    Raises:
        TypeError: it is neither.
    """
    global _wrapped
    # Nobody can hold a client of a library that was not imported; importing it here to ask
    # would cost a quarter of a second.
    library = sys.modules.get("google.cloud.tasks_v2")
    if library is not None:
        if isinstance(client, library.CloudTasksClient):
            from appengine_compat.backends.cloud_tasks import CloudTasksBackend

            fingerprint = settings.fingerprint()
            if _wrapped is None or _wrapped[0] is not client or _wrapped[1] != fingerprint:
                _wrapped = (client, fingerprint, CloudTasksBackend(client=client))
            return _wrapped[2]
        if isinstance(client, library.CloudTasksAsyncClient):
            raise TypeError(
                "_client is a CloudTasksAsyncClient, and defer is not asynchronous: give a "
                "google.cloud.tasks_v2.CloudTasksClient, or leave _client out."
            )
    if not isinstance(client, type) and isinstance(client, Backend):
        return client
    raise TypeError(
        f"_client is {client!r}, which cannot take tasks: give a "
        "google.cloud.tasks_v2.CloudTasksClient or an object with the methods of "
        "appengine_compat.backends.base.Backend, or leave _client out."
    )


def _choose(fingerprint: tuple[object, ...]) -> _Choice:
    global _choice
    with _lock:
        choice = _choice
        if choice is not None and choice.fingerprint == fingerprint:
            return choice
        kind, reason = _decide()
        made = _Choice(fingerprint, kind, reason, _BUILD[kind]())
        if choice is None or (choice.kind, choice.reason) != (kind, reason):
            _logger.info("Tasks go to %s: %s.", _TITLES[kind], reason)
        _choice = made
        return made


def _decide() -> tuple[str, str]:
    settings.check()
    kind = settings.BACKEND.get()
    if kind is not None:
        if kind == CLOUD_TASKS:
            _require_targets(f"{settings.BACKEND.variable}=cloudtasks")
        elif kind == RQ:
            _require_redis()
        return kind, f"{settings.BACKEND.variable} is {kind}"
    emulator = platform.emulator_host()
    if emulator:
        return CLOUD_TASKS, f"{platform.EMULATOR_VARIABLE} is {emulator}"
    host = platform.detect()
    if host is Platform.APP_ENGINE:
        return CLOUD_TASKS, "this is App Engine"
    if host is Platform.ELSEWHERE:
        if holding.holds:
            raise BackendChoiceError(
                "A test enqueues a task, and has no task queue for it: ask for the fixture "
                "taskqueue_stub or tasks, or activate a testbed with init_taskqueue_stub() "
                "(docs/testing.md). The embedded service is not chosen under pytest by itself: "
                "its database may hold tasks of yours.",
                setting=settings.BACKEND.variable,
            )
        return EMBEDDED, "nothing else is set, and this is no Google platform"
    _require_targets(f"this is {host.value}")
    where = "targets are set" if settings.TARGETS.get() else f"its address is {platform.own_url()}"
    return CLOUD_TASKS, f"this is {host.value}, and {where}"


def _require_targets(why: str) -> None:
    """Refuse Cloud Tasks where a task could not say where it is to be delivered, and as whom."""
    if platform.detect() is Platform.APP_ENGINE or platform.emulator_host():
        return
    table = settings.TARGETS.get()
    missing = []
    if not table and not platform.own_url():
        missing.append(f"{settings.TARGETS.variable} (where tasks are delivered: an address)")
    if not settings.SERVICE_ACCOUNT.get() and set(table.values()) != {"appengine"}:
        missing.append(
            f"{settings.SERVICE_ACCOUNT.variable} (who tasks come as: a service account's e-mail)"
        )
    if missing:
        raise BackendChoiceError(
            f"Tasks have no place to go: {why}, which needs {' and '.join(missing)}. Set "
            f"{'it' if len(missing) == 1 else 'them'}; or set {settings.BACKEND.variable}=embedded "
            "to keep tasks in a file of this process, which is lost with the host's disk.",
            setting=missing[0].partition(" ")[0],
        )


def _require_redis() -> None:
    """Refuse RQ where a worker could not know what to do with a task, nor the app believe it."""
    needed = (
        (settings.REDIS_URL, "where Redis is, such as redis://localhost:6379/0"),
        (settings.TARGETS, "where tasks are delivered, such as default=http://localhost:8080"),
        (settings.SIGNING_KEYS, "an id and a secret, such as dev:16-characters-or-more"),
    )
    missing = [
        (setting, words)
        for setting, words in needed
        if not setting.get() and not (setting is settings.TARGETS and platform.own_url())
    ]
    if missing:
        raise BackendChoiceError(
            f"Tasks cannot go to Redis and RQ ({settings.BACKEND.variable}=rq) without "
            + " and ".join(f"{setting.variable} ({words})" for setting, words in missing)
            + f". Set {'it' if len(missing) == 1 else 'them'}, the same for the apps and for "
            "`appengine-compat rq-worker` (docs/redis-rq.md).",
            setting=missing[0][0].variable,
        )


def _build_cloud_tasks() -> Backend:
    from appengine_compat.backends.cloud_tasks import CloudTasksBackend

    return CloudTasksBackend()


def _build_embedded() -> Backend:
    from appengine_compat.backends import embedded

    return embedded.shared()


def _build_rq() -> Backend:
    from appengine_compat.backends.rq import installed

    installed.require()
    from appengine_compat.backends.rq.backend import RqBackend

    return RqBackend()


_BUILD = {CLOUD_TASKS: _build_cloud_tasks, EMBEDDED: _build_embedded, RQ: _build_rq}
_TITLES = {CLOUD_TASKS: "Cloud Tasks", EMBEDDED: "the embedded service", RQ: "Redis and RQ"}


def _after_fork_in_child() -> None:
    # Another thread of the parent may have held the lock at that moment; it does not exist here.
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
