"""The ports of a local Cloud Tasks: gRPC, REST, and the page of its queues."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from appengine_compat.errors import ConfigError
from appengine_compat.local import control_page, google_stubs, http_messages
from appengine_compat.local.control import MOUNT as CONTROL_MOUNT
from appengine_compat.local.control import Control, health
from appengine_compat.local.identity import MOUNTS as IDENTITY_MOUNTS

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

    from appengine_compat.local.control_page import Describe
    from appengine_compat.local.fronts.grpc_front import GrpcServer
    from appengine_compat.local.fronts.rest_server import RestServer
    from appengine_compat.local.identity import Identity

HEALTH_MOUNT = "/healthz"
ANY_PORT = 0


@dataclass(frozen=True, slots=True)
class Ports:
    """A port for each door; ``ANY_PORT`` for one that is free, None to leave the door shut."""

    grpc: int | None = 8123
    rest: int | None = 8124
    dashboard: int | None = 8000


@dataclass(slots=True)
class Doors:
    """The doors that are open.

    Attributes:
        host: the address they listen on.
        grpc: the gRPC server, or None.
        rest: the REST server, or None.
        dashboard: the server of the page, or None.
    """

    host: str
    grpc: GrpcServer | None = None
    rest: RestServer | None = None
    dashboard: RestServer | None = None

    @property
    def grpc_address(self) -> str:
        """``host:port`` of the gRPC door; "" when it is shut."""
        return "" if self.grpc is None else f"{_shown(self.host)}:{self.grpc.port}"

    @property
    def rest_url(self) -> str:
        """Address of the REST door, without a slash at the end; "" when it is shut."""
        return "" if self.rest is None else f"http://{_shown(self.host)}:{self.rest.port}"

    @property
    def page_url(self) -> str:
        """Address of the page of queues; "" when its door is shut."""
        if self.dashboard is None:
            return ""
        return f"http://{_shown(self.host)}:{self.dashboard.port}{control_page.MOUNT}"

    def stop(self, grace_seconds: float = 1.0) -> None:
        """Shut all; calls that run get a moment to end."""
        for server in (self.grpc, self.rest, self.dashboard):
            if server is not None:
                server.stop(grace_seconds)
        self.grpc = self.rest = self.dashboard = None


def open_doors(
    control: Control,
    *,
    host: str,
    ports: Ports,
    location: str,
    identity: Identity | None = None,
    describe: Describe = control_page.plainly,
) -> Doors:
    """Open the doors of a local service, in threads of this process.

    Args:
        control: the service, and what it is controlled by.
        host: the address to listen on.
        ports: the ports.
        location: the location that is listed though it has no queue yet.
        identity: makes the tokens of tasks: its keys are served at the REST door, whose address
            becomes its issuer if it has none.
        describe: says on the page what a task would do.

    Returns:
        The doors, each of which takes calls.

    Raises:
        ConfigError: a port cannot be listened on, or waitress is not installed; none is open then.
    """
    # Each loads libraries that the others do without.
    doors = Doors(host)
    service = control.service
    of_the_server: dict[str, WSGIApplication] = {
        CONTROL_MOUNT: http_messages.application(control.answer),
        HEALTH_MOUNT: http_messages.application(health(service)),
    }
    try:
        if ports.grpc is not None:
            from appengine_compat.local.fronts.grpc_front import serve_grpc

            doors.grpc = serve_grpc(service, host, ports.grpc, location=location)
        if ports.rest is not None:
            from appengine_compat.local.fronts.rest_server import serve_rest

            stubs = http_messages.application(google_stubs.answers(location))
            mounts = {**dict.fromkeys(google_stubs.MOUNTS, stubs), **of_the_server}
            if identity is not None:
                mounts |= dict.fromkeys(IDENTITY_MOUNTS, identity.documents())
            doors.rest = serve_rest(service, host, ports.rest, location=location, mounts=mounts)
            if identity is not None:
                identity.issuer = identity.issuer or doors.rest_url
        if ports.dashboard is not None:
            doors.dashboard = _open_dashboard(
                control, host, ports.dashboard, of_the_server, describe
            )
    except BaseException:
        doors.stop()
        raise
    return doors


def _open_dashboard(
    control: Control,
    host: str,
    port: int,
    mounts: Mapping[str, WSGIApplication],
    describe: Describe,
) -> RestServer:
    from appengine_compat.local.fronts.rest_server import serve_app

    page = control_page.TaskQueuePage(control.service, describe)
    mounted = {control_page.MOUNT: http_messages.application(page.answer), **mounts}
    app = http_messages.routed(mounted, control_page.MOUNT)
    try:
        return serve_app(app, host, port)
    except ConfigError as error:
        raise ConfigError(
            str(error).replace("Cloud Tasks' REST", "The page of the queues"),
            setting="--dashboard-port",
        ) from None


def _shown(host: str) -> str:
    if host in ("127.0.0.1", "::1", "0.0.0.0", "::"):
        return "localhost"
    return f"[{host}]" if ":" in host else host
