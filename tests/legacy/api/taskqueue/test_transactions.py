"""Transactional adds without a transaction. Real ones are in ``tests/parity``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from google.appengine.api import taskqueue

if TYPE_CHECKING:
    from tests.legacy.api.taskqueue.conftest import Recorder


def test_outside_of_a_transaction_a_transactional_add_is_refused(backend: Recorder) -> None:
    for add in (
        lambda: taskqueue.add(transactional=True),
        lambda: taskqueue.Task(name="n").add(transactional=True),
        lambda: taskqueue.Queue().add([taskqueue.Task()], transactional=True),
        lambda: taskqueue.Queue().add_async(taskqueue.Task(), transactional=True),
    ):
        with pytest.raises(taskqueue.BadTransactionState, match="outside of transactions"):
            add()
    assert not backend.created


def test_no_tasks_need_no_transaction(backend: Recorder) -> None:
    assert taskqueue.Queue().add([], transactional=True) == []
    assert taskqueue.Queue().add_async([], transactional=True).get_result() == []
