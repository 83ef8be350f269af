"""RQ's worker, made for tasks: keeps to the queues' rules, and waits when Redis is gone."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any
from uuid import uuid4

from redis import Redis
from rq import Queue, Worker
from rq.exceptions import DequeueTimeout, StopRequested
from rq.job import Job
from rq.utils import now as rq_now
from rq.utils import utcformat
from rq.worker import DequeueStrategy, WorkerStatus
from rq.worker_pool import WorkerPool

from appengine_compat.backends import known_queues
from appengine_compat.backends.rq import connection, keys, queues, scripts
from appengine_compat.backends.rq.attempts import AttemptFailed
from appengine_compat.backends.rq.ledger import patiently
from appengine_compat.backends.rq.requests import DELIVER
from appengine_compat.errors import CompatError
from appengine_compat.payload import plain

LOOK_SECONDS = 0.1
"""How often idle workers look for tasks that may be dispatched."""
CLEANING_SECONDS = 20
"""How often tasks of workers that are no more are looked for."""
SIGN_OF_LIFE_SECONDS = 5
"""How often a worker tells RQ that its attempt lives."""
DEAD_SECONDS = 30
"""How long after the last sign of life an attempt counts as cut off, and is made again."""

_logger = logging.getLogger(__name__)


class NotATaskError(CompatError):
    """A job in the queue is none of ours, and this worker runs no others."""


class TaskJob(Job):
    """A job that can only be a task: whatever else a job may name to be called is left out."""

    def restore(self, raw_data: Any) -> Any:
        """Take over what Redis has, without callbacks."""
        restored = super().restore(raw_data)
        self._success_callback_name = None
        self._failure_callback_name = None
        self._stopped_callback_name = None
        self.webhooks = []
        return restored

    def perform(self) -> Any:
        """Make an attempt.

        Raises:
            NotATaskError: the job is none of ours.
        """
        if self.func_name != DELIVER:
            raise NotATaskError(
                f"Job {self.id} calls {self.func_name}, and `appengine-compat rq-worker` runs "
                "nothing but tasks: run `rq worker` for jobs of your own, on queues of their own."
            )
        return super().perform()


class TaskQueue(Queue):
    """A queue from which only tasks whose turn it is are taken."""

    job_class = TaskJob

    def __init__(self, *args: Any, **options: Any) -> None:
        options["serializer"] = plain
        super().__init__(*args, **options)

    @classmethod
    def dequeue_any(  # type: ignore[override]  # RQ calls it so, in 2 and in 3
        cls,
        queues: Iterable[Queue],
        timeout: int | None,
        connection: Redis,
        **options: Any,
    ) -> tuple[Job, Queue] | None:
        """Take the first job out of the first queue that may dispatch now.

        What RQ's scheduler does is done here too, so that it needs no process of its own, and
        no time to be replaced when that dies.

        Args:
            queues: in order of preference.
            timeout: for how many seconds to look; None to look once.
            connection: to Redis.
            options: RQ's own.

        Raises:
            DequeueTimeout: there was nothing for so long.
        """
        queues = list(queues)
        names: list[str] = []
        for queue in queues:
            name = queue.name
            names += [
                keys.waiting(name),
                keys.scheduled(name),
                keys.queue(name),
                keys.running(name),
            ]
        look = connection.register_script(scripts.with_library(scripts.LOOK))
        ends_at = time.monotonic() + (timeout or 0)
        while True:
            for number in look(keys=names, args=[utcformat(rq_now())]):
                # One queue at a time is taken from reliably: the job is noted in another list
                # until it is known to be worked on.
                found = super().dequeue_any([queues[number]], None, connection, **options)
                if found is not None:
                    return found
            if timeout is None:
                return None
            if time.monotonic() >= ends_at:
                raise DequeueTimeout(timeout, [queue.key for queue in queues])
            time.sleep(LOOK_SECONDS)


class TaskWorker(Worker):
    """Works tasks, one at a time, each attempt in a process of its own."""

    queue_class = TaskQueue
    job_class = TaskJob
    log_result_lifespan = False
    max_connection_wait_time = 2.0

    def __init__(self, *args: Any, **options: Any) -> None:
        options.setdefault("maintenance_interval", CLEANING_SECONDS)
        options.setdefault("job_monitoring_interval", SIGN_OF_LIFE_SECONDS)
        options["serializer"] = plain
        super().__init__(*args, **options)

    @property
    def dequeue_timeout(self) -> int:
        """For how many seconds to look for tasks before doing anything else."""
        return CLEANING_SECONDS

    def work(self, *args: Any, **options: Any) -> bool:
        """Work until told to stop; see RQ's own."""
        options.update(with_scheduler=False, dequeue_strategy=DequeueStrategy.ROUND_ROBIN)
        work = super().work
        while True:
            try:
                return work(*args, **options)
            except connection.GONE as error:  # noqa: PERF203
                # It went while this was setting itself up.
                self._await_redis(error)
                if self._stop_requested:
                    return False
                # The name may be registered already, as that of a worker which lives.
                self.name = uuid4().hex

    # --- Redis may go, and comes back ----------------------------------------------------------

    def execute_job(self, job: Job, queue: Queue) -> None:
        """Have a process of its own make the attempt, and wait for it."""
        self._patiently(lambda: super(TaskWorker, self).execute_job(job, queue))

    def check_for_suspension(self, burst: bool) -> None:
        """Wait while ``rq suspend`` holds."""
        self._patiently(lambda: super(TaskWorker, self).check_for_suspension(burst))

    def run_maintenance_tasks(self) -> None:
        """Look for tasks whose worker is no more."""
        self._patiently(super().run_maintenance_tasks)

    def dequeue_job_and_maintain_ttl(self, *args: Any, **options: Any) -> Any:
        """Take the next task."""
        take = super().dequeue_job_and_maintain_ttl
        while True:
            try:
                return take(*args, **options)
            except connection.GONE as error:  # noqa: PERF203
                self._await_redis(error)

    def _is_to_end(self) -> bool:
        return self._shutdown_requested_date is not None

    def heartbeat(self, *args: Any, **options: Any) -> None:
        """Tell RQ that this worker lives, unless it is to end.

        Raises:
            StopRequested: it is to end, and runs nothing.
        """
        if self._is_to_end() and not self._is_horse and self.get_state() != WorkerStatus.BUSY:
            raise StopRequested
        try:
            super().heartbeat(*args, **options)
        except connection.GONE as error:
            self.log.debug("Redis cannot be told that this worker lives: %s", error)

    def maintain_heartbeats(self, *args: Any, **options: Any) -> None:
        """Tell RQ that this attempt lives; it goes on even when Redis cannot be told."""
        try:
            super().maintain_heartbeats(*args, **options)
        except connection.GONE as error:
            self.log.warning("Redis cannot be told that an attempt still runs: %s", error)

    def teardown(self) -> None:
        """Say goodbye to RQ."""
        try:
            super().teardown()  # type: ignore[no-untyped-call]
        except connection.GONE as error:
            self.log.warning("Redis cannot be told that this worker ends: %s", error)

    def _patiently(self, call: Callable[[], None]) -> None:
        try:
            call()
        except connection.GONE as error:
            self._await_redis(error)

    def _await_redis(self, error: Exception) -> None:
        self.log.error("Worker %s: Redis is gone, and is waited for: %s", self.name, error)
        while not self._stop_requested:
            time.sleep(0.5)
            if connection.answers(self.connection):
                self.log.warning("Worker %s: Redis is back.", self.name)
                return

    # --- attempts ------------------------------------------------------------------------------

    def get_heartbeat_ttl(self, job: Job, *_: Any, **__: Any) -> int:
        """Return for how many seconds a sign of life holds."""
        del job
        return DEAD_SECONDS

    def prepare_job_execution(self, job: Job, *_: Any, **__: Any) -> None:
        """Note that the job is being worked on, and need not be noted as taken any more."""
        super().prepare_job_execution(job, remove_from_intermediate_queue=True)

    def handle_exception(self, job: Job, *exc_info: Any) -> None:
        """Log what went wrong, but not a failed attempt, of which there is a line already."""
        if not isinstance(exc_info[1], AttemptFailed):
            super().handle_exception(job, *exc_info)

    def handle_work_horse_killed(self, job: Job, *args: Any) -> None:
        """Have an attempt that was killed made again at once."""
        job.retry_intervals = [0]
        super().handle_work_horse_killed(job, *args)  # type: ignore[no-untyped-call]


class PooledWorker(TaskWorker):
    """One of several workers, which ends when the process that started it is no more."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._parent = os.getppid()

    def _is_to_end(self) -> bool:
        return os.getppid() != self._parent or super()._is_to_end()


def run(names: Sequence[str], *, workers: int = 1, burst: bool = False) -> None:
    """Work tasks until told to stop by SIGINT or SIGTERM.

    Args:
        names: the queues; none for all that are known here or were written down in Redis.
        workers: how many attempts may be made at once, each worker in a process of its own.
        burst: whether to end when nothing is due.

    Raises:
        ConfigError: the address of Redis is missing or malformed, or queue.yaml is wrong.
    """
    client = connection.client(connection.url(), answer_seconds=None)
    written = known_queues.written()
    patiently(lambda: queues.publish(client, written), seconds=math.inf)
    known = queues.published(client)
    for name in names:
        if name not in known:
            _logger.warning(
                "Queue %s is in no queue.yaml, here or where tasks were added; there are: %s.",
                name,
                ", ".join(known),
            )
    names = list(names) or known
    _logger.info(
        "Working the queues %s of %s.", ", ".join(names), connection.shown(connection.url())
    )
    if workers == 1:
        TaskWorker(names, connection=client).work(burst=burst, logging_level="WARNING")
        return
    WorkerPool(
        names,
        client,
        num_workers=workers,
        worker_class=PooledWorker,
        serializer=plain,
        job_class=TaskJob,
        queue_class=TaskQueue,
    ).start(burst=burst, logging_level="WARNING")
