"""``os.environ`` as old code knows it: the process's variables, and the request's on top.

App Engine's runtime put every string of the WSGI environ into ``os.environ``, and old code reads
``os.environ["HTTP_X_APPENGINE_TASKNAME"]``. Here ``os.environ`` stays the same object; within a
request, and in threads that it starts, it shows the request's strings over the process's
variables, and keeps what is written for that request alone. Outside requests nothing changes.

What a request writes does not reach the C level, as on App Engine: a child process gets the
process's own variables, unless it is given ``env=dict(os.environ)``.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from appengine_compat.handler import threads
from appengine_compat.handler.request import CURRENT, Request

_log = logging.getLogger("appengine_compat.handler")

# A client's "Proxy:" header would become the variable by which HTTP libraries find a proxy
# (CVE-2016-5385, "httpoxy").
_NEVER_FROM_A_REQUEST = "HTTP_PROXY"

_ABSENT = object()

if TYPE_CHECKING:
    _Environ = os._Environ[str]
else:
    _Environ = type(os.environ)


class RequestAwareEnviron(_Environ):
    """``os.environ``'s own class, with the served request's variables over it."""

    def __getitem__(self, key: str) -> str:
        request = CURRENT.get()
        if request is None or request.variables is None:
            return super().__getitem__(key)
        value = request.changes.get(key, _ABSENT)
        if value is _ABSENT:
            value = request.variables.get(key)
            if type(value) is not str or key == _NEVER_FROM_A_REQUEST:
                return super().__getitem__(key)
        if value is None:
            raise KeyError(key)
        return value  # type: ignore[return-value]

    def __setitem__(self, key: str, value: str) -> None:
        request = CURRENT.get()
        if request is None or request.variables is None:
            super().__setitem__(key, value)
            return
        # The same refusals as the process's own variables make.
        self.encodekey(key)
        self.encodevalue(value)
        request.changes[key] = value

    def __delitem__(self, key: str) -> None:
        request = CURRENT.get()
        if request is None or request.variables is None:
            super().__delitem__(key)
            return
        self[key]
        request.changes[key] = None

    def __iter__(self) -> Iterator[str]:
        request = CURRENT.get()
        if request is None or request.variables is None:
            return super().__iter__()
        return iter(self._merged(request))

    def __len__(self) -> int:
        request = CURRENT.get()
        if request is None or request.variables is None:
            return super().__len__()
        return len(self._merged(request))

    def __repr__(self) -> str:
        return f"environ({dict(self.items())!r})"

    def copy(self) -> dict[str, str]:
        """Return what is visible now as a dictionary."""
        return dict(self)

    def has_key(self, key: object) -> bool:
        """Tell whether a variable is set, as Python 2 wrote it."""
        return key in self

    def _merged(self, request: Request) -> list[str]:
        names = dict.fromkeys(super().__iter__())
        for name, value in (request.variables or {}).items():
            if type(value) is str and name != _NEVER_FROM_A_REQUEST:
                names[name] = None
        for name, change in request.changes.items():
            if change is None:
                names.pop(name, None)
            else:
                names[name] = None
        return list(names)


def install() -> None:
    """Make ``os.environ`` show each request's variables, here and in the threads it starts.

    Changes the class of ``os.environ``, not the object, so that ``from os import environ`` sees
    the same; a second call does nothing.
    """
    environ: object = os.environ
    if isinstance(environ, RequestAwareEnviron):
        return
    if type(environ) is not _Environ:
        _log.warning(
            "os.environ was replaced by a %s before wrap_wsgi_app was called, so requests' "
            "variables will not show in it. Call wrap_wsgi_app first, or pass "
            "use_legacy_context_mode=False.",
            type(environ).__qualname__,
        )
        return
    environ.__class__ = RequestAwareEnviron
    threads.install()
