"""``/taskqueue``: the queues and their tasks as a plain page, with run, purge, delete and pause.

It stands where App Engine's development server had its own, and has no state but a
token, so that another can take its place.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import datetime, timezone
from hmac import compare_digest
from html import escape
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from appengine_compat.core.model import AppEngineRequest, Queue, QueueState, Task
from appengine_compat.core.names import parse_task_name, short_id
from appengine_compat.errors import ApiError
from appengine_compat.local.http_messages import Request, Response, redirect, text

if TYPE_CHECKING:
    from appengine_compat.local.service import LocalService

MOUNT = "/taskqueue"
_TASKS_PER_PAGE = 100
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    # With the origin on the page's own forms, and no queue names for other sites.
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem; color: #222; background: #fff }
table { border-collapse: collapse } th, td { text-align: left; padding: .3rem .9rem .3rem 0;
border-bottom: 1px solid #ddd; vertical-align: top } td.number, th.number { text-align: right }
code { font-size: 13px; overflow-wrap: anywhere } form { display: inline } .quiet { color: #666 }
@media (prefers-color-scheme: dark) { body { color: #ddd; background: #181818 }
th, td { border-color: #444 } a { color: #8bf } .quiet { color: #999 } }
"""

Describe = Callable[[str, str, bytes], str]
"""Makes of method, address and payload what a task would do, as one line."""


def plainly(method: str, address: str, _: bytes) -> str:
    """Return method and address."""
    return f"{method} {address}"


class TaskQueuePage:
    """The page."""

    def __init__(self, service: LocalService, describe: Describe = plainly) -> None:
        """Show a service's queues.

        Args:
            service: the local service.
            describe: says what a task would do.
        """
        self._service = service
        self._describe = describe
        # Other sites can post forms here, but cannot read this from a page.
        self._token = secrets.token_urlsafe(24)

    def answer(self, request: Request) -> Response:
        """Answer a request below ``MOUNT``."""
        try:
            response = self._answer(request)
        except ApiError as refusal:
            status = 404 if refusal.code == "NOT_FOUND" else 400
            response = _page("Not possible", f"<p>{escape(refusal.message)}</p>", status)
        response.headers.update(_HEADERS)
        return response

    def _answer(self, request: Request) -> Response:
        rest = request.path[len(MOUNT) :].strip("/")
        if request.method == "POST":
            return self._act(request, rest)
        if request.method not in ("GET", "HEAD"):
            return _page("Not possible", "<p>The page knows GET and POST.</p>", 405)
        if rest:
            return _page("Not found", "<p>There is no such page.</p>", 404)
        queue = request.query.get("queue", "")
        if queue:
            return self._queue(queue, request.query.get("page", ""))
        return self._queues()

    # --- looking -------------------------------------------------------------------------------

    def _queues(self) -> Response:
        queues = self._service.all_queues()
        if not queues:
            return _page("Queues", "<p>There are no queues yet.</p>")
        rows = "".join(self._queue_row(queue) for queue in queues)
        return _page(
            "Queues",
            "<table><tr><th>Queue<th>State<th class=number>Rate<th class=number>At once"
            "<th class=number>Tasks<th class=number>Running<th class=number>Last minute"
            f"<th>Oldest due<th></tr>{rows}</table>",
        )

    def _queue_row(self, queue: Queue) -> str:
        stats = self._service.queue_stats(queue.name)
        rates = queue.rate_limits
        parent, _, queue_id = queue.name.rpartition("/queues/")
        link = f"{MOUNT}?{urlencode({'queue': queue.name})}"
        return (
            f'<tr><td><a href="{escape(link)}">{escape(queue_id)}</a> '
            f"<span class=quiet>{escape(parent)}</span><td>{queue.state.value.lower()}"
            f"<td class=number>{rates.max_dispatches_per_second:g}/s"
            f"<td class=number>{rates.max_concurrent_dispatches}"
            f"<td class=number>{stats.tasks_count}"
            f"<td class=number>{stats.concurrent_dispatches_count}"
            f"<td class=number>{stats.executed_last_minute_count}"
            f"<td>{_moment(stats.oldest_arrival_time)}<td>{self._queue_forms(queue)}</tr>"
        )

    def _queue_forms(self, queue: Queue) -> str:
        is_running = queue.state is QueueState.RUNNING
        other = "pause" if is_running else "resume"
        return self._form(other, queue.name) + self._form("purge", queue.name)

    def _queue(self, name: str, page_token: str) -> Response:
        queue = self._service.get_queue(name)
        page = self._service.list_tasks(name, page_size=_TASKS_PER_PAGE, page_token=page_token)
        rows = "".join(self._task_row(task) for task in page.items)
        table = (
            "<table><tr><th>Task<th>Scheduled<th>What it does<th class=number>Attempts"
            f"<th>Last attempt<th></tr>{rows}</table>"
            if rows
            else "<p>It holds no tasks.</p>"
        )
        more = ""
        if page.next_page_token:
            link = f"{MOUNT}?{urlencode({'queue': name, 'page': page.next_page_token})}"
            more = f'<p><a href="{escape(link)}">The next {_TASKS_PER_PAGE}</a></p>'
        return _page(
            short_id(name),
            f"<p><a href={MOUNT}>All queues</a> <span class=quiet>{escape(name)}, "
            f"{queue.state.value.lower()}</span> {self._queue_forms(queue)}</p>{table}{more}",
        )

    def _task_row(self, task: Task) -> str:
        request = task.request
        assert request is not None
        if isinstance(request, AppEngineRequest):
            address = request.relative_uri
            service = f"{request.routing.service or 'default'} "
        else:
            address, service = request.url, ""
        what = self._describe(request.method, address, request.body)
        last = task.last_attempt
        ended = ""
        if last is not None:
            message = last.response_message or ("OK" if last.response_time else "running")
            ended = f"{_moment(last.response_time or last.dispatch_time)} {escape(message)}"
        return (
            f"<tr><td><code>{escape(short_id(task.name))}</code>"
            f"<td>{_moment(task.schedule_time)}<td>{escape(service)}<code>{escape(what)}</code>"
            f"<td class=number>{task.dispatch_count}<td>{ended}"
            f"<td>{self._form('run', task.name)}{self._form('delete', task.name)}</tr>"
        )

    def _form(self, action: str, name: str) -> str:
        return (
            f"<form method=post action={MOUNT}/{action}>"
            f'<input type=hidden name=token value="{escape(self._token)}">'
            f'<input type=hidden name=name value="{escape(name)}">'
            f"<button>{action.capitalize()}</button></form> "
        )

    # --- acting --------------------------------------------------------------------------------

    def _act(self, request: Request, action: str) -> Response:
        act = _ACTIONS.get(action)
        if act is None:
            return _page("Not found", "<p>There is no such action.</p>", 404)
        form = request.form
        given, name = form.get("token", ""), form.get("name", "")
        if not compare_digest(given.encode(), self._token.encode()):
            return _page(
                "Not possible",
                "<p>The form is not of this page, or the server was started anew since it was "
                f"loaded. <a href={MOUNT}>Load it again.</a></p>",
                403,
            )
        act(self._service, name)
        back = name if "/tasks/" not in name else str(parse_task_name(name)[0])
        is_of_queues = action in ("pause", "resume")
        query = "" if is_of_queues else f"?{urlencode({'queue': back})}"
        return redirect(f"{MOUNT}{query}")


_ACTIONS: dict[str, Callable[[LocalService, str], object]] = {
    "run": lambda service, name: service.run_task(name),
    "delete": lambda service, name: service.delete_task(name),
    "purge": lambda service, name: service.purge_queue(name),
    "pause": lambda service, name: service.pause_queue(name),
    "resume": lambda service, name: service.resume_queue(name),
}


def _page(title: str, body: str, status: int = 200) -> Response:
    return text(
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(title)}</title>"
        f"<style>{_STYLE}</style><h1>{escape(title)}</h1>{body}",
        status,
        "text/html",
    )


def _moment(moment: datetime | None) -> str:
    if moment is None:
        return ""
    return moment.astimezone(timezone.utc).strftime("%Y-%m-%d %H:%M:%S") + "Z"
