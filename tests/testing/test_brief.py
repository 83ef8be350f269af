"""The ways in which its users write their tests, as written."""

from __future__ import annotations

import unittest
from pathlib import Path

import pytest
from google.appengine.ext import deferred, testbed

done: list[str] = []


def do_something() -> None:
    done.append("something")


@pytest.fixture(autouse=True)
def _nothing_done() -> None:
    done.clear()


def test_defer(taskqueue_stub) -> None:
    assert len(taskqueue_stub.get_filtered_tasks(queue_names="testing")) == 0
    deferred.defer(do_something, _queue="testing")
    tasks = taskqueue_stub.get_filtered_tasks(queue_names="testing")
    assert len(tasks) == 1
    for task in tasks:
        deferred.run(task.payload)
    assert done == ["something"]
    assert len(taskqueue_stub.get_filtered_tasks(queue_names="testing")) == 1


class WithAnAutouseFixture(unittest.TestCase):
    @pytest.fixture(autouse=True)
    def store_taskqueue_stub(self, taskqueue_stub) -> None:
        self.taskqueue_stub = taskqueue_stub

    def test_defer(self) -> None:
        deferred.defer(do_something, _queue="testing")
        for task in self.taskqueue_stub.get_filtered_tasks(queue_names="testing"):
            deferred.run(task.payload)
        assert done == ["something"]

    def test_each_test_has_its_own(self) -> None:
        assert self.taskqueue_stub.get_filtered_tasks() == []
        assert deferred.defer(do_something).name == "task1"


@pytest.mark.usefixtures("taskqueue_stub")
class WithUsefixtures(unittest.TestCase):
    def test_defer(self) -> None:
        assert deferred.defer(do_something).name == "task1"


class ByHand(unittest.TestCase):
    def setUp(self) -> None:
        self.testbed = tb = testbed.Testbed()
        tb.activate()
        root = Path(__file__).parents[2]
        tb.init_taskqueue_stub(root_path=root)
        self.taskqueue_stub = tb.get_stub(testbed.TASKQUEUE_SERVICE_NAME)
        self.addCleanup(tb.deactivate)

    def test_defer(self) -> None:
        deferred.defer(do_something, _queue="push-notifications", _countdown=60)
        (task,) = self.taskqueue_stub.get_filtered_tasks(queue_names="push-notifications")
        deferred.run(task.payload)
        assert done == ["something"]
