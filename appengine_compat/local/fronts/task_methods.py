"""The RPCs on single tasks, and ListTasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from google.protobuf import empty_pb2

from appengine_compat.core import messages
from appengine_compat.core.model import HttpRequest, Task
from appengine_compat.local.fronts import resources
from appengine_compat.local.fronts.resources import Api
from appengine_compat.local.fronts.task_messages import BASIC, FULL, read_task, write_task

_VIEWS = (0, BASIC, FULL)


def view_of(request: Any) -> int:
    """Return the view that a request asks for.

    Raises:
        ApiError: INVALID_ARGUMENT: there is no such view.
    """
    if request.response_view not in _VIEWS:
        raise messages.setting_invalid(f"There is no view {request.response_view}.")
    return int(request.response_view)


def create_task(api: Api, request: Any) -> Any:
    """CreateTask; when it answers, the task is on disk."""
    done = create_tasks(api, (request,))[0]
    if isinstance(done, Exception):
        raise done
    return done


def create_tasks(api: Api, requests: Sequence[Any]) -> list[Any]:
    """Several calls of CreateTask, whose tasks go to disk together.

    Returns:
        For each, in order: the response, or the exception that ``create_task`` raises.
    """
    results: list[Any] = []
    ready: list[tuple[str, Task]] = []
    for request in requests:
        try:
            parent, view = resources.queue(request.parent), view_of(request)
            ready.append((parent, read_task(request.task)))
        except Exception as error:  # noqa: PERF203
            results.append(error)
        else:
            results.append(view)
    made = iter(api.service.create_each(ready))
    for at, view in enumerate(results):
        if not isinstance(view, Exception):
            each = next(made)
            try:
                done = write_task(api.version, each, view) if isinstance(each, Task) else each
            except Exception as error:
                done = error
            results[at] = done
    return results


def get_task(api: Api, request: Any) -> Any:
    """GetTask."""
    view = view_of(request)
    return write_task(api.version, api.service.get_task(resources.task(request.name)), view)


def list_tasks(api: Api, request: Any) -> Any:
    """ListTasks."""
    parent = resources.queue(request.parent)
    view = view_of(request)
    if request.page_size < 0:
        raise messages.setting_invalid("The page size must not be negative.")
    page = api.service.list_tasks(
        parent,
        page_size=request.page_size,
        page_token=request.page_token,
        has_bodies=view == FULL,
    )
    return api.version.message("ListTasksResponse")(
        tasks=[write_task(api.version, task, view) for task in page.items],
        next_page_token=page.next_page_token,
    )


def delete_task(api: Api, request: Any) -> Any:
    """DeleteTask."""
    api.service.delete_task(resources.task(request.name))
    return empty_pb2.Empty()


def run_task(api: Api, request: Any) -> Any:
    """RunTask; it does not wait for the target."""
    view = view_of(request)
    return write_task(api.version, api.service.run_task(resources.task(request.name)), view)


def buffer_task(api: Api, queue_name: str, task_id: str, body: bytes, content_type: str) -> Any:
    """BufferTask: create a task of a body alone, for where its queue routes tasks.

    Args:
        api: the version and service.
        queue_name: the queue, which must carry an ``http_target``.
        task_id: the task's id; "" lets the service choose one.
        body: what the target receives.
        content_type: what kind of body it is; "" for no such header.

    Returns:
        The task as stored, in the BASIC view.

    Raises:
        ApiError: as CreateTask, and FAILED_PRECONDITION: the queue routes nowhere.
    """
    queue = api.service.get_queue(resources.queue(queue_name))
    target = queue.http_target
    override = None if target is None else target.uri_override
    if target is None or override is None or not override.host:
        raise messages.queue_routes_nowhere(queue_name)
    port = f":{override.port}" if override.port else ""
    scheme = (override.scheme or "HTTPS").lower()
    query = f"?{override.query}" if override.query else ""
    path = "/" + (override.path or "").removeprefix("/")
    request = HttpRequest(
        url=f"{scheme}://{override.host}{port}{path}{query}",
        method=target.method or "POST",
        headers={"Content-Type": content_type} if content_type else {},
        body=body,
    )
    name = f"{queue_name}/tasks/{task_id}" if task_id else ""
    made = api.service.create_task(queue_name, Task(name=name, request=request))
    return write_task(api.version, made, BASIC)
