"""Runs every benchmark of this folder, one after the other, and prints one table.

A benchmark is a script. Each line of its output with two tabs is a row: what was measured, the
figure, and what it stands beside. Other lines are remarks, printed below the table. Names on the
command line choose some: ``python benchmarks/run.py import_time``.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
HEADINGS = ("benchmark", "measured", "figure", "beside")


def main(names: list[str]) -> int:
    scripts = {path.stem: path for path in sorted(HERE.glob("*.py")) if path != Path(__file__)}
    unknown = sorted(set(names) - set(scripts))
    if unknown:
        print(f"No benchmark {', '.join(unknown)}; there are: {', '.join(scripts)}")
        return 2
    rows: list[tuple[str, ...]] = []
    remarks: list[str] = []
    failed = False
    for name in names or scripts:
        started = time.monotonic()
        print(f"{name} …", end="", flush=True, file=sys.stderr)
        done = subprocess.run([sys.executable, scripts[name]], capture_output=True, text=True)
        print(f" {time.monotonic() - started:.0f} s", file=sys.stderr)
        for line in done.stdout.splitlines():
            cells = tuple(line.split("\t"))
            if len(cells) == 3:
                rows.append((name, *cells))
            elif line.strip():
                remarks.append(f"{name}: {line}")
        if done.returncode != 0:
            failed = True
            rows.append((name, "FAILED", f"exit {done.returncode}", ""))
            remarks.append(f"{name}: {done.stderr.strip()[-2000:]}")
    _print_table([HEADINGS, *rows])
    print("\n".join(["", *remarks]) if remarks else "")
    return 1 if failed else 0


def _print_table(rows: list[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, tuple("-" * width for width in widths))
    for row in rows:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
