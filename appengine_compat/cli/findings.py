"""What ``appengine-compat doctor`` says: one line for each thing it has looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from enum import Enum


class Status(Enum):
    """How a check ended."""

    OK = "ok"
    WARNING = "warning"
    """Works, but perhaps not as meant."""
    FAILED = "failed"
    SKIPPED = "skipped"
    """Does not concern this set-up, or could not be asked without something else."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found."""

    check: str
    status: Status
    text: str
    remedy: str = ""
    """The command or setting that mends it; never empty for FAILED."""

    def __str__(self) -> str:
        remedy = f" → {self.remedy}" if self.remedy else ""
        return f"{self.status.value:<8} {self.check}: {self.text}{remedy}"

    def to_json(self) -> dict[str, str]:
        """Return it as a mapping of texts."""
        return {**asdict(self), "status": self.status.value}


Check = Callable[[], Iterator[Finding]]


def ok(check: str, text: str) -> Finding:
    """Return what is as it should be."""
    return Finding(check, Status.OK, text)


def warning(check: str, text: str, remedy: str) -> Finding:
    """Return what works, but perhaps not as meant."""
    return Finding(check, Status.WARNING, text, remedy)


def failed(check: str, text: str, remedy: str) -> Finding:
    """Return what does not work."""
    return Finding(check, Status.FAILED, text, remedy)


def skipped(check: str, text: str) -> Finding:
    """Return what was not looked at, and why."""
    return Finding(check, Status.SKIPPED, text)
