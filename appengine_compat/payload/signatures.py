"""Whether a call's arguments fit what it calls: said when it is deferred, not when it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import CodeType, FunctionType, MethodType
from typing import Any

_VARIADIC = 0x04  # CO_VARARGS
_VARIADIC_KEYWORDS = 0x08  # CO_VARKEYWORDS
_GENERATOR = 0x20 | 0x200  # CO_GENERATOR, CO_ASYNC_GENERATOR


def misfit(
    call: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> str | None:
    """Tell why a call can only fail, or do nothing, when its task runs.

    Args:
        call: what would be called.
        args: positional arguments.
        kwargs: keyword arguments.

    Returns:
        A sentence that names the callable and the problem, or None when there is none to see.
    """
    if isinstance(call, MethodType) and isinstance(call.__func__, FunctionType):
        function, bound = call.__func__, 1
        if not hasattr(call.__self__, _member(call)):
            return (
                f"{_name(call)} was deferred by its name, but {type(call.__self__).__name__} has "
                "no attribute of that name, so the task will fail: give the attribute and the "
                "function one name (functools.wraps in a decorator does)."
            )
    elif isinstance(call, FunctionType):
        function, bound = call, 0
    else:
        return _refused_by_signature(call, args, kwargs) if callable(call) else None
    code = function.__code__
    if code.co_flags & _GENERATOR:
        return (
            f"{_name(call)} is a generator function: calling it runs nothing of its body, so the "
            "task would do nothing. Defer a function that goes through it."
        )
    if _fits(code, function, bound + len(args), kwargs):
        return None
    return _refused_by_signature(call, args, kwargs)


def _member(method: MethodType) -> str:
    from appengine_compat.payload.currying import member_name

    return member_name(method)


def _fits(code: CodeType, function: FunctionType, given: int, kwargs: Mapping[str, Any]) -> bool:
    # inspect says the same, but takes ten times as long, and 8 ms to import. Only the common
    # shape is decided here; whatever else is left to it.
    positional = code.co_argcount
    if given > positional:
        return bool(code.co_flags & _VARIADIC) and not kwargs and not code.co_kwonlyargcount
    names = code.co_varnames
    required = positional - len(function.__defaults__ or ())
    if not kwargs:
        return given >= required and not code.co_kwonlyargcount
    if code.co_posonlyargcount or (code.co_flags & _VARIADIC_KEYWORDS):
        return False
    by_keyword = names[given : positional + code.co_kwonlyargcount]
    if not all(name in by_keyword for name in kwargs):
        return False
    if not all(name in kwargs for name in names[given:required]):
        return False
    defaults = function.__kwdefaults__ or {}
    keyword_only = names[positional : positional + code.co_kwonlyargcount]
    return all(name in kwargs or name in defaults for name in keyword_only)


def _refused_by_signature(
    call: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> str | None:
    import inspect

    try:
        # What a decorator wraps has a signature of its own; the wrapper is what will be called.
        signature = inspect.signature(call, follow_wrapped=False)
    except (TypeError, ValueError):
        return None  # many builtins do not tell
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        return (
            f"The arguments do not fit {_name(call)}{signature}: {error}. "
            "The task will fail with TypeError when it runs."
        )
    return None


def _name(call: Any) -> str:
    if isinstance(call, partial):
        return f"functools.partial of {_name(call.func)}"
    name = getattr(call, "__qualname__", None) or type(call).__qualname__
    module = getattr(call, "__module__", None) or type(call).__module__
    return f"{module}.{name}"
