"""The names of the module and of its package, as old code imports them."""

from __future__ import annotations
import __future__

import datetime
import importlib
import subprocess
import sys
import types

import google.appengine.api.taskqueue.taskqueue as submodule
import pytest
from google.appengine.api import taskqueue


def test_the_package_shows_the_public_names_of_the_submodule() -> None:
    assert taskqueue.taskqueue is submodule
    for name in submodule.__all__:
        assert getattr(taskqueue, name) is getattr(submodule, name)
    assert set(submodule.__all__) - set(taskqueue.__all__) == {
        "InvalidTaskRetryOptionsError",
        "MAX_DISPATCH_DEADLINE",
        "MAX_TAG_LENGTH",
        "MAX_TRANSACTIONAL_REQUEST_SIZE_BYTES",
        "MIN_DISPATCH_DEADLINE",
    }


def test_whatever_is_public_in_the_submodule_is_in_its_all() -> None:
    public = {
        name
        for name, value in vars(submodule).items()
        if not name.startswith("_")
        and not isinstance(value, (types.ModuleType, __future__._Feature))
    }
    assert public == set(submodule.__all__)


@pytest.mark.parametrize(
    "name",
    [
        "_DEFAULT_QUEUE",
        "_DEFAULT_QUEUE_PATH",
        "_UTC",
        "_UTCTimeZone",
        "_TASK_NAME_PATTERN",
        "_TASK_NAME_RE",
        "_QUEUE_NAME_PATTERN",
        "_QUEUE_NAME_RE",
        "_UNKNOWN_APP_VERSION",
        "_MAX_COUNTDOWN_SECONDS",
        "_RelativeUrlError",
        "_flatten_params",
        "_parse_relative_url",
    ],
)
def test_private_names_are_on_the_submodule_only(name: str) -> None:
    assert hasattr(submodule, name)
    assert not hasattr(taskqueue, name)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MAX_QUEUE_NAME_LENGTH", 100),
        ("MAX_TASK_NAME_LENGTH", 500),
        ("MAX_TASK_SIZE_BYTES", 102_400),
        ("MAX_PUSH_TASK_SIZE_BYTES", 102_400),
        ("MAX_PULL_TASK_SIZE_BYTES", 1_048_576),
        ("MAX_TRANSACTIONAL_REQUEST_SIZE_BYTES", 1_048_576),
        ("MAX_TASKS_PER_ADD", 100),
        ("MAX_TASKS_PER_LEASE", 1000),
        ("MAX_LEASE_SECONDS", 604_800),
        ("MAX_TAG_LENGTH", 500),
        ("MAX_URL_LENGTH", 2083),
        ("MIN_DISPATCH_DEADLINE", datetime.timedelta(seconds=15)),
        ("MAX_DISPATCH_DEADLINE", datetime.timedelta(hours=24)),
    ],
)
def test_the_limits_are_app_engines(name: str, value: object) -> None:
    assert getattr(taskqueue, name) == value


@pytest.mark.parametrize(
    ("error", "base"),
    [
        ("InvalidTaskError", "Error"),
        ("InvalidTaskNameError", "InvalidTaskError"),
        ("TaskTooLargeError", "InvalidTaskError"),
        ("TaskAlreadyExistsError", "InvalidTaskError"),
        ("TombstonedTaskError", "InvalidTaskError"),
        ("InvalidUrlError", "InvalidTaskError"),
        ("InvalidEtaError", "InvalidTaskError"),
        ("TransactionalRequestTooLargeError", "TaskTooLargeError"),
        ("InvalidQueueNameError", "InvalidQueueError"),
        ("InvalidQueueError", "Error"),
        ("TransientError", "Error"),
        ("DatastoreError", "Error"),
    ],
)
def test_the_tree_of_errors_is_app_engines(error: str, base: str) -> None:
    assert getattr(taskqueue, base) in getattr(taskqueue, error).__bases__


def test_the_older_name_of_an_error_is_there() -> None:
    assert taskqueue.BadTransactionState is taskqueue.BadTransactionStateError


def test_importing_it_loads_no_heavy_library() -> None:
    program = (
        "import sys; from google.appengine.api import taskqueue; taskqueue.Task('x'); "
        "print([name for name in sys.modules if name.split('.')[0] in ('grpc', 'yaml', 'flask',"
        " 'redis', 'sqlite3', 'asyncio', 'concurrent') or name.startswith('google.cloud')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_the_name_of_before_2011_is_the_same_module() -> None:
    from google.appengine.api.labs import taskqueue as old

    assert old is taskqueue
    assert importlib.import_module("google.appengine.api.labs.taskqueue") is taskqueue
