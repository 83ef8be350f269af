"""Where appengine-compat answers otherwise than Google's SDK, on purpose, and why.

``docs/parity.md`` is made of this table; ``test_deviations.py`` holds each row to be true.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Deviation:
    """One call that the two sides answer differently."""

    area: str
    call: str
    """Code whose last line is an expression, as ``observe.py`` runs it."""
    app_engine: str
    """A part of what the SDK answers, as JSON."""
    ours: str
    """A part of what appengine-compat answers, as JSON."""
    reason: str
    surroundings: dict[str, Any] = field(default_factory=dict)


STUB = {"testbed": True}
IMPORT = "from google.appengine.ext import deferred\n"

DEVIATIONS: tuple[Deviation, ...] = (
    Deviation(
        "taskqueue",
        'taskqueue.add(queue_name="nope")',
        '"text": ""',
        "queue 'nope'",
        "A message is never empty: it names the queue, the task and the cause.",
        STUB,
    ),
    Deviation(
        "taskqueue",
        'taskqueue.add(name="a")\ntaskqueue.add(name="a")',
        '"TaskAlreadyExistsError", "object"',
        '"TaskAlreadyExistsError", "TombstonedTaskError"',
        "Code in the wild catches one of the two and means both; Cloud Tasks answers both alike.",
        STUB,
    ),
    Deviation(
        "taskqueue",
        "[task.name for task in Queue().add([Task(), Task(), Task()])]",
        "None",
        "task1",
        "Every task of a batch is told its name, not the last one only.",
        STUB,
    ),
    Deviation(
        "taskqueue",
        'Queue().add(Task(name="a\\n"))',
        '"value"',
        "InvalidTaskNameError",
        "A newline passes the pattern of the constructor, and is told when the task is added.",
        STUB,
    ),
    Deviation(
        "taskqueue",
        "Queue().add_async([]).get_result()",
        '"raised": "AssertionError"',
        '"list": []',
        "No tasks are no mistake: Queue.add([]) answers the same.",
        STUB,
    ),
    Deviation(
        "taskqueue",
        'Queue("default\\n").add(Task())',
        "UnknownQueueError",
        "InvalidQueueNameError",
        "A newline passes the pattern of App Engine's constructor, and is told when it matters.",
        STUB,
    ),
    Deviation(
        "taskqueue",
        'Queue().add_async(Task("x", method="PULL"))',
        '"rpc"',
        "InvalidQueueModeError",
        "There are no pull queues on Cloud Tasks, and a result that nobody fetches would hide it.",
        STUB,
    ),
    Deviation(
        "taskqueue",
        "Queue().lease_tasks(1, 1)",
        '"text": ""',
        "Pub/Sub",
        "There are no pull queues on Cloud Tasks; the message names what to use instead.",
        STUB,
    ),
    Deviation(
        "taskqueue",
        "Queue().lease_tasks(1, True)",
        "TypeError",
        "InvalidQueueModeError",
        "A bool passes as a number; pull queues are refused in any case.",
        STUB,
    ),
    Deviation(
        "taskqueue",
        'Queue().modify_task_lease(Task("x", method="PULL"), 5)',
        "TypeError",
        "InvalidQueueModeError",
        "There are no pull queues on Cloud Tasks.",
        STUB,
    ),
    Deviation(
        "taskqueue",
        "taskqueue.create_rpc().service",
        "AssertionError",
        "taskqueue",
        "An RPC object can be made before it is known where tasks go.",
    ),
    Deviation(
        "namespace_manager",
        'namespace_manager.set_namespace("a\\n")\nnamespace_manager.get_namespace()',
        "a\\\\n",
        "BadValueError",
        "The namespace travels in a header, which a newline would end.",
    ),
    Deviation(
        "deferred",
        IMPORT + "deferred.defer(len, 'a', _url=None).on_queue_url",
        "TypeError",
        "True",
        "The documentation of App Engine says that None means the queue's own URL.",
        STUB,
    ),
    Deviation(
        "deferred",
        IMPORT + "deferred.defer(len, 'a', _url='/x?a=1').url",
        "InvalidTaskError",
        "/x?a=1",
        "A label or a flag in the address disturbs no payload; taskqueue.Task keeps the old rule.",
        STUB,
    ),
    Deviation(
        "deferred",
        IMPORT + "deferred.defer(len, 'a', _headers=None).headers['Content-Type']",
        "TypeError",
        "application/octet-stream",
        "None means none, as it does for taskqueue.Task.",
        STUB,
    ),
    Deviation(
        "deferred",
        IMPORT + "import asyncio, pickle\n"
        "type(deferred.run(pickle.dumps((asyncio.sleep, (0,), {})))).__name__",
        "coroutine",
        "NoneType",
        "A coroutine is run to its end; App Engine answered 200 without running it.",
    ),
    Deviation(
        "deferred",
        IMPORT + "import base64\ndeferred.run(base64.b64encode(deferred.serialize(len, 'abc')))",
        "PermanentTaskFailure",
        '"3"',
        "Tasks in flight from code that wrapped its payloads in base64 still run.",
    ),
    Deviation(
        "deferred",
        IMPORT + "deferred.run(b'\\x80\\x02c__builtin__\\nlen\\nU\\x02\\xc3\\xa9\\x85}\\x87.')",
        "PermanentTaskFailure",
        '"1"',
        "Each byte string of a Python 2 payload is judged by itself: here it is UTF-8 text.",
    ),
    Deviation(
        "deferred",
        IMPORT + "import datetime\n"
        "deferred.run(b'\\x80\\x02c__builtin__\\nrepr\\ncdatetime\\ndatetime\\nU\\n'"
        " + datetime.datetime(2020, 1, 2).__reduce__()[1][0] + b'\\x85R\\x85}\\x87.')",
        "PermanentTaskFailure",
        "datetime.datetime(2020, 1, 2, 0, 0)",
        "Dates that Python 2 pickled are read, whatever the year.",
    ),
    Deviation(
        "deferred",
        IMPORT + "deferred.run(b'\\x80\\x02c__builtin__\\ncmp\\nK\\x01K\\x02\\x86}\\x87.')",
        "PermanentTaskFailure",
        '"-1"',
        "Names that Python 3 has no more are given where a faithful equivalent exists.",
    ),
    Deviation(
        "deferred",
        IMPORT + "deferred.invoke_member(dict(), 'fromkeys', [], membername=1)",
        "multiple values",
        "takes no keyword",
        "A deferred method may have arguments named obj and membername.",
    ),
    Deviation(
        "deferred",
        IMPORT + "deferred.defer(len, 'x' * 102400).size > 102400",
        '"raised"',
        '"True"',
        "Without a datastore a payload over 102,400 bytes goes to the backend as it is.",
        STUB,
    ),
    Deviation(
        "deferred",
        IMPORT + "deferred.run_from_datastore('no key')",
        "BadKeyError",
        "PermanentTaskFailure",
        "Without a datastore the task can never succeed; it is kept, and the text says why.",
    ),
    Deviation(
        "deferred",
        IMPORT + "deferred.application.post({'HTTP_X_APPENGINE_TASKNAME': 't'})[1].value",
        "AttributeError",
        "401",
        "A server that sets no SERVER_SOFTWARE is no reason to fail; whoever shows nothing is "
        "refused.",
    ),
    Deviation(
        "deferred",
        IMPORT + "answer = []\n"
        "deferred.application({'REQUEST_METHOD': 'GET'}, lambda *head: answer.extend(head))\n"
        "answer[:1]",
        '"list": []',
        "405 Method Not Allowed",
        "App Engine's application did not answer requests other than POST.",
    ),
    Deviation(
        "deferred",
        IMPORT + "import io\n"
        "deferred.application.post({'HTTP_X_APPENGINE_TASKNAME': 't', 'REMOTE_ADDR': '0.1.0.2', "
        "'SERVER_SOFTWARE': 'x', 'wsgi.input': io.BufferedReader(io.BytesIO(b'x'))})[1].value",
        '"200"',
        '"411"',
        "A body of unknown length is read where it has an end, else sent again: never dropped.",
        STUB,
    ),
    Deviation(
        "testbed",
        "bed.init_memcache_stub()",
        '"None"',
        "pip install appengine-python-standard",
        "Alone there is the task queue only; asking for another service says what to install.",
        STUB,
    ),
    Deviation(
        "testbed",
        "bed.init_taskqueue_stub(enable=False)\ntaskqueue.add()",
        'No api proxy found for service \\"taskqueue\\""',
        "init_taskqueue_stub() first",
        "The message says what to do.",
        STUB,
    ),
    Deviation(
        "testbed",
        "Queue().add(Task(b'x' * 102400, _size_check=False)).was_enqueued",
        "TaskTooLargeError",
        '"True"',
        "The stub takes what Cloud Tasks takes: 1,048,569 bytes as stored.",
        STUB,
    ),
    Deviation(
        "testbed",
        "import os, tempfile\n"
        "with tempfile.TemporaryDirectory() as folder:\n"
        "    with open(os.path.join(folder, 'queue.yaml'), 'w') as file:\n"
        "        _ = file.write('queue:\\n- name: a\\n')\n"
        "    bed.init_taskqueue_stub(root_path=folder)\n"
        "    added = taskqueue.add(queue_name='a').was_enqueued\n"
        "added",
        '"True"',
        "a push queue needs a rate",
        "A queue.yaml that could not be deployed is refused in tests too, with line and column.",
        STUB,
    ),
)

# What cannot be asked of the SDK's test stub.
NOTES: tuple[tuple[str, str], ...] = (
    (
        "taskqueue",
        "Failures of the transport, and settings that are missing or wrong, are `taskqueue.Error` "
        "(the latter `appengine_compat.errors.ConfigError` too). App Engine raised "
        "`apiproxy_errors` for the former.",
    ),
    (
        "taskqueue",
        "A task without a target goes to the service that enqueues it, inside a request or not. "
        "App Engine warned where `HTTP_HOST` was not set.",
    ),
    (
        "taskqueue",
        "A `Host` header that names no service of the application (a custom domain) chooses no "
        "service. `VERSION-dot-SERVICE-dot-…` does.",
    ),
    (
        "taskqueue",
        "Spaces and letters beyond ASCII in a task's URL are percent-encoded on the way to Cloud "
        "Tasks and to the local service, which take no others; handlers see what was meant.",
    ),
    (
        "taskqueue",
        "Tasks of a transaction are enqueued right after its commit, where App Engine made both "
        "one: a process that dies between the two loses them. A failure then is logged, and "
        "raised from the transaction, whose data is written. Their names are chosen when they are "
        "added; that the queue exists is checked then.",
    ),
    (
        "testbed",
        "`QueueStatistics` of the stub are figures of what it holds; App Engine's were random, but "
        "for the number of tasks and the oldest ETA.",
    ),
    (
        "taskqueue",
        "Hooks of `apiproxy_stub_map` are not called for the task queue: there is no protocol "
        "buffer to show them.",
    ),
)
