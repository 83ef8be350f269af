"""The last check of ``appengine-compat doctor``: a task that does nothing goes the whole way."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from appengine_compat import platform, settings
from appengine_compat.backends import choice
from appengine_compat.cli import set_up
from appengine_compat.cli.findings import Finding, failed, ok
from appengine_compat.core.names import QueueName, short_id
from appengine_compat.errors import ApiError, CompatError
from appengine_compat.platform import Platform

QUEUE = "default"
SECONDS_BETWEEN_LOOKS = 0.2

_CHECK = "test task"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the task has come."""

    attempts: int = 0
    last_status: str = ""
    """What the last attempt was answered; "" before the first."""
    is_done: bool = False
    is_given_up: bool = False


class UnknownError(CompatError):
    """How far the task has come cannot be told."""


def test_task(seconds: float) -> Iterator[Finding]:
    """Enqueue a task that only writes a line to the log, and wait until it is done."""
    from google.appengine.ext import deferred

    from appengine_compat.payload import self_test

    chosen = set_up.kind()
    try:
        task = deferred.defer(self_test.answer, f"{time.time():.0f}", _queue=QUEUE)
    except Exception as error:  # what taskqueue raises has many classes, and all end here
        yield failed(_CHECK, f"cannot be enqueued: {error}", "mend what failed above")
        return
    yield _waited_for(chosen, str(task.name), seconds)


def _waited_for(chosen: str, name: str, seconds: float) -> Finding:
    look, where, grant = _WAYS[chosen]
    until = time.monotonic() + seconds
    while True:
        try:
            found = look(name)
        except UnknownError as error:
            return failed(_CHECK, f"how far {name} has come is not known: {error}", grant)
        if found.is_done:
            return ok(_CHECK, f"{name} has come through")
        if found.is_given_up or time.monotonic() > until:
            break
        time.sleep(SECONDS_BETWEEN_LOOKS)
    far = f"{found.attempts} attempts, the last answered: {found.last_status or 'nothing yet'}"
    if found.is_given_up:
        return failed(_CHECK, f"{name} was given up ({far})", f"see {_log()} for AEC- codes")
    text = f"{name} is not done after {seconds:g} seconds ({far})"
    return failed(_CHECK, text, f"see {_log()} for AEC- codes" if found.attempts else where)


def _log() -> str:
    return (
        "App Engine's log" if platform.detect() is Platform.APP_ENGINE else "the log of the service"
    )


def _in_cloud_tasks(name: str) -> Progress:
    from appengine_compat.backends import cloud_tasks_inspection as inspection

    queue = QueueName(platform.project().value, platform.location().value, QUEUE)
    try:
        state = inspection.Inspector().task(str(queue.task(name)))
    except inspection.InspectionError as error:
        raise UnknownError(str(error)) from error
    if state is None:
        return Progress(is_done=True)
    return Progress(state.attempts, state.last_status)


def _in_embedded(name: str) -> Progress:
    from appengine_compat.backends import embedded
    from appengine_compat.local import kept

    backend = embedded.shared()
    service, queue = backend.service(), backend.queue_name(QUEUE)
    try:
        task = service.get_task(str(queue.task(name)))
    except ApiError as error:
        if error.code != "NOT_FOUND":
            raise UnknownError(str(error)) from error
    else:
        last = task.last_attempt
        return Progress(task.dispatch_count, last.response_message if last else "")
    for entry in service.store.read(lambda connection: kept.latest(connection, name)):
        if short_id(entry.queue) == QUEUE:
            return Progress(entry.attempts, str(entry.last_status or ""), is_given_up=True)
    return Progress(is_done=True)


def _in_redis(name: str) -> Progress:
    from appengine_compat.backends.rq import connection, ledger

    try:
        with connection.client(connection.url()) as client:
            record = ledger.Ledger(client, QUEUE, name).record()
    except Exception as error:  # the client's own errors, of a library that may not be there
        raise UnknownError(str(error)) from error
    # What is done is forgotten after a while.
    is_done = record is None or record.state == "done"
    if record is None:
        return Progress(is_done=is_done)
    return Progress(record.attempts, record.status, is_done, record.state == "failed")


_WAYS: dict[str, tuple[Callable[[str], Progress], str, str]] = {
    choice.CLOUD_TASKS: (
        _in_cloud_tasks,
        "see whether the queue is paused, or has many tasks before this one",
        "grant roles/cloudtasks.viewer",
    ),
    choice.EMBEDDED: (
        _in_embedded,
        "start the app in this directory (appengine-compat dev): it runs the tasks of its file, "
        f"{settings.DB.variable}",
        f"see that {settings.DB.variable} can be read",
    ),
    choice.RQ: (
        _in_redis,
        f"start a worker with this environment: appengine-compat rq-worker {QUEUE}",
        "start redis-server",
    ),
}
