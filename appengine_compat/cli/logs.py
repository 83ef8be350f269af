"""Logging as ``appengine-compat dev`` sets it up, where the app has not done so itself."""

from __future__ import annotations

import logging
import traceback
from pathlib import Path
from types import TracebackType

import appengine_compat
from appengine_compat.backends import choice

_HERE = str(Path(appengine_compat.__file__).parent)

ExceptionInfo = (
    tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]
)


def begin() -> None:
    """Log to stderr from INFO up, if nothing is set up yet."""
    if logging.root.handlers:
        return
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter("%(levelname)s %(name)s: %(message)s"))
    logging.root.addHandler(handler)
    logging.root.setLevel(logging.INFO)
    # Where tasks go has been printed by then.
    logging.getLogger(choice.__name__).setLevel(logging.WARNING)


class _Formatter(logging.Formatter):
    """Leaves this package's own frames out of tracebacks: the app's tell what went wrong."""

    def formatException(self, ei: ExceptionInfo) -> str:
        if ei[1] is None:
            return super().formatException(ei)
        told = traceback.TracebackException.from_exception(ei[1])
        of_the_app = [frame for frame in told.stack if not frame.filename.startswith(_HERE)]
        if of_the_app:
            told.stack = traceback.StackSummary.from_list(of_the_app)
        return "".join(told.format()).rstrip("\n")
