"""By which name a bound method is called again."""

from __future__ import annotations

from types import MethodType


def member_name(method: MethodType) -> str:
    """Return the attribute under which a bound method's object has it.

    That is nearly always the function's own ``__name__``, the name App Engine's library used. It
    is another for a method wrapped by a decorator that does not keep the name, and for
    ``__private`` ones; there App Engine's tasks failed with ``AttributeError`` when they ran.
    """
    function = method.__func__
    name: str = getattr(function, "__name__", "__call__")
    owner = method.__self__
    classes = (owner if isinstance(owner, type) else type(owner)).__mro__
    for cls in classes:
        if name in vars(cls):
            return name
    for cls in classes:
        for attribute, value in vars(cls).items():
            if getattr(value, "__func__", value) is function:
                return attribute
    return name
