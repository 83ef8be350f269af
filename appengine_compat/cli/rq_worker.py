"""``appengine-compat rq-worker``: delivers the tasks that wait in Redis."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from appengine_compat import settings
from appengine_compat.cli.command import Command

MOST_WORKERS = 1000


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "queues",
        nargs="*",
        metavar="QUEUE",
        help="the queues to work (default: those of queue.yaml, and all that tasks were added to)",
    )
    parser.add_argument(
        "--workers",
        type=_count,
        default=1,
        metavar="NUMBER",
        help="how many tasks to deliver at once, each by a process of its own (default: 1)",
    )
    parser.add_argument(
        "--queue-yaml",
        metavar="FILE",
        help="the queues (default: queue.yaml in the working directory, if there)",
    )
    parser.add_argument(
        "--redis-url",
        metavar="URL",
        help=f"where Redis is (default: {settings.REDIS_URL.variable})",
    )
    parser.add_argument("--burst", action="store_true", help="end when no task is due any more")


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= MOST_WORKERS):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to {MOST_WORKERS}")
    return int(text)


def _run(options: argparse.Namespace) -> int:
    from appengine_compat.backends.rq import installed

    installed.require()
    from appengine_compat.backends.rq import worker

    if options.queue_yaml is not None:
        settings.configure(queue_yaml=Path(options.queue_yaml).absolute())
    if options.redis_url is not None:
        settings.configure(redis_url=options.redis_url)
    settings.check()
    if not logging.root.handlers:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    worker.run(options.queues, workers=options.workers, burst=options.burst)
    return 0


COMMAND = Command("rq-worker", "Deliver the tasks that wait in Redis.", _add_arguments, _run)
