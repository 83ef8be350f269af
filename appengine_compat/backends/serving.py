"""Telling the embedded service which app its tasks are delivered to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appengine_compat.backends import choice
from appengine_compat.errors import BackendChoiceError

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication


def register_if_embedded(app: WSGIApplication, service: str) -> None:
    """Let the embedded service deliver a service's tasks to an app, if tasks go there.

    Args:
        app: the whole app, as a server would call it.
        service: the service that the app is.

    Raises:
        ConfigError: a setting is unknown or its value not allowed.
    """
    try:
        kind, _ = choice.describe()
    except BackendChoiceError:
        return  # said at defer, to whoever needs a place for tasks
    if kind == choice.EMBEDDED:
        from appengine_compat.backends import embedded

        embedded.register_app(app, service)
