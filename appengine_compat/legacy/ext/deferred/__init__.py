"""``google.appengine.ext.deferred``: call a function later, from a task.

The code is in the submodule of the same name, since payloads name it there and old code patches
it there; this package offers its public names, as App Engine's did.
"""

from __future__ import annotations

import http
import logging
import os
import pickle
import types

from google.appengine.ext.deferred import deferred
from google.appengine.ext.deferred.deferred import (
    Error,
    Handler,
    PermanentTaskFailure,
    SingularTaskFailure,
    application,
    defer,
    invoke_member,
    run,
    run_from_datastore,
    serialize,
    set_log_level,
)

__all__ = [
    "Error",
    "Handler",
    "PermanentTaskFailure",
    "SingularTaskFailure",
    "application",
    "defer",
    "deferred",
    "http",
    "invoke_member",
    "logging",
    "os",
    "pickle",
    "run",
    "run_from_datastore",
    "serialize",
    "set_log_level",
    "taskqueue",
    "types",
]


def __getattr__(name: str) -> object:
    # Private names exist on the submodule only, as in App Engine's package.
    if name in ("TaskHandler", "db", "main", "taskqueue"):
        return getattr(deferred, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
