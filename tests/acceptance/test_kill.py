"""kill -9 at any moment loses no accepted task, and repeats none that has finished."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "kill.py"


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL here")
@pytest.mark.parametrize("processes", [1, 2])
def test_a_program_that_is_killed_again_and_again(processes):
    done = subprocess.run(
        [sys.executable, SCRIPT, "--tasks", "150", "--kills", "5", "--processes", str(processes)],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["accepted"] == 150
    assert result["kills"] == 5
    assert result["lost"] == []
    assert result["ran_after_finish"] == []
