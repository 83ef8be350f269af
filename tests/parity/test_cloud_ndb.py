"""Tasks in transactions of google-cloud-ndb."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.parity.conftest import Child

Run = Callable[[str], str]


@pytest.fixture
def run(cloud_ndb: Child) -> Run:
    return cloud_ndb.ask


def test_a_task_is_enqueued_when_the_transaction_commits_and_not_before(run: Run) -> None:
    code = """
def body():
    task = taskqueue.add(url="/x", transactional=True)
    return task.was_enqueued, bool(task.name), tasks()
ndb.transaction(body), tasks(), datastore.calls
"""
    assert run(code) == repr(((True, True, []), ["/x"], ["begin", "commit"]))


def test_a_rollback_enqueues_nothing(run: Run) -> None:
    code = """
def body():
    taskqueue.add(url="/x", transactional=True)
    raise KeyError
try:
    ndb.transaction(body)
except KeyError:
    pass
tasks(), datastore.calls
"""
    assert run(code) == repr(([], ["begin", "rollback"]))


def test_a_body_that_runs_again_enqueues_once(run: Run) -> None:
    code = """
datastore.conflicts = 2
def body():
    taskqueue.add(url="/x", transactional=True)
ndb.transaction(body)
tasks(), datastore.calls.count("begin")
"""
    assert run(code) == repr((["/x"], 3))


def test_a_commit_that_never_succeeds_enqueues_nothing(run: Run) -> None:
    code = """
datastore.conflicts = 2
def body():
    taskqueue.add(url="/x", transactional=True)
try:
    ndb.transaction(body, retries=0)
except Exception as error:
    seen = type(error).__name__
seen, tasks()
"""
    assert run(code) == repr(("Aborted", []))


def test_a_joined_transaction_shares_the_limit_and_the_commit(run: Run) -> None:
    code = """
def inner():
    taskqueue.Queue().add([taskqueue.Task() for _ in range(3)], transactional=True)
    return tasks()
def body():
    taskqueue.Queue().add([taskqueue.Task() for _ in range(2)], transactional=True)
    seen = ndb.transaction(inner, join=True)
    try:
        taskqueue.add(transactional=True)
    except taskqueue.DatastoreError as error:
        return seen, str(error).endswith("Too many messages, maximum allowed 5")
ndb.transaction(body), len(tasks())
"""
    assert run(code) == repr((([], True), 5))


def test_a_tasklet_in_a_transaction_enqueues_on_commit(run: Run) -> None:
    code = """
@ndb.transactional_tasklet()
def body():
    taskqueue.add(url="/x", transactional=True)
    yield ndb.sleep(0)
    raise ndb.Return(tasks())
body().result(), tasks()
"""
    assert run(code) == repr(([], ["/x"]))


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("taskqueue.add(name='n', transactional=True)", "InvalidTaskNameError"),
        ("taskqueue.add(queue_name='nope', transactional=True)", "UnknownQueueError"),
    ],
)
def test_what_a_transaction_cannot_take_is_refused_at_once(call: str, error: str, run: Run) -> None:
    code = f"""
def body():
    try:
        {call}
    except taskqueue.Error as error:
        return type(error).__name__
ndb.transaction(body), tasks()
"""
    assert run(code) == repr((error, []))


def test_outside_of_a_transaction_there_is_none(run: Run) -> None:
    assert run("taskqueue.add(transactional=True)").startswith("BadTransactionStateError: ")
