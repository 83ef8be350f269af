"""Two sides that answer the same calls: Google's SDK and appengine-compat, each in its process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

OBSERVE = Path(__file__).with_name("observe.py")
VARIABLE = "AEC_TEST_SDK_PYTHON"
# What would change the answers of either side.
_NOT_INHERITED = ("APPENGINE_COMPAT_", "GAE_", "GOOGLE_", "HTTP_", "CLOUD_TASKS_", "TZ")


class Side:
    """A process that runs calls of the legacy API."""

    def __init__(self, python: str) -> None:
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(_NOT_INHERITED)
        }
        # Where the SDK's project id is asked for, as on App Engine.
        environment["GAE_APPLICATION"] = "s~parity-test"
        self._process = subprocess.Popen(
            [python, "-W", "ignore", str(OBSERVE)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
            encoding="utf-8",
        )

    def observe(self, code: str, **surroundings: Any) -> dict[str, Any]:
        """Return what came of a call."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps({"code": code, **surroundings}) + "\n")
        process.stdin.flush()
        answer = process.stdout.readline()
        assert answer, f"the process ended while it ran {code!r}"
        seen: dict[str, Any] = json.loads(answer)
        return seen

    def close(self) -> None:
        self._process.communicate()


@pytest.fixture(scope="session")
def sdk_python() -> str:
    """The interpreter of an environment with Google's SDK."""
    python = os.environ.get(VARIABLE)
    if not python:
        reason = (
            f"{VARIABLE} names no Python with Google's SDK: make sdk, or see "
            "tests/parity/sdk_environment.py"
        )
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return python


@pytest.fixture(scope="session")
def sdk(sdk_python: str) -> Iterator[Side]:
    side = Side(sdk_python)
    yield side
    side.close()


@pytest.fixture(scope="session")
def ours() -> Iterator[Side]:
    side = Side(sys.executable)
    yield side
    side.close()
