"""``appengine-compat dev``: serves apps, runs their tasks, and tells of every attempt."""

from __future__ import annotations

import argparse
import io
import logging
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from appengine_compat import __version__, settings
from appengine_compat.backends import choice, embedded
from appengine_compat.cli import apps, lines, logs, serving
from appengine_compat.cli.command import Command
from appengine_compat.core.names import short_id
from appengine_compat.handler import kept

if TYPE_CHECKING:
    import socket

    from _typeshed.wsgi import WSGIApplication

    from appengine_compat.backends.embedded import EmbeddedBackend
    from appengine_compat.cli.apps import AppName
    from appengine_compat.handler.kept import KeptTask
    from appengine_compat.local.delivery import AttemptEvent, InFlight

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
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)"
    )
    parser.add_argument(
        "--queue-yaml",
        metavar="FILE",
        help="the queues (default: queue.yaml in the working directory, if there)",
    )
    parser.add_argument(
        "--db",
        metavar="FILE",
        help=f"the file that keeps the tasks (default: {settings.DB.default})",
    )


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= serving.HIGHEST_PORT):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 0 to {serving.HIGHEST_PORT}")
    return int(text)


def _run(options: argparse.Namespace) -> int:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # arguments of tasks are anyone's text
    names = apps.parse_names(options.apps)
    serving.require_waitress()
    _configure(options)
    kind, why = choice.describe()
    backend = embedded.shared() if kind == choice.EMBEDDED else None
    if backend is not None:
        backend.service()  # a broken queue.yaml or database is told before anything is begun
    sockets = serving.bind(options.host, options.port, [name.service for name in names])
    served = _load(names, sockets)
    _print_addresses(served, options.host)
    if backend is None:
        _say(f"Tasks go to {kind}: {why}.")
    else:
        _print_queues(backend)
    logs.begin()
    with serving.ended_by_signals():
        try:
            if backend is not None:
                _dispatch(backend, served)
            _say("Ready. Ctrl-C ends it.")
            serving.serve([(bound, app) for _, bound, app in served], REQUEST_THREADS)
        except KeyboardInterrupt:
            pass  # before or after the loop that ends by it
        _say("Ending.")
        in_flight = backend.close(CLOSING_SECONDS) if backend is not None else []
    _print_in_flight(in_flight)
    return 0


def _configure(options: argparse.Namespace) -> None:
    # Whole paths: importing an app may change the working directory.
    settings.configure(db=Path(options.db or settings.DB.get()).absolute())
    if options.queue_yaml is not None:
        settings.configure(queue_yaml=options.queue_yaml)
    if not settings.BACKEND.is_set:
        settings.configure(backend=choice.EMBEDDED)
    settings.check()


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
    watch = _Watch()
    kept.on_permanent_failure(watch.failed_for_good)
    backend.observe(watch.attempted)
    for name, bound, app in served:
        # The whole app, where wrap_wsgi_app may have registered what is inside it.
        host = serving.address(bound).partition("://")[2]
        backend.register_app(app, name.service, host=host, is_set_up=True)
    backend.start()


class _Watch:
    """Prints each attempt when it has ended."""

    def __init__(self) -> None:
        self._failures: dict[tuple[str, str], str] = {}
        self._lock = threading.Lock()

    def failed_for_good(self, task: KeptTask) -> None:
        """Remember why; the attempt that it belongs to has not ended yet."""
        with self._lock:
            self._failures[task.queue, task.task_name] = task.error

    def attempted(self, event: AttemptEvent) -> None:
        with self._lock:
            failure = self._failures.pop((event.queue_id, event.task_id), "")
        _say(lines.attempt_line(event, time.time(), failure))


def _print_addresses(served: Sequence[_Served], host: str) -> None:
    _say(f"appengine-compat {__version__}")
    width = max(len(name.service) for name, _, _ in served)
    for name, bound, _ in served:
        _say(f"  {name.service:<{width}}  {serving.address(bound)}  {name}")
    if not serving.is_loopback(served[0][1]):
        _say(f"Listening on {host}: whoever reaches this machine reaches the apps.")


def _print_queues(backend: EmbeddedBackend) -> None:
    service = backend.service()
    queues = service.list_queues(backend.queue_name(embedded.DEFAULT_QUEUE).parent).items
    waiting = sum(service.queue_stats(queue.name).tasks_count for queue in queues)
    path = Path(settings.DB.get())
    if path.is_relative_to(Path.cwd()):
        path = path.relative_to(Path.cwd())
    _say(
        f"Tasks are kept in {path}, {waiting} waiting. Queues of "
        f"{embedded.queue_yaml_path() or 'Cloud Tasks, by default'}:"
    )
    width = max(len(short_id(queue.name)) for queue in queues)
    for queue in queues:
        _say("  " + lines.queue_line(queue, width))


def _print_in_flight(in_flight: Sequence[InFlight]) -> None:
    if not in_flight:
        _say("Ended. Nothing was in flight.")
        return
    _say(f"Ended. In flight, and to be run again at the next start: {len(in_flight)}")
    for task in in_flight:
        _say("  " + lines.in_flight_line(task))


def _say(text: str) -> None:
    try:
        # One write per line, so that lines of several threads do not mix.
        print(f"{text}\n", end="", flush=True)
    except BrokenPipeError:
        pass  # whoever read this has gone; the apps are still wanted


COMMAND = Command("dev", "Serve apps on this machine, and run their tasks.", _add_arguments, _run)
