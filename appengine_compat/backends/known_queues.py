"""The queues of backends that keep them themselves: those of queue.yaml, and ``default``."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path

from appengine_compat import settings
from appengine_compat.backends.base import BackendError, Reason
from appengine_compat.core import names
from appengine_compat.core.model import Queue, RateLimits

LOCAL = "local"
"""Project and location in the names of queues, where none is set."""
DEFAULT_QUEUE = "default"
QUEUE_YAML = "queue.yaml"


def queue_yaml_path() -> str | None:
    """Return the queue.yaml that holds here: the setting's, else the working directory's, if
    there is one."""
    path = settings.QUEUE_YAML.get()
    if path is not None:
        return path
    return QUEUE_YAML if Path(QUEUE_YAML).is_file() else None


def queue_name(queue: str) -> names.QueueName:
    """Return the resource name of the queue of this id."""
    return names.QueueName(settings.PROJECT.get() or LOCAL, settings.LOCATION.get() or LOCAL, queue)


def load() -> dict[str, Queue]:
    """Return the queues by their ids.

    Raises:
        ConfigError: queue.yaml is wrong, or PyYAML is not installed.
    """
    return with_default(written())


def written() -> dict[str, Queue]:
    """Return the queues of queue.yaml by their ids; none where there is no such file.

    Raises:
        ConfigError: queue.yaml is wrong, or PyYAML is not installed.
    """
    path = queue_yaml_path()
    if path is None:
        return {}
    from appengine_compat.queues import queue_yaml

    queues = queue_yaml.load(path, queue_name(DEFAULT_QUEUE).parent)
    return {names.short_id(queue.name): queue for queue in queues}


def with_default(queues: Mapping[str, Queue]) -> dict[str, Queue]:
    """Return the queues and ``default``, which there always is."""
    default = Queue(name=str(queue_name(DEFAULT_QUEUE)), rate_limits=RateLimits())
    return {DEFAULT_QUEUE: default, **queues}


def refuse_shapeless(queue: str) -> None:
    """Raise a ``BackendError`` if no queue can have this id."""
    if not names.QUEUE_ID.match(queue):
        raise BackendError(
            Reason.INVALID_QUEUE_NAME,
            f"{queue!r} is no name for a queue: it has 1 to 100 letters, digits and hyphens.",
            queue=queue,
        )


def unknown(queue: str, known: Iterable[str]) -> BackendError:
    """Return the error for a queue that is not there, with those that are and what to do."""
    known = list(known)
    close = difflib.get_close_matches(queue, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}?" if close else f"there are: {', '.join(known)}."
    path = queue_yaml_path()
    advice = (
        f"Add it to {path}, and start again."
        if path is not None
        else f"Add it to a {QUEUE_YAML} in {Path.cwd()} (or set "
        f"{settings.QUEUE_YAML.variable}), and start again."
    )
    return BackendError(
        Reason.UNKNOWN_QUEUE, f"There is no queue {queue!r}; {hint} {advice}", queue=queue
    )
