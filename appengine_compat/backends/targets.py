"""Which service runs a task, and where that service is.

A *service* is App Engine's word (once: module): ``_target`` names one, and without it a task
stays on the service that enqueues. The table of ``APPENGINE_COMPAT_TARGETS`` says where each
service is: at an address, or on App Engine; a file ``appengine-compat.toml`` may hold it instead.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Mapping
from contextvars import ContextVar

from appengine_compat import platform, settings
from appengine_compat.backends.base import BackendError, Reason
from appengine_compat.core.model import AppEngineRouting

SERVICE: ContextVar[str] = ContextVar("appengine_compat_service")
"""The service whose code runs now, where one process serves several (``appengine-compat dev``)."""

DEFAULT_SERVICE = "default"
APP_ENGINE = "appengine"
NGROK = "ngrok"
EVERY_SERVICE = ""
"""The table's key for an address that stands for all services."""

_APP_ENGINE_HOST = re.compile(r"\A(.+?)(?:\.[a-z]+\.r)?\.appspot\.com\Z")
_PART = re.compile(r"\A(?!-)[a-z0-9\-]{1,100}\Z")


def current_service() -> str:
    """Return the service whose code runs now; ``default`` where the platform names none."""
    service = SERVICE.get("")
    return (
        service or os.environ.get("GAE_SERVICE") or os.environ.get("K_SERVICE") or DEFAULT_SERVICE
    )


def parse_target(text: str) -> AppEngineRouting:
    """Take a ``_target`` apart.

    Args:
        text: ``service``, ``version.service`` or ``instance.version.service``, with ``.`` or
            ``-dot-`` between, or a whole host name on appspot.com (or below
            ``DEFAULT_VERSION_HOSTNAME``) that begins with one of them.

    Raises:
        BackendError: INVALID_TARGET: it is none of these.
    """
    parts = _without_domain(text.strip().lower().replace("-dot-", "."))
    names = parts.split(".") if parts else [DEFAULT_SERVICE]
    if len(names) > 3 or not all(_PART.match(name) for name in names):
        raise BackendError(
            Reason.INVALID_TARGET,
            f"The target {text!r} is not one: give a service, version.service or "
            "instance.version.service (small letters, digits and hyphens in each).",
        )
    instance, version, service = [""] * (3 - len(names)) + names
    return AppEngineRouting(service=service, version=version, instance=instance)


def _without_domain(host: str) -> str:
    own = os.environ.get("DEFAULT_VERSION_HOSTNAME", "").strip().lower()
    if own and (host == own or host.endswith("." + own)):
        return host[: -len(own)].rstrip(".")
    match = _APP_ENGINE_HOST.match(host)
    # What is left ends in the project.
    return match[1].rpartition(".")[0] if match else host


def find(target: str, table: Mapping[str, str]) -> AppEngineRouting | str:
    """Return where a target's service is: an address, or the routing on App Engine.

    Args:
        target: as ``parse_target`` takes it.
        table: from service to address, ``appengine`` or ``ngrok``. A key may be a whole
            target, such as ``v2.worker``; it goes before the service's own.

    Raises:
        BackendError: INVALID_TARGET: it is not shaped like one, or its service is not in the
            table.
    """
    routing = parse_target(target)
    for key in _keys(routing):
        address = table.get(key)
        if address:
            if address == APP_ENGINE:
                return routing
            return _ngrok_address() if address == NGROK else _plain(address)
    own_service, own_url = os.environ.get("K_SERVICE", ""), platform.own_url()
    if own_url and routing.service == own_service:
        return own_url
    raise _unknown(
        target,
        routing.service,
        {*table, own_service} if own_url else table,
        f"or {_entry(routing.service, APP_ENGINE)} if it runs on App Engine",
    )


def here(target: str, table: Mapping[str, str], apps: Collection[str]) -> AppEngineRouting:
    """Return the routing of a target whose service this machine's processes serve.

    Processes that share a database each know their own apps only, so a service counts as
    unknown when a table tells which services there are, and it is neither in it nor served by
    this process. Without a table, tasks wait for whoever comes to serve them.

    Args:
        target: as ``parse_target`` takes it.
        table: from service to address, as for ``find``; only the services matter here.
        apps: the services that have an app in this process.

    Raises:
        BackendError: INVALID_TARGET: it is not shaped like one, or its service is unknown.
    """
    routing = parse_target(target)
    if not table or any(key in table for key in _keys(routing)) or routing.service in apps:
        return routing
    raise _unknown(
        target,
        routing.service,
        {*table, *apps},
        f"or serve it here: appengine-compat dev {routing.service}=MODULE:APP",
    )


def _keys(routing: AppEngineRouting) -> tuple[str, str, str]:
    """What a table may have a target under, the closest first."""
    parts = (routing.instance, routing.version, routing.service)
    return ".".join(part for part in parts if part), routing.service, EVERY_SERVICE


def _unknown(target: str, service: str, known: Iterable[str], otherwise: str) -> BackendError:
    names = ", ".join(sorted(known)) or "none"
    return BackendError(
        Reason.INVALID_TARGET,
        f"There is no service {service!r} here (target {target!r}); those known are: {names}. Add "
        f"{_entry(service, 'https://its-address')} to {settings.targets_place()}, {otherwise}.",
    )


def _entry(service: str, address: str) -> str:
    """A line of the table, as it is written where this table stands."""
    is_variable = settings.targets_place() == settings.TARGETS.variable
    return f"{service}={address}" if is_variable else f'{service} = "{address}"'


def _plain(address: str) -> str:
    if "?" in address or "#" in address:
        raise BackendError(
            Reason.INVALID_TARGET,
            f"The address {address!r} in {settings.targets_place()} has a query or a fragment, "
            "after which no task's path can stand: leave it out.",
        )
    return address


def _ngrok_address() -> str:
    from appengine_compat.local import ngrok

    try:
        return ngrok.public_address()
    except ngrok.TunnelError as error:
        raise BackendError(
            Reason.INVALID_TARGET,
            f"{settings.targets_place()} says ngrok, and {error}, or set the address itself.",
        ) from error


def url(address: str, relative_url: str) -> str:
    """Return the url of a path with query below an address, which may have a path itself."""
    separator = "" if relative_url.startswith("/") else "/"
    return f"{address.rstrip('/')}{separator}{relative_url}"
