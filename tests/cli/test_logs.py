"""Logs of dev: an app's own frames."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterable, Iterator
from contextvars import copy_context
from typing import Any

import pytest

from appengine_compat.cli import apps, logs


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What begin() writes to stderr, on a root logger without handlers."""
    stderr = io.StringIO()
    monkeypatch.setattr("sys.stderr", stderr)
    handlers = logging.root.handlers[:]
    touched = [logging.root, logging.getLogger("appengine_compat.backends.choice")]
    levels = [logger.level for logger in touched]
    logging.root.handlers[:] = []
    logs.begin()
    yield stderr
    logging.root.handlers[:] = handlers
    for logger, level in zip(touched, levels, strict=True):
        logger.setLevel(level)


def failing_app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    raise ValueError("broken")


def raised() -> Exception:
    """What an app raises through a frame of this package."""
    try:
        copy_context().run(apps.as_service(failing_app, "default"), {}, lambda *_: lambda _: None)
    except ValueError as error:
        return error
    raise AssertionError("it did not fail")


def test_frames_of_this_package_are_left_out(written: io.StringIO) -> None:
    logging.getLogger("app").error("it failed", exc_info=raised())

    told = written.getvalue()
    assert told.startswith("ERROR app: it failed\nTraceback")
    assert told.endswith("ValueError: broken\n")
    assert "in failing_app" in told
    assert "apps.py" not in told


def test_an_app_that_has_set_logging_up_keeps_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    own = logging.NullHandler()
    monkeypatch.setattr(logging.root, "handlers", [own])

    logs.begin()

    assert logging.root.handlers == [own]
