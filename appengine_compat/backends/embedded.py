"""The embedded service: tasks in a file of this program, dispatched into its own app.

Each process that enqueues opens the file; each that has registered an app (``wrap_wsgi_app``
does) dispatches as well. What is kept per process is made again after a fork.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from appengine_compat import settings
from appengine_compat.backends import api_errors, holding, known_queues, targets
from appengine_compat.backends.base import BackendError, Outcome, Reason, TaskRequest
from appengine_compat.backends.embedded_gate import Gate
from appengine_compat.core import headers, messages, names
from appengine_compat.core.model import AppEngineRequest, Queue, QueueStats, Task
from appengine_compat.errors import ApiError, StoreError

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

    from appengine_compat.local.delivery import AttemptEvent, InFlight, Transport
    from appengine_compat.local.service import LocalService
    from appengine_compat.local.tombstones import Windows
    from appengine_compat.local.wsgi_transport import WsgiTransport

IN_MEMORY = ""
"""In place of a path: a database that ends with this process. Only code can choose it."""

_logger = logging.getLogger(__name__)


class EmbeddedBackend:
    """A backend over a local service in this process. Thread-safe; usable after a fork.

    Attributes:
        kind: ``embedded``.
    """

    kind = "embedded"

    def __init__(
        self,
        path: str | None = None,
        *,
        threads: int | None = None,
        queues: Sequence[Queue] | None = None,
    ) -> None:
        """Make a backend; nothing is opened before the first task.

        Args:
            path: the database file; None for the setting ``APPENGINE_COMPAT_DB``, "" for one in
                memory.
            threads: how many tasks run at once; None for the setting ``APPENGINE_COMPAT_THREADS``.
            queues: the queues there are; None for those of queue.yaml.
        """
        self._path = path
        self._threads = threads
        self._queues = queues
        self._process = os.getpid()
        self._lock = threading.RLock()
        self._service: LocalService | None = None
        self._transport: WsgiTransport | None = None
        self._apps: dict[str, tuple[WSGIApplication, str]] = {}
        self._gate: Gate | None = None
        self._beyond: Transport | None = None
        self._windows: Windows | None = None
        self._observers: list[Callable[[AttemptEvent], None]] = []

    # --- the contract of a backend ---------------------------------------------------------------

    def create_tasks(
        self, queue: str, requests: Sequence[TaskRequest], *, timeout_seconds: float | None = None
    ) -> list[Outcome]:
        """Store tasks in the queue of this id; when this returns they are on disk.

        Raises:
            BackendError: there is no such queue, or the database cannot be written.
        """
        del timeout_seconds  # a commit takes as long as the disk does
        service = self._ready(queue)
        name = self.queue_name(queue)
        tasks: list[Task] = []
        places: list[int] = []
        outcomes: list[Outcome] = []
        for place, request in enumerate(requests):
            try:
                tasks.append(_task(name, request, self._apps))
                places.append(place)
                outcomes.append(Outcome(""))
            except BackendError as error:  # noqa: PERF203
                outcomes.append(Outcome(request.name, error))
        try:
            results = service.create_tasks(str(name), tasks)
        except (ApiError, StoreError) as error:
            raise self._error(error, queue) from error
        for place, result in zip(places, results, strict=True):
            if isinstance(result, ApiError):
                request = requests[place]
                refused = self._error(result, queue, request.name, request.payload)
                refused.__cause__ = result
                outcomes[place] = Outcome(request.name, refused)
            else:
                outcomes[place] = Outcome(names.short_id(result.name))
        self.start()
        return outcomes

    def delete_tasks(
        self, queue: str, task_ids: Sequence[str], *, timeout_seconds: float | None = None
    ) -> list[Outcome]:
        """Delete tasks, waiting or running.

        Raises:
            BackendError: there is no such queue, or the database cannot be written.
        """
        del timeout_seconds
        service = self._ready(queue)
        name = self.queue_name(queue)
        try:
            refusals = service.delete_tasks(str(name), [name.task(each) for each in task_ids])
        except (ApiError, StoreError) as error:
            raise self._error(error, queue) from error
        return [
            Outcome(task_id, None if refusal is None else self._error(refusal, queue, task_id))
            for task_id, refusal in zip(task_ids, refusals, strict=True)
        ]

    def purge_queue(self, queue: str, *, timeout_seconds: float | None = None) -> None:
        """Delete every task of the queue.

        Raises:
            BackendError: there is no such queue, or the database cannot be written.
        """
        del timeout_seconds
        service = self._ready(queue)
        try:
            service.purge_queue(str(self.queue_name(queue)))
        except (ApiError, StoreError) as error:
            raise self._error(error, queue) from error

    def queue_stats(
        self, queues: Sequence[str], *, timeout_seconds: float | None = None
    ) -> list[QueueStats]:
        """Return what each queue is doing, in the order asked for.

        Raises:
            BackendError: there is no such queue, or the database cannot be read.
        """
        del timeout_seconds
        stats = []
        for queue in queues:
            service = self._ready(queue)
            try:
                stats.append(service.queue_stats(str(self.queue_name(queue))))
            except (ApiError, StoreError) as error:
                raise self._error(error, queue) from error
        return stats

    # --- dispatching -----------------------------------------------------------------------------

    def register_app(
        self,
        app: WSGIApplication,
        service: str,
        *,
        host: str = "localhost",
        is_set_up: bool = False,
    ) -> None:
        """Dispatch a service's tasks into an app, from now on.

        Args:
            app: the WSGI application, as the server would call it.
            service: whose tasks it takes; a later app of the same service replaces it.
            host: ``host`` or ``host:port`` that it shall see as its own.
            is_set_up: whether the app is known to be complete, so that the first dispatch need
                not wait for the caller to be done (see ``embedded_gate``).
        """
        with self._lock:
            self._apps[service] = (app, host)
            self._gate = None if is_set_up else Gate()
            if self._transport is not None and self._process == os.getpid():
                self._transport.register(app, service, host)
                if self._service is not None:
                    self._service.services_changed()

    def serve_clients(self, windows: Windows) -> None:
        """Be, from its next opening on, as exact as clients of Cloud Tasks expect.

        Args:
            windows: how long names stay reserved.
        """
        self._windows = windows

    def reach(self, beyond: Transport) -> None:
        """Deliver what no app of this process takes too, once dispatching begins.

        Args:
            beyond: reaches addresses, and other services.
        """
        self._beyond = beyond

    def start(self) -> bool:
        """Begin to dispatch, if this process has an app and nothing holds it; tell whether so.

        Raises:
            BackendError: the database cannot be opened.
        """
        if holding.holds or not self._apps:
            return False
        service = self.service()
        if service.is_started:
            return True
        with self._lock:
            assert self._transport is not None
            gate = self._gate
            transport: Transport = self._transport
            if self._beyond is not None:
                from appengine_compat.local.joined_transport import JoinedTransport

                transport = JoinedTransport(transport, self._beyond)
            service.start(
                transport,
                threads=self._threads or settings.THREADS.get(),
                gate=None if gate is None else gate.is_open,
            )
        return True

    def observe(self, observer: Callable[[AttemptEvent], None]) -> None:
        """Call a function with each attempt that this process has made, when it has ended."""
        with self._lock:
            self._observers.append(observer)
            if self._service is not None:
                self._service.observers.append(observer)

    def keep(self, queue: str, task_id: str, traceback: str) -> bool:
        """Keep a task whose running attempt says that it failed for good; tell whether it is.

        Args:
            queue: the queue's id.
            task_id: the task.
            traceback: of what it failed with.

        Raises:
            BackendError: the database cannot be opened.
            StoreError: it cannot be written.
        """
        from appengine_compat.local import kept

        return kept.keep_running(
            self.service().store,
            str(self.queue_name(queue)),
            task_id,
            traceback=traceback,
            now_seconds=time.time(),
        )

    def service(self) -> LocalService:
        """Return the local service of this process, opening its database if need be.

        Raises:
            BackendError: the database cannot be opened.
            ConfigError: queue.yaml is wrong.
        """
        service = self._service
        if service is not None and self._process == os.getpid():
            return service
        with self._lock:
            if self._process != os.getpid():
                # The threads of the parent do not exist here, and its connection is not ours:
                # not to use, and not to close by forgetting it.
                if self._service is not None:
                    _of_parents.append(self._service)
                self._process = os.getpid()
                self._service = self._transport = None
            if self._service is None:
                self._open()
            assert self._service is not None
            return self._service

    def close(self, timeout_seconds: float = 5.0) -> list[InFlight]:
        """Stop dispatching and close the database; a later task opens it again.

        Returns:
            What was still running after the timeout; it is dispatched again when the program is
            started again.
        """
        with self._lock:
            service = self._service
            if service is None or self._process != os.getpid():
                return []
            self._service = self._transport = None
        return service.close(timeout_seconds)

    # --- names and errors ------------------------------------------------------------------------

    @property
    def path(self) -> str:
        """The database file; "" for one in memory."""
        return settings.DB.get() if self._path is None else self._path

    def queue_name(self, queue: str) -> names.QueueName:
        """Return the resource name of the queue of this id."""
        return known_queues.queue_name(queue)

    def _open(self) -> None:
        from appengine_compat.local.service import LocalService
        from appengine_compat.local.store import Store
        from appengine_compat.local.tombstones import Windows
        from appengine_compat.local.wsgi_transport import WsgiTransport

        queues = self._known_queues()
        try:
            store = Store(self.path or None)
            windows = self._windows or Windows(automatic_task_seconds=0)
            service = LocalService(store, windows=windows)
            try:
                service.put_queues(queues)
            except BaseException:
                service.close(0)
                raise
        except StoreError as error:
            raise BackendError(Reason.TRANSIENT, str(error)) from error
        transport = WsgiTransport(self.keep)
        for name, (app, host) in self._apps.items():
            transport.register(app, name, host)
        service.observers.extend(self._observers)
        self._service, self._transport = service, transport

    def _known_queues(self) -> list[Queue]:
        if self._queues is None:
            return list(known_queues.load().values())
        given = {names.short_id(queue.name): queue for queue in self._queues}
        return list(known_queues.with_default(given).values())

    def _ready(self, queue: str) -> LocalService:
        known_queues.refuse_shapeless(queue)
        return self.service()

    def _error(
        self, error: ApiError | StoreError, queue: str, task: str = "", payload: bytes = b""
    ) -> BackendError:
        if isinstance(error, StoreError):
            return BackendError(Reason.TRANSIENT, f"Queue {queue!r}: {error}", queue=queue)
        if error.reason == messages.UNKNOWN_QUEUE:
            page = self.service().list_queues(self.queue_name(queue).parent)
            return known_queues.unknown(queue, [names.short_id(each.name) for each in page.items])
        return api_errors.backend_error(error, queue, task, payload_bytes=len(payload))


def _task(queue: names.QueueName, request: TaskRequest, apps: Collection[str]) -> Task:
    if request.target:
        routing = targets.here(request.target, settings.TARGETS.get(), apps)
    else:  # whoever enqueues is there
        routing = targets.parse_target(targets.current_service())
    return Task(
        name=queue.task(request.name) if request.name else "",
        request=AppEngineRequest(
            relative_uri=request.relative_url,
            method=request.method,
            headers=headers.carry(request.headers),
            body=request.payload,
            routing=routing,
        ),
        schedule_time=request.schedule_time,
        dispatch_deadline_seconds=request.dispatch_deadline_seconds,
        retry_config=request.retry,
    )


# --- the one of this process ---------------------------------------------------------------------

_shared: dict[str, EmbeddedBackend] = {}
_of_parents: list[LocalService] = []
_shared_lock = threading.Lock()


def shared() -> EmbeddedBackend:
    """Return the backend of this process for the database that is set now."""
    path = settings.DB.get()
    if path != IN_MEMORY:
        path = str(Path(path).absolute())
    backend = _shared.get(path)
    if backend is None:
        with _shared_lock:
            backend = _shared.setdefault(path, EmbeddedBackend(path))
    return backend


def register_app(app: WSGIApplication, service: str, *, host: str = "localhost") -> None:
    """Dispatch a service's tasks into an app of this process.

    Dispatching begins with the first task that this process enqueues, or now, when the database
    is there already: tasks of an earlier run may wait in it. Nothing is dispatched before the
    app is set up (see ``embedded_gate``).

    Args:
        app: the WSGI application, as the server would call it.
        service: whose tasks it takes.
        host: ``host`` or ``host:port`` that it shall see as its own.
    """
    backend = shared()
    backend.register_app(app, service, host=host)
    if not holding.holds and backend.path and Path(backend.path).exists():
        # A database that cannot be opened must not keep the app from being served; whoever
        # enqueues gets the error.
        try:
            backend.start()
        except BackendError as error:
            _logger.error("Tasks are not dispatched: %s", error)


def hold_dispatch() -> None:
    """Start no dispatching in this process until ``release_dispatch``; holds nest."""
    holding.hold()


def release_dispatch() -> None:
    """End one ``hold_dispatch``."""
    holding.release()


def close(timeout_seconds: float = 5.0) -> list[InFlight]:
    """Close every embedded service of this process; return what was still running."""
    return [each for backend in _shared.values() for each in backend.close(timeout_seconds)]


def _close_at_exit() -> None:
    # What has ended is written down, what was not begun is given back; a running attempt is not
    # waited for: it is made again at the next start, as if the process had been killed.
    close(timeout_seconds=0.2)


def _after_fork_in_child() -> None:
    global _shared_lock
    _shared_lock = threading.Lock()
    for backend in _shared.values():
        backend._lock = threading.RLock()


atexit.register(_close_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
