"""Whether a call's arguments fit what it calls: said when it is deferred, not when it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inspect import Signature

_VARIADIC = 0x04  # CO_VARARGS
_VARIADIC_KEYWORDS = 0x08  # CO_VARKEYWORDS
_FATE = "The task will fail with TypeError when it runs."
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
    try:
        return _found(call, args, kwargs)
    except Exception:  # objects may answer questions about themselves with anything
        return None


def _found(
    call: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> str | None:
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
    problem = _problem(code, function, bound + len(args), kwargs)
    if problem is None:
        return None
    return f"The arguments do not fit {_name(call)}{_signature(function)}: {problem}. {_FATE}"


def _member(method: MethodType) -> str:
    from appengine_compat.payload.currying import member_name

    return member_name(method)


def _problem(
    code: CodeType, function: FunctionType, given: int, kwargs: Mapping[str, Any]
) -> str | None:
    """Tell what Python would object to in a call with so many positional arguments.

    ``inspect`` says nearly the same, in ten times the time and 8 ms to import; versions of it
    differ about arguments that are positional only.
    """
    names, positional, only = code.co_varnames, code.co_argcount, code.co_posonlyargcount
    if given > positional and not code.co_flags & _VARIADIC:
        return "too many positional arguments"
    filled = min(given, positional)
    by_keyword = names[max(filled, only) : positional + code.co_kwonlyargcount]
    for name in kwargs:
        if name in by_keyword:
            continue
        if name in names[only:filled]:
            return f"multiple values for argument {name!r}"
        if not code.co_flags & _VARIADIC_KEYWORDS:
            return f"got an unexpected keyword argument {name!r}"
    required = positional - len(function.__defaults__ or ())
    for place in range(given, required):
        if place < only or names[place] not in kwargs:
            return f"missing a required argument: {names[place]!r}"
    if code.co_kwonlyargcount:
        defaults = function.__kwdefaults__ or {}
        for name in names[positional : positional + code.co_kwonlyargcount]:
            if name not in kwargs and name not in defaults:
                return f"missing a required argument: {name!r}"
    return None


def _refused_by_signature(
    call: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> str | None:
    is_builtin = isinstance(call, BuiltinFunctionType) and isinstance(call.__self__, ModuleType)
    signature = (_signature_of_builtin if is_builtin else _signature_of)(call)
    if signature is None:
        return None
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        return f"The arguments do not fit {_name(call)}{signature}: {error}. {_FATE}"
    return None


def _signature_of(call: Callable[..., Any]) -> Signature | None:
    import inspect

    try:
        # What a decorator wraps has a signature of its own; the wrapper is what will be called.
        return inspect.signature(call, follow_wrapped=False)
    except (TypeError, ValueError):
        return None  # many builtins do not tell


# Finding a builtin's parses text, for longer than all the rest of defer takes. Nothing else is
# remembered: classes may change what they take, and methods would keep their objects alive.
_signature_of_builtin = lru_cache(maxsize=64)(_signature_of)


def _signature(function: FunctionType) -> str:
    import inspect

    return str(inspect.signature(function, follow_wrapped=False))


def _name(call: Any) -> str:
    if isinstance(call, partial):
        return f"functools.partial of {_name(call.func)}"
    name = getattr(call, "__qualname__", None) or type(call).__qualname__
    module = getattr(call, "__module__", None) or type(call).__module__
    return f"{module}.{name}"
