"""What payloads of the fuzzer may refer to."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from typing import Any

__all__ = ["os", "subprocess"]

CALLS: list[Any] = []


def note(*args: Any, **kwargs: Any) -> None:
    CALLS.append(args)


@dataclass
class Thing:
    name: str = ""

    def method(self, *args: Any) -> None:
        CALLS.append(args)
