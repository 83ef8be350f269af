"""What an app under bounds has: some of it allowed, and some that it only imported."""

from __future__ import annotations

import dataclasses
import enum
import os
import subprocess
from collections.abc import Iterator
from typing import Any

from tests.payload import bounds_other

__all__ = ["bounds_other", "os", "subprocess"]

CALLS: list[Any] = []
OWN_MODULE = os
CACHE: dict[str, Any] = {}


def note(*args: Any, **kwargs: Any) -> tuple[Any, ...]:
    CALLS.append((args, kwargs))
    return args


def numbers() -> Iterator[int]:
    yield 1


async def later(value: Any) -> None:
    CALLS.append(value)


class Colour(enum.Enum):
    RED = 1


class Mode(enum.Flag):
    READ = 1
    WRITE = 2


@dataclasses.dataclass(frozen=True)
class Point:
    x: int

    def shift(self, by: int) -> Any:
        return note(self.x + by)

    @classmethod
    def make(cls, x: int) -> Any:
        return note(cls(x))

    class Inner:
        pass


class Session:
    limit = 1
    forbid = staticmethod(bounds_other.forbidden)
    forbid_also = bounds_other.Caller()

    def __init__(self) -> None:
        self.name = "session"


SESSION = Session()
