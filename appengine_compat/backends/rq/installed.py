"""Whether RQ is installed, and one that works tasks as is promised here."""

from __future__ import annotations

from appengine_compat.errors import BackendChoiceError

LEAST = (2, 9)
"""With older ones, tasks that wait are not always brought back."""

_REMEDY = "pip install 'appengine-compat[rq]'"


def require() -> None:
    """Refuse to go on without RQ.

    Raises:
        BackendChoiceError: RQ or Redis' client is not installed, or RQ is too old.
    """
    try:
        import redis  # noqa: F401
        import rq
    except ModuleNotFoundError as error:
        if error.name not in ("rq", "redis"):
            raise
        raise BackendChoiceError(
            f"Tasks of Redis and RQ need RQ, which is not installed: {_REMEDY}."
        ) from None
    version = rq.__version__
    if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < LEAST:
        raise BackendChoiceError(
            f"Tasks of Redis and RQ need RQ {'.'.join(map(str, LEAST))} or later, and {version} "
            f"is installed, which does not bring every task back: {_REMEDY} --upgrade."
        )
