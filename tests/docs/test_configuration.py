from __future__ import annotations

import runpy
from pathlib import Path

from appengine_compat import settings

ROOT = Path(__file__).parents[2]


def test_the_page_is_what_the_settings_table_says() -> None:
    generated = runpy.run_path(str(ROOT / "docs" / "generate.py"))["page"]()
    written = (ROOT / "docs" / "configuration.md").read_text("utf-8")
    assert written == generated, "docs/configuration.md is stale: run `make docs`"


def test_the_page_names_every_variable() -> None:
    written = (ROOT / "docs" / "configuration.md").read_text("utf-8")
    for setting in settings.SETTINGS:
        assert f"### `{setting.variable}`" in written
    for variable, _ in settings.GOOGLE_VARIABLES:
        assert f"| `{variable}` |" in written
