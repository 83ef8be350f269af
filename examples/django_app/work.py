"""What the app defers; each call leaves a line in a file."""

from pathlib import Path


def note(line):
    with Path("notes.txt").open("a") as notes:
        notes.write(line + "\n")


def do_expensive_work(a, *, b):
    note(f"do_expensive_work({a!r}, b={b!r})")


def clear_the_cache():
    note("clear_the_cache()")
