"""The local service beside a model of it, through whatever may happen to both.

Targets answer only when a step says so, so that attempts are under way while queues are paused,
updated, purged and deleted, while time passes, and while the service dies. After each step the
service must have begun and ended exactly the attempts that the model has, and tell the same of
every queue and task.

A death is what a death leaves: the files of the database as they are at that moment, with the
attempts of the dead service claimed in them. The old service then goes on without anybody looking.

Times and rates are multiples of powers of two, so that neither side rounds.

``AEC_STEPS`` is how many steps are taken in all: 500 unless it says otherwise.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from appengine_compat.core import messages
from appengine_compat.core.model import (
    AppEngineRequest,
    HttpRequest,
    Queue,
    QueueState,
    RateLimits,
    RetryConfig,
    Task,
)
from appengine_compat.core.names import QueueName
from appengine_compat.errors import ApiError
from appengine_compat.local.clock import ManualClock
from appengine_compat.local.delivery import AttemptEvent, Delivery, Reply
from appengine_compat.local.service import LocalService
from appengine_compat.local.store import Store
from appengine_compat.local.tombstones import Windows
from tests.property.queue_model import Key, Model, ModelQueue, ModelTask, Start

STEPS = int(os.environ.get("AEC_STEPS", "500"))
STEPS_OF_ONE_RUN = 50
PATIENCE_SECONDS = 10.0
THREADS = 64
MOST_RUNNING = 40
"""Fewer than there are threads: how long attempts wait for one is not what this is about."""

TASK_SECONDS, AUTOMATIC_SECONDS, QUEUE_SECONDS = 64.0, 16.0, 128.0
LOCATION = QueueName("p", "l", "a").parent
IS_HTTP = {"a": False, "b": False, "c": True}

RATES = [
    RateLimits(max_dispatches_per_second=256.0, max_burst_size=100),
    RateLimits(max_dispatches_per_second=4.0, max_burst_size=2),
    RateLimits(max_dispatches_per_second=1.0, max_burst_size=1),
    RateLimits(max_dispatches_per_second=1 / 16, max_burst_size=3),
    RateLimits(max_dispatches_per_second=256.0, max_burst_size=100, max_concurrent_dispatches=1),
    RateLimits(max_dispatches_per_second=8.0, max_burst_size=5, max_concurrent_dispatches=2),
]
RETRIES = [
    RetryConfig(max_attempts=1),
    RetryConfig(max_attempts=3, min_backoff_seconds=0.5, max_backoff_seconds=4.0, max_doublings=1),
    RetryConfig(
        max_attempts=-1,
        max_retry_duration_seconds=8.0,
        min_backoff_seconds=1.0,
        max_backoff_seconds=16.0,
        max_doublings=2,
    ),
    RetryConfig(
        max_attempts=2,
        max_retry_duration_seconds=4.0,
        min_backoff_seconds=0.25,
        max_backoff_seconds=0.25,
        max_doublings=3,
    ),
    RetryConfig(max_attempts=-1, min_backoff_seconds=2.0, max_backoff_seconds=8.0, max_doublings=1),
]
# Hypothesis gives rules no weights, and leaves some out of a run: tasks would be rare.
WEIGHTS = {
    "create_tasks": 7,
    "answer_one": 8,
    "answer_all_one_by_one": 2,
    "advance": 4,
    "advance_to_what_is_next": 4,
    "set_clock_back": 1,
    "run_task": 2,
    "delete_task": 2,
    "pause_queue": 1,
    "resume_queue": 2,
    "purge_queue": 1,
    "delete_queue": 1,
    "create_queue": 2,
    "update_queue": 2,
    "restart": 2,
}
ACTIONS = [action for action, weight in WEIGHTS.items() for _ in range(weight)]

queue_ids = st.sampled_from(sorted(IS_HTTP))
task_ids = st.sampled_from(["", "", "t1", "t2", "t3"])
all_rates, all_retries = st.sampled_from(RATES), st.sampled_from(RETRIES)
# 429 and 503 slow a whole queue down, which tests/local/test_throttling.py is about.
statuses = st.sampled_from([200, 204, 0, 302, 404, 500, 599])
delays = st.sampled_from([-8.0, 0.0, 0.0, 0.0, 0.0, 1.0, 16.0, 3600.0])
deadlines = st.sampled_from([15.0, 600.0])
leaps = st.sampled_from([1 / 64, 0.25, 0.5, 1.0, 2.0, 8.0, 15.0, 16.0, 64.0, 128.0, 600.0, 3600.0])
setbacks = st.sampled_from([1 / 64, 2.0, 60.0])
downtimes = st.sampled_from([0.0, 0.0, 1.0, 64.0])


class SteppedClock(ManualClock):
    """A clock that can be set back as well, as a machine's clock is by whoever corrects it.

    Attributes:
        latest: the latest time that it has shown.
    """

    def __init__(self, start: float) -> None:
        super().__init__(start)
        self.latest = start

    def advance(self, seconds: float) -> None:
        self.latest = max(self.latest, self._now + seconds)
        super().advance(seconds)

    def set_back(self, seconds: float) -> None:
        self._now -= seconds


class Session:
    """One life of a service: what its targets have received, and what its observers were told."""

    def __init__(self, path: Path, clock: ManualClock) -> None:
        self.path = path
        self._changed = threading.Condition()
        self._replies: dict[Key, Reply] = {}
        self._is_over = False
        self.started: dict[Key, Delivery] = {}
        self.repeated: list[Key] = []
        self.events: list[AttemptEvent] = []
        windows = Windows(
            task_seconds=TASK_SECONDS,
            automatic_task_seconds=AUTOMATIC_SECONDS,
            queue_seconds=QUEUE_SECONDS,
        )
        self.service = LocalService(Store(path), clock=clock, windows=windows)
        self.service.observers.append(self._observe)

    def services(self) -> None:
        return None

    def send(self, delivery: Delivery) -> Reply:
        key = (int(delivery.claim.body), delivery.claim.attempt)
        with self._changed:
            if key in self.started:
                self.repeated.append(key)
            self.started[key] = delivery
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._is_over or key in self._replies)
            return self._replies.get(key, Reply(200))

    def _observe(self, event: AttemptEvent) -> None:
        with self._changed:
            self.events.append(event)
            self._changed.notify_all()

    def answer(self, key: Key, status: int) -> None:
        with self._changed:
            self._replies[key] = Reply(status)
            self._changed.notify_all()

    def wait_until(self, starts: int, ends: int) -> None:
        """Wait until so many attempts have begun and ended, or the patience is."""
        with self._changed:
            self._changed.wait_for(
                lambda: len(self.started) >= starts and len(self.events) >= ends,
                PATIENCE_SECONDS,
            )

    def die(self, path: Path) -> None:
        """Leave the database behind as it is now, at another path, and come to an end."""
        self.service.store.read(lambda connection: _copy(self.path, path))
        self.end()

    def close_under_way(self, path: Path) -> int:
        """Close without waiting; return how many attempts were under way."""
        in_flight = self.service.close(0.0)
        _copy(self.path, path)
        self.end()
        return len(in_flight)

    def end(self) -> None:
        with self._changed:
            self._is_over = True
            self._changed.notify_all()
        self.service.close(PATIENCE_SECONDS)


def _copy(path: Path, other: Path) -> None:
    for ending in ("", "-wal"):
        file = Path(f"{path}{ending}")
        if file.exists():
            shutil.copyfile(file, f"{other}{ending}")


class ServiceMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.clock = SteppedClock(1_790_000_000.0)
        self.model = Model(TASK_SECONDS, AUTOMATIC_SECONDS, QUEUE_SECONDS)
        self.lives = 0
        self.starts_before: set[Key] = set()
        self.ends_before: set[Key] = set()
        self.session = self._open()
        self._draw: Callable[[st.SearchStrategy], Any]

    def _path(self) -> Path:
        return self.directory / f"{self.lives}.db"

    def _open(self) -> Session:
        session = Session(self._path(), self.clock)
        session.service.start(session, threads=THREADS)
        return session

    @property
    def service(self) -> LocalService:
        return self.session.service

    def _settle(self) -> None:
        """Do what is due in the model, wait for the service, and compare what was dispatched."""
        model, session = self.model, self.session
        model.dispatch(self.clock.now())
        starts = {key: each for key, each in model.started.items() if key not in self.starts_before}
        ends = {key: each for key, each in model.ended.items() if key not in self.ends_before}
        session.wait_until(len(starts), len(ends))
        assert session.repeated == []
        assert {key: _told(each) for key, each in session.started.items()} == starts
        assert {
            (int(each.body), each.attempt): (each.outcome.value, each.next_try)
            for each in session.events
        } == ends
        assert len(session.events) == len(ends)

    def _is_unsure(self, expires: float | None) -> bool:
        """Tell whether a name was free before the clock was set back: it may have been forgotten
        that it was ever taken."""
        return expires is not None and self.clock.now() < expires <= self.clock.latest

    # --- queues ---

    @initialize(rates=all_rates, config=all_retries)
    def begin(self, rates: RateLimits, config: RetryConfig) -> None:
        self._create_queue("a", rates, config)
        self._create_queue("c", RATES[0], config)

    def _create_queue(self, queue_id: str, rates: RateLimits, config: RetryConfig) -> None:
        queue = Queue(name=_name(queue_id), rate_limits=rates, retry_config=config)
        self.service.create_queue(LOCATION, queue, keeps_burst=True)
        self.model.create_queue(queue_id, IS_HTTP[queue_id], rates, config, self.clock.now())

    def _draw_queue(self) -> str:
        known = sorted(self.model.queues)
        return self._draw(st.sampled_from(known * 6 + sorted(IS_HTTP)))

    def create_queue(self) -> None:
        queue_id, now = self._draw(queue_ids), self.clock.now()
        rates, config = self._draw(all_rates), self._draw(all_retries)
        if self._is_unsure(self.model.deleted.get(queue_id)):
            return
        if queue_id not in self.model.queues and not self.model.is_queue_reserved(queue_id, now):
            self._create_queue(queue_id, rates, config)
            return
        known = queue_id in self.model.queues
        expected = messages.queue_exists() if known else messages.queue_existed_recently()
        refused = _refusal(lambda: self._create_queue(queue_id, rates, config))
        assert refused.message == expected.message

    def update_queue(self) -> None:
        queue_id = self._draw_queue()
        rates, config = self._draw(st.none() | all_rates), self._draw(st.none() | all_retries)
        queue = self.model.queues.get(queue_id)
        if queue is None or (rates is None and config is None):
            return
        mask = ["rate_limits"] * (rates is not None) + ["retry_config"] * (config is not None)
        queue.rates, queue.retry = rates or queue.rates, config or queue.retry
        given = Queue(
            name=_name(queue_id),
            rate_limits=rates or RateLimits(),
            retry_config=config or RetryConfig(),
        )
        self.service.update_queue(given, mask, keeps_burst=True)

    def pause_queue(self) -> None:
        self._set_state(self._draw_queue(), self.service.pause_queue, is_paused=True)

    def resume_queue(self) -> None:
        self._set_state(self._draw_queue(), self.service.resume_queue, is_paused=False)

    def _set_state(
        self, queue_id: str, change: Callable[[str], object], *, is_paused: bool
    ) -> None:
        if queue_id not in self.model.queues:
            assert _refusal(lambda: change(_name(queue_id))).code == "NOT_FOUND"
            return
        self.model.queues[queue_id].is_paused = is_paused
        change(_name(queue_id))

    def purge_queue(self) -> None:
        queue_id = self._draw_queue()
        if queue_id in self.model.queues:
            self.model.purge_queue(queue_id, self.clock.now())
            self.service.purge_queue(_name(queue_id))

    def delete_queue(self) -> None:
        queue_id = self._draw_queue()
        if queue_id in self.model.queues:
            self.model.delete_queue(queue_id, self.clock.now())
            self.service.delete_queue(_name(queue_id))

    # --- tasks ---

    def create_tasks(self) -> None:
        now, queue_id = self.clock.now(), self._draw_queue()
        ids = self._draw(st.lists(task_ids, min_size=1, max_size=5))
        delay, deadline = self._draw(delays), self._draw(deadlines)
        queue = self.model.queues.get(queue_id)
        if queue is None:
            refused = _refusal(lambda: self.service.create_task(_name(queue_id), _task("", "", 0)))
            assert refused.code == "NOT_FOUND"
            return
        if len(self.model.running) > MOST_RUNNING - len(ids):
            return
        tasks = []
        ids = [each for each in ids if not self._is_unsure(queue.reserved.get(each))]
        for task_id in ids:
            serial = self.model.next_serial()
            tasks.append(_task(queue_id, task_id, serial, now + delay, deadline))
        results = self.service.create_tasks(_name(queue_id), tasks)
        for task_id, task, result in zip(ids, tasks, results, strict=True):
            refusal = self.model.refusal(queue, task_id, now) if task_id else None
            if refusal is not None:
                assert isinstance(result, ApiError)
                taken = messages.task_exists(), messages.task_tombstoned()
                assert result.reason == taken[refusal == "reserved"].reason
                continue
            assert isinstance(result, Task)
            assert task.request is not None
            model_task = ModelTask(
                int(task.request.body),
                task_id or _id(result.name),
                bool(task_id),
                max(now, now + delay),
                deadline,
            )
            self.model.create_task(queue, model_task)

    def delete_task(self) -> None:
        found = self._draw_task()
        if found is not None:
            queue, task = found
            name = _name(queue.queue_id, task.task_id)
            self.model.delete_task(queue, task, self.clock.now())
            self.service.delete_task(name)
            gone = _refusal(lambda: self.service.get_task(name))
            assert gone.message == messages.task_gone().message

    def run_task(self) -> None:
        found = self._draw_task()
        if found is not None and len(self.model.running) < MOST_RUNNING:
            queue, task = found
            task.is_forced = True
            answer = self.service.run_task(_name(queue.queue_id, task.task_id))
            assert answer.dispatch_count == task.dispatches + 1

    def _draw_task(self) -> tuple[ModelQueue, ModelTask] | None:
        tasks = [
            (queue, task) for queue in self.model.queues.values() for task in queue.tasks.values()
        ]
        return tasks[self._draw(st.integers(0, len(tasks) - 1))] if tasks else None

    # --- targets, time, death ---

    def answer_one(self) -> None:
        keys = sorted(self.model.running)
        if keys:
            self._answer(self._draw(st.sampled_from(keys)), self._draw(statuses))

    def answer_all_one_by_one(self) -> None:
        status = self._draw(statuses)
        for key in sorted(self.model.running):
            self._answer(key, status)
            self._settle()

    def _answer(self, key: Key, status: int) -> None:
        self.model.answer(key, status, self.clock.now())
        self.session.answer(key, status)

    def advance(self) -> None:
        self._leap(self._draw(leaps))

    def _leap(self, seconds: float) -> None:
        # In one leap, as a machine that was asleep sees it.
        self.clock.advance(seconds)
        late = self.model.time_out(self.clock.now())
        self._settle()
        for key in late:
            # What a target still brings after its deadline changes nothing.
            self.session.answer(key, 200)

    def advance_to_what_is_next(self) -> None:
        now = self.clock.now()
        ahead = [
            task.due - now
            for queue in self.model.queues.values()
            for task in queue.tasks.values()
            if task.attempt is None and task.due > now
        ]
        if ahead:
            self._leap(min(ahead))

    def set_clock_back(self) -> None:
        self.clock.set_back(self._draw(setbacks))

    def restart(self) -> None:
        is_orderly, downtime = self._draw(st.booleans()), self._draw(downtimes)
        under_way = len(self.model.running)
        self.starts_before = set(self.model.started)
        self.ends_before = set(self.model.ended)
        self.model.restart()
        self.lives += 1
        if is_orderly:
            assert self.session.close_under_way(self._path()) == under_way
        else:
            self.session.die(self._path())
        self.clock.advance(downtime)
        self.session = self._open()
        self._settle()
        self._wait_for_release()

    def _wait_for_release(self) -> None:
        """Wait until a new service has found what the dead one had claimed: until then it counts
        as running, and where no attempt is due nothing else tells."""
        until = time.monotonic() + PATIENCE_SECONDS
        for queue in self.model.queues.values():
            name, expected = _name(queue.queue_id), self.model.waits_for_answer(queue)
            while (
                self.service.queue_stats(name).concurrent_dispatches_count != expected
                and time.monotonic() < until
            ):
                pass

    @rule(action=st.sampled_from(ACTIONS), data=st.data())
    def act(self, action: str, data: st.DataObject) -> None:
        self._draw = data.draw
        getattr(self, action)()
        self._settle()

    # --- what always holds ---

    @invariant()
    def queues_and_tasks_are_the_models(self) -> None:
        model, service = self.model, self.service
        shown = {each.name: each for each in service.list_queues(LOCATION).items}
        assert sorted(shown) == sorted(_name(queue_id) for queue_id in model.queues)
        for queue in model.queues.values():
            name = _name(queue.queue_id)
            assert shown[name].rate_limits == queue.rates
            assert shown[name].retry_config == queue.retry
            assert (shown[name].state is QueueState.PAUSED) == queue.is_paused
            stats = service.queue_stats(name)
            assert stats.tasks_count == len(queue.tasks)
            assert stats.concurrent_dispatches_count == model.waits_for_answer(queue)
            tasks = {_id(each.name): each for each in service.list_tasks(name).items}
            assert {task_id: _shown(each) for task_id, each in tasks.items()} == {
                task_id: (each.serial, each.due, each.dispatches, each.responses)
                for task_id, each in queue.tasks.items()
            }

    @invariant()
    def every_task_that_was_accepted_is_accounted_for(self) -> None:
        model = self.model
        live = sum(len(queue.tasks) for queue in model.queues.values())
        assert model.accepted == live + model.done + model.deleted_tasks + len(model.failed)
        kept = self.service.store.read(
            lambda connection: connection.execute("SELECT body FROM kept").fetchall()
        )
        assert sorted(int(body) for (body,) in kept) == sorted(model.failed)

    def teardown(self) -> None:
        try:
            # What is begun although nothing was due comes to light here at the latest.
            self._settle()
        finally:
            self.session.end()
            shutil.rmtree(self.directory)


def _name(queue_id: str, task_id: str = "") -> str:
    queue = QueueName("p", "l", queue_id)
    return queue.task(task_id) if task_id else str(queue)


def _id(name: str) -> str:
    return name.rpartition("/")[2]


def _task(
    queue_id: str, task_id: str, serial: int, at: float = 0.0, deadline: float = 600.0
) -> Task:
    body = str(serial).encode()
    return Task(
        name=_name(queue_id, task_id) if task_id else "",
        request=HttpRequest(url="https://target.example/work", body=body)
        if IS_HTTP.get(queue_id)
        else AppEngineRequest(relative_uri="/work", body=body),
        schedule_time=datetime.fromtimestamp(at, timezone.utc) if at else None,
        dispatch_deadline_seconds=deadline,
    )


def _shown(task: Task) -> tuple[int, float, int, int]:
    assert task.request is not None
    assert task.schedule_time is not None
    due = task.schedule_time.timestamp()
    return int(task.request.body), due, task.dispatch_count, task.response_count


def _told(delivery: Delivery) -> Start:
    """What the headers of an attempt say, read as its target reads them."""
    given = {name.partition("-Task")[2]: value for name, value in delivery.headers}
    is_http = any(name == "X-CloudTasks-TaskName" for name, _ in delivery.headers)
    previous = given.get("PreviousResponse")
    if previous is not None and is_http and previous == "504":
        previous = "0"
    queue_id = next(value for name, value in delivery.headers if name.endswith("-QueueName"))
    return Start(
        queue_id,
        given["Name"],
        int(given["RetryCount"]),
        int(given["ExecutionCount"]),
        None if previous is None else int(previous),
    )


def _refusal(call) -> ApiError:
    try:
        call()
    except ApiError as error:
        return error
    raise AssertionError("it was not refused")


@pytest.mark.timeout(60 + STEPS // 10)
def test_the_service_does_what_its_model_does():
    run_state_machine_as_test(
        ServiceMachine,
        settings=settings(
            max_examples=max(1, STEPS // STEPS_OF_ONE_RUN),
            stateful_step_count=STEPS_OF_ONE_RUN,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
