"""The page on security lists every code that a caller can be refused with, in our own words."""

from __future__ import annotations

from pathlib import Path

from appengine_compat.handler import refusals

PAGE = Path(__file__).parents[2] / "docs" / "security.md"


def table() -> str:
    rows = [f"| `{r.code}` | {r.status} | {r.reason} |" for r in refusals.ALL]
    return "\n".join(["| code | status | what the caller is told |", "|---|---|---|", *rows])


def test_the_table_of_codes_is_the_one_of_the_program() -> None:
    text = PAGE.read_text("utf-8")
    assert table() in text, f"put this table into docs/security.md:\n{table()}"
