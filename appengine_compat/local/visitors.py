"""Whom the HTTP doors let in: programs of this machine, and no page of the web in a browser.

A server without passwords on the loopback is open to every page that its owner visits: a page may
post a form to ``http://localhost:8124``, or give its own host name this machine's address. So a
request that a browser marks as another site's is refused, and so is one for a host name that this
server does not have. Programs send no such marks.
"""

from __future__ import annotations

import ipaddress
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_OWN_SITES = ("", "none", "same-origin")


def without_other_sites(app: WSGIApplication, host: str) -> WSGIApplication:
    """Return the app as only this machine's programs, and its own pages, reach it.

    Args:
        app: the WSGI application.
        host: the address that it is served on; where that is not the loopback, whoever serves it
            has let others in, under names that cannot be known here.
    """
    names = None if not _is_loopback(host) else {host.lower(), "localhost"}

    def serve(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        why = _why_not(environ, names)
        if not why:
            return app(environ, start_response)
        message = f"{why} Programs of this machine, and its own pages, are served."
        body = json.dumps(
            {"error": {"code": 403, "message": message, "status": "PERMISSION_DENIED"}}
        ).encode()
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        start_response("403 Forbidden", headers)
        return [body]

    return serve


def _why_not(environ: WSGIEnvironment, names: set[str] | None) -> str:
    host = environ.get("HTTP_HOST", "")
    if names is not None and host and not _is_own(_name_of(host), names):
        return f"This server is not {_name_of(host)}, and a browser may have been led here."
    origin = environ.get("HTTP_ORIGIN", "")
    if origin and origin.partition("://")[2] != host:
        return f"The request comes from a page of {origin}."
    site = environ.get("HTTP_SEC_FETCH_SITE", "")
    # A link may lead here from anywhere: following it only looks.
    is_link = environ["REQUEST_METHOD"] == "GET" and (
        environ.get("HTTP_SEC_FETCH_MODE") == "navigate"
    )
    if site not in _OWN_SITES and not is_link:
        return "The request comes from a page of another site."
    return ""


def _is_own(name: str, names: set[str]) -> bool:
    # An address cannot be led elsewhere as a name can.
    return name in names or name.endswith(".localhost") or _is_address(name)


def _name_of(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    if _is_address(host):
        return ipaddress.ip_address(host).is_loopback
    return host.lower() == "localhost"
