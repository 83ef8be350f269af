"""``appengine-compat server``: a local Cloud Tasks, for clients in any language."""

from __future__ import annotations

import argparse
import math
import threading
import time
from datetime import datetime, timezone

from appengine_compat import __version__, settings
from appengine_compat.backends import known_queues
from appengine_compat.cli import console, lines, logs, open_files, server_options, serving
from appengine_compat.cli.command import Command, CommandError
from appengine_compat.core.names import short_id
from appengine_compat.local.clock import Clock, ManualClock, SystemClock
from appengine_compat.local.doors import Doors, open_doors
from appengine_compat.local.http_transport import HttpTransport
from appengine_compat.local.identity import Identity
from appengine_compat.local.service import LocalService
from appengine_compat.local.store import Store
from appengine_compat.local.tombstones import Windows

THREADS = 32
"""How many attempts are made at once, where ``APPENGINE_COMPAT_THREADS`` does not say."""
MOST_SLOW = 1000
"""How many more attempts may wait for targets that are slow, so that these hold up no other."""
CLOSING_SECONDS = 5.0
"""How long attempts that run are waited for at the end."""

_NOW = "now"
_MOST_QUEUES_SHOWN = 30


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    server_options.add_arguments(parser)
    parser.add_argument(
        "--stepped-clock",
        nargs="?",
        const=_NOW,
        metavar="TIME",
        help="a clock that stands still until POST /_local/advance?seconds=N; it begins now, or "
        "at a time such as 2026-01-31T12:00:00Z",
    )
    parser.add_argument("--quiet", action="store_true", help="do not print a line for each attempt")
    parser.add_argument(
        "--print-env",
        action="store_true",
        help="print the variables that point clients at a server of these options, for "
        'eval "$(…)", and end',
    )


def _run(options: argparse.Namespace) -> int:
    console.begin()
    server_options.configure(options)
    parent = server_options.parent()
    if options.print_env:
        _print_environment(options, parent)
        return 0
    open_files.raise_limit()
    of_file = list(known_queues.written().values())
    named = server_options.queues(options, parent)
    service_addresses = server_options.service_addresses(options)
    clock = _clock(options.stepped_clock)
    windows = server_options.windows(options, Windows())
    service = LocalService(Store(settings.DB.get() or None), clock=clock, windows=windows)
    try:
        service.store.reserve_log()
        identity = Identity(service.store, options.oidc_issuer)
        control = server_options.control(service, clock, of_file, named)
        doors = open_doors(
            control,
            host=options.host,
            ports=server_options.ports(options),
            location=short_id(parent),
            identity=identity,
            describe=lines.what_runs,
        )
    except BaseException:
        service.close(0)
        raise
    transport = HttpTransport(service_addresses, identity if doors.rest is not None else None)
    logs.begin()
    _print_head(service, options, doors)
    with serving.ended_by_signals():
        try:
            if not options.quiet:
                service.observers.append(console.Watch().attempted)
            service.start(transport, threads=_threads(), most_slow=MOST_SLOW)
            console.say(
                f"Ready: {server_options.addresses(doors) or 'no door is open'}. Ctrl-C ends it."
            )
            threading.Event().wait()
        except KeyboardInterrupt:
            pass  # the way to end it
        console.say("Ending.")
        doors.stop()
        in_flight = service.close(CLOSING_SECONDS)
        transport.close()
    console.say_in_flight(in_flight)
    return 0


def _clock(text: str | None) -> Clock:
    if text is None:
        return SystemClock()
    if text == _NOW:
        # At a whole second, steps of seconds arrive exactly where tasks are due.
        return ManualClock(math.ceil(time.time()))
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise CommandError(
            f"--stepped-clock {text} is no time: write one such as 2026-01-31T12:00:00Z."
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return ManualClock(moment.timestamp())


def _threads() -> int:
    return settings.THREADS.get() if settings.THREADS.is_set else THREADS


def _print_environment(options: argparse.Namespace, parent: str) -> None:
    if "free" in (options.grpc_port, options.rest_port):
        raise CommandError(
            "--print-env cannot know a port that is yet to be found: give --grpc-port and "
            "--rest-port numbers."
        )
    ports = server_options.ports(options)
    host = "localhost" if options.host in ("127.0.0.1", "0.0.0.0", "::1", "::") else options.host
    variables = server_options.environment(
        f"{host}:{ports.grpc}" if ports.grpc else "",
        f"http://{host}:{ports.rest}" if ports.rest else "",
        parent,
        options.oidc_issuer,
    )
    for line in server_options.exports(variables):
        console.say(line)


def _print_head(service: LocalService, options: argparse.Namespace, doors: Doors) -> None:
    console.say(f"appengine-compat {__version__}: a local Cloud Tasks")
    if not serving.is_local(options.host):
        console.say(
            f"Listening on {options.host}: whoever reaches this machine may create tasks, and "
            "have this machine call any address."
        )
    queues = service.all_queues()
    waiting = sum(service.queue_stats(queue.name).tasks_count for queue in queues)
    console.say(
        f"Queues and tasks are kept in {server_options.shown_database()}, {waiting} waiting."
    )
    if options.stepped_clock is not None:
        console.say("Its clock stands still until POST /_local/advance?seconds=N.")
    if not queues:
        console.say("There are no queues yet: create one, or start with --queue NAME.")
    width = max((len(short_id(queue.name)) for queue in queues), default=0)
    for queue in queues[:_MOST_QUEUES_SHOWN]:
        console.say("  " + lines.queue_line(queue, width))
    if len(queues) > _MOST_QUEUES_SHOWN:
        console.say(f"  and {len(queues) - _MOST_QUEUES_SHOWN} more: {doors.page_url}")


COMMAND = Command(
    "server",
    "Run a local Cloud Tasks over gRPC and REST, for clients in any language.",
    _add_arguments,
    _run,
)
