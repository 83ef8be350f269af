"""What a subcommand is, and the error that ends one."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

from appengine_compat.errors import CompatError

USAGE = 2
"""Exit code of everything that the user can mend."""


class CommandError(CompatError):
    """A command cannot do what it was asked; its text is the one line that the user sees."""


@dataclass(frozen=True, slots=True)
class Command:
    """One subcommand of ``appengine-compat``."""

    name: str
    sentence: str
    """What it does, as ``--help`` lists it."""
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
    """Does the work and returns the exit code; a ``CompatError`` ends it with ``USAGE``."""
