"""RPC objects, where appengine-compat stands alone."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from google.appengine.api import namespace_manager, taskqueue
from google.appengine.api.apiproxy_stub_map import UserRPC

from appengine_compat.backends.base import BackendError, Reason
from appengine_compat.backends.targets import SERVICE

if TYPE_CHECKING:
    from tests.legacy.api.taskqueue.conftest import Recorder

IDLE, RUNNING, FINISHING = 0, 1, 2


def test_an_rpc_object_is_made_idle() -> None:
    rpc = taskqueue.create_rpc(deadline=5)
    assert (rpc.service, rpc.method, rpc.deadline, rpc.state) == ("taskqueue", None, 5, IDLE)
    assert (rpc.request, rpc.response, rpc.future, rpc.callback) == (None, None, None, None)
    for call in (rpc.wait, rpc.check_success, rpc.get_result):
        with pytest.raises(AssertionError):
            call()


def test_an_add_starts_at_once_in_another_thread(backend: Recorder) -> None:
    backend.gate = threading.Event()
    task = taskqueue.Task()
    rpc = task.add_async("q")
    assert (rpc.state, rpc.method, task.was_enqueued) == (RUNNING, "BulkAdd", False)
    backend.gate.set()
    assert rpc.get_result() is task
    assert (rpc.state, task.was_enqueued, task.queue_name) == (FINISHING, True, "q")
    assert backend.threads
    assert threading.get_ident() not in backend.threads


def test_an_add_that_nobody_waits_for_is_sent(backend: Recorder) -> None:
    rpc = taskqueue.Task(url="/x").add_async()
    rpc.future.result(10)
    assert backend.only.relative_url == "/x"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_sends_from_threads_of_its_own() -> None:
    # In a process of its own: forking the one that runs the tests is nobody's wish.
    program = """
import os
from appengine_compat.backends import base, choice
class Backend:
    kind = "recorder"
    def create_tasks(self, queue, requests, *, timeout_seconds=None):
        return [base.Outcome("made") for _ in requests]
choice.activate(Backend())
from google.appengine.api import taskqueue
assert taskqueue.Task().add_async().get_result().name == "made"
child = os.fork()
if child == 0:
    os._exit(0 if taskqueue.Task().add_async().get_result().name == "made" else 1)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program], timeout=30
    )
    assert done.returncode == 0


def test_with_the_test_stub_nothing_happens_before_somebody_waits(backend: Recorder) -> None:
    backend.kind = "stub"
    rpc = taskqueue.Task(url="/x").add_async()
    assert (rpc.state, rpc.future, backend.created) == (RUNNING, None, [])
    rpc.wait()
    assert rpc.state == FINISHING
    assert backend.threads == {threading.get_ident()}


def test_the_result_is_the_same_each_time(backend: Recorder) -> None:
    tasks = [taskqueue.Task(), taskqueue.Task()]
    rpc = taskqueue.Queue().add_async(tasks)
    assert rpc.get_result() == rpc.get_result() == tasks
    assert len(backend.created) == 1


def test_an_rpc_object_that_is_passed_is_used(backend: Recorder) -> None:
    rpc = taskqueue.create_rpc(deadline=7)
    assert taskqueue.Queue().add_async(taskqueue.Task(), rpc=rpc) is rpc
    rpc.get_result()
    assert backend.timeouts == [7]


def test_an_rpc_object_is_used_once(backend: Recorder) -> None:
    rpc = taskqueue.Queue().add_async(taskqueue.Task())
    with pytest.raises(AssertionError):
        taskqueue.Queue().add_async(taskqueue.Task(), rpc=rpc)
    rpc.get_result()
    assert len(backend.created) == 1


def test_an_rpc_object_of_another_service_is_refused(backend: Recorder) -> None:
    rpc = mock_rpc("memcache")
    with pytest.raises(AssertionError, match="'memcache'"):
        taskqueue.Queue().add_async(taskqueue.Task(), rpc=rpc)


def mock_rpc(service: str) -> Any:
    class Rpc:
        def __init__(self) -> None:
            self.service = service

    return Rpc()


def test_another_service_points_to_googles_sdk() -> None:
    with pytest.raises(AssertionError, match=r'service "memcache".*appengine-python-standard'):
        UserRPC("memcache")


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("kind", ["stub", "recorder"])
def test_the_callback_is_called_once_without_arguments_by_who_waits(
    fails: bool, kind: str, backend: Recorder
) -> None:
    calls = []
    backend.kind = kind
    if fails:
        backend.refuse(Reason.TRANSIENT)
    rpc = taskqueue.create_rpc(callback=lambda *args: calls.append((args, threading.get_ident())))
    taskqueue.Queue().add_async(taskqueue.Task(), rpc=rpc)
    rpc.wait()
    rpc.wait()
    assert calls == [((), threading.get_ident())]


def test_a_verdict_on_a_task_is_told_with_the_result_only(backend: Recorder) -> None:
    backend.refusals["n"] = BackendError(Reason.TASK_ALREADY_EXISTS, "Taken.")
    rpc = taskqueue.Task(name="n").add_async()
    assert rpc.check_success() is None
    for _ in range(2):
        with pytest.raises(taskqueue.TaskAlreadyExistsError):
            rpc.get_result()


def test_an_unknown_queue_is_a_verdict(backend: Recorder) -> None:
    backend.refuse(Reason.UNKNOWN_QUEUE)
    rpc = taskqueue.Task().add_async("nope")
    rpc.check_success()
    with pytest.raises(taskqueue.UnknownQueueError):
        rpc.get_result()


def test_a_failure_of_the_call_is_no_success(backend: Recorder) -> None:
    backend.refuse(Reason.TRANSIENT, "Not reachable.")
    rpc = taskqueue.Task().add_async()
    with pytest.raises(taskqueue.TransientError, match="Not reachable"):
        rpc.check_success()
    with pytest.raises(taskqueue.TransientError, match="Not reachable"):
        rpc.get_result()


def test_the_callers_context_holds_for_the_call(backend: Recorder) -> None:
    seen = []
    create_tasks = backend.create_tasks

    def look(*args: Any, **kwargs: Any) -> Any:
        seen.append((SERVICE.get(""), namespace_manager.get_namespace()))
        return create_tasks(*args, **kwargs)

    backend.create_tasks = look  # type: ignore[method-assign]
    namespace_manager.set_namespace("ns1")
    token = SERVICE.set("worker")
    try:
        rpc = taskqueue.Task().add_async()
    finally:
        SERVICE.reset(token)
        namespace_manager.set_namespace("")
    rpc.get_result()
    assert seen == [("worker", "ns1")]


def test_deletes_and_statistics_have_rpc_objects_too(backend: Recorder) -> None:
    queue = taskqueue.Queue("q")
    by_name = queue.delete_tasks_by_name_async(["a", "b"])
    assert (by_name.method, [task.was_deleted for task in by_name.get_result()]) == (
        "Delete",
        [True, True],
    )
    one = queue.delete_tasks_async(taskqueue.Task(name="c"))
    assert one.get_result().was_deleted
    stats = queue.fetch_statistics_async()
    assert (stats.method, stats.get_result().queue) == ("FetchQueueStats", queue)


# --- waiting for several ---------------------------------------------------------------------


def test_wait_any_returns_one_that_has_run(backend: Recorder) -> None:
    backend.gate = threading.Event()
    slow = taskqueue.Task().add_async()
    other = type(backend)()
    quick = taskqueue.Task().add_async(_client=other)
    assert UserRPC.wait_any([slow, quick]) is quick
    assert UserRPC.wait_any([slow, quick]) is quick
    backend.gate.set()
    UserRPC.wait_all([slow, quick])
    assert slow.state == FINISHING


@pytest.mark.parametrize("kind", ["stub", "recorder"])
def test_wait_all_waits_for_all_and_calls_back(kind: str, backend: Recorder) -> None:
    backend.kind = kind
    calls: list[int] = []
    rpcs = []
    for number in range(3):
        rpc = taskqueue.create_rpc(callback=lambda number=number: calls.append(number))
        rpcs.append(taskqueue.Queue().add_async(taskqueue.Task(), rpc=rpc))
    UserRPC.wait_all(rpcs)
    assert [rpc.state for rpc in rpcs] == [FINISHING] * 3
    assert sorted(calls) == [0, 1, 2]


def test_wait_any_needs_a_collection_of_calls() -> None:
    assert UserRPC.wait_any([]) is None
    with pytest.raises(AssertionError, match="not an iterator"):
        UserRPC.wait_any(iter([]))
    with pytest.raises(AssertionError):
        UserRPC.wait_any([taskqueue.create_rpc()])
