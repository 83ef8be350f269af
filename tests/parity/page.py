"""Writes docs/parity.md from the table of deviations: ``python -m tests.parity.page``."""

from __future__ import annotations

from pathlib import Path

from tests.parity.deviations import DEVIATIONS, NOTES, Deviation

PAGE = Path(__file__).parents[2] / "docs" / "parity.md"

INTRODUCTION = """\
# Parity with App Engine

<!-- Written by `python -m tests.parity.page` from tests/parity/deviations.py: change it there. -->

How we know that old code finds what it knew: the same calls are made to Google's SDK
(`appengine-python-standard`, with its test stub) and to appengine-compat, each in a process of its
own, and the answers are compared: every field of the resulting tasks, the class of an exception
with its bases, its text. Hundreds of calls are written down in `tests/parity/`; where the input is
open-ended (arguments of `Task(...)`, payloads, what a queue remembers over many calls), Hypothesis
makes them up anew in each run. Beside the SDK, its real ndb and db, and google-cloud-ndb, run their
tasklets and transactions over our task queue.

What is answered differently is on this page, with the reason. A test holds each of these to be
real: neither forgotten when it is mended, nor mended on one side only.

To run the comparison: `make check`, or `make sdk` and then
`AEC_TEST_SDK_PYTHON=.venv-sdk/bin/python .venv/bin/pytest tests/parity`.
"""


def page() -> str:
    """Return the whole text of docs/parity.md."""
    areas = list(dict.fromkeys(deviation.area for deviation in DEVIATIONS))
    return INTRODUCTION + "".join(map(_area, areas))


def _area(area: str) -> str:
    rows = [_row(deviation) for deviation in DEVIATIONS if deviation.area == area]
    notes = [f"- {text}\n" for noted, text in NOTES if noted == area]
    return f"\n## {area}\n" + ("\n" + "".join(notes) if notes else "") + "".join(rows)


def _row(deviation: Deviation) -> str:
    return (
        f"\n```text\n{deviation.call.strip()}\n```\n\n"
        f"App Engine: `{deviation.app_engine}`; here: `{deviation.ours}`. {deviation.reason}\n"
    )


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
