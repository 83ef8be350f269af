"""The fuzzers' corpus: what is of interest for each target, a line of base64 each.

``python -m tests.fuzz.corpus TARGET FOLDER`` puts what a run has left in a folder into the file.
"""

from __future__ import annotations

import base64
import hashlib
import sys
from collections.abc import Iterable
from pathlib import Path

FOLDER = Path(__file__).with_name("corpus")


def load(target: str) -> list[bytes]:
    """Return what is kept for a target."""
    lines = (FOLDER / f"{target}.txt").read_text("ascii").splitlines()
    return [base64.b64decode(line) for line in lines]


def keep(target: str, found: Iterable[bytes]) -> int:
    """Add to what is kept for a target; return how much there is then."""
    file = FOLDER / f"{target}.txt"
    known = set(load(target)) if file.exists() else set()
    everything = sorted(known | set(found), key=lambda data: (len(data), data))
    file.write_text("".join(base64.b64encode(data).decode() + "\n" for data in everything))
    return len(everything)


def unpack(target: str, folder: Path) -> None:
    """Write what is kept for a target as files, as fuzzers read them."""
    folder.mkdir(parents=True, exist_ok=True)
    for data in load(target):
        (folder / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)


if __name__ == "__main__":
    name, place = sys.argv[1:]
    kept = keep(name, (path.read_bytes() for path in Path(place).iterdir()))
    print(f"{kept} are kept for {name}")
