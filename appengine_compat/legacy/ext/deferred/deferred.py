"""The deferred library: a call becomes a task, and the task becomes the call.

This is the module that payloads name and that old code patches: whatever it needs of its own is
looked up in its globals at the moment of use. The machinery behind it is in ``payload`` (what
travels) and ``handler`` (who may call), loaded when first used.
"""

from __future__ import annotations

import http
import logging
import os  # noqa: F401 - old code reaches it through this module
import pickle
import sys
import types
from collections.abc import Coroutine

# Type checkers know this name wherever it comes from, and typing takes longer to import than
# most of what is here.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from _typeshed.wsgi import StartResponse, WSGIEnvironment
    from google.appengine.api import taskqueue

    from appengine_compat.handler.door import Verdict
    from appengine_compat.settings import Setting

    _Answer = tuple[str, http.HTTPStatus, list[tuple[str, str]]]
    _Call = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]

_DEFAULT_LOG_LEVEL = logging.INFO
_TASKQUEUE_HEADERS = {"Content-Type": "application/octet-stream"}
_TASKQUEUE_RESPONSE_HEADERS = ("Content-Type", "text/plain")
_DEFAULT_URL = "/_ah/queue/deferred"
_DEFAULT_QUEUE = "default"

# What a payload starts with when only Python 3 can have written it.
_PYTHON3_STARTS = (b"\x80\x05", b"\x80\x04", b"\x80\x03")


# The machinery, by name: loaded when first used, since who only enqueues needs no handler, and
# a start should not wait for either.
_MACHINERY = {
    "_dumps": ("appengine_compat.payload.pickles", "dumps"),
    "_misfit": ("appengine_compat.payload.signatures", "misfit"),
    "_verdict": ("appengine_compat.handler.door", "verdict"),
    "_bounds": ("appengine_compat.settings", "ALLOWED_CALLABLES"),
    "_read_body": ("appengine_compat.handler.request_body", "read"),
}
_dumps: Callable[[_Call], bytes] | None = None
_misfit: Callable[..., str | None] | None = None
_verdict: Callable[[WSGIEnvironment], Verdict] | None = None
_bounds: Setting[Any] | None = None
_read_body: Callable[[WSGIEnvironment], bytes] | None = None


def _loaded(name: str) -> Any:
    from importlib import import_module

    module, function = _MACHINERY[name]
    globals()[name] = found = getattr(import_module(module), function)
    return found


class Error(Exception):
    """Base of this module's exceptions."""


class PermanentTaskFailure(Error):
    """Raised by a task that can never succeed: it is not tried again, and it is kept."""


class SingularTaskFailure(Error):
    """Raised by a task that wants to be tried again, without an error in the log."""


def set_log_level(log_level: int) -> None:
    """Set the level at which each task's ``X-AppEngine-*`` headers are logged.

    Args:
        log_level: a level of the ``logging`` module; ``logging.INFO`` until set.
    """
    global _DEFAULT_LOG_LEVEL
    _DEFAULT_LOG_LEVEL = log_level


def run(data: bytes) -> Any:
    """Make the call that a payload describes.

    Args:
        data: what ``serialize`` made, here or in Google's SDK, on Python 2 or 3; wrapped in
            base64 or not.

    Returns:
        What the called function returns. A coroutine is run to its end first.

    Raises:
        PermanentTaskFailure: the payload cannot be read, or refers to what the setting
            ``APPENGINE_COMPAT_ALLOWED_CALLABLES`` does not allow.
        Exception: whatever the function raises.

    Differs from App Engine: coroutines were never run there, byte strings of Python 2 that are
    not ASCII (dates among them) could not be read, nor base64.
    """
    try:
        bounds = _bounds or _loaded("_bounds")
        if data[:2] in _PYTHON3_STARTS and not bounds.is_set_for_process:
            func, args, kwds = pickle.loads(data)
        else:
            func, args, kwds = _read_payload(data)
    except Exception as error:
        raise PermanentTaskFailure(error) from error
    result = func(*args, **kwds)
    if result is not None and isinstance(result, Coroutine):
        return _run_coroutine(result)
    return result


def _read_payload(data: bytes) -> _Call:
    from appengine_compat.payload import pickles

    return pickles.loads(data)


def _run_coroutine(coroutine: Coroutine[Any, Any, Any]) -> Any:
    from appengine_compat.payload import coroutines

    return coroutines.complete(coroutine)


def run_from_datastore(key: str) -> Any:
    """Make the call whose payload lies in the datastore, and remove it from there.

    The payload stays when the call fails in a way that is tried again.

    Args:
        key: the text of the key of a ``_DeferredTaskEntity``.

    Returns:
        What the called function returns (App Engine's returned None).

    Raises:
        PermanentTaskFailure: there is no such entity, or no datastore library to read it with.
        Exception: whatever the function raises.
    """
    from google.appengine.ext.deferred import _oversize

    return _oversize.run_stored(key)


def invoke_member(obj: Any, membername: str, /, *args: Any, **kwargs: Any) -> Any:
    """Call a method by its name: what the payload of a deferred method calls.

    Args:
        obj: the object, or the class.
        membername: the method's name.
        args: positional arguments for it.
        kwargs: keyword arguments for it.

    Returns:
        What the method returns.
    """
    return getattr(obj, membername)(*args, **kwargs)


def _curry_callable(obj: Any, /, *args: Any, **kwargs: Any) -> _Call:
    """Return a callable that can be pickled, and its arguments, for a call of ``obj``.

    Raises:
        ValueError: ``obj`` is not callable.
    """
    if isinstance(obj, types.FunctionType):
        return (obj, args, kwargs)
    if isinstance(obj, types.MethodType):
        from appengine_compat.payload import currying

        return (invoke_member, (obj.__self__, currying.member_name(obj), *args), kwargs)
    if isinstance(obj, types.BuiltinMethodType):
        owner = obj.__self__
        # A module is the owner of its functions, which pickle by their own name.
        if not owner or isinstance(owner, types.ModuleType):
            return (obj, args, kwargs)
        return (invoke_member, (owner, obj.__name__, *args), kwargs)
    if callable(obj):
        return (obj, args, kwargs)
    raise ValueError("obj must be callable")


def serialize(obj: Any, /, *args: Any, **kwargs: Any) -> bytes:
    """Return the payload of a call.

    Args:
        obj: the callable.
        args: positional arguments for it.
        kwargs: keyword arguments for it.

    Returns:
        A pickle that ``run`` of this module and of Google's SDK reads.

    Raises:
        ValueError: ``obj`` is not callable.
        appengine_compat.payload.pickles.UnpicklableError: something in the call cannot be
            pickled; the text names it. It is a ``PicklingError``, an ``AttributeError`` and a
            ``TypeError``, which are what pickle raises here on one version or another.
    """
    return (_dumps or _loaded("_dumps"))(_curry_callable(obj, *args, **kwargs))


def defer(obj: Any, *args: Any, **kwargs: Any) -> taskqueue.Task:
    """Call ``obj(*args, **kwargs)`` later, from a task.

    Options start with an underscore; everything else goes to the callable.

    Args:
        obj: what to call: a function of a module, a method, a class, a callable instance.
        args: positional arguments for it.
        kwargs: keyword arguments for it, and the options: ``_countdown`` (seconds), ``_eta``,
            ``_name``, ``_target``, ``_retry_options`` as of ``taskqueue.Task``; ``_url`` (a
            path with query; "" or None for the queue's own), ``_headers`` (over
            ``Content-Type: application/octet-stream``), ``_transactional``, ``_queue``;
            ``_client``: the backend to use instead of the one chosen.

    Returns:
        The task as added, with its name.

    Raises:
        ValueError: ``obj`` is not callable.
        appengine_compat.payload.pickles.UnpicklableError: the call cannot be pickled.
        taskqueue.Error: the task is refused, or cannot be added.

    Warns:
        appengine_compat.errors.DeferWarning: the arguments do not fit the callable, or calling
            it would run nothing. App Engine found out when the task ran.

    Differs from App Engine: ``_url`` may have a query, ``_url=None`` and ``_headers=None`` mean
    "none given" as documented there, and payloads over 102,400 bytes need no datastore.
    """
    options = {
        option: kwargs.pop("_" + option, None)
        for option in ("countdown", "eta", "name", "target", "retry_options")
    }
    options["url"] = kwargs.pop("_url", _DEFAULT_URL) or ""
    if "?" in str(options["url"]):
        # The body is a pickle, so a query beside it cannot be meant as parameters.
        options["_query_check"] = False
    options["headers"] = dict(_TASKQUEUE_HEADERS)
    options["headers"].update(kwargs.pop("_headers", None) or {})
    adding = {"transactional": kwargs.pop("_transactional", False)}
    if "_client" in kwargs:
        adding["_client"] = kwargs.pop("_client")
    queue = kwargs.pop("_queue", _DEFAULT_QUEUE)

    problem = (_misfit or _loaded("_misfit"))(obj, args, kwargs)
    if problem:
        _warn(problem)
    payload = serialize(obj, *args, **kwargs)
    queues = _taskqueue()
    try:
        task: taskqueue.Task = queues.Task(payload=payload, **options).add(queue, **adding)
        return task
    except queues.TaskTooLargeError:
        from google.appengine.ext.deferred import _oversize

        return _oversize.add(payload, queue, options, adding)


def _taskqueue() -> Any:
    # Workers that only run tasks never need it; old code may have put another in its place.
    if "taskqueue" not in globals():
        from google.appengine.api import taskqueue

        globals()["taskqueue"] = taskqueue
    return globals()["taskqueue"]


def _warn(problem: str) -> None:
    import warnings

    from appengine_compat.errors import DeferWarning

    warnings.warn(problem, DeferWarning, stacklevel=3)


class Handler:
    """Runs the task that a request carries.

    Subclasses may override ``post`` or ``run_from_request``; an instance is a WSGI application.
    """

    def run_from_request(self, environ: WSGIEnvironment) -> _Answer | None:
        """Check who calls, then run the payload.

        Args:
            environ: the WSGI environment.

        Returns:
            Body, status and headers of the answer; an override may return None for success.

        Raises:
            PermanentTaskFailure: the payload cannot be read, or the task gave up.
            Exception: whatever the task raises.
        """
        refused = _refusal(environ)
        if refused is not None:
            return refused
        if logging.root.isEnabledFor(_DEFAULT_LOG_LEVEL):
            _log_task_headers(environ)
        try:
            payload = (_read_body or _loaded("_read_body"))(environ)
        except ValueError as error:
            from appengine_compat.handler.request_body import BodyError

            if not isinstance(error, BodyError):
                raise
            logging.error("%s", error)
            return (str(error), http.HTTPStatus(error.status), [_TASKQUEUE_RESPONSE_HEADERS])
        environ["appengine_compat.payload"] = payload
        run(payload)
        return ("Success", http.HTTPStatus.OK, [_TASKQUEUE_RESPONSE_HEADERS])

    def post(self, environ: WSGIEnvironment) -> _Answer:
        """Answer a POST request that carries a task.

        Args:
            environ: the WSGI environment.

        Returns:
            Body, ``http.HTTPStatus`` and headers, in the order that Flask takes from a view:
            200 "Success"; 408 when the task asks to be tried again quietly; 200 when it failed
            for good, and is kept; 401 or 403 when the caller is not believed; 411 or 400 when
            the body cannot be read whole.

        Raises:
            Exception: whatever else the task raises; the server makes it a 500, and the queue
                tries again.

        Differs from App Engine: callers are verified, not merely looked at; requests without
        ``SERVER_SOFTWARE`` or a body's length are served, where App Engine's raised or dropped
        the task.
        """
        refused = _refusal(environ)
        if refused is not None:
            return refused
        # Nobody looks at tasks that run before this module was loaded by who does.
        running = sys.modules.get("appengine_compat.handler.running")
        if running is not None and running.KEY not in environ and running.is_watched():
            answer = running.around(environ, self._answer)
            return answer  # type: ignore[no-any-return]
        return self._answer(environ)

    def _answer(self, environ: WSGIEnvironment) -> _Answer:
        try:
            answer = self.run_from_request(environ)
        except SingularTaskFailure:
            logging.debug("Failure executing task, task retry forced")
            return (
                "SingularTaskFailure",
                http.HTTPStatus.REQUEST_TIMEOUT,
                [_TASKQUEUE_RESPONSE_HEADERS],
            )
        except PermanentTaskFailure as error:
            logging.exception("Permanent failure attempting to execute task")
            _keep(environ, error)
            return (
                "PermanentTaskFailure",
                http.HTTPStatus.OK,
                [_TASKQUEUE_RESPONSE_HEADERS],
            )
        if answer is None:
            return ("Success", http.HTTPStatus.OK, [_TASKQUEUE_RESPONSE_HEADERS])
        return answer

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve any path: POST runs a task, other methods are refused with 405."""
        if environ.get("REQUEST_METHOD") == "POST":
            text, status, headers = self.post(environ)
        else:
            text, status, headers = (
                "Tasks are sent by POST",
                http.HTTPStatus.METHOD_NOT_ALLOWED,
                [_TASKQUEUE_RESPONSE_HEADERS, ("Allow", "POST")],
            )
        status = http.HTTPStatus(status)
        start_response(f"{status.value} {status.phrase}", list(headers))
        return [text.encode("utf-8")]


application = Handler()


def _refusal(environ: WSGIEnvironment) -> _Answer | None:
    # Before anything of the body is read: whoever is not believed must not reach pickle.
    verdict = (_verdict or _loaded("_verdict"))(environ)
    if verdict.trusted:
        return None
    text = verdict.text
    if verdict.reason.startswith("Detected an attempted XSRF attack."):
        # Under a test stub, App Engine's own rule and its own words hold.
        text = verdict.reason
        logging.error("%s", text)
    return (text, http.HTTPStatus(verdict.status), [_TASKQUEUE_RESPONSE_HEADERS])


def _log_task_headers(environ: WSGIEnvironment) -> None:
    # A route outside wrap_wsgi_app has the headers as the task service sent them.
    from appengine_compat.handler import view

    view.prepare(environ)
    shown = [
        f"{key[5:]}:{value}"
        for key, value in environ.items()
        if key.startswith("HTTP_X_APPENGINE_")
    ]
    logging.log(_DEFAULT_LOG_LEVEL, "%s", ", ".join(shown))


def _keep(environ: WSGIEnvironment, error: PermanentTaskFailure) -> None:
    from appengine_compat.handler import kept

    kept.keep(environ, error)


def main() -> None:
    """Serve one request as a CGI script, as Python 2.5's runtime did."""
    from wsgiref.handlers import CGIHandler

    CGIHandler().run(application)


def __getattr__(name: str) -> Any:
    if name == "taskqueue":
        return _taskqueue()
    if name == "db":
        from google.appengine.ext.deferred import _oversize

        return _oversize.require_db(f"{__name__}.{name}")
    if name == "_DeferredTaskEntity":
        from google.appengine.ext.deferred import _oversize

        return _oversize.entity_class()
    if name == "TaskHandler":
        from google.appengine.ext.deferred._task_handler import TaskHandler

        return TaskHandler
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
