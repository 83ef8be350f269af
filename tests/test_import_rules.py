"""Imports run down only, each library has one home, and starting up stays cheap."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import appengine_compat

PACKAGE = Path(appengine_compat.__file__).parent

# From the ground up: a room imports from the layers below its own, never from its own or above.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors",),
    ("services_file",),
    ("settings", "installation"),
    ("platform",),
    ("core",),
    ("local", "payload", "queues"),
    ("handler", "backends"),
    ("legacy",),
    ("asgi", "logging"),
    ("cli", "testing", "routes"),
    # What stands outside the order: the package's lazy names and the signpost.
    ("__init__", "_google"),
)
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}

# Library → where it may be imported; a folder's name stands for all in it.
HOMES: dict[str, tuple[str, ...]] = {
    "google.cloud": (
        "backends/cloud_tasks",
        "local/fronts/",
        "handler/cloud_logging",
        "testing/cloud_tasks",
    ),
    "google.api_core": ("backends/cloud_tasks", "local/fronts/"),
    "google.auth": ("backends/cloud_tasks", "handler/"),
    "google.protobuf": ("backends/cloud_tasks", "local/fronts/"),
    "grpc": ("backends/cloud_tasks", "testing/cloud_tasks"),
    "hpack": ("local/fronts/",),
    "sqlite3": ("local/store",),
    "redis": ("backends/rq",),
    "rq": ("backends/rq",),
    "yaml": ("queues/",),
    "pickle": ("payload/", "legacy/ext/deferred/"),
    "django": ("routes.py",),
    "opentelemetry": ("core/telemetry.py",),
    "starlette": (),
    "fastapi": (),
    "uvicorn": (),
    "flask": (),
    "waitress": ("cli/", "local/fronts/"),
}


@dataclass(frozen=True)
class Import:
    path: Path
    line: int
    name: str
    """The module, or the module and a name in it."""

    def __str__(self) -> str:
        return f"{self.path.relative_to(PACKAGE.parent)}:{self.line} imports {self.name}"


def imports_of(path: Path, package: Path = PACKAGE) -> Iterator[Import]:
    """Yield what a file imports, wherever in the file: what only types need is left out."""
    tree = ast.parse(path.read_text("utf-8"))
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for statement in node.body
        for inner in ast.walk(statement)
    }
    dotted = path.relative_to(package.parent).with_suffix("").parts
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(path, node.lineno, alias.name)
        elif isinstance(node, ast.ImportFrom):
            origin = node.module or ""
            if node.level:
                origin = ".".join([*dotted[: len(dotted) - node.level], *filter(None, [origin])])
            for alias in node.names:
                yield Import(path, node.lineno, f"{origin}.{alias.name}")
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, (ast.Name, ast.Attribute))
            and getattr(node.func, "attr", getattr(node.func, "id", ""))
            in ("import_module", "__import__")
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            yield Import(path, node.lineno, str(node.args[0].value))


def all_imports() -> list[Import]:
    return [found for path in sorted(PACKAGE.rglob("*.py")) for found in imports_of(path)]


def room_of(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def room_named(name: str) -> str | None:
    parts = name.split(".")
    if parts[:2] == ["google", "appengine"]:
        return "legacy"
    if parts[0] != "appengine_compat":
        return None
    # `from appengine_compat import configure` asks the package itself, which imports lazily.
    return parts[1] if len(parts) > 1 and parts[1] in LEVEL else "__init__"


def is_below(name: str, library: str) -> bool:
    return name == library or name.startswith(f"{library}.")


def test_every_room_has_a_place_in_the_order() -> None:
    rooms = {room_of(path) for path in PACKAGE.rglob("*.py")}
    assert rooms <= set(LEVEL), f"give these a place in LAYERS: {sorted(rooms - set(LEVEL))}"


def test_imports_run_down_only() -> None:
    wrong = []
    for found in all_imports():
        here, there = room_of(found.path), room_named(found.name)
        if there in (None, here, "__init__"):
            continue
        if LEVEL[there] >= LEVEL[here]:
            wrong.append(str(found))
    assert not wrong, "\n".join(wrong)


def test_the_legacy_tree_is_imported_as_google_appengine_only() -> None:
    wrong = [
        str(found) for found in all_imports() if is_below(found.name, "appengine_compat.legacy")
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("library", sorted(HOMES))
def test_each_library_has_one_home(library: str) -> None:
    wrong = []
    for found in all_imports():
        place = found.path.relative_to(PACKAGE).as_posix()
        if is_below(found.name, library) and not place.startswith(HOMES[library]):
            wrong.append(str(found))
    assert not wrong, "\n".join(wrong)


def test_the_checker_sees_every_form_of_import(tmp_path: Path) -> None:
    """Without this, a blind checker would pass all the tests above."""
    package = tmp_path / "appengine_compat"
    (package / "core").mkdir(parents=True)
    file = package / "core" / "names.py"
    file.write_text(
        "import sqlite3, os.path\n"
        "from typing import TYPE_CHECKING\n"
        "from ..backends import choice\n"
        "from . import limits\n"
        "if TYPE_CHECKING:\n    import yaml\n"
        "def late():\n    import grpc\n    importlib.import_module('redis')\n"
    )
    assert {found.name for found in imports_of(file, package)} == {
        "sqlite3",
        "os.path",
        "typing.TYPE_CHECKING",
        "appengine_compat.backends.choice",
        "appengine_compat.core.limits",
        "grpc",
        "redis",
    }


HEAVY = (
    "grpc", "google.protobuf", "google.cloud", "google.auth", "google.api_core",
    "yaml", "flask", "redis", "rq", "sqlite3", "waitress", "hpack", "requests",
)  # fmt: skip


@pytest.mark.parametrize(
    "statement",
    [
        "from google.appengine.ext import deferred",
        "from google.appengine.api import taskqueue",
        "from google.appengine.api import wrap_wsgi_app",
        "import appengine_compat; appengine_compat.install",
    ],
)
def test_importing_what_old_code_imports_loads_nothing_heavy(statement: str) -> None:
    program = f"import sys\n{statement}\nprint('\\n'.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert loaded.intersection({"appengine_compat", "google.appengine"})
    assert not loaded.intersection(HEAVY)
