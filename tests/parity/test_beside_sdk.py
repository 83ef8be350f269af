"""Beside Google's SDK: its RPC objects, its ndb and db, and our task queue under them."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.parity.conftest import Child

NDB, DB = "ndb.transaction(body)", "db.run_in_transaction_options(XG, body)"
XG = "XG = db.create_transaction_options(xg=True)\n"

Run = Callable[[str], str]


@pytest.fixture
def run(beside: Child) -> Run:
    return beside.ask


# --- RPC objects -----------------------------------------------------------------------------


def test_an_rpc_object_is_the_sdks(run: Run) -> None:
    assert run(
        "rpc = taskqueue.Task(url='/x').add_async()\n"
        "isinstance(rpc, apiproxy_stub_map.UserRPC), apiproxy_stub_map.UserRPC.__module__, "
        "taskqueue.Task.__init__.__code__.co_filename.count('appengine_compat')"
    ) == repr((True, "google.appengine.api.apiproxy_stub_map", 1))


def test_a_tasklet_waits_for_an_add(run: Run) -> None:
    code = """
@ndb.tasklet
def add():
    task = yield taskqueue.Task(url="/x").add_async()
    raise ndb.Return(task.url, task.was_enqueued)
add().get_result(), tasks()
"""
    assert run(code) == repr((("/x", True), ["/x"]))


def test_a_tasklet_waits_for_an_add_that_runs_in_a_thread(run: Run) -> None:
    code = """
backend = Elsewhere()
send_to(bed, backend)
@ndb.tasklet
def add(url):
    task = yield taskqueue.Task(url=url).add_async()
    raise ndb.Return(task.name)
@ndb.tasklet
def both():
    names = yield add("/a"), add("/b")
    raise ndb.Return(names)
both().get_result(), sorted(backend.created), threading.get_ident() in backend.threads
"""
    assert run(code) == repr((["made", "made"], ["/a", "/b"], False))


def test_an_error_is_thrown_into_the_tasklet(run: Run) -> None:
    code = """
@ndb.tasklet
def add():
    try:
        yield taskqueue.Queue("nope").add_async(taskqueue.Task())
    except taskqueue.UnknownQueueError:
        raise ndb.Return("thrown")
add().get_result()
"""
    assert run(code) == repr("thrown")


def test_rpcs_are_waited_for_together_with_the_datastores(run: Run) -> None:
    code = """
@ndb.tasklet
def work():
    key = yield Thing(number=1).put_async()
    task = yield taskqueue.Task(url="/x").add_async()
    thing = yield key.get_async()
    raise ndb.Return(thing.number, task.url)
work().get_result()
"""
    assert run(code) == repr((1, "/x"))


def test_wait_any_and_wait_all_take_our_rpcs(run: Run) -> None:
    code = """
send_to(bed, Elsewhere())
calls = []
rpcs = [taskqueue.create_rpc(callback=lambda: calls.append(1)) for _ in range(3)]
for rpc in rpcs:
    taskqueue.Queue().add_async(taskqueue.Task(), rpc=rpc)
first = apiproxy_stub_map.UserRPC.wait_any(rpcs)
apiproxy_stub_map.UserRPC.wait_all(rpcs)
first in rpcs, [rpc.state for rpc in rpcs], calls
"""
    assert run(code) == repr((True, [2, 2, 2], [1, 1, 1]))


def test_wait_any_runs_an_add_to_the_stub(run: Run) -> None:
    code = """
calls = []
rpc = taskqueue.create_rpc(callback=lambda: calls.append(1))
taskqueue.Queue().add_async(taskqueue.Task(url="/x"), rpc=rpc)
before = tasks()
apiproxy_stub_map.UserRPC.wait_any([rpc]) is rpc, before, tasks(), calls
"""
    assert run(code) == repr((True, [], ["/x"], [1]))


def test_the_sdks_namespace_travels(run: Run) -> None:
    code = """
from google.appengine.api import namespace_manager
namespace_manager.set_namespace("ns1")
header = taskqueue.Task().headers["X-AppEngine-Current-Namespace"]
namespace_manager.set_namespace("")
header
"""
    assert run(code) == repr("ns1")


# --- the SDK's testbed -------------------------------------------------------------------------

TASK = """
def task(body=b"", **headers):
    return {"REQUEST_METHOD": "POST", "PATH_INFO": "/_ah/queue/deferred",
            "REMOTE_ADDR": "0.1.0.2", "HTTP_X_APPENGINE_TASKNAME": "t",
            "CONTENT_LENGTH": str(len(body)), "wsgi.input": io.BytesIO(body), **headers}
"""


@pytest.mark.parametrize(
    "call",
    [
        "taskqueue.add(url='/x')",
        "taskqueue.Task().add_async()",
        "taskqueue.Queue().purge()",
        "taskqueue.Queue().fetch_statistics()",
        "taskqueue.Queue().delete_tasks_by_name('a')",
    ],
)
def test_no_task_leaves_a_testbed_that_has_no_taskqueue(call: str, run: Run) -> None:
    code = f"bed.init_taskqueue_stub(enable=False)\n{call}"
    assert run(code).startswith('AssertionError: No api proxy found for service "taskqueue"')


def test_a_backend_that_the_test_itself_names_is_taken_there(run: Run) -> None:
    code = """
bed.init_taskqueue_stub(enable=False)
backend = Elsewhere()
taskqueue.Task(url="/x").add(_client=backend)
choice.activate(backend)
taskqueue.add(url="/y")
backend.created
"""
    assert run(code) == repr(["/x", "/y"])


def test_the_door_is_open_to_tests_while_the_stub_is_there_and_no_longer(run: Run) -> None:
    code = f"""
import io
from appengine_compat.handler import door
{TASK}
seen = [door.verdict(task()).trusted]
bed.init_taskqueue_stub(enable=False)
seen.append(door.verdict(task()).trusted)
bed.init_taskqueue_stub()
seen.append(door.verdict(task()).trusted)
bed.deactivate()
seen.append(door.verdict(task()).trusted)
bed.activate()
seen
"""
    assert run(code) == repr([True, False, True, False])


def test_a_task_of_the_stub_runs_through_the_handler(run: Run) -> None:
    code = f"""
import io
from google.appengine.ext import deferred
{TASK}
deferred.defer(len, "abc")
(queued,) = bed.get_stub("taskqueue").get_filtered_tasks()
deferred.application.post(task(queued.payload))[:2]
"""
    assert run(code) == repr(("Success", HTTPStatus.OK))


def test_a_stranger_is_refused_under_the_testbed_as_on_app_engine(run: Run) -> None:
    code = f"""
import io
from google.appengine.ext import deferred
{TASK}
request = task(b"nobody may read this")
request["REMOTE_ADDR"] = "10.0.0.1"
deferred.application.post(request)[:2]
"""
    assert run(code) == repr(
        (
            "Detected an attempted XSRF attack. This request did not originate from Task Queue.",
            HTTPStatus.FORBIDDEN,
        )
    )


def test_memcache_stays_the_sdks(run: Run) -> None:
    code = """
from google.appengine.api import memcache
memcache.set("a", 1)
memcache.get("a"), "appengine_compat" in memcache.__file__
"""
    assert run(code) == repr((1, False))


# --- transactions ----------------------------------------------------------------------------

TRANSACTIONS = pytest.mark.parametrize("transaction", [NDB, DB], ids=["ndb", "db"])


@TRANSACTIONS
def test_a_task_is_enqueued_when_the_transaction_commits_and_not_before(
    transaction: str, run: Run
) -> None:
    code = f"""
{XG}
def body():
    task = taskqueue.add(url="/x", transactional=True)
    return task.was_enqueued, task.queue_name, bool(task.name), tasks()
{transaction}, tasks()
"""
    assert run(code) == repr(((True, "default", True, []), ["/x"]))


@TRANSACTIONS
def test_a_rollback_enqueues_nothing(transaction: str, run: Run) -> None:
    code = f"""
{XG}
def body():
    Thing(number=1).put() if "ndb" in {transaction!r} else OldThing(number=1).put()
    taskqueue.add(url="/x", transactional=True)
    raise db.Rollback() if "ndb" not in {transaction!r} else ndb.Rollback()
{transaction}, tasks()
"""
    assert run(code) == repr((None, []))


@TRANSACTIONS
def test_an_exception_enqueues_nothing(transaction: str, run: Run) -> None:
    code = f"""
{XG}
def body():
    taskqueue.add(url="/x", transactional=True)
    raise KeyError("mine")
try:
    {transaction}
except KeyError:
    pass
tasks()
"""
    assert run(code) == repr([])


def test_a_body_that_runs_again_enqueues_once(run: Run) -> None:
    code = """
key = Thing(id="a", number=0).put()
tries = []
def body():
    thing = key.get()
    tries.append(1)
    if len(tries) == 1:
        ndb.transaction(lambda: Thing(id="a", number=9).put(),
                        propagation=ndb.TransactionOptions.INDEPENDENT)
    thing.number = 1
    thing.put()
    taskqueue.add(url="/x", transactional=True)
ndb.transaction(body)
len(tries), tasks()
"""
    assert run(code) == repr((2, ["/x"]))


def test_a_body_of_db_that_runs_again_enqueues_once(run: Run) -> None:
    code = """
OldThing(key_name="a", number=0).put()
tries = []
def change():
    OldThing(key_name="a", number=9).put()
def body():
    thing = OldThing.get_by_key_name("a")
    tries.append(1)
    if len(tries) == 1:
        thread = threading.Thread(target=change)
        thread.start()
        thread.join()
    thing.number = 1
    thing.put()
    taskqueue.add(url="/x", transactional=True)
db.run_in_transaction(body)
len(tries), tasks()
"""
    assert run(code) == repr((2, ["/x"]))


@TRANSACTIONS
def test_a_task_that_is_not_transactional_survives_the_rollback(transaction: str, run: Run) -> None:
    code = f"""
{XG}
def body():
    taskqueue.add(url="/x")
    raise KeyError
try:
    {transaction}
except KeyError:
    pass
tasks()
"""
    assert run(code) == repr(["/x"])


@TRANSACTIONS
@pytest.mark.parametrize("adds", ["one by one", "at once"])
def test_a_sixth_task_is_refused_as_by_the_datastore(transaction: str, adds: str, run: Run) -> None:
    how = (
        "[taskqueue.add(url='/x', transactional=True) for _ in range(6)]"
        if adds == "one by one"
        else "taskqueue.Queue().add([taskqueue.Task() for _ in range(6)], transactional=True)"
    )
    code = f"""
{XG}
from google.appengine.api import datastore_errors
def body():
    {how}
seen = []
try:
    {transaction}
except taskqueue.DatastoreError as error:
    seen += [type(error).__name__, isinstance(error, datastore_errors.BadRequestError), str(error)]
seen, tasks()
"""
    text = (
        "taskqueue.DatastoreError caused by: "
        "<class 'google.appengine.api.datastore_errors.BadRequestError'> "
        "Too many messages, maximum allowed 5"
    )
    assert run(code) == repr((["JointException", True, text], []))


@TRANSACTIONS
def test_five_tasks_of_several_adds_are_enqueued(transaction: str, run: Run) -> None:
    code = f"""
{XG}
def body():
    taskqueue.Queue().add([taskqueue.Task(url="/a"), taskqueue.Task(url="/b")], transactional=True)
    taskqueue.Queue().add_async(taskqueue.Task(url="/c"), transactional=True).get_result()
    taskqueue.add(url="/d", transactional=True)
    taskqueue.add(url="/e", transactional=True)
{transaction}
sorted(tasks())
"""
    assert run(code) == repr(["/a", "/b", "/c", "/d", "/e"])


@TRANSACTIONS
@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("taskqueue.add(name='n', transactional=True)", "InvalidTaskNameError"),
        (
            "taskqueue.Queue().add([taskqueue.Task('x' * 102000) for _ in range(11)], True)",
            "TransactionalRequestTooLargeError",
        ),
        ("taskqueue.Queue('nope').add(taskqueue.Task(), transactional=True)", "UnknownQueueError"),
    ],
)
def test_what_a_transaction_cannot_take_is_refused_at_once(
    transaction: str, call: str, error: str, run: Run
) -> None:
    code = f"""
{XG}
def body():
    try:
        {call}
    except taskqueue.Error as error:
        return type(error).__name__
{transaction}, tasks()
"""
    assert run(code) == repr((error, []))


def test_outside_of_a_transaction_there_is_none(run: Run) -> None:
    assert run("taskqueue.add(transactional=True)") == (
        "BadTransactionStateError: Transactional adds are not allowed outside of transactions"
    )


def test_a_failure_after_the_commit_is_told_and_the_commit_stands(run: Run) -> None:
    code = """
send_to(bed, Elsewhere(base.BackendError(base.Reason.TRANSIENT, "Not reachable.")))
def body():
    Thing(id="a", number=1).put()
    taskqueue.add(url="/x", transactional=True)
seen = []
try:
    ndb.transaction(body)
except taskqueue.TransientError as error:
    seen.append("/x" in str(error) or "task" in str(error))
seen, Thing.get_by_id("a").number
"""
    assert run(code) == repr(([True], 1))


def test_other_hooks_run_beside_ours(run: Run) -> None:
    code = """
calls = []
def body():
    taskqueue.add(url="/x", transactional=True)
    ndb.get_context().call_on_commit(lambda: calls.append(tasks()))
ndb.transaction(body)
calls
"""
    assert run(code) == repr([["/x"]])


def test_an_independent_transaction_has_its_own_tasks(run: Run) -> None:
    code = """
def inner():
    taskqueue.add(url="/inner", transactional=True)
def body():
    taskqueue.add(url="/outer", transactional=True)
    ndb.transaction(inner, propagation=ndb.TransactionOptions.INDEPENDENT)
    seen.extend(tasks())
    raise KeyError
seen = []
try:
    ndb.transaction(body)
except KeyError:
    pass
seen, tasks()
"""
    assert run(code) == repr((["/inner"], ["/inner"]))
