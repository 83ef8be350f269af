"""A module that bounds do not name."""

from __future__ import annotations

CALLS: list[str] = []


def forbidden(*args: object) -> None:
    CALLS.append("forbidden")


class Helper:
    def __reduce__(self) -> tuple[object, ...]:
        return forbidden, ()
