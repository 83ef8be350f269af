"""A module that bounds do not name."""

from __future__ import annotations

CALLS: list[str] = []


def forbidden(*args: object) -> None:
    CALLS.append("forbidden")


class Helper:
    def __reduce__(self) -> tuple[object, ...]:
        return forbidden, ()


class Caller:
    def __call__(self, *args: object) -> None:
        forbidden()
