"""The v2 operations, as any client of Cloud Tasks knows them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

from appengine_compat.core.model import (
    TOMBSTONE_TTL_SECONDS,
    UNLIMITED,
    AppEngineRequest,
    AppEngineRouting,
    EnforceMode,
    HttpRequest,
    HttpTarget,
    OAuthToken,
    OidcToken,
    Queue,
    QueueState,
    RateLimits,
    RetryConfig,
    RetryOverrides,
    Task,
    UriOverride,
)
from appengine_compat.core.names import QueueName
from appengine_compat.errors import ApiError, StoreError
from appengine_compat.local import housekeeping, task_operations
from appengine_compat.local.store import Store
from appengine_compat.local.tombstones import Windows
from tests.local.conftest import PATIENCE_SECONDS, QUEUE, Local

PARENT = QUEUE.parent
NAME = str(QUEUE)
OTHER = QueueName("p", "l", "other")
DAY = 86400.0


def refused(code: str, message: str):
    return pytest.raises(ApiError, match=f"^{code}: {message}")


# --- queues ---


def test_a_queue_is_made_with_the_services_defaults(local):
    made = local.service.create_queue(PARENT, Queue(name=str(OTHER)))
    assert made == Queue(name=str(OTHER), rate_limits=RateLimits(), retry_config=RetryConfig())
    assert local.service.get_queue(str(OTHER)) == made


def test_every_setting_of_a_queue_is_kept(local):
    target = HttpTarget(
        uri_override=UriOverride(
            scheme="HTTPS", host="h", port=0, path="", mode=EnforceMode.ALWAYS
        ),
        method="PUT",
        header_overrides={"X-A": "1"},
        token=OAuthToken(service_account_email="a@b", scope="s"),
    )
    queue = Queue(
        name=str(OTHER),
        rate_limits=RateLimits(max_dispatches_per_second=5, max_burst_size=10),
        retry_config=RetryConfig(max_attempts=UNLIMITED, max_retry_duration_seconds=60),
        app_engine_routing_override=AppEngineRouting(service="api", version="v1"),
        http_target=target,
        log_sampling_ratio=0.5,
        task_ttl_seconds=10 * DAY,
        tombstone_ttl_seconds=9 * DAY,
    )
    assert local.service.create_queue(PARENT, queue) == queue
    assert local.service.get_queue(str(OTHER)) == queue


@pytest.mark.parametrize("call", ["get_queue", "pause_queue", "resume_queue", "purge_queue"])
def test_a_missing_queue(local, call):
    with refused("NOT_FOUND", "Queue does not exist. If you just created the queue, wait at least"):
        getattr(local.service, call)(str(OTHER))


def test_create_queue_refuses_what_is_there_and_what_is_elsewhere(local):
    with refused("ALREADY_EXISTS", "Queue already exists$"):
        local.service.create_queue(PARENT, Queue(name=NAME))
    with refused("INVALID_ARGUMENT", f"{OTHER} must begin with projects/x/locations/l"):
        local.service.create_queue("projects/x/locations/l", Queue(name=str(OTHER)))
    with refused("INVALID_ARGUMENT", "Queue name must be formatted"):
        local.service.create_queue(PARENT, Queue(name=PARENT + "/queues/a_b"))


def test_a_deleted_queues_name_stays_reserved_for_create_but_not_for_update(local):
    name = local.add("t")
    local.service.delete_queue(NAME)
    with refused("NOT_FOUND", "Queue does not exist"):
        local.service.get_task(name)
    with refused("FAILED_PRECONDITION", "The queue cannot be created because a queue with this"):
        local.service.create_queue(PARENT, Queue(name=NAME))
    with refused("NOT_FOUND", "Requested entity was not found"):
        local.service.delete_queue(NAME)
    local.clock.advance(3 * DAY)
    assert local.service.create_queue(PARENT, Queue(name=NAME)).state is QueueState.RUNNING
    assert local.service.list_tasks(NAME).items == []


def test_update_changes_what_the_mask_names_and_creates_what_is_missing(local):
    local.service.pause_queue(NAME)
    given = Queue(
        name=NAME,
        rate_limits=RateLimits(max_dispatches_per_second=2),
        retry_config=RetryConfig(max_attempts=3),
        state=QueueState.RUNNING,
    )
    updated = local.service.update_queue(given, ["rate_limits.max_dispatches_per_second"])
    assert updated.rate_limits.max_dispatches_per_second == 2
    assert updated.rate_limits.max_burst_size == 10
    assert updated.retry_config == RetryConfig()
    assert updated.state is QueueState.PAUSED
    assert local.service.get_queue(NAME) == updated
    made = local.service.update_queue(replace(given, name=str(OTHER)))
    assert made.retry_config.max_attempts == 3
    with refused("INVALID_ARGUMENT", "RetryConfig.maxDoublings cannot be negative"):
        local.service.update_queue(replace(given, retry_config=RetryConfig(max_doublings=-1)))


def test_queues_are_listed_by_name_in_pages(local):
    for number in range(5):
        local.service.create_queue(PARENT, Queue(name=f"{PARENT}/queues/a{number}"))
    local.service.create_queue(
        "projects/p2/locations/l", Queue(name="projects/p2/locations/l/queues/x")
    )
    seen, token = [], ""
    while True:
        page = local.service.list_queues(PARENT, page_size=2, page_token=token)
        assert len(page.items) <= 2
        seen += [queue.name.rpartition("/")[2] for queue in page.items]
        token = page.next_page_token
        if not token:
            break
    assert seen == ["a0", "a1", "a2", "a3", "a4", "q"]


def test_a_page_token_holds_for_its_list_and_for_two_hours(local):
    for number in range(3):
        local.add(f"t{number}")
    token = local.service.list_tasks(NAME, page_size=1).next_page_token
    assert len(local.service.list_tasks(NAME, page_token=token).items) == 2
    local.service.create_queue(PARENT, Queue(name=str(OTHER)))
    for parent, given in ((NAME, "nonsense"), (NAME, "AAAA"), (str(OTHER), token)):
        with refused("INVALID_ARGUMENT", "The page token is invalid"):
            local.service.list_tasks(parent, page_token=given)
    local.clock.advance(2 * 3600 + 1)
    with refused("INVALID_ARGUMENT", "The page token is invalid"):
        local.service.list_tasks(NAME, page_token=token)


def test_a_purge_takes_what_is_there_and_leaves_state_and_names(local):
    local.service.pause_queue(NAME)
    local.add("named")
    for _ in range(20):
        local.add()
    purged = local.service.purge_queue(NAME)
    assert purged.purge_time == local.now
    assert purged.state is QueueState.PAUSED
    assert local.service.list_tasks(NAME).items == []
    with refused("ALREADY_EXISTS", "Requested entity already exists"):
        local.add("named")
    local.add("later")
    assert len(local.service.list_tasks(NAME).items) == 1
    assert local.service.get_queue(NAME).purge_time == purged.purge_time


class InterruptedStore(Store):
    """A database in memory, where something happens after each commit, or reading, of a call."""

    def __init__(self) -> None:
        self.after_writes: list[Callable[[], object]] = []
        self.after_reads: list[Callable[[], object]] = []
        super().__init__(None)

    def write(self, operation, **options):
        result = super().write(operation, **options)
        todo, self.after_writes = self.after_writes, []
        if todo:
            todo[0]()
            self.after_writes = todo[1:]
        return result

    def read(self, operation):
        result = super().read(operation)
        todo, self.after_reads = self.after_reads, []
        if todo:
            todo[0]()
            self.after_reads = todo[1:]
        return result


@pytest.fixture
def long_queue() -> Iterator[Local]:
    """A queue with more tasks than a purge deletes at once."""
    local = Local(InterruptedStore())
    local.service.pause_queue(NAME)
    task = Task(name="", request=AppEngineRequest(relative_uri="/work"))
    for _ in range(51):
        local.service.create_tasks(NAME, [task] * 100)
    yield local
    local.service.close()


def test_a_purge_leaves_what_is_created_while_it_runs(long_queue):
    service = long_queue.service
    service.create_queue(PARENT, Queue(name=str(OTHER)))
    newest = long_queue.add("newest")
    found = []

    def begin() -> None:
        service.purge_queue(str(OTHER))

    def put_one_in_the_place_of_the_newest() -> None:
        found.append(len(service.list_tasks(NAME).items))
        service.delete_tasks(NAME, [newest])
        long_queue.add("created-meanwhile")

    service.store.after_writes = [begin, put_one_in_the_place_of_the_newest]
    service.purge_queue(NAME)
    assert found[0] > 0
    assert [each.name for each in service.list_tasks(NAME).items] == [
        QUEUE.task("created-meanwhile")
    ]
    assert service.queue_stats(NAME).tasks_count == 1


def test_a_purge_that_was_cut_off_leaves_nothing_behind_but_its_tasks(long_queue):
    service = long_queue.service

    def fail() -> None:
        raise StoreError("The disk is full.", path="")

    service.store.after_writes = [fail]
    with pytest.raises(StoreError):
        service.purge_queue(NAME)

    def rows() -> int:
        return service.store.read(
            lambda connection: connection.execute("SELECT count(*) FROM tasks").fetchone()[0]
        )

    assert service.queue_stats(NAME).tasks_count == 5100
    housekeeping.clean(service.store, Windows(), int((long_queue.clock.now() + 2 * DAY) * 1e6))
    assert rows() == 5100
    service.purge_queue(NAME)
    assert rows() == 0


def test_put_queues_keeps_state_and_tasks_and_the_files_burst(local):
    local.add("t")
    local.service.pause_queue(NAME)
    rates = RateLimits(max_dispatches_per_second=5, max_burst_size=5)
    local.service.put_queues([Queue(name=NAME, rate_limits=rates), Queue(name=str(OTHER))])
    queue = local.service.get_queue(NAME)
    assert queue.rate_limits == rates
    assert queue.state is QueueState.PAUSED
    assert len(local.service.list_tasks(NAME).items) == 1
    assert local.service.get_queue(str(OTHER)).name == str(OTHER)


# --- tasks ---


FULL_HTTP = Task(
    name=QUEUE.task("http"),
    request=HttpRequest(
        url="https://example.com/a?b=1",
        method="PUT",
        headers={"content-type": "text/plain", "X-Ünïcode": "ä"},
        body=b"\x00\xff",
        token=OidcToken(service_account_email="a@b", audience="c"),
    ),
    dispatch_deadline_seconds=20.5,
    retry_config=RetryOverrides(max_attempts=UNLIMITED, min_backoff_seconds=0.25),
)
FULL_APP_ENGINE = Task(
    name=QUEUE.task("gae"),
    request=AppEngineRequest(
        relative_uri="/x?y=%20z",
        method="DELETE",
        headers={"X-A": ""},
        routing=AppEngineRouting(service="api", version="v1", instance="i"),
    ),
)


@pytest.mark.parametrize("task", [FULL_HTTP, FULL_APP_ENGINE], ids=["http", "app engine"])
def test_what_is_answered_is_what_is_stored(local, task):
    created = local.service.create_task(NAME, task)
    assert local.service.get_task(task.name) == created
    assert local.service.list_tasks(NAME).items == [created]
    assert created.schedule_time == local.now
    assert created.create_time == local.now.replace(microsecond=0)
    assert (created.dispatch_count, created.first_attempt, created.last_attempt) == (0, None, None)
    assert created.request.body == task.request.body
    assert set(task.request.headers.items()) <= set(created.request.headers.items())


@pytest.mark.parametrize("size", [0, 1, 4096, 4097, 900_000])
def test_bodies_of_every_size_come_back(local, size):
    body = bytes(range(256)) * (size // 256 + 1)
    name = local.add(body=body[:size])
    assert local.service.get_task(name).request.body == body[:size]
    local.service.delete_task(name)
    left = local.service.store.read(
        lambda connection: connection.execute("SELECT count(*) FROM bodies").fetchone()[0]
    )
    assert left == 0


def test_a_name_is_for_one_task_also_for_a_day_after_its_end(local):
    name = local.add("once")
    with refused("ALREADY_EXISTS", "Requested entity already exists$"):
        local.add("once")
    local.service.delete_task(name)
    with refused("ALREADY_EXISTS", r"Requested entity already exists \[detail.*TOMBSTONED_TASK"):
        local.add("once")
    local.clock.advance(DAY)
    assert local.add("once") == name


@pytest.mark.parametrize(
    ("windows", "own", "seconds"),
    [
        (Windows(), TOMBSTONE_TTL_SECONDS, DAY),
        (Windows(), 9 * DAY, 9 * DAY),
        (Windows(), 7200, 7200),
        (Windows(task_seconds=60), 9 * DAY, 60),
    ],
)
@pytest.mark.parametrize("end", ["finished", "failed", "deleted", "purged"])
def test_1_a_name_stays_reserved_as_its_queue_has_it(end, windows, own, seconds):
    local = Local(Store(None), windows=windows)
    local.service.put_queues(
        [Queue(name=NAME, tombstone_ttl_seconds=own, retry_config=RetryConfig(max_attempts=1))]
    )
    if end in ("finished", "failed"):
        local.targets.answer = lambda delivery: 200 if end == "finished" else 500
        local.start()
    name = local.add("t")
    if end == "deleted":
        local.service.delete_task(name)
    elif end == "purged":
        local.service.purge_queue(NAME)
    local.settle()
    local.clock.advance(seconds - 1)
    with refused("ALREADY_EXISTS", ""):
        local.add("t")
    local.clock.advance(1)
    assert local.add("t") == name
    local.service.close(PATIENCE_SECONDS)


def test_an_ended_task_and_one_never_there_have_different_texts(local):
    name = local.add()
    local.service.delete_task(name)
    with refused("NOT_FOUND", "The task no longer exists, though a task with this name existed"):
        local.service.get_task(name)
    with refused("NOT_FOUND", "Requested entity was not found"):
        local.service.get_task(QUEUE.task("never"))


def test_a_batch_tells_each_tasks_fate_in_order(local):
    local.add("there")
    good = Task(name="", request=AppEngineRequest())
    results = local.service.create_tasks(
        NAME,
        [
            good,
            replace(good, name=QUEUE.task("there")),
            replace(good, request=None),
            replace(good, name=QUEUE.task("twice")),
            replace(good, name=QUEUE.task("twice")),
        ],
    )
    codes = [each.code if isinstance(each, ApiError) else "OK" for each in results]
    assert codes == ["OK", "ALREADY_EXISTS", "INVALID_ARGUMENT", "OK", "ALREADY_EXISTS"]
    assert len(local.service.list_tasks(NAME).items) == 3


def test_batches_have_limits(local):
    good = Task(name="", request=AppEngineRequest())
    with refused("INVALID_ARGUMENT", "The request contains more than 100 tasks"):
        local.service.create_tasks(NAME, [good] * 101)
    with refused("INVALID_ARGUMENT", "The request contains more than 1000 names"):
        local.service.delete_tasks(NAME, [QUEUE.task("t")] * 1001)
    with refused("INVALID_ARGUMENT", "The parent of every request must match"):
        local.service.delete_tasks(NAME, [OTHER.task("t")])
    with refused("NOT_FOUND", "Queue does not exist"):
        local.service.create_tasks(str(OTHER), [good])


def test_deleting_many_tells_each_ones_fate(local):
    first, second = local.add(), local.add()
    local.service.delete_task(first)
    results = local.service.delete_tasks(NAME, [first, second, QUEUE.task("never")])
    assert [each and each.reason for each in results] == ["TOMBSTONED_TASK", None, "UNKNOWN_TASK"]
    assert local.service.list_tasks(NAME).items == []


def test_tasks_are_listed_in_pages(local):
    names = {local.add() for _ in range(25)}
    seen, token, pages = [], "", 0
    while True:
        page = local.service.list_tasks(NAME, page_size=10, page_token=token)
        seen += [task.name for task in page.items]
        token, pages = page.next_page_token, pages + 1
        if not token:
            break
    assert pages == 3
    assert len(seen) == 25
    assert set(seen) == names


def test_what_a_queue_is_doing(local):
    empty = local.service.queue_stats(NAME)
    assert (empty.tasks_count, empty.oldest_arrival_time) == (0, None)
    local.add(delay=60)
    assert local.service.queue_stats(NAME).oldest_arrival_time is None
    local.add()
    arrived = local.now
    local.clock.advance(5)
    stats = local.service.queue_stats(NAME)
    assert stats.tasks_count == 2
    assert stats.oldest_arrival_time == arrived
    assert stats.effective_execution_rate == 500
    local.start()
    local.settle()
    stats = local.service.queue_stats(NAME)
    assert (stats.tasks_count, stats.executed_last_minute_count) == (1, 1)
    local.clock.advance(30)
    local.settle()
    assert local.service.queue_stats(NAME).executed_last_minute_count == 1
    local.clock.advance(31)
    local.settle()
    assert local.service.queue_stats(NAME).executed_last_minute_count == 1


def test_a_task_beyond_its_queues_retention_is_dropped_and_kept_aside(local, caplog):
    task = local.add("old", delay=29 * DAY)
    local.service.pause_queue(NAME)
    local.start()
    local.advance(31 * DAY - 60)
    assert local.service.get_task(task)
    local.advance(121)
    with refused("NOT_FOUND", "The task no longer exists"):
        local.service.get_task(task)
    assert "older than its queue retains tasks" in caplog.text
    kept = local.service.store.read(
        lambda connection: connection.execute("SELECT task, reason FROM kept").fetchall()
    )
    assert kept == [("old", "expired")]


def test_a_task_in_the_place_of_one_beyond_its_retention_stays():
    local = Local(InterruptedStore())
    service = local.service
    old = local.add("old")
    local.clock.advance(32 * DAY)

    def put_another_in_its_place() -> None:
        service.delete_task(old)
        local.add("new")

    # The queues are read, then what is overdue in them.
    service.store.after_reads = [lambda: None, put_another_in_its_place]
    housekeeping.clean(service.store, Windows(), int(local.clock.now() * 1e6))
    assert service.store.after_reads == []
    assert [each.name for each in service.list_tasks(NAME).items] == [QUEUE.task("new")]
    service.close()


def test_schedule_times_are_kept_to_the_microsecond(local):
    moment = local.now + timedelta(days=3, microseconds=7)
    created = local.service.create_task(
        NAME, Task(name="", request=AppEngineRequest(), schedule_time=moment)
    )
    assert local.service.get_task(created.name).schedule_time == moment


# --- tasks of many clients at once ---


def http_task(task_id: str = "", queue: QueueName = QUEUE, url: str = "http://h/") -> Task:
    return Task(name=queue.task(task_id) if task_id else "", request=HttpRequest(url=url))


def test_tasks_of_many_clients_are_created_as_each_alone_would_be(local):
    local.service.create_queue(PARENT, Queue(name=str(OTHER)))
    calls = [(NAME, http_task("a")), (str(OTHER), http_task()), (NAME, http_task("b"))]
    made = local.service.create_each(calls)
    assert made[0].name == QUEUE.task("a")
    assert made[1].name.startswith(f"{OTHER}/tasks/")
    assert made[2].name == QUEUE.task("b")
    for each in made:
        assert local.service.get_task(each.name) == each


def test_of_many_clients_tasks_one_that_is_refused_does_not_concern_the_others(local):
    local.service.delete_task(local.add("gone"))
    calls = [
        (NAME, http_task("first")),
        (str(OTHER), http_task("a", OTHER)),
        (NAME, http_task("gone")),
        (NAME, http_task(url="no url")),
        ("no queue", http_task()),
        (NAME, http_task("first")),
        (NAME, http_task("a", OTHER)),
        (NAME, http_task("last")),
    ]
    made = local.service.create_each(calls)
    codes = [each.code if isinstance(each, ApiError) else "" for each in made]
    assert codes == [
        "", "NOT_FOUND", "ALREADY_EXISTS", "INVALID_ARGUMENT", "INVALID_ARGUMENT",
        "ALREADY_EXISTS", "INVALID_ARGUMENT", "",
    ]  # fmt: skip
    for refusal, (parent, task) in zip(made, calls, strict=True):
        if isinstance(refusal, ApiError) and refusal is not made[5]:
            with pytest.raises(ApiError) as alone:
                local.service.create_task(parent, task)
            assert (alone.value.code, alone.value.message) == (refusal.code, refusal.message)
    names = {task.name for task in local.service.list_tasks(NAME).items}
    assert names == {QUEUE.task("first"), QUEUE.task("last")}


def test_no_clients_create_nothing(local):
    assert local.service.create_each([]) == []


def test_tasks_of_many_clients_share_one_commit(local):
    commits: list[str] = []
    local.service.store._connection.set_trace_callback(
        lambda statement: commits.append(statement) if statement == "COMMIT" else None
    )
    local.service.create_each([(NAME, http_task(str(number))) for number in range(50)])
    assert len(commits) == 1


def test_tasks_of_many_clients_run_when_they_are_due(local):
    local.start()
    later = replace(http_task("later"), schedule_time=local.now + timedelta(seconds=60))
    local.service.create_each([(NAME, http_task("now")), (NAME, later), (NAME, http_task("too"))])
    local.settle()
    assert sorted(local.targets.task_ids) == ["now", "too"]
    local.advance(60)
    assert sorted(local.targets.task_ids) == ["later", "now", "too"]


def test_a_fault_in_one_of_many_clients_tasks_is_that_ones_alone(local, monkeypatch):
    prepare = task_operations.prepare

    def broken(task: Task, **options):
        if task.name == QUEUE.task("bad"):
            raise RuntimeError("broken")
        return prepare(task, **options)

    monkeypatch.setattr(task_operations, "prepare", broken)
    calls = [(NAME, http_task(task_id)) for task_id in ("a", "bad", "b")]
    first, fault, last = local.service.create_each(calls)
    assert (first.name, last.name) == (QUEUE.task("a"), QUEUE.task("b"))
    assert isinstance(fault, RuntimeError)


def test_a_store_that_cannot_write_is_told_to_each_of_many_clients(local):
    local.service.store.close()
    for error in local.service.create_each([(NAME, http_task()), (NAME, http_task("a"))]):
        assert isinstance(error, StoreError)
