"""``google.appengine.api.namespace_manager``: the namespace that the running code works in.

Tasks carry it: code deferred in a namespace runs in that namespace. (Beside Google's SDK its
own module of this name is used, so that ndb and tasks agree.)
"""

from __future__ import annotations

import re
from contextvars import ContextVar

from google.appengine.runtime import context

_PATTERN = r"^[0-9A-Za-z._-]{0,100}$"
_NAMESPACE = re.compile(r"[0-9A-Za-z._-]{0,100}")
_current: ContextVar[str] = ContextVar("appengine_compat_namespace", default="")


class BadValueError(Exception):
    """A namespace has characters or a length that namespaces cannot have."""


def set_namespace(namespace: str | None) -> None:
    """Work in a namespace from here on, in this request or thread.

    Args:
        namespace: up to 100 letters, digits, ``.``, ``_``, ``-``; None for none set.

    Raises:
        BadValueError: it has another shape.
    """
    if namespace is not None:
        validate_namespace(namespace)
    _current.set(namespace or "")


def get_namespace() -> str:
    """Return the namespace that was set; "" when none was."""
    return _current.get()


def google_apps_namespace() -> str | None:
    """Return the namespace of the Google Apps domain that the request came in for, or None."""
    return context.get("HTTP_X_APPENGINE_DEFAULT_NAMESPACE")


def validate_namespace(value: object, exception: type[Exception] = BadValueError) -> None:
    """Raise the exception unless the value can be a namespace."""
    if not isinstance(value, str):
        raise exception(f"value should be a string; received {value!r} (a {type(value)}):")
    # fullmatch, unlike App Engine's match with "$": a newline would end the header it travels in.
    if not _NAMESPACE.fullmatch(value):
        raise exception(f'value "{value}" does not match regex "{_PATTERN}"')
