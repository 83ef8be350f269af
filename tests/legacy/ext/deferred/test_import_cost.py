"""Services start cold many times an hour: the import loads what it needs, and no more."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import appengine_compat

LEGACY = Path(appengine_compat.__file__).parent / "legacy"

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
        "google = types.ModuleType('google'); google.__path__ = []",
        "sys.modules['google'] = google",
        "appengine = types.ModuleType('google.appengine')",
        f"appengine.__path__ = [{str(LEGACY)!r}]",
        "sys.modules['google.appengine'] = appengine",
        "from google.appengine.ext import deferred",
    )


@pytest.mark.parametrize("module", NOT_NEEDED)
def test_importing_deferred_does_not_load(module: str, at_import: set[str]) -> None:
    assert "google.appengine.ext.deferred.deferred" in at_import
    assert module not in at_import


def test_importing_deferred_loads_few_modules(at_import: set[str]) -> None:
    """Google's SDK loads 804."""
    assert len(at_import) <= 80, sorted(at_import)
