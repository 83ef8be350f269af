"""The versions of the API that are served, and the message classes of each."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from types import ModuleType
from typing import Any

from google.cloud import tasks_v2, tasks_v2beta3


@dataclass(frozen=True)
class Version:
    """One version of the API.

    Attributes:
        label: as it stands in REST paths and package names.
        types: the module of Google's client that holds its messages.
        is_beta: whether its queues have what only v2beta3's have: time limits, a settable burst
            size, statistics.
    """

    label: str
    types: ModuleType
    is_beta: bool = False

    @property
    def service(self) -> str:
        """The full name of its gRPC service."""
        return f"google.cloud.tasks.{self.label}.CloudTasks"

    def message(self, name: str) -> Any:
        """Return a message class: protobuf's own, without the wrapping of Google's client."""
        return getattr(self.types, name).pb()

    # The two that the hot paths make.

    @cached_property
    def queue(self) -> Any:
        """The class of queues."""
        return self.message("Queue")

    @cached_property
    def task(self) -> Any:
        """The class of tasks."""
        return self.message("Task")


V2 = Version("v2", tasks_v2)
V2BETA3 = Version("v2beta3", tasks_v2beta3, is_beta=True)
