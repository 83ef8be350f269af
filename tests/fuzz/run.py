"""Fuzzes one target with atheris: ``python -m tests.fuzz.run bounded -max_total_time=600``.

``pip install atheris`` first, in an environment of its own: it is no dependency. What it finds of
interest goes to ``.fuzz/<target>``; what is worth keeping is merged into ``tests/fuzz/corpus`` by
``-merge=1 tests/fuzz/corpus/<target> .fuzz/<target>``, and replayed by the test suite.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["appengine_compat", "pickle", "pickletools", "json"]):
    from tests.fuzz import targets


def main() -> None:
    name, *options = sys.argv[1:]
    if not any(not option.startswith("-") for option in options):
        found = Path(".fuzz", name)
        found.mkdir(parents=True, exist_ok=True)
        options += [str(found), str(Path(__file__).with_name("corpus") / name)]
    with targets.watched():
        atheris.Setup([sys.argv[0], *options], targets.TARGETS[name])
        atheris.Fuzz()


if __name__ == "__main__":
    main()
