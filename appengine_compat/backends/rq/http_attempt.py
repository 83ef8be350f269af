"""One HTTP request to wherever a task goes, as the local service would send it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from appengine_compat.local.delivery import Claim, Delivery, Reply
from appengine_compat.local.http_transport import HttpTransport

_NO_CLAIM = Claim(
    seq=0,
    claim=0,
    queue=0,
    queue_id="",
    task_id="",
    lane="",
    service="",
    due=0,
    forced=0,
    is_named=False,
    method="",
    url="",
    headers={},
    extra={},
    body=b"",
    deadline_ms=0,
    attempt=1,
    executions=0,
    previous_status=None,
    first_dispatch=0,
)


def send(
    method: str,
    url: str,
    headers: Iterable[tuple[str, str]],
    body: bytes,
    *,
    deadline_seconds: float,
) -> Reply:
    """Send a request and return the reply; whatever goes wrong is told in it.

    Redirects are followed, as for every HTTP target.

    Args:
        method: of HTTP.
        url: whole, with ``http`` or ``https``.
        headers: all but ``Host`` and ``Content-Length``.
        body: sent with its length.
        deadline_seconds: for all of it.
    """
    transport = HttpTransport()
    try:
        claim = replace(_NO_CLAIM, method=method, url=url, body=body)
        return transport.send(Delivery(claim, tuple(headers), deadline_seconds))
    finally:
        # The process of an attempt ends with it: there is no later request to keep it for.
        transport.close()
