"""The pages show the contract as the suite holds it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.contract import page


@pytest.mark.parametrize("path", page.PAGES, ids=lambda path: path.name)
def test_the_tables_are_the_suites(path: Path) -> None:
    text = path.read_text("utf-8")
    assert text == page.written(path), "run: python -m tests.contract.page"
    assert "| | Cloud Tasks, to " in text


def test_one_page_shows_what_all_promise() -> None:
    text = (page.DOCS / "redis-rq.md").read_text("utf-8")
    assert "| stub | embedded | cloud tasks, app engine | cloud tasks, http | rq |" in text


def test_no_promise_is_left_out_for_a_backend() -> None:
    suite = page.SUITE.read_text("utf-8")
    assert "skip" not in suite.replace("redis_or_skip", "")
    assert "xfail" not in suite
