"""queue.yaml as values, and the ways to get them: ``find``, ``read``, ``parse``, ``load``."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from appengine_compat.errors import ConfigError, QueueYamlError

if TYPE_CHECKING:
    from appengine_compat.core.model import Queue

FILE_NAMES = ("queue.yaml", "queue.yml", "WEB-INF/appengine-generated/queue.yaml")


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryParameters:
    """``retry_parameters`` of an entry; None where the file says nothing."""

    task_retry_limit: int | None = None
    """Retries, not attempts: 0 runs a task once."""
    task_age_limit_seconds: int | None = None
    min_backoff_seconds: float | None = None
    max_backoff_seconds: float | None = None
    max_doublings: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueEntry:
    """One queue as the file writes it; None where the file says nothing."""

    name: str
    mode: str | None = None
    """``push`` or ``pull``; None means push."""
    rate: float | None = None
    """Dispatches per second; None for pull queues only."""
    rate_text: str = ""
    """The rate as it is written, such as ``30/m``."""
    bucket_size: int | None = None
    max_concurrent_requests: int | None = None
    target: str | None = None
    """``service`` or ``version.service``."""
    retry_parameters: RetryParameters = RetryParameters()
    acl: tuple[tuple[str, str], ...] = ()
    """Pairs of ``user_email`` or ``writer_email`` and an address."""
    line: int = 0
    """1-based line on which the entry begins."""

    @property
    def is_pull(self) -> bool:
        """Whether this is a pull queue, which Cloud Tasks does not have."""
        return self.mode == "pull"


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueFile:
    """A whole queue.yaml."""

    path: str
    queues: tuple[QueueEntry, ...] = ()
    application: str | None = None
    total_storage_limit: str | None = None
    resume_paused_queues: bool = True


def read(path: str | os.PathLike[str]) -> QueueFile:
    """Read a queue.yaml from disk.

    Raises:
        QueueYamlError: it cannot be read or is wrong; line and column are those of the fault.
        ConfigError: PyYAML is not installed.
    """
    shown = str(path)
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise QueueYamlError(
            shown, 0, 0, "there is no such file; set APPENGINE_COMPAT_QUEUE_YAML to the right path"
        ) from None
    except OSError as error:
        raise QueueYamlError(shown, 0, 0, f"cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise QueueYamlError(shown, line, 0, "is not UTF-8 text on this line") from None
    return parse(text, shown)


def parse(text: str, path: str = "queue.yaml") -> QueueFile:
    """Read a queue.yaml's text.

    Args:
        text: the file's content.
        path: how errors name the file.

    Raises:
        QueueYamlError: it is wrong; line and column are those of the fault.
        ConfigError: PyYAML is not installed.
    """
    try:
        from appengine_compat.queues.grammar import queue_file
    except ModuleNotFoundError as error:
        if error.name != "yaml":
            raise
        raise ConfigError(
            f"{path} cannot be read: that needs PyYAML, which is not installed. "
            "pip install 'appengine-compat[dev]' (or pip install pyyaml).",
            setting="APPENGINE_COMPAT_QUEUE_YAML",
        ) from None
    return queue_file(text, path)


def find(folder: str | os.PathLike[str]) -> Path | None:
    """Return the queue.yaml of an app's folder, as App Engine's tools look for it, or None."""
    candidates = (Path(folder, name) for name in FILE_NAMES)
    return next((path for path in candidates if path.is_file()), None)


def load(path: str | os.PathLike[str], parent: str) -> list[Queue]:
    """Return the queues of a queue.yaml as they stand once deployed (see ``queues.deployed``).

    Pull queues are left out, with a warning: Cloud Tasks has none.

    Args:
        path: the file.
        parent: ``projects/P/locations/L``, where the queues belong.

    Raises:
        QueueYamlError: it cannot be read or is wrong; line and column are those of the fault.
        ConfigError: PyYAML is not installed.
    """
    from appengine_compat.queues.deployed import deployed_queues

    return deployed_queues(read(path), parent)
