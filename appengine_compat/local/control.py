"""What a developer or a test asks of the server itself, as ``/_local/…`` beside the API.

Cloud Tasks has nothing like it: clear everything, wait until all is done, step the clock, take
the whole state out and put it back.
"""

from __future__ import annotations

import logging
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from appengine_compat.core import moments
from appengine_compat.core.model import Queue, QueueState
from appengine_compat.core.names import short_id
from appengine_compat.errors import StoreError
from appengine_compat.local import store_snapshot
from appengine_compat.local.clock import Clock, ManualClock
from appengine_compat.local.http_messages import Request, Response, as_json, error, text

if TYPE_CHECKING:
    from appengine_compat.local.service import LocalService

MOUNT = "/_local"
PREFIX = f"{MOUNT}/"
LONGEST_WAIT_SECONDS = 600.0
_WAIT_SECONDS = 30.0
_CHUNK_BYTES = 256 * 1024
_LONGEST_STEP_SECONDS = 100 * 365 * 86400.0

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Control:
    """What the endpoints work on.

    Attributes:
        service: the local service.
        clock: its clock; only a ``ManualClock`` can be advanced.
        queues: those that a reset leaves, in canonical form.
    """

    service: LocalService
    clock: Clock
    queues: Sequence[Queue] = ()

    def answer(self, request: Request) -> Response:
        """Answer a request below ``MOUNT``."""
        name = request.path[len(PREFIX) :]
        found = _ENDPOINTS.get(name)
        if found is None:
            known = ", ".join(f"{method} {PREFIX}{each}" for each, (method, _) in _LISTED)
            return error(404, "NOT_FOUND", f"There is no {PREFIX}{name} here; there are: {known}.")
        method, endpoint = found
        if request.method != method:
            refusal = f"{PREFIX}{name} is asked with {method}, not with {request.method}."
            response = error(405, "UNIMPLEMENTED", refusal)
            response.headers["Allow"] = method
            return response
        try:
            return endpoint(self, request)
        except ValueError as wrong:
            return error(400, "INVALID_ARGUMENT", str(wrong))
        except StoreError as wrong:
            _logger.error("%s%s failed: %s", PREFIX, name, wrong)
            return error(400, "FAILED_PRECONDITION", str(wrong))

    def reset(self) -> None:
        """Remove every queue and task, and make anew the queues that there were at the start.

        Attempts that run at this moment are not stopped; what comes of them counts for nothing.
        """
        now = moments.from_seconds(self.clock.now())
        store_snapshot.clear(self.service.store, self.queues, now)
        self._wake()

    def export(self, path: Path) -> None:
        """Write the whole state into a new file."""
        store_snapshot.export(self.service.store, path)

    def replace(self, path: Path) -> None:
        """Put an exported state in the place of the present one.

        Raises:
            StoreError: the file is no such state; nothing was changed.
        """
        store_snapshot.replace(self.service.store, path)
        self._wake()

    def advance(self, seconds: float) -> float:
        """Step the clock forward and return what it then shows, in seconds since the epoch.

        Raises:
            ValueError: the seconds are negative, or the clock is the machine's own.
        """
        if not isinstance(self.clock, ManualClock):
            raise ValueError(
                "This server goes by the machine's clock, which nobody steps: start it with "
                "--stepped-clock."
            )
        if not 0 <= seconds <= _LONGEST_STEP_SECONDS:
            raise ValueError("seconds must be a number from 0 up: time does not go back.")
        self.clock.advance(seconds)
        return self.clock.now()

    def busy(self) -> str:
        """Return what keeps the service from being idle, in words."""
        told = []
        for queue in self.service.all_queues():
            if queue.state is not QueueState.RUNNING:
                continue
            stats = self.service.queue_stats(queue.name)
            if stats.concurrent_dispatches_count or stats.oldest_arrival_time is not None:
                told.append(
                    f"{short_id(queue.name)} has {stats.tasks_count} tasks, "
                    f"{stats.concurrent_dispatches_count} running"
                )
        return "; ".join(told) or "all have ended since"

    def _wake(self) -> None:
        # Without queues it changes nothing, but lets the scheduler look at all of them again.
        self.service.put_queues(())


def health(service: LocalService) -> Callable[[Request], Response]:
    """Return the answerer of ``/healthz``: 200 while the database can be read."""

    def answer(_: Request) -> Response:
        try:
            service.store.data_version()
        except StoreError as wrong:
            return text(f"{wrong}\n", 503)
        return text("ok\n")

    return answer


# --- the endpoints -----------------------------------------------------------------------------


def _reset(control: Control, _: Request) -> Response:
    control.reset()
    return as_json({})


def _wait_idle(control: Control, request: Request) -> Response:
    seconds = _number(request, "timeout", _WAIT_SECONDS)
    if not 0 <= seconds <= LONGEST_WAIT_SECONDS:
        raise ValueError(f"timeout is in seconds, from 0 to {LONGEST_WAIT_SECONDS:g}.")
    if control.service.wait_idle(seconds):
        return as_json({"idle": True})
    return error(
        504,
        "DEADLINE_EXCEEDED",
        f"Tasks were still due or running after {seconds:g} s: {control.busy()}.",
    )


def _advance(control: Control, request: Request) -> Response:
    seconds = _number(request, "seconds", math.nan)
    if math.isnan(seconds):
        raise ValueError(f"Say how far: {PREFIX}advance?seconds=60.")
    now = control.advance(seconds)
    return as_json({"now": moments.to_datetime(moments.from_seconds(now)).isoformat()})


def _export(control: Control, _: Request) -> Response:
    folder = tempfile.TemporaryDirectory(prefix="appengine-compat-")
    path = Path(folder.name) / "state"
    try:
        control.export(path)
        sent = _SentFile(folder, path)
    except BaseException:
        folder.cleanup()
        raise
    headers = {
        "Content-Type": "application/vnd.sqlite3",
        "Content-Length": str(path.stat().st_size),
        "Content-Disposition": 'attachment; filename="local-cloud-tasks.state"',
    }
    return Response(200, sent, headers)


class _SentFile:
    """A file that is sent in parts, and is gone with its folder once it has been."""

    def __init__(self, folder: tempfile.TemporaryDirectory[str], path: Path) -> None:
        self._folder = folder
        self._opened = path.open("rb")

    def __iter__(self) -> Iterator[bytes]:
        while chunk := self._opened.read(_CHUNK_BYTES):
            yield chunk

    def close(self) -> None:
        self._opened.close()
        self._folder.cleanup()


def _import(control: Control, request: Request) -> Response:
    with tempfile.TemporaryDirectory(prefix="appengine-compat-") as folder:
        path = Path(folder) / "state"
        with path.open("wb") as written:
            while chunk := request.read(_CHUNK_BYTES):
                written.write(chunk)
        control.replace(path)
    return as_json({})


def _number(request: Request, name: str, default: float) -> float:
    given = request.query.get(name)
    if given is None:
        return default
    try:
        number = float(given)
    except ValueError:
        number = math.nan
    if math.isnan(number):
        raise ValueError(f"{name}={given} is no number of seconds.")
    return number


_ENDPOINTS: dict[str, tuple[str, Callable[[Control, Request], Response]]] = {
    "reset": ("POST", _reset),
    "wait-idle": ("POST", _wait_idle),
    "advance": ("POST", _advance),
    "export": ("GET", _export),
    "import": ("POST", _import),
}
_LISTED = tuple(_ENDPOINTS.items())
