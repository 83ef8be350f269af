"""One delivery of a task in a test: the request that Cloud Tasks would send, and the app called."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from appengine_compat.backends.stub_queues import StubTask
from appengine_compat.core import headers
from appengine_compat.core.headers import AttemptFacts, Family
from appengine_compat.handler import kept

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed.wsgi import WSGIApplication

TASK_ADDRESS = "0.1.0.2"
"""Whence App Engine's tasks come; tests are believed by it."""
SERVER_SOFTWARE = "Development/appengine-compat"


def deliver(app: WSGIApplication, task: StubTask) -> tuple[int, bytes, BaseException | None]:
    """Call an app with a task, as a server would.

    Returns:
        The status, the body, and what the app raised (the status is 500 then), or why the task
        failed for good (the status is 200 then).
    """
    answers: list[str] = []
    written: list[bytes] = []
    for_good: list[BaseException] = []

    def start_response(
        status: str, _: list[tuple[str, str]], exc_info: object = None
    ) -> Callable[[bytes], object]:
        if answers and exc_info is None:
            raise AssertionError("start_response was called twice without exc_info")
        answers.append(status)
        return written.append

    try:
        chunks = app({**environ_for(task), kept.ERRORS_KEY: for_good}, start_response)
        try:
            written.extend(chunks)
        finally:
            close = getattr(chunks, "close", None)
            if close is not None:
                close()
        if not answers:
            raise AssertionError("the app returned without calling start_response")
    # As a server does: whatever an app raises, sys.exit included, is a 500.
    except (Exception, SystemExit) as error:
        return 500, b"", error
    return int(answers[-1][:3]), b"".join(written), for_good[-1] if for_good else None


def environ_for(task: StubTask) -> dict[str, Any]:
    """Return the WSGI environ of a task's next attempt."""
    asked = task.request
    path, _, query = asked.relative_url.partition("?")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": asked.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query.encode().decode("latin-1"),
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_SOFTWARE": SERVER_SOFTWARE,
        "REMOTE_ADDR": TASK_ADDRESS,
        "HTTP_HOST": "localhost",
        "CONTENT_LENGTH": str(len(asked.payload)),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(asked.payload),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    facts = AttemptFacts(
        queue_id=task.queue,
        task_id=task.id,
        eta=task.eta,
        retries=task.retries,
        replies=task.executions,
        previous_response=task.previous_response,
    )
    stored = headers.stored_app_engine_headers(headers.carry(asked.headers), asked.payload)
    for name, value in [*stored.items(), *headers.task_headers(Family.APP_ENGINE, facts)]:
        key = name.upper().replace("-", "_")
        if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            key = "HTTP_" + key
        environ[key] = value.encode().decode("latin-1")
    return environ
