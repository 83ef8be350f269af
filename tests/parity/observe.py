"""Runs calls of the legacy API and tells what came of them, in words that two sides can compare.

This file runs under any interpreter, with Google's SDK or with appengine-compat, and imports
nothing but the standard library and ``google.appengine``. It reads one JSON object a line:
``code`` (its last line is an expression), ``environment`` (variables), ``testbed`` (whether a
testbed with a task queue stub is active), ``zone`` (a time zone); and answers one a line.
"""

import ast
import contextlib
import datetime
import json
import logging
import os
import sys
import time

NOW = 1_700_000_000.25
TASK_FIELDS = (
    "dispatch_deadline_usec eta_posix headers method name on_queue_url payload queue_name "
    "retry_count size tag target url was_enqueued was_deleted"
)
OPTION_FIELDS = (
    "min_backoff_seconds max_backoff_seconds task_age_limit max_doublings task_retry_limit"
)


def shown(value):
    """Return a value as JSON can carry it and both sides would tell it."""
    from google.appengine.api import taskqueue

    if isinstance(value, taskqueue.Task):
        fields = {name: shown(getattr(value, name)) for name in TASK_FIELDS.split()}
        return {"Task": {**fields, "eta": value.eta.isoformat()}}
    if isinstance(value, taskqueue.TaskRetryOptions):
        return {
            "TaskRetryOptions": {
                name: shown(getattr(value, name)) for name in OPTION_FIELDS.split()
            }
        }
    if isinstance(value, taskqueue.QueueStatistics):
        # The SDK's stub makes the other figures up.
        return {"QueueStatistics": [shown(value.queue), value.tasks, value.oldest_eta_usec]}
    if isinstance(value, dict):
        return {"dict": sorted([repr(key), shown(item)] for key, item in value.items())}
    if isinstance(value, (list, tuple)):
        return {type(value).__name__: [shown(item) for item in value]}
    if hasattr(value, "check_success"):
        return {"rpc": [value.service, value.method, value.deadline, value.state]}
    return repr(value)


def told(error):
    """Return an exception's class, those of its bases that callers can name, and its text."""
    from google.appengine.api import taskqueue

    # Code that catches a base sees no difference, so the order of the bases does not count.
    known = {
        base.__name__
        for base in type(error).__mro__
        if getattr(taskqueue, base.__name__, None) is base or base.__module__ == "builtins"
    }
    return {"raised": type(error).__name__, "bases": sorted(known), "text": str(error)}


def evaluate(code, names):
    tree = ast.parse(code)
    last = ast.Expression(tree.body.pop().value)
    exec(compile(tree, "<case>", "exec"), names)
    return eval(compile(last, "<case>", "eval"), names)


@contextlib.contextmanager
def surroundings(environment, with_testbed, zone):
    saved = dict(os.environ)
    os.environ.update(environment, TZ=zone)
    time.tzset()
    bed = None
    try:
        if with_testbed:
            from google.appengine.ext import testbed

            bed = testbed.Testbed()
            bed.activate()
            bed.init_taskqueue_stub()
        yield bed
    finally:
        if bed is not None:
            bed.deactivate()
        os.environ.clear()
        os.environ.update(saved)
        time.tzset()


def observe(case):
    from google.appengine.api import namespace_manager, taskqueue

    environment = case.get("environment") or {}
    with surroundings(environment, case.get("testbed"), case.get("zone") or "UTC") as bed:
        names = {
            "taskqueue": taskqueue,
            "Task": taskqueue.Task,
            "Queue": taskqueue.Queue,
            "TaskRetryOptions": taskqueue.TaskRetryOptions,
            "QueueStatistics": taskqueue.QueueStatistics,
            "namespace_manager": namespace_manager,
            "datetime": datetime,
            "bed": bed,
            "told": told,
            "NOW": NOW,
        }
        try:
            return {"value": shown(evaluate(case["code"], names))}
        except Exception as error:
            return told(error)
        finally:
            namespace_manager.set_namespace("")


def main():
    # The SDK warns once for every task made outside of a request.
    logging.disable(logging.CRITICAL)
    time.time = lambda: NOW
    for line in sys.stdin:
        print(json.dumps(observe(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
