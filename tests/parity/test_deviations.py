"""Every deviation of the table is one: neither forgotten when mended, nor mended by one side."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.parity import page
from tests.parity.deviations import DEVIATIONS, Deviation

if TYPE_CHECKING:
    from tests.parity.conftest import Side


@pytest.mark.parametrize("deviation", DEVIATIONS, ids=lambda deviation: deviation.call)
def test_a_listed_deviation_is_real(deviation: Deviation, sdk: Side, ours: Side) -> None:
    theirs = json.dumps(sdk.observe(deviation.call, **deviation.surroundings))
    mine = json.dumps(ours.observe(deviation.call, **deviation.surroundings))
    assert deviation.app_engine in theirs
    assert deviation.ours in mine
    assert theirs != mine


def test_every_deviation_has_its_reason() -> None:
    assert all(deviation.reason.endswith(".") for deviation in DEVIATIONS)
    assert len({deviation.call for deviation in DEVIATIONS}) == len(DEVIATIONS)


def test_the_page_says_what_the_table_says() -> None:
    written = page.PAGE.read_text("utf-8")
    assert written == page.page(), "docs/parity.md is stale: run `make docs`"
