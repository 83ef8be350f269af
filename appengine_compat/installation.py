"""Standing beside Google's SDK: ``install()`` and which file serves which legacy module.

With both installed, the SDK's folder ``google/appengine/`` wins over our signpost. ``install``
puts a finder in front of Python's own that answers for three packages and no more:

- ``google.appengine.ext.deferred`` and ``google.appengine.api.taskqueue`` are ours, with the
  SDK's folder searched after ours, since its queueinfo and datastore stubs import the
  protocol buffers that lie there;
- ``google.appengine.api`` itself is our ``__init__`` (it holds ``wrap_wsgi_app``), with the
  SDK's folder searched *first*, so that every module in it stays the SDK's.

So ``google.appengine.ext.testbed`` is the SDK's, and finds our stub where it looks for its own.
"""

from __future__ import annotations

import importlib.util
import sys
import threading
from collections.abc import Iterable, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

from appengine_compat.errors import NamespaceError

_LEGACY = Path(__file__).parent / "legacy"
_ROOT = "google.appengine"
_SHARED = "google.appengine.api"
_OURS = ("google.appengine.api.taskqueue", "google.appengine.ext.deferred")

_lock = threading.Lock()


def install() -> None:
    """Make deferred, taskqueue and ``wrap_wsgi_app`` ours where Google's SDK is installed too.

    Call it first in the program, before anything imports ``google.appengine``. Everything else
    under ``google.appengine`` (ndb, memcache, testbed, …) stays the SDK's. Without the SDK there
    is nothing to do, and nothing is done; a second call does nothing either.

    Raises:
        NamespaceError: the SDK's modules were imported before; the error names them. Other
            modules hold on to what they imported, so this cannot be mended afterwards.
    """
    with _lock:
        if any(isinstance(finder, _Finder) for finder in sys.meta_path):
            return
        sdk = _find_sdk()
        if sdk is None:
            return
        _refuse_if_late()
        sys.meta_path.insert(0, _Finder(sdk))


def refuse(package: str, name: str) -> None:
    """Say where a module is that old code imports from here, and is not ours.

    Raises:
        ImportError: the SDK is not installed. (Where it is, Python finds what it has.)
    """
    if is_installed():
        return
    if name in _OF_PYTHON_2:
        raise ImportError(
            f"{package}.{name} was App Engine's for Python 2, and neither Google's SDK nor "
            f"appengine-compat has it: {_OF_PYTHON_2[name]}.",
            name=f"{package}.{name}",
        )
    other = " (or use google-cloud-ndb)" if name in ("db", "ndb") else ""
    raise ImportError(
        f"{package}.{name} is a module of Google's SDK, and not of appengine-compat: pip install "
        f"appengine-python-standard{other}, and call appengine_compat.install() before anything "
        "imports google.appengine.",
        name=f"{package}.{name}",
    )


_OF_PYTHON_2 = {
    "backends": "services took their place",
    "channel": "WebSockets took its place",
    "files": "use google-cloud-storage",
    "logservice": "use google-cloud-logging",
    "quota": "nothing took its place",
    "webapp": "use webapp2 (pip install webapp2), which TaskHandler then belongs to",
}


def is_installed() -> bool:
    """Whether ``install`` put our modules in front of the SDK's in this process."""
    return any(isinstance(finder, _Finder) for finder in sys.meta_path)


def sources() -> dict[str, str]:
    """Return which file serves each legacy module now, importing none of them.

    Returns:
        Module name to file, sorted, for every public module that appengine-compat has there.
    """
    specs = {name: _resolve(name) for name in _legacy_modules()}
    return {name: spec.origin for name, spec in specs.items() if spec and spec.origin}


class _Finder:
    """Answers for the three packages above; for all else, Python's own finders are asked."""

    def __init__(self, sdk: ModuleSpec) -> None:
        self._sdk = sdk

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,  # noqa: ARG002 - importlib passes it
    ) -> ModuleSpec | None:
        if fullname == _ROOT:
            # Our signpost may lie earlier on the path, as when the SDK is the system's and we
            # are in a virtual environment on top of it.
            return self._sdk
        if fullname != _SHARED and fullname not in _OURS:
            return None
        folder = _LEGACY.joinpath(*fullname.split(".")[2:])
        theirs = PathFinder.find_spec(fullname, path)
        their_folders = list(theirs.submodule_search_locations or ()) if theirs else []
        folders = [str(folder), *their_folders]
        if fullname == _SHARED:
            folders.reverse()
        return importlib.util.spec_from_file_location(
            fullname, folder / "__init__.py", submodule_search_locations=folders
        )


def _find_sdk() -> ModuleSpec | None:
    # A module named google may be anything in a broken environment; only folders count.
    google = importlib.util.find_spec("google")
    for entry in (google.submodule_search_locations or ()) if google else ():
        spec = PathFinder.find_spec(_ROOT, [entry])
        if spec is not None and spec.loader is not None and spec.submodule_search_locations:
            return spec
    return None


def _refuse_if_late() -> None:
    late = sorted(name for name in sys.modules if _is_ours_to_serve(name) and not _is_ours(name))
    if late:
        raise NamespaceError(
            "appengine_compat.install() came too late: these modules of Google's SDK are "
            f"imported already: {', '.join(late)}. Call install() before anything imports "
            "google.appengine: make it the first lines of main.py."
        )
    if _ROOT in sys.modules and _is_signpost(sys.modules[_ROOT].__spec__):
        raise NamespaceError(
            "appengine_compat.install() came too late: google.appengine is imported already, as "
            "appengine-compat's own, so that nothing of Google's SDK can be found under it. "
            "Call install() before anything imports google.appengine: make it the first lines of "
            "main.py."
        )


def _is_ours_to_serve(name: str) -> bool:
    return name == _SHARED or name.startswith(tuple(f"{ours}." for ours in _OURS)) or name in _OURS


def _is_ours(name: str) -> bool:
    spec = getattr(sys.modules[name], "__spec__", None)
    return bool(spec and spec.origin and Path(spec.origin).is_relative_to(_LEGACY))


def _is_signpost(spec: ModuleSpec | None) -> bool:
    # The signpost is a module that makes itself a package; the SDK's is a package by its folder.
    return bool(spec and spec.origin and Path(spec.origin).name == "appengine.py")


def _legacy_modules() -> list[str]:
    names = set()
    for file in _LEGACY.rglob("*.py"):
        parts = file.relative_to(_LEGACY).with_suffix("").parts
        if parts[-1] == "__init__":
            parts = parts[:-1]
        if not any(part.startswith("_") for part in parts):
            names.add(".".join((_ROOT, *parts)))
    return sorted(names)


def _resolve(name: str) -> ModuleSpec | None:
    """Find a module as ``import`` would, without running its parents."""
    parts = name.split(".")
    folders: Iterable[str] | None = None
    spec: ModuleSpec | None = None
    for depth in range(1, len(parts) + 1):
        fullname = ".".join(parts[:depth])
        spec = _find(fullname, None if folders is None else list(folders))
        if spec is None:
            return None
        folders = [str(_LEGACY)] if _is_signpost(spec) else spec.submodule_search_locations or ()
    return spec


def _find(fullname: str, folders: list[str] | None) -> ModuleSpec | None:
    module = sys.modules.get(fullname)
    if module is not None and module.__spec__ is not None:
        return module.__spec__
    for finder in sys.meta_path:
        spec = finder.find_spec(fullname, folders)
        if spec is not None:
            return spec
    return None
