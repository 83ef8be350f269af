"""``appengine-compat tasks``: what failed for good, to be looked at, run again or dropped."""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from appengine_compat import settings
from appengine_compat.backends import choice, embedded
from appengine_compat.backends.base import Backend, TaskRequest
from appengine_compat.cli import kept_lines, lines
from appengine_compat.cli.command import Command, CommandError
from appengine_compat.core.names import short_id
from appengine_compat.errors import ApiError, CompatError, PayloadError
from appengine_compat.handler import kept as records
from appengine_compat.local import kept
from appengine_compat.local.service import LocalService
from appengine_compat.local.store import Store

if TYPE_CHECKING:
    from appengine_compat.handler.kept import KeptTask
    from appengine_compat.local.kept import Entry

FAILED = 1
"""Exit code when some of what was asked for could not be done."""
STANDARD_INPUT = "-"

_PAGE = 500


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(metavar="ACTION", title="actions", required=True)

    listing = _action(actions, "kept", "List the tasks that failed for good.", _list)
    listing.add_argument("--queue", metavar="NAME", help="only those of this queue")

    showing = _action(actions, "show", "Show all of a task that is kept.", _show)
    showing.add_argument("number", type=_number, metavar="ID", help="as 'kept' lists it")
    showing.add_argument(
        "--json", action="store_true", help="as a record that 'replay' takes, one line of JSON"
    )

    replaying = _action(
        actions,
        "replay",
        "Run tasks again: put those that are kept back into their queues, or enqueue those of "
        "log records.",
        _replay,
    )
    replaying.add_argument(
        "what",
        nargs="*",
        metavar="ID|FILE",
        help="what 'kept' lists, or files of log records (- for standard input): lines of a log, "
        "or what 'gcloud logging read --format=json' prints. Log records go where this program's "
        "tasks go.",
    )
    replaying.add_argument("--all", action="store_true", help="all that is kept")
    replaying.add_argument(
        "--payload",
        metavar="FILE",
        help="the payload of the one log record, where it was too large for the log",
    )

    dropping = _action(actions, "drop", "Forget tasks that are kept.", _drop)
    dropping.add_argument(
        "numbers", nargs="*", type=_number, metavar="ID", help="as 'kept' lists it"
    )
    dropping.add_argument("--all", action="store_true", help="all that is kept")


def _action(
    actions: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    sentence: str,
    act: Callable[[argparse.Namespace], int],
) -> argparse.ArgumentParser:
    parser = actions.add_parser(name, help=sentence, description=sentence)
    parser.add_argument(
        "--db",
        metavar="FILE",
        help=f"the local service's file (default: {settings.DB.default})",
    )
    parser.set_defaults(act=act)
    return parser


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number that 'appengine-compat tasks kept' lists"
        )
    return int(text)


def _run(options: argparse.Namespace) -> int:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # arguments of tasks are anyone's text
    if options.db is not None:
        settings.configure(db=Path(options.db).absolute())
    act: Callable[[argparse.Namespace], int] = options.act
    return act(options)


# --- the actions ---------------------------------------------------------------------------------


def _list(options: argparse.Namespace) -> int:
    with _database() as store:
        entries = [
            entry
            for entry in _entries(store)
            if options.queue is None or short_id(entry.queue) == options.queue
        ]
    for line in kept_lines.table(entries):
        print(line)
    if not entries:
        print("Nothing is kept.")
    return 0


def _show(options: argparse.Namespace) -> int:
    with _database() as store:
        entry = store.read(lambda connection: kept.find(connection, options.number))
    if entry is None:
        raise CommandError(_nothing_under(options.number))
    if options.json:
        print(json.dumps({records.RECORD_KEY: kept_lines.as_task(entry).to_record()}))
        return 0
    for line in kept_lines.whole(entry):
        print(line)
    return 0


def _replay(options: argparse.Namespace) -> int:
    numbers = [int(each) for each in options.what if each.isascii() and each.isdigit()]
    files = [each for each in options.what if not (each.isascii() and each.isdigit())]
    if not options.what and not options.all:
        raise CommandError("Say what to replay: an ID of 'tasks kept', a file, - or --all.")
    if options.payload is not None and (numbers or options.all or len(files) != 1):
        raise CommandError("--payload goes with the file of one log record, and nothing else.")
    # All files first: a wrong one should not leave half of the work done.
    tasks = [task for file in files for task in _tasks_of(file)]
    if options.payload is not None:
        tasks = [_with_payload(tasks, options.payload)]
    failures = _Failures()
    if numbers or options.all:
        with _database() as store:
            service = LocalService(store)
            if options.all:
                numbers = [entry.number for entry in _entries(store)]
            for number in numbers:
                with failures.told():
                    _put_back(service, number)
    if tasks:
        failures.count += _enqueue(tasks)
    return FAILED if failures.count else 0


def _drop(options: argparse.Namespace) -> int:
    if bool(options.numbers) == options.all:
        raise CommandError("Say what to drop: IDs of 'tasks kept', or --all.")
    with _database() as store:
        numbers = (
            [entry.number for entry in _entries(store)] if options.all else list(options.numbers)
        )
        for number in numbers:
            if store.read(lambda connection, number=number: kept.find(connection, number)) is None:  # type: ignore[misc]
                raise CommandError(f"{_nothing_under(number)} Nothing was dropped.")
        count = store.write(lambda connection: kept.drop(connection, numbers))
    print(f"Dropped {count}.")
    return 0


# --- the local database --------------------------------------------------------------------------


@contextmanager
def _database() -> Iterator[Store]:
    path = Path(settings.DB.get())
    if not path.is_file():
        raise CommandError(
            f"There is no database at {path}: go to the directory where the app runs, or name "
            f"the file by --db or {settings.DB.variable}."
        )
    store = Store(path)
    try:
        yield store
    finally:
        store.close()


def _entries(store: Store) -> list[Entry]:
    entries: list[Entry] = []
    while True:
        after = entries[-1].number if entries else 0
        page = store.read(lambda connection, after=after: kept.entries(connection, after, _PAGE))  # type: ignore[misc]
        entries += page
        if len(page) < _PAGE:
            return entries


def _put_back(service: LocalService, number: int) -> None:
    entry = service.store.read(lambda connection: kept.find(connection, number))
    if entry is None:
        raise CommandError(_nothing_under(number))
    try:
        task_id = service.replay(number)
    except ApiError as error:
        raise CommandError(
            f"{number} stays kept: its queue {short_id(entry.queue)!r} is no more ({error}). Add "
            "it to queue.yaml and start the app, then replay."
        ) from error
    if task_id is None:
        raise CommandError(_nothing_under(number))
    print(
        f"Replayed {number}: {kept_lines.what(entry)} is task {task_id} of queue "
        f"{short_id(entry.queue)}, and runs as soon as the app does."
    )


def _nothing_under(number: int) -> str:
    return f"Nothing is kept under {number}: see 'appengine-compat tasks kept'."


# --- log records ---------------------------------------------------------------------------------


def _tasks_of(file: str) -> list[KeptTask]:
    try:
        is_input = file == STANDARD_INPUT
        text = sys.stdin.read() if is_input else Path(file).read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{file} cannot be read: {error}.") from error
    try:
        return records.read_records(text)
    except PayloadError as error:
        name = "Standard input" if is_input else file
        raise CommandError(f"{name}: {error}") from error


def _with_payload(tasks: list[KeptTask], file: str) -> KeptTask:
    if len(tasks) != 1:
        raise CommandError(f"--payload is for one log record, and there are {len(tasks)}.")
    (task,) = tasks
    try:
        payload = Path(file).read_bytes()
    except OSError as error:
        raise CommandError(f"{file} cannot be read: {error}.") from error
    if hashlib.sha256(payload).hexdigest() != task.payload_sha256:
        raise CommandError(
            f"{file} is not the payload of task {task.task_name!r}: its SHA-256 is not the one of "
            "the log record."
        )
    return replace(task, payload=payload)


def _enqueue(tasks: list[KeptTask]) -> int:
    """Enqueue the tasks of log records, and return how many could not be."""
    backend = choice.current()
    kind, why = choice.describe()
    print(f"Tasks go to {kind}: {why}.")
    failures = _Failures()
    try:
        for task in tasks:
            with failures.told():
                task_id = _enqueue_one(backend, task)
                print(
                    f"Replayed {task.task_name or '(unnamed)'}: "
                    f"{lines.plain(task.function) or task.url} is task {task_id} of queue "
                    f"{task.queue}."
                )
    finally:
        embedded.close(0.0)
    return failures.count


def _enqueue_one(backend: Backend, task: KeptTask) -> str:
    if task.payload is None:
        raise CommandError(
            f"The log record of task {task.task_name!r} has no payload"
            + (
                f" ({task.payload_bytes:,} bytes were too many for the log): give it by --payload."
                if task.payload_bytes
                else ": it was never read."
            )
        )
    if not task.url.startswith("/"):
        raise CommandError(
            f"Task {task.task_name!r} went to an address of its own, {task.url}: replay it by its "
            "ID, where it is kept."
        )
    (outcome,) = backend.create_tasks(
        task.queue or "default",
        [
            TaskRequest(
                relative_url=task.url,
                method=task.method,
                headers=tuple(task.own_headers.items()),
                payload=task.payload,
                target=task.service,
            )
        ],
    )
    if outcome.error is not None:
        raise outcome.error
    return outcome.task_id


class _Failures:
    """Tells what one task failed with, so that the others are still done."""

    def __init__(self) -> None:
        self.count = 0

    @contextmanager
    def told(self) -> Iterator[None]:
        """Print an error instead of raising it."""
        try:
            yield
        except CompatError as error:
            self.count += 1
            print(f"appengine-compat tasks: {' '.join(str(error).split())}", file=sys.stderr)


COMMAND = Command(
    "tasks", "Look at tasks that failed for good, and run them again.", _add_arguments, _run
)
