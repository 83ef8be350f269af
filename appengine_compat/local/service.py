"""The local Cloud Tasks: the v2 operations over one database, and the dispatching of its tasks.

Operations take and return ``core.model`` values and raise ``ApiError`` with the texts of the
real service; whatever face it is given (in process, gRPC, REST) only translates.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from urllib.parse import quote

from appengine_compat.core import limits, messages, moments, names, validation
from appengine_compat.core.model import Queue, QueueState, QueueStats, Task
from appengine_compat.errors import ApiError
from appengine_compat.local import documents, kept, pages, queue_operations, task_operations, tokens
from appengine_compat.local.clock import Clock, SystemClock
from appengine_compat.local.creation import Creation, Inserted
from appengine_compat.local.deletion import Deletion
from appengine_compat.local.delivery import AttemptEvent, InFlight, Transport
from appengine_compat.local.documents import Record
from appengine_compat.local.pages import Page
from appengine_compat.local.scheduler import Scheduler
from appengine_compat.local.store import Store
from appengine_compat.local.tombstones import Windows


class LocalService:
    """A Cloud Tasks v2 service over one database. Thread-safe; to be made anew after a fork.

    Attributes:
        store: the database.
        observers: called with each attempt that has ended, in the scheduler's thread; what they
            raise is logged and stops nothing.
    """

    def __init__(
        self, store: Store, *, clock: Clock | None = None, windows: Windows | None = None
    ) -> None:
        """Serve a database.

        Args:
            store: the database; the service closes it in ``close``.
            clock: the time that everything goes by.
            windows: how long names stay reserved.
        """
        self.store = store
        self.observers: list[Callable[[AttemptEvent], None]] = []
        self._clock = clock or SystemClock()
        self._windows = windows or Windows()
        self._scheduler: Scheduler | None = None
        self._starting = threading.Lock()
        tokens.register_secret(store.secret)

    # --- queues ----------------------------------------------------------------------------------

    def create_queue(self, parent: str, queue: Queue, *, keeps_burst: bool = False) -> Queue:
        """Create a queue.

        Args:
            parent: the location.
            queue: its name and settings.
            keeps_burst: whether ``max_burst_size`` is taken as given; v2 derives it.

        Raises:
            ApiError: INVALID_ARGUMENT, ALREADY_EXISTS, or FAILED_PRECONDITION for a name that
                was deleted recently.
        """
        if not names.QUEUE_NAME.match(queue.name):
            raise messages.queue_name_malformed()
        if not queue.name.startswith(f"{parent}/queues/"):
            raise messages.queue_outside_parent(queue.name, parent)
        stored = validation.canonical_queue(
            Queue(
                name=queue.name,
                rate_limits=queue.rate_limits,
                retry_config=queue.retry_config,
                app_engine_routing_override=queue.app_engine_routing_override,
                http_target=queue.http_target,
                log_sampling_ratio=queue.log_sampling_ratio,
                task_ttl_seconds=queue.task_ttl_seconds,
                tombstone_ttl_seconds=queue.tombstone_ttl_seconds,
            ),
            keeps_burst=keeps_burst,
        )
        now = self._now()
        return self.store.write(lambda connection: queue_operations.create(connection, stored, now))

    def get_queue(self, name: str) -> Queue:
        """Return a queue.

        Raises:
            ApiError: NOT_FOUND.
        """
        names.parse_queue_name(name)
        return self.store.read(lambda connection: queue_operations.find(connection, name))[1]

    def list_queues(
        self,
        parent: str,
        *,
        page_size: int = 0,
        page_token: str = "",
        matches: Callable[[Queue], bool] | None = None,
        filter_text: str = "",
    ) -> Page[Queue]:
        """Return a location's queues in the order of their names.

        Args:
            parent: the location.
            page_size: how many at most; 0 for as many as a page may hold.
            page_token: where to go on: the ``next_page_token`` of the page before.
            matches: tells which queues are wanted; a page may then hold fewer than its size.
            filter_text: what ``matches`` was made of; a token goes on with the same one only.

        Raises:
            ApiError: INVALID_ARGUMENT: the parent is no location, or the token is not valid.
        """
        if not names.LOCATION_NAME.match(parent):
            raise messages.resource_name_malformed()
        limit = pages.limit(page_size, limits.MAX_PAGE_QUEUES)
        scope = f"{parent}?{quote(filter_text)}"
        after = pages.place(page_token, scope, self._clock.now())
        queues = self.store.read(
            lambda connection: queue_operations.list_page(
                connection, f"{parent}/queues/", after, limit + 1
            )
        )
        token = ""
        if len(queues) > limit:
            queues = queues[:limit]
            token = pages.token(scope, queues[-1].name, self._clock.now())
        if matches is not None:
            queues = [queue for queue in queues if matches(queue)]
        return Page(queues, token)

    def all_queues(self) -> list[Queue]:
        """Return the queues of every project and location, in the order of their names."""
        queues = self.store.read(queue_operations.list_all).values()
        return sorted(queues, key=lambda queue: queue.name)

    def update_queue(
        self, queue: Queue, mask: Iterable[str] = (), *, keeps_burst: bool = False
    ) -> Queue:
        """Change a queue's settings, or create it when it is not there.

        Args:
            queue: its name, and the settings as they shall be.
            mask: snake_case paths of what is to change; empty for everything.
            keeps_burst: whether ``max_burst_size`` stays as it is or is given; v2 derives it.

        Raises:
            ApiError: INVALID_ARGUMENT.
        """
        names.parse_queue_name(queue.name)
        paths, now = tuple(mask), self._now()
        updated = self.store.write(
            lambda connection: queue_operations.update(
                connection, queue, paths, now, keeps_burst=keeps_burst
            )
        )
        self._look()
        return updated

    def put_queues(self, queues: Sequence[Queue]) -> None:
        """Take queues over as a queue.yaml gives them: all settings as they are, no mask, no
        check of what the file's reader has checked. A queue's state and its tasks stay."""
        now = self._now()
        self.store.write(
            lambda connection: [queue_operations.put(connection, queue, now) for queue in queues]
        )
        self._look()

    def delete_queue(self, name: str) -> None:
        """Delete a queue with all its tasks. Its name stays reserved for a while.

        Raises:
            ApiError: NOT_FOUND.
        """
        names.parse_queue_name(name)
        expires = self._now() + moments.from_seconds(self._windows.queue_seconds)
        number = self.store.write(
            lambda connection: queue_operations.remove(connection, name, expires)
        )
        while self.store.write(
            lambda connection: queue_operations.remove_tasks(connection, number)
        ):
            pass
        self._look()

    def purge_queue(self, name: str) -> Queue:
        """Delete the tasks that the queue has now; those that run are not stopped.

        Raises:
            ApiError: NOT_FOUND.
        """
        names.parse_queue_name(name)
        now = self._now()
        number, queue, last = self.store.write(
            lambda connection: queue_operations.mark_purged(connection, name, now)
        )
        while self.store.write(
            lambda connection: queue_operations.purge_some(
                connection, number, queue, last, self._windows, now
            )
        ):
            pass
        return queue

    def pause_queue(self, name: str) -> Queue:
        """Stop dispatching a queue's tasks; it still takes new ones.

        Raises:
            ApiError: NOT_FOUND.
        """
        return self._set_state(name, QueueState.PAUSED)

    def resume_queue(self, name: str) -> Queue:
        """Dispatch a queue's tasks again.

        Raises:
            ApiError: NOT_FOUND.
        """
        return self._set_state(name, QueueState.RUNNING)

    def _set_state(self, name: str, state: QueueState) -> Queue:
        names.parse_queue_name(name)
        queue = self.store.write(
            lambda connection: queue_operations.set_state(connection, name, state)
        )
        self._look()
        return queue

    def queue_stats(self, name: str) -> QueueStats:
        """Return what a queue is doing.

        Raises:
            ApiError: NOT_FOUND.
        """
        names.parse_queue_name(name)
        now = self._now()
        return self.store.read(lambda connection: queue_operations.stats(connection, name, now))

    # --- tasks -----------------------------------------------------------------------------------

    def create_task(self, parent: str, task: Task) -> Task:
        """Create a task; when this returns, it is on disk.

        Args:
            parent: the queue's name.
            task: its name may be "": the service then chooses one.

        Returns:
            The task as stored, in the FULL view.

        Raises:
            ApiError: INVALID_ARGUMENT, NOT_FOUND for a missing queue, ALREADY_EXISTS.
            StoreError: the database could not be written.
        """
        result = self.create_tasks(parent, (task,))[0]
        if isinstance(result, ApiError):
            raise result
        return result

    def create_tasks(self, parent: str, tasks: Sequence[Task]) -> list[Task | ApiError]:
        """Create tasks of one queue in one commit.

        Returns:
            Per task, in order: the task as stored, or why it was refused.

        Raises:
            ApiError: what concerns the call as a whole: too many, no such queue.
            StoreError: the database could not be written; none was created.
        """
        return self._create(parent, tasks, None)[0]

    def create_tasks_once(
        self,
        parent: str,
        tasks: Sequence[Task | ApiError],
        record: Record[Task | ApiError],
    ) -> bytes:
        """Create tasks as ``create_tasks`` does, and keep a record of it in the same commit.

        Args:
            parent: the queue's name.
            tasks: the tasks, or why one cannot be.
            record: makes what is kept of the results.

        Returns:
            What was kept; if it is there already, from a call before, nothing is done.
        """
        kept = self.document(record.key)
        return self._create(parent, tasks, record)[1] if kept is None else kept

    def create_each(self, calls: Sequence[tuple[str, Task]]) -> list[Task | Exception]:
        """Create tasks that nothing but their moment joins, all in one commit if it can be.

        Args:
            calls: pairs (queue's name, task).

        Returns:
            Per pair, in order: what ``create_task`` returns, or the exception that it raises.
        """
        seconds = self._clock.now()
        results: list[Task | Exception] = []
        ready: list[tuple[int, Creation]] = []
        for place, (parent, task) in enumerate(calls):
            try:
                ready.append((place, Creation(parent, (task,), seconds)))
            except Exception as error:  # noqa: PERF203
                results.append(error)
            else:
                results.append(task)
        done = self.store.write_each([creation.insert for _, creation in ready])
        for (place, creation), inserted in zip(ready, done, strict=True):
            if isinstance(inserted, Exception):
                results[place] = inserted
            else:
                self._tell(creation, inserted)
                results[place] = creation.results(inserted)[0]
        return results

    def _create(
        self,
        parent: str,
        tasks: Sequence[Task | ApiError],
        record: Record[Task | ApiError] | None,
    ) -> tuple[list[Task | ApiError], bytes]:
        creation = Creation(parent, tasks, self._clock.now(), record)
        inserted = self.store.write(creation.insert)
        self._tell(creation, inserted)
        return creation.results(inserted), inserted.kept

    def _tell(self, creation: Creation, inserted: Inserted) -> None:
        scheduler = self._scheduler
        if scheduler is not None:
            for service, due in creation.earliest(inserted).items():
                scheduler.tell(inserted.queue, service, due)

    def get_task(self, name: str) -> Task:
        """Return a task in the FULL view.

        Raises:
            ApiError: NOT_FOUND, with different texts for one that ended and one never there.
        """
        queue, task_id = names.parse_task_name(name)
        now = self._now()
        return self.store.read(
            lambda connection: task_operations.get(connection, str(queue), task_id, now)
        )

    def list_tasks(
        self, parent: str, *, page_size: int = 0, page_token: str = "", has_bodies: bool = True
    ) -> Page[Task]:
        """Return a queue's tasks in the order of their ids.

        Args:
            parent: the queue's name.
            page_size: how many at most; 0 for as many as a page may hold. Where bodies are long,
                a page holds fewer.
            page_token: where to go on: the ``next_page_token`` of the page before.
            has_bodies: whether the tasks come in the FULL view, or without their bodies.

        Raises:
            ApiError: NOT_FOUND, or INVALID_ARGUMENT for a token that is not valid.
        """
        names.parse_queue_name(parent)
        limit = pages.limit(page_size, limits.MAX_PAGE_TASKS)
        after = pages.place(page_token, parent, self._clock.now())
        tasks, has_more = self.store.read(
            lambda connection: task_operations.list_page(
                connection, parent, after, limit, has_bodies=has_bodies
            )
        )
        if not has_more:
            return Page(tasks)
        return Page(tasks, pages.token(parent, names.short_id(tasks[-1].name), self._clock.now()))

    def delete_task(self, name: str) -> None:
        """Delete a task, waiting or running; one that runs is not tried again.

        Raises:
            ApiError: NOT_FOUND.
        """
        queue, _ = names.parse_task_name(name)
        refusal = self.delete_tasks(str(queue), (name,))[0]
        if refusal is not None:
            raise refusal

    def delete_tasks(self, parent: str, task_names: Sequence[str]) -> list[ApiError | None]:
        """Delete tasks of one queue in one commit.

        Returns:
            Per task, in order: None, or why it was not deleted.

        Raises:
            ApiError: what concerns the call as a whole: too many, other queues, no such queue.
        """
        return self.store.write(self._deletion(parent, task_names).delete)[0]

    def delete_tasks_once(
        self, parent: str, task_names: Sequence[str], record: Record[ApiError | None]
    ) -> bytes:
        """Delete tasks as ``delete_tasks`` does, and keep a record of it in the same commit.

        Returns:
            What was kept; if it is there already, from a call before, nothing is done.
        """
        return self.store.write(self._deletion(parent, task_names, record).delete)[1]

    def _deletion(
        self,
        parent: str,
        task_names: Sequence[str],
        record: Record[ApiError | None] | None = None,
    ) -> Deletion:
        return Deletion(parent, task_names, self._clock.now(), self._windows, record)

    def run_task(self, name: str) -> Task:
        """Dispatch a task now, whatever its schedule time and its queue's state and rate.

        It waits for a free thread all the same, where the real service has enough.

        Returns:
            The task as it is once dispatched, before its target has received anything.

        Raises:
            ApiError: NOT_FOUND.
        """
        queue, task_id = names.parse_task_name(name)
        now = self._now()
        _, task = self.store.write(
            lambda connection: task_operations.force(connection, str(queue), task_id, now)
        )
        self._look()
        return task

    # --- tasks that failed for good --------------------------------------------------------------

    def replay(self, number: int) -> str | None:
        """Put a task that failed for good back into its queue, under a new name, due at once.

        Args:
            number: of what is kept (``local.kept.Entry``); it is kept no longer.

        Returns:
            The id of the new task; None when nothing is kept under the number.

        Raises:
            ApiError: NOT_FOUND: its queue is no more.
            StoreError: the database could not be written; the task is still kept.
        """
        now = self._now()
        done = self.store.write(lambda connection: kept.replay(connection, number, now))
        if done is None:
            return None
        if self._scheduler is not None:
            self._scheduler.tell(done.queue, done.service, now)
        return done.task_id

    # --- what else is kept by name ---------------------------------------------------------------

    def location_ids(self, project: str) -> list[str]:
        """Return the locations in which a project has queues."""
        return self.store.read(
            lambda connection: queue_operations.location_ids(connection, project)
        )

    def document(self, key: str) -> bytes | None:
        """Return what was kept under a key, None when there is nothing or its time is over."""
        now = self._now()
        return self.store.read(lambda connection: documents.load(connection, key, now))

    def set_document(self, key: str, value: bytes) -> None:
        """Keep bytes under a key, for good, in place of what was there."""
        self.store.write(lambda connection: documents.save(connection, key, value))

    # --- dispatching -----------------------------------------------------------------------------

    @property
    def is_started(self) -> bool:
        """Whether this process dispatches."""
        return self._scheduler is not None

    def start(
        self,
        transport: Transport,
        *,
        threads: int,
        most_slow: int = 0,
        gate: Callable[[], bool] | None = None,
    ) -> None:
        """Begin to dispatch in threads of this process; once started, it does nothing.

        Args:
            transport: delivers to the targets.
            threads: how many attempts are made at once.
            most_slow: how many that wait for a slow target are made beside those; for targets
                in other processes, whose waiting costs nothing here.
            gate: asked again and again before the first dispatch, until it says True.
        """
        with self._starting:
            if self._scheduler is None:
                self._scheduler = Scheduler(
                    self.store,
                    transport,
                    clock=self._clock,
                    threads=threads,
                    most_slow=most_slow,
                    windows=self._windows,
                    observers=self.observers,
                    gate=gate,
                )
                self._scheduler.start()

    def services_changed(self) -> None:
        """Say that the transport reaches other services than before."""
        if self._scheduler is not None:
            self._scheduler.services_changed()

    def wait_idle(self, timeout_seconds: float) -> bool:
        """Wait, in real time, until no task is due or running; tell whether that came about.

        Tasks of queues that are not running, tasks for services that this process does not
        reach, and tasks scheduled for later do not count.
        """
        scheduler = self._scheduler
        if scheduler is None:
            return True
        return scheduler.wait_idle(time.monotonic() + timeout_seconds)

    def close(self, timeout_seconds: float = 5.0) -> list[InFlight]:
        """Stop dispatching, wait for what runs, and close the database.

        Returns:
            The attempts that had not ended after the timeout. Their tasks stay claimed until the
            end of this process, and are dispatched again after it.
        """
        in_flight: list[InFlight] = []
        if self._scheduler is not None:
            in_flight = self._scheduler.close(timeout_seconds)
        self.store.close()
        return in_flight

    def _look(self) -> None:
        if self._scheduler is not None:
            self._scheduler.look()

    def _now(self) -> int:
        return moments.from_seconds(self._clock.now())
