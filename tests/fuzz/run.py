"""Fuzzes one target with atheris: ``python -m tests.fuzz.run bounded -max_total_time=600``.

``make fuzz`` does so with each, in an environment of its own: atheris is no dependency. A run
begins with what is kept in ``tests/fuzz/corpus``; what it finds goes to ``.fuzz/<target>``, and
``tests/fuzz/corpus.py`` says how to keep that, for the test suite to replay.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(
    include=["appengine_compat", "hpack", "pickle", "pickletools", "json"]
):
    from tests.fuzz import corpus, targets


def main() -> None:
    name, *options = sys.argv[1:]
    if not any(not option.startswith("-") for option in options):
        found = Path(".fuzz", name)
        corpus.unpack(name, found)
        options.append(str(found))
    with targets.watched():
        atheris.Setup([sys.argv[0], *options], targets.TARGETS[name])
        atheris.Fuzz()


if __name__ == "__main__":
    main()
