"""Running a coroutine to its end from code that is not asynchronous."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Coroutine
from typing import Any


def complete(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine to its end, and return or raise what it does.

    Where an event loop runs in this thread already (an asynchronous server that calls WSGI code
    directly), a thread with its own loop does it, in a copy of this context.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(_awaited(coroutine))

    result: list[Any] = []
    failure: list[BaseException] = []

    def work() -> None:
        try:
            result.append(asyncio.run(_awaited(coroutine)))
        except BaseException as error:  # handed to the thread that waits for it
            failure.append(error)

    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(work,), name="appengine-compat-coroutine")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return result[0]


async def _awaited(coroutine: Coroutine[Any, Any, Any]) -> Any:
    # asyncio.run takes native coroutines only; compiled modules have their own kind.
    return await coroutine
