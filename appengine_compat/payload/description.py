"""What a payload would call, read without executing anything of it.

The opcodes of the pickle are followed by an interpreter whose objects are only descriptions:
nothing is imported, nothing called. Whatever the bytes are, it ends soon, with little text, and
raises nothing, so that it may be used on payloads of unknown origin.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any

from appengine_compat.payload.opcodes import MARK, MORE, Global, Items, Made, Pairs, Reading

MAX_TEXT_CHARACTERS = 500

_MAX_DEPTH = 4
_MAX_ITEMS = 8
_MAX_STRING = 60


@dataclass(frozen=True, slots=True)
class Description:
    """A call: what would be called, and the arguments as source code would show them."""

    function: str
    """Dotted name; a method's is that of its class and its own."""
    arguments: tuple[str, ...]

    def __str__(self) -> str:
        return _cut(f"{self.function}({', '.join(self.arguments)})", MAX_TEXT_CHARACTERS)


def describe(data: bytes) -> Description | None:
    """Return what a payload would call.

    Args:
        data: the payload: a pickle of any protocol, of Python 2 or 3, in base64 or not.

    Returns:
        The call, with ``…`` where something is left out; None when it cannot be read.
    """
    from appengine_compat.payload import pickles

    try:
        return _described(Reading().follow(pickles.unwrapped(data)))
    except Exception:  # the bytes are anyone's; that they cannot be read is the answer
        return None


def _described(stack: list[Any]) -> Description | None:
    if len(stack) == 1 and isinstance(stack[0], Items) and stack[0].count == 3:
        function, args, kwargs = stack[0].first
        if not isinstance(args, Items) or not isinstance(kwargs, Pairs):
            return None
        positional, cut = list(args.first), args.count > len(args.first)
        named, more = kwargs.first, kwargs.count > len(kwargs.first)
    else:
        # The bytes ended, or were too many: the function is what was read first.
        rest = [value for value in stack if value is not MARK]
        if not rest:
            return None
        function, positional, cut = rest[0], rest[1:3], True
        named, more = [], False

    if isinstance(function, Global) and function.name == "invoke_member" and len(positional) > 1:
        owner, member, *positional = positional
        name = f"{_kind(owner)}.{_cut(str(member), _MAX_STRING)}"
    else:
        found = _function_name(function)
        if found is None:
            return None
        name = found
        if cut and not (isinstance(stack[0], Items) and len(stack) == 1):
            positional = []
    if isinstance(function, Made) and _is_named(function.maker, "functools", "partial"):
        earlier, earlier_named = _partial_arguments(function)
        positional, named = earlier + positional, earlier_named + named

    shown = [_text(value) for value in positional[:_MAX_ITEMS]]
    shown += [
        f"{_cut(str(_plain(key)), _MAX_STRING)}={_text(value)}" for key, value in named[:_MAX_ITEMS]
    ]
    if cut or more or len(positional) > _MAX_ITEMS or len(named) > _MAX_ITEMS:
        shown.append(MORE)
    return Description(_cut(name, MAX_TEXT_CHARACTERS), tuple(shown))


def _function_name(function: Any) -> str | None:
    if isinstance(function, Global):
        return function.dotted
    if not isinstance(function, Made):
        return None
    if _is_named(function.maker, "functools", "partial"):
        return _function_name(_first(function.args))
    text = _text(function)
    return text if text else None


def _partial_arguments(made: Made) -> tuple[list[Any], list[tuple[Any, Any]]]:
    state = made.state
    if isinstance(state, Items) and len(state.first) >= 3:
        args, kwargs = state.first[1:3]
        return (
            list(args.first) if isinstance(args, Items) else [],
            list(kwargs.first) if isinstance(kwargs, Pairs) else [],
        )
    return [], []


def _kind(value: Any) -> str:
    """Return the name of the class that a bound method's object has."""
    if isinstance(value, Global):
        return value.dotted
    if isinstance(value, Made):
        if _is_named(value.maker, "copyreg", "_reconstructor"):
            return _kind(_first(value.args))
        if _is_named(value.maker, "builtins", "getattr"):
            return _text(value)
        return _kind(value.maker)
    if isinstance(value, Items):
        return value.kind
    if isinstance(value, Pairs):
        return "dict"
    return type(_plain(value)).__name__


def _is_named(value: Any, module: str, name: str) -> bool:
    return isinstance(value, Global) and value.name == name and value.module == module


def _first(args: Any) -> Any:
    return args.first[0] if isinstance(args, Items) and args.first else None


def _plain(value: Any) -> Any:
    return value if isinstance(value, (str, bytes, int, float, bytearray)) else None


def _text(value: Any, depth: int = 0) -> str:
    if depth > _MAX_DEPTH:
        return MORE
    if isinstance(value, Global):
        return _cut(value.dotted, 2 * _MAX_STRING)
    if isinstance(value, Made):
        return _cut(_made_text(value, depth), 4 * _MAX_STRING)
    if isinstance(value, Items):
        return _items_text(value, depth)
    if isinstance(value, Pairs):
        inner = [
            f"{_text(key, depth + 1)}: {_text(item, depth + 1)}"
            for key, item in value.first[:_MAX_ITEMS]
        ]
        return f"{{{_joined(inner, value.count)}}}"
    if isinstance(value, (str, bytes, bytearray)):
        return _string_text(value)
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 200:
        return f"<a whole number of {value.bit_length()} bits>"
    if value is None or isinstance(value, (bool, int, float)):
        return repr(value)
    return MORE


def _string_text(value: str | bytes | bytearray) -> str:
    if len(value) <= _MAX_STRING:
        return repr(value)
    return repr(value[:_MAX_STRING]) + MORE


def _items_text(value: Items, depth: int) -> str:
    inner = _joined([_text(item, depth + 1) for item in value.first[:_MAX_ITEMS]], value.count)
    if value.kind == "list":
        return f"[{inner}]"
    if value.kind == "tuple":
        return f"({inner},)" if value.count == 1 else f"({inner})"
    if value.kind == "set" and value.count:
        return f"{{{inner}}}"
    return f"{value.kind}({{{inner}}})" if value.count else f"{value.kind}()"


def _joined(shown: list[str], count: int) -> str:
    return ", ".join([*shown, MORE] if count > len(shown) else shown)


def _made_text(value: Made, depth: int) -> str:
    maker, args = value.maker, value.args
    first = _first(args)
    if _is_named(maker, "copyreg", "_reconstructor"):
        return f"{_text(first, depth + 1)}({MORE})"
    if _is_named(maker, "builtins", "getattr") and isinstance(args, Items) and args.count == 2:
        return f"{_text(first, depth + 1)}.{_plain(args.first[1])}"
    if _is_named(maker, "_codecs", "encode") and isinstance(first, str):
        return _string_text(first.encode("latin-1", "replace"))
    if isinstance(maker, Global) and maker.module == "datetime":
        moment = _moment_text(maker, first)
        if moment:
            return moment
    if (
        isinstance(maker, Global)
        and maker.module == "builtins"
        and maker.name in ("set", "frozenset")
        and isinstance(first, Items)
    ):
        return _text(_as_set(maker.name, first), depth)
    if _is_named(maker, "builtins", "bytes") and isinstance(args, Items) and not args.count:
        return "b''"
    name = _text(maker, depth + 1)
    if value.state is not None or not isinstance(args, Items):
        return f"{name}({MORE})"
    inner = [_text(item, depth + 1) for item in args.first[:_MAX_ITEMS]]
    return f"{name}({_joined(inner, args.count)})"


def _as_set(kind: str, items: Items) -> Items:
    renamed = Items(kind, items.first)
    renamed.count = items.count
    return renamed


def _moment_text(maker: Global, state: Any) -> str | None:
    # The constructors only unpack and check these few bytes.
    classes = {"datetime": datetime.datetime, "date": datetime.date, "time": datetime.time}
    cls = classes.get(maker.name)
    if isinstance(state, Made) and _is_named(state.maker, "_codecs", "encode"):
        state = _first(state.args)
        raw = state.encode("latin-1") if isinstance(state, str) else None
    else:
        raw = state.encode("utf-8") if isinstance(state, str) else state
    if cls is None or not isinstance(raw, bytes) or len(raw) not in (4, 6, 10):
        return None
    try:
        return repr(cls(raw))
    except (ValueError, TypeError):
        return None


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + MORE
