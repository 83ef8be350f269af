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

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
VARIABLE = "AEC_TEST_SDK_PYTHON"
# What would change the answers of either side.
_NOT_INHERITED = ("APPENGINE_COMPAT_", "GAE_", "GOOGLE_", "HTTP_", "CLOUD_TASKS_", "TZ")


class Child:
    """A process that answers JSON messages, one a line."""

    def __init__(self, python: str, program: Path, **environment: str) -> None:
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(_NOT_INHERITED)
        }
        self._process = subprocess.Popen(
            [python, "-W", "ignore", str(program)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # Where the SDK's project id is asked for, as on App Engine.
            env={**inherited, "GAE_APPLICATION": "s~parity-test", **environment},
            text=True,
            encoding="utf-8",
        )

    def ask(self, message: object) -> Any:
        """Return the answer to a message."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, f"the process ended at {message!r}"
        return json.loads(answer)

    def close(self) -> None:
        self._process.communicate()


class Side(Child):
    """A process that runs calls of the legacy API, and tells what came of them."""

    def __init__(self, python: str) -> None:
        super().__init__(python, HERE / "observe.py")

    def observe(self, code: str, **surroundings: Any) -> dict[str, Any]:
        """Return what came of a call."""
        seen: dict[str, Any] = self.ask({"code": code, **surroundings})
        return seen


def refuse(reason: str) -> None:
    """Skip a test that cannot run on this machine; in CI that is a failure."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def sdk_python() -> str:
    """The interpreter of an environment with Google's SDK."""
    python = os.environ.get(VARIABLE, "")
    if not python:
        refuse(
            f"{VARIABLE} names no Python with Google's SDK: make sdk, or see "
            "tests/parity/sdk_environment.py"
        )
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


@pytest.fixture(scope="session")
def beside(sdk_python: str) -> Iterator[Child]:
    """Runs code beside the SDK, with ``install()`` called."""
    child = Child(sdk_python, HERE / "beside.py", PYTHONPATH=str(ROOT))
    yield child
    child.close()


@pytest.fixture(scope="session")
def cloud_ndb(sdk_python: str) -> Iterator[Child]:
    """Runs code with google-cloud-ndb and a datastore server."""
    if subprocess.run(
        [sdk_python, "-c", "import google.cloud.ndb"], capture_output=True
    ).returncode:
        refuse(f"the Python that {VARIABLE} names has no google-cloud-ndb: make sdk")
    child = Child(sdk_python, HERE / "cloud_ndb.py", PYTHONPATH=str(ROOT))
    yield child
    child.close()
