"""Beside Google's SDK: payloads too large for a task lie in its datastore, and nothing is lost.

Each row of what went wrong in App Engine's library is a test here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.parity.conftest import Child

Run = Callable[[str], str]

PREAMBLE = """
import base64, operator, pickle, sys, types
from google.appengine.ext import deferred
from google.appengine.ext.deferred import deferred as submodule
calls = []
app = types.ModuleType("app_of_this_test")
def work(*args):
    calls.append(len(args))
    outcome = args[-1]
    if isinstance(outcome, type):
        raise outcome()
    return outcome
work.__module__, work.__qualname__ = app.__name__, "work"
app.work = work
sys.modules[app.__name__] = app
stub = bed.get_stub("taskqueue")
LARGE = "x" * taskqueue.MAX_TASK_SIZE_BYTES
def stored():
    return submodule._DeferredTaskEntity.all().count()
def queued():
    return [base64.b64decode(task["body"]) for task in stub.GetTasks("default")]
def attempt(call, *args, **kwargs):
    try:
        return call(*args, **kwargs)
    except Exception as error:
        return type(error).__name__
"""


@pytest.fixture
def run(beside: Child) -> Run:
    return lambda code: beside.ask(PREAMBLE + code)


def test_the_library_is_ours_and_the_entity_is_the_sdks(run: Run) -> None:
    assert run(
        "submodule.__file__.count('appengine_compat'), issubclass(submodule._DeferredTaskEntity, "
        "db.Model), submodule._DeferredTaskEntity.kind(), submodule.db is db, "
        "hasattr(deferred, '_DeferredTaskEntity'), "
        "submodule._DeferredTaskEntity is submodule._DeferredTaskEntity, "
        "submodule._DeferredTaskEntity.__module__"
    ) == repr(
        (
            1, True, "_DeferredTaskEntity", True, False, True,
            "google.appengine.ext.deferred.deferred",
        )
    )  # fmt: skip


def test_one_small_task_names_the_stored_payload(run: Run) -> None:
    assert run(
        "task = deferred.defer(app.work, LARGE, 1)\n"
        "[payload] = queued()\n"
        "task.was_enqueued, len(payload) < 500, stored(), "
        "pickle.loads(payload)[0] is deferred.run_from_datastore"
    ) == repr((True, True, 1, True))


def test_running_it_calls_once_returns_the_value_and_removes_the_payload(run: Run) -> None:
    assert run(
        "deferred.defer(app.work, LARGE, 'the value')\n"
        "[payload] = queued()\n"
        "first = deferred.run(payload)\n"
        "first, calls, stored(), attempt(deferred.run, payload), calls"
    ) == repr(("the value", [2], 0, "PermanentTaskFailure", [2]))


@pytest.mark.parametrize(
    ("error", "left"),
    [
        ("ValueError", 1),
        ("deferred.SingularTaskFailure", 1),
        ("deferred.PermanentTaskFailure", 0),
    ],
)
def test_the_payload_stays_while_the_call_may_be_tried_again(
    run: Run, error: str, left: int
) -> None:
    assert run(
        f"submodule._DeferredTaskEntity(data=pickle.dumps((app.work, ({error},), {{}}))).put()\n"
        "key = str(submodule._DeferredTaskEntity.all().get().key())\n"
        "attempt(deferred.run_from_datastore, key), stored()"
    ) == repr((error.rpartition(".")[2], left))


def test_nothing_stays_stored_when_the_task_is_refused(run: Run) -> None:
    """App Engine's library left the payload behind."""
    assert run(
        "attempt(deferred.defer, app.work, LARGE, _queue='nope'), stored(), queued()"
    ) == repr(("UnknownQueueError", 0, []))


def test_transactional_outside_a_transaction_is_refused(run: Run) -> None:
    """It was accepted for large payloads only."""
    assert run(
        "attempt(deferred.defer, app.work, LARGE, _transactional=True), stored(), queued()"
    ) == repr(("BadTransactionStateError", 0, []))


TRANSACTIONS = pytest.mark.parametrize(
    "transaction",
    ["ndb.transaction(body)", "ndb.transaction(body, xg=True)", "db.run_in_transaction(body)"],
)


@TRANSACTIONS
def test_a_rollback_takes_the_task_and_its_payload_with_it(run: Run, transaction: str) -> None:
    """In ndb's transactions it raised AttributeError; in db's the task was left behind."""
    code = f"""
def body():
    deferred.defer(app.work, LARGE, 1, _transactional=True)
    raise RuntimeError
seen = attempt(lambda: {transaction})
"""
    assert run(code + "seen, stored(), queued()") == repr(("RuntimeError", 0, []))


@TRANSACTIONS
def test_a_commit_enqueues_it_once(run: Run, transaction: str) -> None:
    code = f"""
def body():
    deferred.defer(app.work, LARGE, 'the value', _transactional=True)
    return queued()
early = {transaction}
[payload] = queued()
"""
    assert run(code + "early, deferred.run(payload), stored()") == repr(([], "the value", 0))


@TRANSACTIONS
def test_a_task_that_is_not_of_the_transaction_survives_its_rollback(
    run: Run, transaction: str
) -> None:
    code = f"""
def body():
    deferred.defer(app.work, LARGE, 'the value')
    raise RuntimeError
seen = attempt(lambda: {transaction})
[payload] = queued()
"""
    assert run(code + "seen, deferred.run(payload)") == repr(("RuntimeError", "the value"))


def test_without_a_datastore_the_task_carries_its_payload(run: Run) -> None:
    assert run(
        "bed.init_datastore_v3_stub(enable=False)\n"
        "deferred.defer(app.work, LARGE, 'the value')\n"
        "[payload] = queued()\n"
        "deferred.run(payload), attempt(deferred.defer, app.work, LARGE * 11)"
    ) == repr(("the value", "TaskTooLargeError"))


def test_a_payload_that_is_too_large_for_both_is_refused(run: Run) -> None:
    """In App Engine's library that was an error of the datastore's."""
    assert run("attempt(deferred.defer, app.work, LARGE * 11), stored(), queued()") == repr(
        ("TaskTooLargeError", 0, [])
    )


def test_the_namespace_of_the_enqueuer_holds_for_the_payload(run: Run) -> None:
    assert run(
        "from google.appengine.api import namespace_manager\n"
        "namespace_manager.set_namespace('ns1')\n"
        "deferred.defer(app.work, LARGE, 'the value')\n"
        "namespace_manager.set_namespace('')\n"
        "[payload] = queued()\n"
        "deferred.run(payload)"
    ) == repr("the value")


def test_ndb_entities_and_keys_that_python_2_pickled(run: Run) -> None:
    """Its payload of an entity is a serialized protocol buffer, in a string of bytes."""
    assert run(
        "entity = Thing(number=130, id='caf\\u00e9')\n"
        "state = entity.__getstate__()\n"
        "state = state if isinstance(state, bytes) else bytes(state)\n"
        "short = b'U' + bytes([len(state)]) + state\n"
        "module = Thing.__module__.encode()\n"
        "payload = (b'\\x80\\x02c__builtin__\\nrepr\\nc' + module + b'\\nThing\\n)\\x81' + short + "
        "b'b\\x85}\\x87.')\n"
        "deferred.run(payload) == repr(entity)"
    ) == repr(True)
