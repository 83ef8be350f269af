"""What may stand in a queue.yaml, and what is said of that which may not.

Values are taken as the text that stands in the file, as App Engine's own tools take them:
``name: on`` names a queue "on", whatever YAML 1.1 would make of it.
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

from appengine_compat.core.limits import MAX_RATE
from appengine_compat.core.names import QUEUE_ID
from appengine_compat.queues.nodes import Document, line_of
from appengine_compat.queues.queue_yaml import QueueEntry, QueueFile, RetryParameters

if TYPE_CHECKING:
    import yaml

MAX_BUCKET_SIZE = 500
SECONDS_PER_UNIT = {"s": 1, "m": 60, "h": 3600, "d": 86400}

_RATE = re.compile(r"\A(?:0|(?P<number>\d+(?:\.\d*)?)/(?P<unit>[smhd]))\Z", re.A)
_AGE = re.compile(r"\A(?P<number>\d{1,12}(?:\.\d*)?)(?P<unit>[smhd])\Z", re.A)
_STORAGE = re.compile(r"\A(?:\d+(?:\.\d*)?[BKMGT]|\d+)\Z", re.A)
_TARGET = re.compile(r"\A(?:(?!-)[a-z\d\-]{1,100}\.)?(?!-)[a-z\d\-]{1,63}\Z", re.A)
_MODE = re.compile(r"\A(?:push|pull)\Z")

_FILE_KEYS = ("queue", "application", "total_storage_limit", "resume_paused_queues")
_ENTRY_KEYS = (
    "name",
    "rate",
    "mode",
    "bucket_size",
    "max_concurrent_requests",
    "target",
    "retry_parameters",
    "acl",
)
_RETRY_KEYS = (
    "task_retry_limit",
    "task_age_limit",
    "min_backoff_seconds",
    "max_backoff_seconds",
    "max_doublings",
)
_NOT_FOR_PULL = ("rate", "bucket_size", "max_concurrent_requests", "target")
_RETRY_NOT_FOR_PULL = _RETRY_KEYS[1:]

# What people write who know the words of `gcloud tasks queues create`.
_WORDS_OF_GCLOUD = {
    "max_dispatches_per_second": "rate (such as 5/s)",
    "max_burst_size": "bucket_size",
    "max_concurrent_dispatches": "max_concurrent_requests",
    "max_attempts": "task_retry_limit under retry_parameters (attempts minus one)",
    "max_retry_duration": "task_age_limit under retry_parameters",
    "min_backoff": "min_backoff_seconds under retry_parameters",
    "max_backoff": "max_backoff_seconds under retry_parameters",
    "routing_override": "target",
}


def queue_file(text: str, path: str) -> QueueFile:
    """Read a queue.yaml's text; ``queue_yaml.parse`` is its public face."""
    document = Document(text, path)
    if document.root is None:
        document.fault(None, "is empty; begin it with 'queue:'")
    fields = document.mapping(document.root, "queue.yaml", _FILE_KEYS, _advice)
    application = fields.get("application")
    resume = document.boolean(fields.get("resume_paused_queues"), "resume_paused_queues")
    return QueueFile(
        path=path,
        queues=_queues(document, fields.get("queue")),
        application=None if application is None else document.text(application, "application"),
        total_storage_limit=document.matching(
            fields.get("total_storage_limit"),
            _STORAGE,
            "total_storage_limit",
            "a number with B, K, M, G or T, such as 120M",
        ),
        resume_paused_queues=True if resume is None else resume,
    )


def rate_per_second(text: str) -> float | None:
    """Return a rate such as ``5/s`` or ``0.5/m`` in dispatches per second; None if it is not one.

    Rounded to 9 decimals, as deployment rounds it.
    """
    match = _RATE.match(text)
    if match is None:
        return None
    if match["number"] is None:
        return 0.0
    return round(float(match["number"]) / SECONDS_PER_UNIT[match["unit"]], 9)


def age_limit_seconds(text: str) -> int | None:
    """Return an age limit such as ``90s`` or ``1.5h`` in whole seconds; None if it is not one."""
    match = _AGE.match(text)
    if match is None:
        return None
    return int(float(match["number"]) * SECONDS_PER_UNIT[match["unit"]])


def _queues(document: Document, node: yaml.Node | None) -> tuple[QueueEntry, ...]:
    entries = []
    first_lines: dict[str, int] = {}
    for item in document.items(node, "queue", "a list of queues, each beginning with '- name:'"):
        entry = _entry(document, item)
        if entry.name in first_lines:
            document.fault(
                item,
                f"queue {entry.name!r} is there twice (first on line {first_lines[entry.name]}); "
                "remove one",
            )
        first_lines[entry.name] = entry.line
        entries.append(entry)
    return tuple(entries)


def _entry(document: Document, node: yaml.Node) -> QueueEntry:
    fields = document.mapping(node, "a queue", _ENTRY_KEYS, _advice)
    name = document.matching(
        fields.get("name"), QUEUE_ID, "name", "1 to 100 letters, digits and hyphens"
    )
    if name is None:
        document.fault(node, "a queue has no name; add 'name:'")
    where = f"queue {name!r}: "
    retries = document.mapping(
        fields.get("retry_parameters"), where + "retry_parameters", _RETRY_KEYS, _advice
    )
    mode = document.matching(fields.get("mode"), _MODE, where + "mode", "push or pull")
    if mode == "pull":
        _refuse_for_pull(document, fields, retries, where)
    elif "rate" not in fields:
        document.fault(node, f"{where}a push queue needs a rate, such as 'rate: 5/s'")
    return QueueEntry(
        name=name,
        mode=mode,
        rate=_rate(document, fields.get("rate"), where),
        rate_text=document.text(fields["rate"], where + "rate") if "rate" in fields else "",
        bucket_size=_bucket_size(document, fields.get("bucket_size"), where),
        max_concurrent_requests=document.whole(
            fields.get("max_concurrent_requests"), where + "max_concurrent_requests"
        ),
        target=document.matching(
            fields.get("target"),
            _TARGET,
            where + "target",
            "a service, or version.service, in lower case",
        ),
        retry_parameters=_retry_parameters(document, retries, where),
        acl=_acl(document, fields.get("acl"), where),
        line=line_of(node),
    )


def _refuse_for_pull(
    document: Document, fields: dict[str, yaml.Node], retries: dict[str, yaml.Node], where: str
) -> None:
    for given, names in ((fields, _NOT_FOR_PULL), (retries, _RETRY_NOT_FOR_PULL)):
        for name in names:
            if name in given:
                document.fault(given[name], f"{where}a pull queue has no {name}; remove it")


def _rate(document: Document, node: yaml.Node | None, where: str) -> float | None:
    if node is None:
        return None
    text = document.text(node, where + "rate")
    rate = rate_per_second(text)
    if rate is None:
        document.fault(
            node,
            f"{where}rate is {text!r}; it is a number with /s, /m, /h or /d, such as 5/s, or 0",
        )
    if rate > MAX_RATE:
        document.fault(
            node, f"{where}rate is {text!r}, which is {rate:g}/s; the most is {MAX_RATE:g}/s"
        )
    return rate


def _bucket_size(document: Document, node: yaml.Node | None, where: str) -> int | None:
    size = document.whole(node, where + "bucket_size")
    if size is not None and not 0 <= size <= MAX_BUCKET_SIZE:
        document.fault(
            node, f"{where}bucket_size is {size}; it is a whole number from 1 to {MAX_BUCKET_SIZE}"
        )
    return size


def _retry_parameters(
    document: Document, fields: dict[str, yaml.Node], where: str
) -> RetryParameters:
    age_node = fields.get("task_age_limit")
    age: int | None = None
    if age_node is not None:
        text = document.text(age_node, where + "task_age_limit")
        age = age_limit_seconds(text)
        if age is None:
            document.fault(
                age_node,
                f"{where}task_age_limit is {text!r}; it is a number with s, m, h or d, such as 2d",
            )
        if age == 0:
            document.fault(
                age_node, f"{where}task_age_limit is {text!r}; the least is 1s (whole seconds)"
            )
    parameters = RetryParameters(
        task_retry_limit=document.whole(fields.get("task_retry_limit"), where + "task_retry_limit"),
        task_age_limit_seconds=age,
        min_backoff_seconds=document.decimal(
            fields.get("min_backoff_seconds"), where + "min_backoff_seconds"
        ),
        max_backoff_seconds=document.decimal(
            fields.get("max_backoff_seconds"), where + "max_backoff_seconds"
        ),
        max_doublings=document.whole(fields.get("max_doublings"), where + "max_doublings"),
    )
    for name in ("task_retry_limit", "min_backoff_seconds", "max_backoff_seconds", "max_doublings"):
        value = getattr(parameters, name)
        if value is not None and value < 0:
            document.fault(fields[name], f"{where}{name} is {value:g}; the least is 0")
    minimum, maximum = parameters.min_backoff_seconds, parameters.max_backoff_seconds
    if minimum and maximum and minimum > maximum:
        document.fault(
            fields["min_backoff_seconds"],
            f"{where}min_backoff_seconds ({minimum:g}) is greater than "
            f"max_backoff_seconds ({maximum:g})",
        )
    return parameters


def _acl(document: Document, node: yaml.Node | None, where: str) -> tuple[tuple[str, str], ...]:
    pairs: list[tuple[str, str]] = []
    for item in document.items(node, where + "acl", "a list of user_email or writer_email"):
        fields = document.mapping(item, where + "acl", ("user_email", "writer_email"), _advice)
        pairs += ((name, document.text(value, where + name)) for name, value in fields.items())
    return tuple(pairs)


def _advice(key: str, known: tuple[str, ...]) -> str:
    if key in _WORDS_OF_GCLOUD:
        return f"; in queue.yaml that is {_WORDS_OF_GCLOUD[key]}"
    if key in _RETRY_KEYS:
        return "; it belongs under retry_parameters"
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else f"; it has {', '.join(known)}"
