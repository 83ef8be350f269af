"""What a queue's own routing makes of a task, at each dispatch: also of tasks already there."""

from __future__ import annotations

from dataclasses import asdict, replace
from urllib.parse import SplitResult, urlsplit

from appengine_compat.core import headers, limits
from appengine_compat.core.model import EnforceMode, HttpTarget, Queue, UriOverride
from appengine_compat.core.validation import headers_with_overrides
from appengine_compat.local.delivery import Claim

_TASK_ROUTING = ("service", "version", "instance")


def routed(claim: Claim, queue: Queue | None) -> Claim:
    """Return a claim as the queue's settings send it on its way.

    Args:
        claim: the task as it is stored; its service is the queue's override already.
        queue: the settings of the queue, None when it is gone.
    """
    if queue is None:
        return claim
    if not claim.service:
        return claim if queue.http_target is None else _retargeted(claim, queue.http_target)
    routing = queue.app_engine_routing_override
    if routing is None:
        return claim
    extra = {name: value for name, value in claim.extra.items() if name not in _TASK_ROUTING}
    # A queue that names a version names it of the service that it sends the task to; one that
    # names a service alone means that service's default version.
    extra |= {"version": routing.version, "instance": routing.instance}
    return replace(claim, extra=extra)


def _retargeted(claim: Claim, target: HttpTarget) -> Claim:
    method = target.method or claim.method
    sent = claim.headers
    if target.header_overrides:
        sent = headers.stored_http_headers(headers_with_overrides(sent, target.header_overrides))
    extra = dict(claim.extra)
    if target.token is not None:
        extra["token"] = asdict(target.token)
    return replace(
        claim,
        url=claim.url
        if target.uri_override is None
        else overridden(claim.url, target.uri_override),
        method=method,
        headers=sent,
        extra=extra,
        body=claim.body if method in limits.HTTP_BODY_METHODS else b"",
    )


def overridden(url: str, override: UriOverride) -> str:
    """Return a url with the parts that an override replaces.

    A part of the override that is None leaves the url's alone; an empty one clears it. In the
    mode IF_NOT_EXISTS only those parts are put in that the url does not have.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return url  # malformed: the attempt says so
    always = override.mode is not EnforceMode.IF_NOT_EXISTS
    scheme, host = parts.scheme, parts.hostname or ""
    path, query = parts.path, parts.query
    if always:
        scheme = override.scheme.lower() if override.scheme is not None else scheme
        host = override.host or host
    if override.port is not None and (always or port is None):
        port = override.port or None
    if override.path is not None and (always or path in ("", "/")):
        path = override.path
    if override.query is not None and (always or not query):
        query = override.query
    if path and not path.startswith("/"):
        path = f"/{path}"
    host = f"[{host}]" if ":" in host and not host.startswith("[") else host
    netloc = host if port is None else f"{host}:{port}"
    return SplitResult(scheme, netloc, path, query.removeprefix("?"), parts.fragment).geturl()
