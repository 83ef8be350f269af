"""The RPCs on queues."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from google.protobuf import empty_pb2

from appengine_compat.core import messages, names, validation
from appengine_compat.core.model import Queue
from appengine_compat.local.fronts import queue_filter, resources
from appengine_compat.local.fronts.queue_messages import read_queue, write_queue
from appengine_compat.local.fronts.resources import Api
from appengine_compat.local.fronts.versions import V2


def create_queue(api: Api, request: Any) -> Any:
    """CreateQueue."""
    parent = request.parent
    match = names.LOCATION_NAME.match(parent)
    if match is None:
        raise messages.project_denied(parent)
    if match["location"] == resources.WILDCARD:
        raise messages.location_unknown(resources.WILDCARD)
    queue = read_queue(api.version, request.queue)
    made = api.service.create_queue(parent, queue, keeps_burst=_keeps_burst(api, queue))
    return write_queue(api.version, made)


def get_queue(api: Api, request: Any) -> Any:
    """GetQueue; in v2beta3 with statistics, when the read mask names them."""
    queue = api.service.get_queue(resources.queue(request.name))
    return _shown(api, request, queue)


def list_queues(api: Api, request: Any) -> Any:
    """ListQueues."""
    parent = resources.location(request.parent)
    matches = None
    if request.filter.strip():
        selects = queue_filter.compiled(request.filter)

        def matches(queue: Queue) -> bool:
            return bool(selects(write_queue(V2, queue)))

    page = api.service.list_queues(
        parent,
        page_size=_page_size(request),
        page_token=request.page_token,
        matches=matches,
        filter_text=request.filter.strip(),
    )
    return api.version.message("ListQueuesResponse")(
        queues=[_shown(api, request, queue) for queue in page.items],
        next_page_token=page.next_page_token,
    )


def _page_size(request: Any) -> int:
    if request.page_size < 0:
        raise messages.setting_invalid("The page size must not be negative.")
    return int(request.page_size)


def _shown(api: Api, request: Any, queue: Queue) -> Any:
    if not api.version.is_beta:
        return write_queue(api.version, queue)
    paths = list(request.read_mask.paths)
    wants_stats = any(path.partition(".")[0] in ("stats", "*") for path in paths)
    stats = api.service.queue_stats(queue.name) if wants_stats else None
    whole = write_queue(api.version, queue, stats)
    if not paths or "*" in paths:
        return whole
    # Python's client has no field "type", since that is a word of Python's.
    paths = ["type_" if path == "type" else path for path in paths]
    for path in paths:
        if not _has_path(whole.DESCRIPTOR, path):
            raise messages.read_mask_path_unknown(path)
    part = api.version.queue()
    type(request.read_mask)(paths=paths).MergeMessage(whole, part)
    return part


def _has_path(descriptor: Any, path: str) -> bool:
    for name in path.split("."):
        field = None if descriptor is None else descriptor.fields_by_name.get(name)
        if field is None:
            return False
        descriptor = field.message_type
    return True


def update_queue(api: Api, request: Any) -> Any:
    """UpdateQueue, which also creates."""
    resources.queue(request.queue.name)
    mask = tuple(path for path in request.update_mask.paths if path != "*")
    queue = read_queue(api.version, request.queue, mask)
    if api.version.is_beta and not mask:
        # Time limits that are left out stay: they have no value that would stand for "unset".
        ttls = (name for name in ("task_ttl", "tombstone_ttl") if request.queue.HasField(name))
        mask = (*validation.EVERYTHING, *ttls)
    updated = api.service.update_queue(queue, mask, keeps_burst=_keeps_burst(api, queue, mask))
    return write_queue(api.version, updated)


def _keeps_burst(api: Api, queue: Queue, mask: Collection[str] = ()) -> bool:
    """Tell whether the burst size is left as it will stand, and not derived from the rate."""
    if not api.version.is_beta:
        return False
    has_whole = not mask or "rate_limits" in mask
    changes_rate = has_whole or "rate_limits.max_dispatches_per_second" in mask
    gives_burst = has_whole or "rate_limits.max_burst_size" in mask
    return not changes_rate or (gives_burst and queue.rate_limits.max_burst_size != 0)


def delete_queue(api: Api, request: Any) -> Any:
    """DeleteQueue."""
    api.service.delete_queue(resources.queue(request.name))
    return empty_pb2.Empty()


def _on_name(operation: str) -> Callable[[Api, Any], Any]:
    def call(api: Api, request: Any) -> Any:
        name = resources.queue(request.name)
        return write_queue(api.version, getattr(api.service, operation)(name))

    return call


purge_queue = _on_name("purge_queue")
pause_queue = _on_name("pause_queue")
resume_queue = _on_name("resume_queue")
