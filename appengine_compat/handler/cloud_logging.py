"""Log entries as Google's platforms read them from standard output; no call, no network."""

from __future__ import annotations

import logging

from appengine_compat import platform
from appengine_compat.errors import ConfigError


def structured_handler() -> tuple[logging.Handler, str]:
    """Return google-cloud-logging's handler that writes JSON, and the project; "" when unknown."""
    from google.cloud.logging_v2.handlers import StructuredLogHandler

    try:
        project = platform.project().value
    except ConfigError:
        project = ""  # entries keep their trace's id, but the console joins them by project only
    handler: logging.Handler = StructuredLogHandler(  # type: ignore[no-untyped-call]
        project_id=project or None
    )
    return handler, project
