"""The command ``appengine-compat``: its subcommands, and the edge where errors become one line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from appengine_compat import __version__
from appengine_compat.cli import dev, doctor, rq_worker, server, tasks
from appengine_compat.cli.command import USAGE, Command
from appengine_compat.errors import CompatError

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells give it."""

COMMANDS: tuple[Command, ...] = (
    dev.COMMAND,
    doctor.COMMAND,
    rq_worker.COMMAND,
    server.COMMAND,
    tasks.COMMAND,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code.

    Args:
        arguments: the words after the program's name; None for the process's own.

    Raises:
        SystemExit: after ``--help`` and ``--version``, and for a malformed command line.
    """
    options = _parser().parse_args(arguments)
    command: Command = options.command
    try:
        return command.run(options)
    except CompatError as error:
        print(f"appengine-compat {command.name}: {_one_line(error)}", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        return INTERRUPTED


def _one_line(error: CompatError) -> str:
    return " ".join(str(error).split())


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, where argparse would print the whole usage first."""

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="appengine-compat",
        description="App Engine's deferred and taskqueue on Google Cloud Tasks, anywhere.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", title="commands", required=True)
    for command in COMMANDS:
        subparser = subparsers.add_parser(
            command.name, help=command.sentence, description=command.sentence
        )
        command.add_arguments(subparser)
        subparser.set_defaults(command=command)
    return parser


if __name__ == "__main__":
    sys.exit(main())
