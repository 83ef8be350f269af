"""What the app defers; each call leaves a line in a file."""

import asyncio
import threading
from pathlib import Path


def note(line):
    with Path("notes.txt").open("a") as notes:
        notes.write(line + "\n")


def do_expensive_work(a, *, b):
    """An ordinary function: it runs in a thread, and may block."""
    is_main = threading.current_thread() is threading.main_thread()
    note(f"do_expensive_work({a!r}, b={b!r}) in {'the main thread' if is_main else 'a thread'}")


async def clear_the_cache():
    """A coroutine function: it runs on the server's event loop, with whatever lives there."""
    await asyncio.sleep(0)
    note("clear_the_cache() on the loop")
