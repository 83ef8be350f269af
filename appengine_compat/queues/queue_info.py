"""The records of ``google.appengine.api.queueinfo``, ours or Google's, as a ``QueueFile``."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from appengine_compat.queues import queue_yaml
from appengine_compat.queues.queue_yaml import QueueFile

_ENTRY = ("name", "mode", "rate", "bucket_size", "max_concurrent_requests", "target")
_RETRY = (
    "task_retry_limit",
    "task_age_limit",
    "min_backoff_seconds",
    "max_backoff_seconds",
    "max_doublings",
)
_ACL = ("user_email", "writer_email")


def queue_file(info: Any, path: str) -> QueueFile:
    """Return the queues of a ``QueueInfoExternal``; None has none.

    Args:
        info: what ``queueinfo.LoadSingleQueue`` returns.
        path: how errors name where it came from.

    Raises:
        QueueYamlError: it could not be deployed.
        ConfigError: PyYAML is not installed.
    """
    queues = [_entry(each) for each in getattr(info, "queue", None) or ()]
    # JSON is YAML, so what a queue.yaml may say is said in one place.
    return queue_yaml.parse(json.dumps({"queue": queues}), path) if queues else QueueFile(path=path)


def _entry(record: Any) -> dict[str, Any]:
    entry = _given(record, _ENTRY)
    if record.retry_parameters is not None:
        entry["retry_parameters"] = _given(record.retry_parameters, _RETRY)
    if record.acl:
        entry["acl"] = [_given(each, _ACL) for each in record.acl]
    return entry


def _given(record: Any, names: Iterable[str]) -> dict[str, Any]:
    values = {name: getattr(record, name, None) for name in names}
    return {name: value for name, value in values.items() if value is not None}
