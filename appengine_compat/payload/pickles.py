"""Payloads: calls pickled, and pickles read, whichever Python and whichever library made them."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from typing import Any

from appengine_compat import settings
from appengine_compat.errors import PayloadError

Call = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]

CROSS_COMPATIBLE_VARIABLE = "DEFERRED_USE_CROSS_COMPATIBLE_PICKLE_PROTOCOL"


class UnpicklableError(PayloadError, pickle.PicklingError, AttributeError, TypeError):
    """Something in a call cannot be pickled.

    It is all that pickle raises for this, depending on the value and the version of Python, so
    that old ``except`` clauses hold.

    Attributes:
        culprit: where in the call it is, such as ``argument 1['lock']``.
    """

    def __init__(self, message: str, *, culprit: str = "") -> None:
        super().__init__(message)
        self.culprit = culprit


def protocol() -> int:
    """Return the pickle protocol that payloads are made with.

    The setting, else 0 when Google's variable holds any text at all, else the highest.

    Raises:
        ConfigError: the setting's value is not allowed.
    """
    chosen = settings.PICKLE_PROTOCOL.get()
    if chosen is not None:
        return chosen
    return 0 if os.environ.get(CROSS_COMPATIBLE_VARIABLE) else pickle.HIGHEST_PROTOCOL


def dumps(call: Call) -> bytes:
    """Return a call as a payload.

    Args:
        call: callable, positional and keyword arguments.

    Raises:
        UnpicklableError: naming the part that cannot be pickled, and what to do.
        Exception: what the ``__reduce__`` or ``__getstate__`` of an argument raises by itself.
    """
    try:
        return pickle.dumps(call, protocol())
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        from appengine_compat.payload import unpicklable

        message, culprit = unpicklable.explain(call, error, protocol())
        raise UnpicklableError(message, culprit=culprit) from error


def loads(data: bytes) -> Call:
    """Return the call that a payload describes.

    Python 2's payloads are read string by string (see ``payload.python2``), and a payload that
    was wrapped in base64 is unwrapped. **Only for bytes of verified origin**: to unpickle is to
    run what the bytes say.

    Args:
        data: the payload.

    Raises:
        BoundsError: it refers to what ``APPENGINE_COMPAT_ALLOWED_CALLABLES`` does not allow.
        Exception: whatever makes it unreadable.
    """
    data = unwrapped(data)
    if settings.ALLOWED_CALLABLES.is_set_for_process:
        from appengine_compat.payload import bounds

        within = bounds.current()
        if within is not None:
            call, args, kwargs = within.loads(data)
            return call, args, kwargs
    if data[:1] == b"\x80" and data[1:2] > b"\x02":
        loaded = pickle.loads(data)
    else:
        from appengine_compat.payload import python2

        loaded = python2.loads(data)
    call, args, kwargs = loaded
    return call, args, kwargs


def unwrapped(data: bytes) -> bytes:
    """Return a payload as raw pickle: base64, where it was wrapped in that, is undone.

    Args:
        data: the payload, as any bytes-like object.

    Raises:
        TypeError: text is not a payload.
    """
    data = bytes(memoryview(data))
    if data[:1] in (b"\x80", b"("):
        return data
    import base64
    import binascii

    try:
        text = b"".join(data.split()).translate(bytes.maketrans(b"-_", b"+/"))
        inner = base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        return data
    # A call is a tuple of three: protocols 0 and 1 start it with a mark, later ones with 0x80.
    return inner if inner[:1] in (b"\x80", b"(") else data
