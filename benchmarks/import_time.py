"""What a cold start pays for the imports of old code, ``deferred`` above all.

Bare Python, ours and Google's SDK take turns round by round, so that a change in the machine's
mood falls on all. Ours runs from a wheel in an environment made for the purpose: an editable
install pays for its own finder in every process. The SDK's environment is named by
AEC_TEST_SDK_PYTHON (``make bench`` sets it); without it the SDK is left out.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROUNDS = 21
# What is measured → the program, and how many times a bare start it may take at most.
PROGRAMS: dict[str, tuple[str, float | None]] = {
    "import deferred": ("from google.appengine.ext import deferred", 3.0),
    "import taskqueue": ("from google.appengine.api import taskqueue", None),
    "wrap an app": (
        "from google.appengine.api import wrap_wsgi_app\n"
        "wrap_wsgi_app(lambda environ, start_response: [], use_deferred=True)",
        None,
    ),
}


@dataclass
class Contender:
    name: str
    command: tuple[str, ...]
    wall_ms: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)

    def start_once(self) -> None:
        started = time.perf_counter()
        pid = os.posix_spawn(self.command[0], self.command, os.environ)
        _, status, usage = os.wait4(pid, 0)
        wall = time.perf_counter() - started
        if status != 0:
            raise SystemExit(f"{' '.join(self.command)} failed")
        self.wall_ms.append(wall * 1000)
        self.cpu_ms.append((usage.ru_utime + usage.ru_stime) * 1000)

    @property
    def wall(self) -> float:
        return statistics.median(self.wall_ms)

    def figure(self) -> str:
        return (
            f"{self.wall:.1f} ms ({min(self.wall_ms):.1f}..{max(self.wall_ms):.1f}), "
            f"cpu {statistics.median(self.cpu_ms):.1f} ms"
        )


def environment(folder: str) -> str:
    """Make an environment with our wheel and its dependencies; return its interpreter."""
    python, wheels = str(Path(folder, "venv", "bin", "python")), Path(folder, "wheels")
    build = [sys.executable, "-m", "build", "--outdir", str(wheels), str(ROOT)]
    subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
    subprocess.run([sys.executable, "-m", "venv", str(Path(folder, "venv"))], check=True)
    wheel = str(next(wheels.glob("*.whl")))
    subprocess.run([python, "-m", "pip", "install", "--quiet", wheel], check=True)
    return python


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        python, sdk = environment(folder), os.environ.get("AEC_TEST_SDK_PYTHON")
        bare = Contender("bare Python", (python, "-c", "pass"))
        ours = {
            name: Contender("ours", (python, "-c", program))
            for name, (program, _) in PROGRAMS.items()
        }
        theirs = {
            name: Contender("Google's SDK", (sdk, "-c", program))
            for name, (program, _) in PROGRAMS.items()
            if sdk
        }
        measure([bare, *ours.values(), *theirs.values()], folder)
    print(f"start: {bare.name}\t{bare.figure()}\t")
    for name, (_, most) in PROGRAMS.items():
        target = f" (target: under {most:.0f}x)" if most else ""
        mine = ours[name]
        print(f"{name}: ours\t{mine.figure()}\t{mine.wall / bare.wall:.2f}x bare Python{target}")
        if name in theirs:
            other = theirs[name]
            print(
                f"{name}: Google's SDK\t{other.figure()}\t"
                f"{other.wall / bare.wall:.2f}x bare Python, {other.wall / mine.wall:.1f}x ours"
            )
    if not sdk:
        print("Google's SDK was left out: AEC_TEST_SDK_PYTHON is not set.")


def measure(contenders: list[Contender], folder: str) -> None:
    # Not here: the working directory is the first place that Python looks for modules.
    os.chdir(folder)
    for contender in contenders:
        # Fills the disk cache and writes the .pyc files.
        contender.start_once()
        contender.wall_ms.clear()
        contender.cpu_ms.clear()
    for _ in range(ROUNDS):
        for contender in contenders:
            contender.start_once()
    os.chdir(ROOT)


if __name__ == "__main__":
    main()
