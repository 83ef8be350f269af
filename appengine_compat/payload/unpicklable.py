"""Which part of a call cannot be pickled, and what to do about it."""

from __future__ import annotations

import pickle
import types
from collections.abc import Iterator
from typing import Any

_MOST_LOOKED_AT = 10_000


def explain(
    call: tuple[Any, tuple[Any, ...], dict[str, Any]], error: Exception, protocol: int
) -> tuple[str, str]:
    """Find the smallest part of a call that cannot be pickled.

    Args:
        call: callable, positional and keyword arguments, as curried.
        error: what pickling the whole raised.
        protocol: the pickle protocol.

    Returns:
        A message that says what, why and what to do; and where the culprit is.
    """
    function, args, kwargs = call
    is_method = getattr(function, "__name__", "") == "invoke_member" and len(args) >= 2
    parts: list[tuple[str, Any]] = []
    if is_method:
        parts.append((f"the object whose method {args[1]} is called", args[0]))
        args = args[2:]
    else:
        parts.append(("the callable", function))
    parts.extend((f"argument {number}", value) for number, value in enumerate(args, 1))
    parts.extend((f"argument {name!r}", value) for name, value in kwargs.items())

    for place, value in parts:
        reason = _failure(value, protocol)
        if reason is not None:
            place, value, reason = _innermost(place, value, reason, protocol)
            what = place if place == "the callable" else f"{place} ({_shown(value)})"
            return (
                f"Cannot defer {_named(call)}: {what} cannot be pickled: {reason}. "
                f"{_remedy(place, value)}",
                place,
            )
    return (f"Cannot defer {_named(call)}: it cannot be pickled: {error}.", "")


def _failure(value: Any, protocol: int) -> str | None:
    try:
        pickle.dumps(value, protocol)
    except Exception as error:  # any reason is a reason
        return str(error).rstrip(".") or type(error).__name__
    return None


def _innermost(place: str, value: Any, reason: str, protocol: int) -> tuple[str, Any, str]:
    looked_at = 0
    seen = set()
    while id(value) not in seen:
        seen.add(id(value))
        for step, inner in _parts(value):
            looked_at += 1
            if looked_at > _MOST_LOOKED_AT:
                return place, value, reason
            deeper = _failure(inner, protocol)
            if deeper is not None:
                place, value, reason = place + step, inner, deeper
                break
        else:
            break
    return place, value, reason


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield f"[{key!r:.50}]", inner
    elif isinstance(value, (list, tuple)):
        for index, inner in enumerate(value):
            yield f"[{index}]", inner
    elif isinstance(value, (set, frozenset)):
        for inner in value:
            yield " (in the set)", inner
    elif not isinstance(value, (type, types.FunctionType, types.ModuleType)):
        for name, inner in getattr(value, "__dict__", {}).items():
            yield f".{name}", inner


def _remedy(place: str, value: Any) -> str:
    if isinstance(value, types.FunctionType):
        name = value.__qualname__
        code = value.__code__
        where = f"{code.co_filename}:{code.co_firstlineno}"
        if "<lambda>" in name:
            kind = f"It is a lambda ({where})"
        elif "<locals>" in name:
            kind = f"It is defined inside another function ({where})"
        else:
            return (
                f"The worker finds a function by its name, and {value.__module__}.{name} is not "
                "this function: a decorator may have replaced it."
            )
        closed_over = ", ".join(code.co_freevars)
        passing = f", and pass {closed_over} as arguments" if closed_over else ""
        return (
            f"{kind}, and the worker finds a function by its name: make it a function of a "
            f"module (def, at the left margin){passing}."
        )
    if isinstance(value, type):
        return "The worker finds a class by its name: define it at the left margin of a module."
    if isinstance(value, types.GeneratorType):
        return "Pass a list of what it yields."
    if isinstance(value, types.ModuleType):
        return "Import the module where the task runs."
    if place == "the callable":
        return "Defer a function of a module, and pass what it needs as arguments."
    return "Pass what it is made from (an id, a path, a key) and make it again where the task runs."


def _named(call: tuple[Any, tuple[Any, ...], dict[str, Any]]) -> str:
    function, args, _ = call
    if getattr(function, "__name__", "") == "invoke_member" and len(args) >= 2:
        owner = args[0] if isinstance(args[0], type) else type(args[0])
        return f"{owner.__module__}.{owner.__qualname__}.{args[1]}"
    module = getattr(function, "__module__", None) or type(function).__module__
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    return f"{module}.{name}"


def _shown(value: Any) -> str:
    kind = type(value)
    name = f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
    return f"a value of type {name}"
