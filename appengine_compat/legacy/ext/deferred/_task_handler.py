"""``TaskHandler``: the handler of Python 2's deferred library, which apps subclass.

It is a ``webapp2.RequestHandler`` where webapp2 is installed, so that it can be routed there.
Elsewhere it has the same shape on WebOb alone.
"""

from __future__ import annotations

import http
import importlib
import logging
import warnings
from typing import TYPE_CHECKING, Any

from google.appengine.ext.deferred import _webob_handler, deferred

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication


def _webapp2() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            return importlib.import_module("webapp2")
        except ImportError:
            return None


_webapp: Any = _webapp2() or _webob_handler
_Base: Any = _webapp.RequestHandler


class TaskHandler(_Base):  # type: ignore[misc]
    """Runs the task that a request carries.

    Subclasses may override ``post``, ``run_from_request`` or ``dispatch``; ``self.request`` and
    ``self.response`` are WebOb's. ``TaskHandler.as_application()`` is a WSGI application that
    serves any path with it.
    """

    def run_from_request(self) -> None:
        """Check who calls, then run the payload; what is refused sets the response's status.

        Raises:
            deferred.PermanentTaskFailure: the payload cannot be read, or the task gave up.
            Exception: whatever the task raises.
        """
        environ = self.request.environ
        if self._is_refused():
            return
        if logging.root.isEnabledFor(deferred._DEFAULT_LOG_LEVEL):
            headers = [
                f"{name}:{value}"
                for name, value in self.request.headers.items()
                if name.lower().startswith("x-appengine-")
            ]
            logging.log(deferred._DEFAULT_LOG_LEVEL, "%s", ", ".join(headers))

        from appengine_compat.handler import request_body

        try:
            payload = request_body.read(environ)
        except request_body.BodyError as error:
            logging.error("%s", error)
            self._answer(error.status, str(error))
            return
        environ["appengine_compat.payload"] = payload
        deferred.run(payload)

    def post(self) -> None:
        """Answer a POST request that carries a task, as ``deferred.Handler.post`` does.

        Differs from App Engine: a refusal has a text.
        """
        if self._is_refused():
            return
        try:
            self.run_from_request()
        except deferred.SingularTaskFailure:
            logging.debug("Failure executing task, task retry forced")
            self.response.set_status(http.HTTPStatus.REQUEST_TIMEOUT.value)
        except deferred.PermanentTaskFailure as error:
            logging.exception("Permanent failure attempting to execute task")
            deferred._keep(self.request.environ, error)

    @classmethod
    def as_application(cls) -> WSGIApplication:
        """Return a WSGI application that serves every path with this class."""
        application: WSGIApplication = _webapp.WSGIApplication([(".*", cls)])
        return application

    def _is_refused(self) -> bool:
        refused = deferred._refusal(self.request.environ)
        if refused is None:
            return False
        text, status, _ = refused
        self._answer(status.value, text)
        return True

    def _answer(self, status: int, text: str) -> None:
        self.response.set_status(status)
        self.response.content_type = "text/plain"
        self.response.charset = "utf-8"
        self.response.text = text
