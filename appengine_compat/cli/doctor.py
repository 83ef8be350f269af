"""``appengine-compat doctor``: looks at the whole set-up, and says what mends what is wrong."""

from __future__ import annotations

import argparse
import functools
import json
from collections.abc import Iterator

from appengine_compat.cli import self_test, set_up, surroundings
from appengine_compat.cli.command import Command
from appengine_compat.cli.findings import Check, Finding, Status, failed
from appengine_compat.errors import CompatError

WRONG = 1
"""Exit code where something does not work; warnings leave it 0."""


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print a JSON list of findings")
    parser.add_argument(
        "--url",
        metavar="URL",
        help="where the app is, to ask its handler; without it the addresses of "
        "APPENGINE_COMPAT_TARGETS",
    )
    parser.add_argument(
        "--send-test-task",
        action="store_true",
        help="enqueue a task that only writes a line to the log, and wait for it",
    )
    parser.add_argument(
        "--wait",
        type=float,
        default=30.0,
        metavar="SECONDS",
        help="how long to wait for that task (default: 30)",
    )


def _run(options: argparse.Namespace) -> int:
    findings = []
    for finding in _findings(options):
        findings.append(finding)
        if not options.json:
            print(finding, flush=True)
    if options.json:
        print(json.dumps([finding.to_json() for finding in findings], indent=2))
    is_wrong = any(finding.status is Status.FAILED for finding in findings)
    return WRONG if is_wrong else 0


def _findings(options: argparse.Namespace) -> Iterator[Finding]:
    checks: list[Check] = [
        set_up.imports,
        set_up.variables,
        set_up.host,
        set_up.backend,
        set_up.place,
        surroundings.credentials,
        set_up.database,
        surroundings.redis,
        surroundings.queues,
        set_up.addresses,
        set_up.identity,
        set_up.signatures,
        set_up.bounds,
        surroundings.keys_and_clock,
        functools.partial(surroundings.door, options.url),
    ]
    if options.send_test_task:
        checks.append(functools.partial(self_test.test_task, options.wait))
    for check in checks:
        yield from _found_by(check)


def _found_by(check: Check) -> Iterator[Finding]:
    try:
        yield from check()
    except CompatError as error:
        # A setting that is not allowed stops more than one check; the others go on.
        name = getattr(check, "func", check).__name__.replace("_", " ")
        setting = getattr(error, "setting", "")
        yield failed(name, str(error), f"set or unset {setting}" if setting else "see above")


COMMAND = Command(
    name="doctor",
    sentence="Look at the set-up of this environment, and say what mends what is wrong.",
    add_arguments=_add_arguments,
    run=_run,
)
