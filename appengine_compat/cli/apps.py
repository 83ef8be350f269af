"""``MODULE:APP`` on the command line: what it names, and the WSGI application it stands for."""

from __future__ import annotations

import difflib
import importlib
import inspect
import operator
import re
import sys
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from appengine_compat.backends.targets import DEFAULT_SERVICE, SERVICE
from appengine_compat.cli.command import CommandError
from appengine_compat.errors import CompatError
from appengine_compat.handler import view

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_SERVICE_NAME = re.compile(r"[a-z\d](?:[a-z\d-]{0,61}[a-z\d])?\Z")
_DOTTED = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*\Z")
_FROM_THE_DEV_EXTRA = ("flask", "waitress", "yaml")


@dataclass(frozen=True, slots=True)
class AppName:
    """One ``[NAME=]MODULE:APP``."""

    service: str
    module: str
    attribute: str

    def __str__(self) -> str:
        return f"{self.module}:{self.attribute}"


def parse_names(words: Sequence[str]) -> list[AppName]:
    """Read the apps of a command line; one without ``NAME=`` is the service ``default``.

    Raises:
        CommandError: one is malformed, or two claim one service.
    """
    names: dict[str, AppName] = {}
    for word in words:
        name = _parse_name(word)
        if name.service in names:
            raise CommandError(
                f"{names[name.service]} and {name} would both be service {name.service!r}: "
                f"give one another name, such as worker={name}."
            )
        names[name.service] = name
    return list(names.values())


def _parse_name(word: str) -> AppName:
    service, separator, app = word.rpartition("=")
    if not separator:
        service = DEFAULT_SERVICE
    if not _SERVICE_NAME.match(service):
        raise CommandError(
            f"{service!r} (in {word!r}) is no name for a service: it has 1 to 63 lower-case "
            "letters, digits and hyphens, and begins and ends without a hyphen."
        )
    module, separator, attribute = app.partition(":")
    if module.endswith(".py"):
        raise CommandError(
            f"{word!r} names a file, not a module: write {Path(module).stem}:{attribute or 'app'} "
            "and start in the file's directory."
        )
    if not separator or not _DOTTED.match(module) or not _DOTTED.match(attribute):
        raise CommandError(
            f"{word!r} names no app: write MODULE:APP, such as main:app, "
            "or NAME=MODULE:APP for a service of another name."
        )
    return AppName(service, module, attribute)


def load(name: AppName) -> WSGIApplication:
    """Import the app from the working directory, as its service.

    Raises:
        CommandError: there is no such module or attribute, it is not callable, or importing it
            raised something.
    """
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    token = SERVICE.set(name.service)
    try:
        module = _import(name)
        return _attribute(name, module)
    finally:
        SERVICE.reset(token)


def as_service(app: WSGIApplication, service: str) -> WSGIApplication:
    """Return the app as it runs when it is this service.

    Task headers that are not a task's are removed, as App Engine does for every app, wrapped or
    not; ``GAE_SERVICE`` is the service's name, where ``os.environ`` shows the request.
    """

    def serve(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        # Never set back: whichever thread serves another request says so again, here.
        SERVICE.set(service)
        environ.setdefault("GAE_SERVICE", service)
        view.prepare(environ)
        return app(environ, start_response)

    return serve


def _import(name: AppName) -> ModuleType:
    try:
        return importlib.import_module(name.module)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if f"{name.module}.".startswith(f"{missing}."):
            raise CommandError(
                f"There is no module {missing!r} for {name}: it was looked for in {Path.cwd()} "
                "and among the installed packages. Start in the app's directory."
            ) from None
        package = missing.partition(".")[0]
        from_extra = package in _FROM_THE_DEV_EXTRA
        raise CommandError(
            f"{name.module} imports {missing!r}, which is not installed{_place(error)}: "
            + ("pip install 'appengine-compat[dev]'." if from_extra else "install it first.")
        ) from None
    except CompatError:
        raise
    except SyntaxError as error:
        raise CommandError(
            f"{name.module} cannot be imported: {error.msg} "
            f"({_shown(error.filename or '?')}, line {error.lineno})."
        ) from None
    # Importing runs code that is not ours: whatever it raises is the user's to read.
    except (Exception, SystemExit) as error:
        raise CommandError(
            f"{name.module} cannot be imported: {type(error).__name__}: {error}{_place(error)}. "
            f"The whole story: python -c 'import {name.module}'."
        ) from error


def _attribute(name: AppName, module: ModuleType) -> WSGIApplication:
    try:
        value = operator.attrgetter(name.attribute)(module)
    except AttributeError:
        first = name.attribute.partition(".")[0]
        close = difflib.get_close_matches(first, dir(module), n=1, cutoff=0.6)
        advice = f"; did you mean {close[0]}?" if close and close[0] != first else "."
        raise CommandError(f"Module {name.module} has no {name.attribute!r}{advice}") from None
    if not callable(value):
        raise CommandError(
            f"{name} is {_a(type(value).__name__)}, not a WSGI application: it cannot be called."
        )
    if inspect.iscoroutinefunction(value) or inspect.iscoroutinefunction(type(value).__call__):
        raise CommandError(f"{name} is an ASGI application; this command serves WSGI ones.")
    try:
        inspect.signature(value).bind({}, None)
    except TypeError:
        raise CommandError(
            f"{name} does not take (environ, start_response), so it is no WSGI application; "
            "if it makes one, name what it returns."
        ) from None
    except ValueError:  # callables of C have no signature to look at
        pass
    app: WSGIApplication = value
    return app


def _place(error: BaseException) -> str:
    """Where in the user's own code the error came from, if it can be told."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<")
        and frame.filename != __file__
        and Path(frame.filename).parent.name != "importlib"
    ]
    own = [frame for frame in frames if Path(frame.filename).is_relative_to(Path.cwd())]
    if not frames:
        return ""
    frame = (own or frames)[-1]
    return f" ({_shown(frame.filename)}, line {frame.lineno})"


def _shown(filename: str) -> str:
    path = Path(filename)
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _a(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"
