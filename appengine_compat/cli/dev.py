"""``appengine-compat dev``: serves apps, runs their tasks, and tells of every attempt."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from appengine_compat import __version__, settings
from appengine_compat.backends import choice, embedded, known_queues
from appengine_compat.cli import apps, console, lines, logs, server_options, serving
from appengine_compat.cli.command import Command
from appengine_compat.core.names import short_id
from appengine_compat.handler import kept
from appengine_compat.local.clock import SystemClock
from appengine_compat.local.doors import Doors, open_doors
from appengine_compat.local.http_transport import HttpTransport
from appengine_compat.local.identity import Identity
from appengine_compat.local.tombstones import Windows

if TYPE_CHECKING:
    import socket

    from _typeshed.wsgi import WSGIApplication

    from appengine_compat.backends.embedded import EmbeddedBackend
    from appengine_compat.cli.apps import AppName

REQUEST_THREADS = 8
"""How many requests each service answers at once."""
CLOSING_SECONDS = 5.0
"""How long attempts that run are waited for at the end."""

_Served = tuple["AppName", "socket.socket", "WSGIApplication"]


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "apps",
        nargs="+",
        metavar="[NAME=]MODULE:APP",
        help="a WSGI application of a module in the working directory, and the service it is; "
        "without NAME= it is the service 'default'",
    )
    parser.add_argument(
        "--port",
        type=_port,
        default=8080,
        help="port of the first service, the others follow; 0 takes free ones (default: 8080)",
    )
    server_options.add_arguments(parser)


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= serving.HIGHEST_PORT):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 0 to {serving.HIGHEST_PORT}")
    return int(text)


def _run(options: argparse.Namespace) -> int:
    console.begin()
    names = apps.parse_names(options.apps)
    serving.require_waitress()
    _configure(options)
    kind, why = choice.describe()
    backend = embedded.shared() if kind == choice.EMBEDDED else None
    if backend is not None:
        backend.serve_clients(server_options.windows(options, Windows()))
        backend.service()  # a broken queue.yaml or database is told before anything is begun
    sockets = serving.bind(options.host, options.port, [name.service for name in names])
    served = _load(names, sockets)
    doors = None if backend is None else _open_doors(backend, options)
    _print_addresses(served, options.host)
    if backend is None:
        console.say(f"Tasks go to {kind}: {why}.")
    else:
        _print_queues(backend)
    logs.begin()
    with serving.ended_by_signals():
        try:
            if backend is not None:
                _dispatch(backend, served)
            open_now = server_options.addresses(doors) if doors is not None else ""
            console.say(f"Ready{open_now and f': {open_now}'}. Ctrl-C ends it.")
            serving.serve([(bound, app) for _, bound, app in served], REQUEST_THREADS)
        except KeyboardInterrupt:
            pass  # before or after the loop that ends by it
        console.say("Ending.")
        if doors is not None:
            doors.stop()
        in_flight = backend.close(CLOSING_SECONDS) if backend is not None else []
    console.say_in_flight(in_flight)
    return 0


def _configure(options: argparse.Namespace) -> None:
    server_options.configure(options)
    if not settings.BACKEND.is_set:
        settings.configure(backend=choice.EMBEDDED)


def _open_doors(backend: EmbeddedBackend, options: argparse.Namespace) -> Doors:
    service = backend.service()
    parent = server_options.parent()
    control = server_options.control(
        service,
        SystemClock(),
        list(known_queues.load().values()),
        server_options.queues(options, parent),
    )
    identity = Identity(service.store, options.oidc_issuer)
    doors, left_shut = server_options.doors_in_reach(
        options,
        lambda ports: open_doors(
            control,
            host=options.host,
            ports=ports,
            location=short_id(parent),
            identity=identity,
            describe=lines.what_runs,
        ),
    )
    addresses = server_options.service_addresses(options)
    backend.reach(HttpTransport(addresses, identity if doors.rest is not None else None))
    for words in left_shut:
        console.say(words)
    return doors


def _load(names: Sequence[AppName], sockets: Sequence[socket.socket]) -> list[_Served]:
    from google.appengine.ext import deferred

    # A line for each task is printed here; an app that wants the headers too says so itself.
    deferred.set_log_level(logging.DEBUG)
    # Nothing may be dispatched while the apps are still being set up.
    embedded.hold_dispatch()
    try:
        return [
            (name, bound, apps.as_service(apps.load(name), name.service))
            for name, bound in zip(names, sockets, strict=True)
        ]
    finally:
        embedded.release_dispatch()


def _dispatch(backend: EmbeddedBackend, served: Sequence[_Served]) -> None:
    watch = console.Watch()
    kept.on_permanent_failure(watch.failed_for_good)
    backend.observe(watch.attempted)
    for name, bound, app in served:
        # The whole app, where wrap_wsgi_app may have registered what is inside it.
        host = serving.address(bound).partition("://")[2]
        backend.register_app(app, name.service, host=host, is_set_up=True)
    backend.start()


def _print_addresses(served: Sequence[_Served], host: str) -> None:
    console.say(f"appengine-compat {__version__}")
    width = max(len(name.service) for name, _, _ in served)
    for name, bound, _ in served:
        console.say(f"  {name.service:<{width}}  {serving.address(bound)}  {name}")
    if not serving.is_loopback(served[0][1]):
        console.say(f"Listening on {host}: whoever reaches this machine reaches the apps.")


def _print_queues(backend: EmbeddedBackend) -> None:
    service = backend.service()
    queues = service.list_queues(backend.queue_name(known_queues.DEFAULT_QUEUE).parent).items
    waiting = sum(service.queue_stats(queue.name).tasks_count for queue in queues)
    console.say(
        f"Tasks are kept in {server_options.shown_database()}, {waiting} waiting. Queues of "
        f"{known_queues.queue_yaml_path() or 'Cloud Tasks, by default'}:"
    )
    width = max(len(short_id(queue.name)) for queue in queues)
    for queue in queues:
        console.say("  " + lines.queue_line(queue, width))


COMMAND = Command("dev", "Serve apps on this machine, and run their tasks.", _add_arguments, _run)
