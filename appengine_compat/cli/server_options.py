"""The options that ``server`` and ``dev`` share: doors, queues, targets."""

from __future__ import annotations

import argparse
import dataclasses
import math
import re
import shlex
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from appengine_compat import settings
from appengine_compat.backends import embedded, known_queues
from appengine_compat.cli import serving
from appengine_compat.cli.command import CommandError
from appengine_compat.core import names, validation
from appengine_compat.core.model import Queue
from appengine_compat.errors import ConfigError
from appengine_compat.local import google_stubs
from appengine_compat.local.control import Control
from appengine_compat.local.doors import ANY_PORT, Ports
from appengine_compat.local.service_addresses import ServiceAddresses
from appengine_compat.local.tombstones import Windows

if TYPE_CHECKING:
    from appengine_compat.local.clock import Clock
    from appengine_compat.local.doors import Doors
    from appengine_compat.local.service import LocalService

DEFAULT_PORTS = {"grpc": 8123, "rest": 8124, "dashboard": 8000}
_FREE = "free"
_SHUT = 0
_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhd]?)")
_TARGET = re.compile(r"[a-z0-9][a-z0-9-]*(?:\.[a-z0-9][a-z0-9-]*){0,2}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    for door, what in (
        ("grpc", "Cloud Tasks over gRPC"),
        ("rest", "Cloud Tasks over REST"),
        ("dashboard", "the page of queues and tasks"),
    ):
        parser.add_argument(
            f"--{door}-port",
            type=_door_port,
            metavar="PORT",
            help=f"port of {what}; 0 turns it off, 'free' takes one that is free "
            f"(default: {DEFAULT_PORTS[door]})",
        )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)"
    )
    kept = parser.add_mutually_exclusive_group()
    kept.add_argument(
        "--db",
        metavar="FILE",
        help=f"the file that keeps queues and tasks (default: {settings.DB.default})",
    )
    kept.add_argument(
        "--ephemeral",
        action="store_true",
        help="keep them in memory: fastest, and gone at the end",
    )
    parser.add_argument(
        "--queue-yaml",
        metavar="FILE",
        help="queues to have (default: queue.yaml in the working directory, if there)",
    )
    parser.add_argument(
        "--project",
        metavar="P",
        help=f"project of the queues that are named by id alone (default: {known_queues.LOCAL})",
    )
    parser.add_argument(
        "--location",
        metavar="L",
        help=f"location of the queues that are named by id alone (default: {known_queues.LOCAL})",
    )
    parser.add_argument(
        "--queue",
        action="append",
        default=[],
        dest="queues",
        metavar="NAME",
        help="a queue to have, by its id or its full resource name; may be repeated",
    )
    parser.add_argument(
        "--service",
        action="append",
        default=[],
        dest="services",
        metavar="NAME=URL",
        help="address of an App Engine service (or version.service) that takes tasks; may be "
        "repeated",
    )
    parser.add_argument(
        "--app-engine-target",
        metavar="URL",
        help="address for the App Engine tasks whose service has none of its own",
    )
    parser.add_argument(
        "--oidc-issuer",
        type=_address,
        metavar="URL",
        help="who identity tokens say has issued them: where handlers reach the REST port, or "
        "Google's https://accounts.google.com (default: the REST port's address)",
    )
    parser.add_argument(
        "--task-name-window",
        type=_duration,
        metavar="TIME",
        help="how long the name of a task that has ended stays taken, such as 1h, 24h or 9d "
        "(default: 24h, and 9d in queues of a queue.yaml)",
    )


def configure(options: argparse.Namespace) -> None:
    """Put what the options say over the settings of this process.

    Raises:
        ConfigError: a setting is not allowed.
    """
    # Whole paths: importing an app may change the working directory.
    path = Path(options.db or settings.DB.get()).absolute()
    settings.configure(db=embedded.IN_MEMORY if options.ephemeral else path)
    for name in ("queue_yaml", "project", "location"):
        value = getattr(options, name)
        if value is not None:
            settings.configure(**{name: value})
    settings.check()


def shown_database() -> str:
    """Return where queues and tasks are kept, as it is printed."""
    path = settings.DB.get()
    if path == embedded.IN_MEMORY:
        return "memory, until the end"
    here = Path.cwd()
    return str(Path(path).relative_to(here) if Path(path).is_relative_to(here) else path)


def parent() -> str:
    """Return the location of the queues that are named by id alone.

    Raises:
        CommandError: project or location have characters that names do not.
    """
    project = settings.PROJECT.get() or known_queues.LOCAL
    location = settings.LOCATION.get() or known_queues.LOCAL
    name = f"projects/{project}/locations/{location}"
    if not names.LOCATION_NAME.match(name):
        raise CommandError(
            f"{name} is no location: --project and --location have letters, digits and hyphens."
        )
    return name


def ports(options: argparse.Namespace) -> Ports:
    """Return the ports that the doors shall have."""
    chosen = {}
    for door, default in DEFAULT_PORTS.items():
        given = getattr(options, f"{door}_port")
        if given is None:
            given = default
        chosen[door] = None if given == _SHUT else ANY_PORT if given == _FREE else given
    return Ports(**chosen)


def doors_in_reach(
    options: argparse.Namespace, open_at: Callable[[Ports], Doors]
) -> tuple[Doors, list[str]]:
    """Open the doors, but those that nobody asked for and whose ports another program has.

    Several ``dev`` run side by side: only one can have what is usual.

    Args:
        options: the command line's.
        open_at: opens doors at ports, all or none.

    Returns:
        The doors, and a line to print for each that was left out.

    Raises:
        ConfigError: a port that was asked for cannot be listened on.
    """
    while True:
        ports, told = _ports_in_reach(options)
        try:
            return open_at(ports), told
        except ConfigError:
            # Several that are started at once find the same port free, and one of them gets it.
            if _ports_in_reach(options)[0] == ports:
                raise


def _ports_in_reach(options: argparse.Namespace) -> tuple[Ports, list[str]]:
    found, told = ports(options), []
    for door, default in DEFAULT_PORTS.items():
        if getattr(options, f"{door}_port") is None and not _is_free(options.host, default):
            found = dataclasses.replace(found, **{door: None})
            told.append(f"Port {default} is in use: no {door} here (--{door}-port takes another).")
    return found, told


def _is_free(host: str, port: int) -> bool:
    try:
        # As the doors bind it: two servers that share a port would share its clients.
        with socket.create_server((host, port)):
            return True
    except OSError:
        return False


def control(
    service: LocalService, clock: Clock, of_file: Sequence[Queue], named: Sequence[Queue]
) -> Control:
    """Make the queues of the start, and return what the server is controlled by.

    Args:
        service: the local service.
        clock: its clock.
        of_file: queues as a queue.yaml says they are to be.
        named: queues of which it is only said that there are to be such.
    """
    service.put_queues(of_file)
    there = {queue.name for queue in service.all_queues()}
    service.put_queues([queue for queue in named if queue.name not in there])
    at_start = {queue.name: queue for queue in [*named, *of_file]}
    return Control(service, clock, list(at_start.values()))


def queues(options: argparse.Namespace, own_parent: str) -> list[Queue]:
    """Return the queues of ``--queue`` as they are made.

    Raises:
        CommandError: a name is none.
    """
    found: dict[str, Queue] = {}
    for word in options.queues:
        name = word if "/" in word else f"{own_parent}/queues/{word}"
        if not names.QUEUE_NAME.match(name):
            raise CommandError(
                f"--queue {word} names no queue: write an id of 1 to 100 letters, digits and "
                "hyphens, or projects/PROJECT/locations/LOCATION/queues/ID."
            )
        found[name] = validation.canonical_queue(Queue(name=name))
    return list(found.values())


def service_addresses(options: argparse.Namespace) -> ServiceAddresses:
    """Return the addresses of ``--service`` and ``--app-engine-target``.

    Raises:
        ConfigError: one is malformed, or a service has two.
    """
    table: dict[str, str] = {}
    for word in options.services:
        name, separator, url = word.partition("=")
        if not separator or not _TARGET.fullmatch(name):
            raise CommandError(
                f"--service {word} gives no service its address: write NAME=http://HOST:PORT."
            )
        if name in table:
            raise CommandError(f"--service gives {name} two addresses: {table[name]} and {url}.")
        table[name] = url
    return ServiceAddresses(table, options.app_engine_target)


def windows(options: argparse.Namespace, otherwise: Windows) -> Windows:
    """Return how long names stay reserved."""
    seconds = options.task_name_window
    if seconds is None:
        return otherwise
    return Windows(
        task_seconds=seconds,
        automatic_task_seconds=min(seconds, otherwise.automatic_task_seconds),
        queue_seconds=otherwise.queue_seconds,
    )


def addresses(doors: Doors) -> str:
    """Return the open doors on one line, "" when there are none."""
    shown = [
        f"gRPC {doors.grpc_address}" if doors.grpc_address else "",
        f"REST {doors.rest_url}" if doors.rest_url else "",
        f"queues {doors.page_url}" if doors.page_url else "",
    ]
    return ", ".join(filter(None, shown))


def environment(
    grpc_address: str, rest_url: str, own_parent: str, issuer: str | None = None
) -> dict[str, str]:
    """Return the variables that point clients at a server.

    Args:
        grpc_address: ``host:port``, or "".
        rest_url: the address of the REST door, or "".
        own_parent: ``projects/P/locations/L``.
        issuer: who the server's identity tokens name; None for ``rest_url``.
    """
    place = names.LOCATION_NAME.match(own_parent)
    assert place is not None
    variables = {}
    if grpc_address:
        variables["CLOUD_TASKS_EMULATOR_HOST"] = grpc_address
    variables["APPENGINE_COMPAT_PROJECT"] = place["project"]
    variables["APPENGINE_COMPAT_LOCATION"] = place["location"]
    if rest_url:
        # Handlers then believe the identity tokens that this server gives to tasks.
        variables["APPENGINE_COMPAT_OIDC_ISSUER"] = issuer or rest_url
        for api in ("CLOUDTASKS", "APPENGINE", "SERVICEUSAGE", "SERVICEMANAGEMENT"):
            # gcloud takes no address without a slash at the end.
            variables[f"CLOUDSDK_API_ENDPOINT_OVERRIDES_{api}"] = f"{rest_url}/"
        variables["CLOUDSDK_APP_RUNTIME_BUILDERS_ROOT"] = google_stubs.RUNTIME_BUILDERS.as_uri()
        variables["CLOUDSDK_AUTH_DISABLE_CREDENTIALS"] = "true"
        variables["CLOUDSDK_CORE_PROJECT"] = place["project"]
        variables["CLOUDSDK_CORE_DISABLE_PROMPTS"] = "1"
    return variables


def exports(variables: dict[str, str]) -> Sequence[str]:
    """Return variables as the lines that a shell evaluates."""
    return [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]


def _door_port(text: str) -> int | str:
    if text == _FREE:
        return text
    if not (text.isascii() and text.isdigit() and int(text) <= serving.HIGHEST_PORT):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a port from 1 to {serving.HIGHEST_PORT}, nor 0, nor 'free'"
        )
    return int(text)


def _address(text: str) -> str:
    if not text.startswith(("http://", "https://")) or not urlsplit(text).hostname:
        raise argparse.ArgumentTypeError(f"{text!r} is no address such as http://tasks:8124")
    return text


def _duration(text: str) -> float:
    match = _DURATION.fullmatch(text)
    seconds = math.nan if match is None else float(match[1]) * _UNITS[match[2]]
    if not seconds <= 366 * _UNITS["d"]:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a time up to a year such as 90s, 1h or 9d"
        )
    return seconds
