"""What old code imports from ``google.appengine.ext.deferred``, and finds there."""

from __future__ import annotations

import importlib
import logging
import pickle
import types

import pytest
from google.appengine.api import taskqueue
from google.appengine.ext import deferred
from google.appengine.ext.deferred import deferred as submodule


def test_the_submodule_is_an_attribute_of_the_package() -> None:
    assert importlib.import_module("google.appengine.ext.deferred.deferred") is deferred.deferred
    assert deferred.deferred is submodule


@pytest.mark.parametrize(
    "name",
    [
        "Error", "Handler", "PermanentTaskFailure", "SingularTaskFailure", "TaskHandler",
        "application", "defer", "http", "invoke_member", "logging", "main", "os", "pickle", "run",
        "run_from_datastore", "serialize", "set_log_level", "taskqueue", "types",
    ],
)  # fmt: skip
def test_public_names_are_the_same_on_both(name: str) -> None:
    assert getattr(deferred, name) is getattr(submodule, name)


def test_what_the_library_imports_is_reachable_through_it() -> None:
    assert deferred.taskqueue is taskqueue
    assert deferred.pickle is pickle
    assert deferred.types is types


@pytest.mark.parametrize(
    "name",
    [
        "_curry_callable", "_DEFAULT_URL", "_DEFAULT_QUEUE", "_TASKQUEUE_HEADERS",
        "_DEFAULT_LOG_LEVEL", "_TASKQUEUE_RESPONSE_HEADERS",
    ],
)  # fmt: skip
def test_private_names_are_on_the_submodule_only(name: str) -> None:
    assert hasattr(submodule, name)
    assert not hasattr(deferred, name)


def test_the_constants_have_their_values() -> None:
    assert submodule._DEFAULT_URL == "/_ah/queue/deferred"
    assert submodule._DEFAULT_QUEUE == "default"
    assert submodule._TASKQUEUE_HEADERS == {"Content-Type": "application/octet-stream"}
    assert submodule._TASKQUEUE_RESPONSE_HEADERS == ("Content-Type", "text/plain")


def test_the_exceptions_have_one_base() -> None:
    assert issubclass(deferred.PermanentTaskFailure, deferred.Error)
    assert issubclass(deferred.SingularTaskFailure, deferred.Error)
    assert deferred.Error.__bases__ == (Exception,)
    assert deferred.Error.__module__ == "google.appengine.ext.deferred.deferred"


def test_the_log_level_is_a_global_of_the_submodule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submodule, "_DEFAULT_LOG_LEVEL", logging.INFO)
    deferred.set_log_level(logging.DEBUG)
    assert submodule._DEFAULT_LOG_LEVEL == logging.DEBUG


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="task_handler"):
        deferred.task_handler  # noqa: B018


@pytest.mark.parametrize("name", ["db", "_DeferredTaskEntity"])
def test_what_needs_googles_sdk_says_so(name: str) -> None:
    with pytest.raises(AttributeError, match=r"appengine-python-standard.*install\(\)"):
        getattr(submodule, name)


def test_the_script_of_old_app_yaml_files_exists() -> None:
    assert callable(importlib.import_module("google.appengine.ext.deferred.handler").main)
