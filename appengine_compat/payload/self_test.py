"""What the task of ``appengine-compat doctor --send-test-task`` calls."""

from __future__ import annotations

import logging

_log = logging.getLogger("appengine_compat.handler")


def answer(token: str) -> None:
    """Write to the log that a test task has arrived.

    Args:
        token: which one, as ``doctor`` prints it.
    """
    _log.info("The test task %s of appengine-compat doctor has arrived and runs.", token)
