"""docs/architecture.md draws the house that is there."""

from __future__ import annotations

import re
from pathlib import Path

import appengine_compat

PAGE = Path(__file__).parents[2] / "docs" / "architecture.md"
PACKAGE = Path(appengine_compat.__file__).parent


def test_every_room_is_on_the_page() -> None:
    text = PAGE.read_text("utf-8")
    rooms = {f"{path.parent.name}/" for path in PACKAGE.glob("[a-z]*/__init__.py")}
    modules = {path.stem for path in PACKAGE.glob("[a-z]*.py")}
    assert {room for room in rooms if f"| `{room}` |" not in text} == set()
    assert {module for module in modules if f"`{module}`" not in text} == set()


def test_files_and_folders_that_it_names_are_there() -> None:
    named = set(re.findall(r"`([a-z_]+(?:/[a-z_*]+)*(?:\.py|/))`", PAGE.read_text("utf-8")))
    assert "tests/test_import_rules.py" in named
    # Those of an installation, which this is not.
    here = {name for name in named if not name.startswith("google/")}
    places = (PACKAGE, PACKAGE.parent, PACKAGE / "backends", PACKAGE / "local")
    assert {name for name in here if not any(any(at.glob(name)) for at in places)} == set()
