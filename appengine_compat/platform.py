"""Where the program runs, and which project and location it belongs to."""

from __future__ import annotations

import os
from collections.abc import Mapping
from enum import Enum


class Platform(Enum):
    """The kinds of hosts that differ in how tasks are sent and believed."""

    APP_ENGINE = "App Engine"
    CLOUD_RUN = "Cloud Run"
    KUBERNETES = "Kubernetes"
    ELSEWHERE = "this machine"


def detect(environ: Mapping[str, str] | None = None) -> Platform:
    """Return the platform, by the variables that it sets for every program."""
    environ = os.environ if environ is None else environ
    if environ.get("GAE_ENV") in ("standard", "flex") or (
        # The second-generation runtimes set GAE_ENV; flexible ones only these two.
        environ.get("GAE_APPLICATION") and environ.get("GAE_INSTANCE")
    ):
        return Platform.APP_ENGINE
    if environ.get("K_SERVICE") or environ.get("CLOUD_RUN_JOB"):
        return Platform.CLOUD_RUN
    if environ.get("KUBERNETES_SERVICE_HOST"):
        return Platform.KUBERNETES
    return Platform.ELSEWHERE
