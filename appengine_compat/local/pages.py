"""Lists by pages, and the tokens that lead from one to the next."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Generic, TypeVar

from appengine_compat.core import messages

T = TypeVar("T")

_TOKEN_SECONDS = 2 * 3600


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some of a list, and the token that gets what follows ("" at the end)."""

    items: list[T]
    next_page_token: str = ""


def limit(page_size: int, highest: int) -> int:
    """Return how many a page may hold, of a size that was asked for (0 for any)."""
    return min(page_size, highest) if page_size > 0 else highest


def token(scope: str, place: str, seconds: float) -> str:
    """Return the token that goes on after a place.

    Args:
        scope: what is listed; a token goes on with the same list only.
        place: the last of the page, without spaces.
        seconds: the time, since the epoch.
    """
    until = int(seconds) + _TOKEN_SECONDS
    return base64.urlsafe_b64encode(f"{until} {scope} {place}".encode()).decode("ascii")


def place(given: str, scope: str, seconds: float) -> str:
    """Return where a token goes on; "" for no token.

    Raises:
        ApiError: INVALID_ARGUMENT: it is none, another list's, or too old.
    """
    if not given:
        return ""
    try:
        text = base64.b64decode(given, altchars=b"-_", validate=True).decode()
        until, own_scope, found = text.split(" ")
        if own_scope == scope and int(until) >= seconds:
            return found
    except (ValueError, binascii.Error):
        pass
    raise messages.page_token_invalid()
