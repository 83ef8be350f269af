"""Services start cold many times an hour: importing the library loads what it needs, and no more."""

from __future__ import annotations

import subprocess
import sys

import pytest

NOT_NEEDED = (
    "grpc", "google.protobuf", "google.cloud", "google.auth", "google.api_core", "yaml", "flask",
    "redis", "rq", "sqlite3", "webob", "webapp2", "requests",
    "asyncio", "inspect", "pickletools", "email", "http.client", "ssl", "socket", "unittest",
    "urllib.request", "subprocess", "difflib", "dataclasses", "typing",
)  # fmt: skip


def loaded_by(*statements: str) -> set[str]:
    program = "\n".join(["import sys", *statements, "print('\\n'.join(sys.modules))"])
    # -I and -S: what the environment's own .pth files load is not the library's doing.
    path = f"import sys; sys.path[:] = {sys.path!r}"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"{path}\n{program}"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


@pytest.fixture(scope="module")
def at_import() -> set[str]:
    return loaded_by(
        "import types",
        "import appengine_compat, os.path",
        "google = types.ModuleType('google'); google.__path__ = []",
        "sys.modules['google'] = google",
        "appengine = types.ModuleType('google.appengine')",
        "appengine.__path__ = [os.path.join(os.path.dirname(appengine_compat.__file__), 'legacy')]",
        "sys.modules['google.appengine'] = appengine",
        "from google.appengine.ext import deferred",
    )


@pytest.mark.parametrize("module", NOT_NEEDED)
def test_importing_deferred_does_not_load(module: str, at_import: set[str]) -> None:
    assert "google.appengine.ext.deferred.deferred" in at_import
    assert module not in at_import


def test_importing_deferred_loads_few_modules(at_import: set[str]) -> None:
    """Google's SDK loads 804."""
    assert len(at_import) <= 110, sorted(at_import)
