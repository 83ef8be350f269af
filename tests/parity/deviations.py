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
)
