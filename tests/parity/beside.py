"""Runs code beside Google's SDK, with ``install()`` called, in a testbed with a datastore.

Reads one JSON text a line, code whose last line is an expression, and answers its value's
``repr``, or the exception's class and text, one a line. ``observe.py`` is its sibling for calls
that are compared.
"""

import ast
import json
import logging
import sys
import threading

import appengine_compat

appengine_compat.install()

from google.appengine.api import apiproxy_stub_map, taskqueue  # noqa: E402, F401 - for the code
from google.appengine.ext import db, ndb, testbed  # noqa: E402

from appengine_compat.backends import base, choice  # noqa: E402


class Thing(ndb.Model):
    number = ndb.IntegerProperty()


class OldThing(db.Model):
    number = db.IntegerProperty()


class Elsewhere:
    """A backend that is no stub: calls to it start at once, in a thread."""

    kind = "elsewhere"

    def __init__(self, error=None):
        self.created = []
        self.threads = set()
        self.error = error

    def create_tasks(self, queue, requests, *, timeout_seconds=None):
        self.threads.add(threading.get_ident())
        if self.error is not None:
            raise self.error
        self.created += [request.relative_url for request in requests]
        return [base.Outcome(request.name or "made") for request in requests]

    def delete_tasks(self, queue, task_ids, *, timeout_seconds=None):
        return [base.Outcome(name) for name in task_ids]

    def purge_queue(self, queue, *, timeout_seconds=None):
        pass

    def queue_stats(self, queues, *, timeout_seconds=None):
        if "nope" in queues:
            raise base.BackendError(base.Reason.UNKNOWN_QUEUE, "There is no queue nope.")
        return [base.QueueStats() for _ in queues]


def send_to(bed, backend):
    bed.init_taskqueue_stub(enable=False)
    choice.activate(backend)


def run(code):
    bed = testbed.Testbed()
    bed.activate()
    bed.init_datastore_v3_stub()
    bed.init_memcache_stub()
    bed.init_taskqueue_stub()
    ndb.get_context().clear_cache()
    ndb.get_context().set_cache_policy(False)
    stub = bed.get_stub("taskqueue")
    tree = ast.parse(code)
    last = ast.Expression(tree.body.pop().value)
    names = dict(
        globals(), bed=bed, tasks=lambda: [task["url"] for task in stub.GetTasks("default")]
    )
    try:
        exec(compile(tree, "<case>", "exec"), names)
        return repr(eval(compile(last, "<case>", "eval"), names))
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    finally:
        for backend in list(choice._active):
            if backend.kind == "elsewhere":
                choice.deactivate(backend)
        bed.deactivate()


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), flush=True)
