"""Names of what is kept in Redis: RQ's own, and ours beside them."""

from __future__ import annotations

PREFIX = "appengine-compat:"
QUEUES = PREFIX + "queues"
"""The set of the names of all queues whose settings were written down."""

RQ_QUEUES = "rq:queues"


def job_id(queue: str, task_id: str) -> str:
    """Return the id of a task's job; job ids are one space, task ids one for each queue.

    A queue's name has no underscore, so the first one parts the two.
    """
    return f"{queue}_{task_id}"


def job(job_id: str) -> str:
    """Return RQ's hash of a job."""
    return f"rq:job:{job_id}"


def waiting(queue: str) -> str:
    """Return RQ's list of the jobs of a queue that are due."""
    return f"rq:queue:{queue}"


def scheduled(queue: str) -> str:
    """Return RQ's registry of the jobs of a queue that are due later."""
    return f"rq:scheduled:{queue}"


def tombstone(job_id: str) -> str:
    """Return what reserves the name of a task that is no more."""
    return f"{PREFIX}tombstone:{job_id}"


def queue(queue: str) -> str:
    """Return the hash of a queue's settings and tokens."""
    return f"{PREFIX}queue:{queue}"


def running(queue: str) -> str:
    """Return the sorted set of the jobs of a queue whose attempts run, by when they began."""
    return f"{PREFIX}running:{queue}"


def executed(queue: str) -> str:
    """Return how the counters of a queue's replies begin; a second since the epoch follows."""
    return f"{PREFIX}executed:{queue}:"
