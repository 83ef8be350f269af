"""Reading the pickles that Python 2 wrote.

Python 2 had one type for text and for bytes, and ``pickle.loads`` has one answer for all such
strings of a payload: they are all text of one encoding, or all bytes. Payloads mix them: names
in UTF-8, compressed blobs, and every date, which travels as ten raw bytes. Here each string is
judged by itself: what is valid UTF-8 becomes text, the rest stays bytes. UTF-8 decodes without
loss, so where a constructor is known to want bytes, the very same bytes are made again.
"""

from __future__ import annotations

import copyreg
import datetime
import io
import pickle
from collections.abc import Callable
from typing import Any

from appengine_compat.payload import python2_names

# What the fast unpickler cannot do right: an escaped byte in a string of protocol 0, and modules
# whose objects have no double in Python 3 that could be built in place.
_SLOW = (b"\\x", b"StringIO\n", b"sets\n")


def loads(data: bytes) -> Any:
    """Return what a pickle of protocol 0, 1 or 2 holds, whichever Python made it.

    Args:
        data: the pickle.

    Returns:
        The object. Of a deferred call, the names of keyword arguments are text.

    Raises:
        Exception: whatever makes it unreadable.
    """
    body = data[2:] if data[:1] == b"\x80" else data
    if body.isascii() and not any(sign in data for sign in _SLOW):
        # Every string in it is ASCII, dates of the first centuries included, which the
        # constructors take as text: the fast unpickler does it right.
        loaded = _AsciiUnpickler(io.BytesIO(data)).load()
    else:
        loaded = _Unpickler(io.BytesIO(data)).load()
    return with_text_keywords(loaded)


def with_text_keywords(loaded: Any) -> Any:
    """Return what a pickle held; of a deferred call, with text for the names of keywords."""
    if isinstance(loaded, tuple) and len(loaded) == 3 and isinstance(loaded[2], dict):
        return (loaded[0], loaded[1], _with_text_keys(loaded[2]))
    return loaded


def _find(module: str, name: str, otherwise: Callable[[str, str], Any]) -> Any:
    found = python2_names.equivalent(module, name)
    return otherwise(module, name) if found is None else found


class _AsciiUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        return _find(module, name, super().find_class)


# Standard, but not in the standard library's types: what the opcodes' methods are made for.
_PurePython: Any = pickle._Unpickler


class _Unpickler(_PurePython):  # type: ignore[misc]
    """The pure-Python unpickler, whose treatment of each opcode can be refined."""

    stack: list[Any]
    memo: dict[int, Any]
    dispatch = dict(_PurePython.dispatch)

    def find_class(self, module: str, name: str) -> Any:
        return _find(module, name, super().find_class)

    def _decode_string(self, value: bytes) -> str | bytes:
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return value

    def load_reduce(self) -> None:
        function, args = self.stack[-2:]
        self.stack[-1] = _argument_bytes(function, args)
        super().load_reduce()

    dispatch[pickle.REDUCE[0]] = load_reduce

    def load_newobj(self) -> None:
        cls, args = self.stack[-2:]
        if isinstance(cls, type) and issubclass(cls, str):
            _refuse_bytes(cls, args)
        super().load_newobj()

    dispatch[pickle.NEWOBJ[0]] = load_newobj

    def load_build(self) -> None:
        instance, state = self.stack[-2:]
        self.stack[-1] = _state_bytes(instance, state)
        super().load_build()
        if isinstance(instance, python2_names.Rebuilt):
            rebuilt = instance.rebuilt()
            self.stack[-1] = rebuilt
            for key, value in self.memo.items():
                if value is instance:
                    self.memo[key] = rebuilt

    dispatch[pickle.BUILD[0]] = load_build


def _argument_bytes(function: Any, args: Any) -> Any:
    """Return a constructor's arguments with bytes where it wants bytes."""
    if not isinstance(args, tuple) or not args:
        return args
    if isinstance(function, type):
        if issubclass(function, (datetime.date, datetime.time)) and isinstance(args[0], str):
            return (args[0].encode("utf-8"), *args[1:])
    elif function is getattr(copyreg, "_reconstructor", None):
        if len(args) == 3 and args[1] is str:
            _refuse_bytes(args[0], args[2:])
    elif _is_from(function, "numpy") and getattr(function, "__name__", "") == "scalar":
        return tuple(arg.encode("utf-8") if isinstance(arg, str) else arg for arg in args)
    return args


def _state_bytes(instance: Any, state: Any) -> Any:
    """Return an object's state with bytes where it wants bytes, text where it wants names."""
    if isinstance(state, dict):
        return _with_text_keys(state)
    if isinstance(state, str) and _is_from(type(instance), "google"):
        # Models of the datastore libraries keep a serialized protocol buffer.
        return state.encode("utf-8")
    if (
        isinstance(state, tuple)
        and len(state) == 5
        and isinstance(state[4], str)
        and _is_from(type(instance), "numpy")
    ):
        return (*state[:4], state[4].encode("utf-8"))
    return state


def _with_text_keys(names: dict[Any, Any]) -> dict[Any, Any]:
    if not any(isinstance(name, bytes) for name in names):
        return names
    return {
        name.decode("latin-1") if isinstance(name, bytes) else name: value
        for name, value in names.items()
    }


def _refuse_bytes(cls: type, args: Any) -> None:
    # str(b"...") would succeed, and be the text "b'...'".
    if isinstance(args, tuple) and any(isinstance(arg, bytes) for arg in args):
        raise pickle.UnpicklingError(
            f"{cls.__module__}.{cls.__qualname__} is text in Python 3, but the payload, made by "
            "Python 2, holds one whose bytes are not UTF-8"
        )


def _is_from(thing: Any, package: str) -> bool:
    module = getattr(thing, "__module__", None)
    return isinstance(module, str) and module.partition(".")[0] == package
