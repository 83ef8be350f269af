"""A script of the examples that starts a demo, as a process whose output is read as it comes."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from appengine_compat import settings

TOP = Path(__file__).parents[2]
PATIENCE_SECONDS = 60.0


class Demo:
    """A demo that was started on a copy of the example."""

    def __init__(self, script: Path, directory: Path) -> None:
        """Start it.

        Args:
            script: which one.
            directory: where the copy of the example goes, which is not there yet.
        """
        ignored = shutil.ignore_patterns("__pycache__", "*.db", ".appengine-compat")
        shutil.copytree(TOP / "examples" / "guestbook", directory, ignore=ignored)
        self.port = three_free_ports()
        clean = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith((settings.PREFIX, "GAE_", "GOOGLE_", "K_SERVICE", "PYTEST_"))
        }
        self._log = directory / "demo.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, script, "--port", str(self.port), "--directory", directory],
                env=clean,
                stdout=log,
                stderr=log,
            )

    @property
    def output(self) -> str:
        return self._log.read_text(errors="replace")

    def wait_for(self, pattern: str) -> None:
        ends_at = time.monotonic() + PATIENCE_SECONDS
        while not re.search(pattern, self.output, re.MULTILINE):
            assert time.monotonic() < ends_at, f"{pattern} did not come in:\n{self.output}"
            assert self.process.poll() is None, self.output
            time.sleep(0.05)

    def end(self) -> int:
        """End it, in case it has not by itself; return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_SECONDS)

    def post(self, path: str) -> None:
        address = f"http://localhost:{self.port}{path}"
        urllib.request.urlopen(urllib.request.Request(address, b"", method="POST")).close()


def three_free_ports() -> int:
    """Return the first of three ports in a row that are free."""
    while True:
        with socket.socket() as first, socket.socket() as second, socket.socket() as third:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            try:
                second.bind(("127.0.0.1", port + 1))
                third.bind(("127.0.0.1", port + 2))
            except (OSError, OverflowError):
                continue
            return port


def recipe_of(target: str) -> str:
    """Return the commands of a target of the Makefile."""
    makefile = (TOP / "Makefile").read_text("utf-8")
    recipe = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    assert recipe is not None
    return recipe[1]
