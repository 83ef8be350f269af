"""Makes an environment with Google's SDK, for tests that ask it how App Engine answers.

    python tests/parity/sdk_environment.py DIRECTORY

prints the interpreter to set ``AEC_TEST_SDK_PYTHON`` to. An environment that is there is kept.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

REQUIREMENTS = ("appengine-python-standard==3.1.0", "google-cloud-ndb", "pytest")


def make(directory: Path) -> Path:
    """Return the interpreter of an environment that has Google's SDK, google-cloud-ndb and pytest.

    Args:
        directory: where the environment is, or is to be made.
    """
    python = directory / "bin" / "python"
    ready = directory / ".ready"
    wanted = "\n".join(REQUIREMENTS)
    if ready.exists() and ready.read_text("utf-8") == wanted:
        return python
    venv.create(directory, with_pip=True, clear=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *REQUIREMENTS], check=True)
    ready.write_text(wanted, "utf-8")
    return python


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    print(make(Path(sys.argv[1])))
