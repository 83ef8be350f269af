"""The limit of open files, in processes of their own: it is the whole process's."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys
from appengine_compat.cli import open_files
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[2])))
open_files.raise_limit()
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.parametrize(
    ("before", "after"),
    [((256, 900), (900, 900)), ((900, 900), (900, 900))],
    ids=["raised as far as it may be", "left where it is at its end"],
)
def test_the_limit(before: tuple[int, int], after: tuple[int, int]) -> None:
    command = [sys.executable, "-c", SCRIPT, *map(str, before)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert tuple(map(int, done.stdout.split())) == after
