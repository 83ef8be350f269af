"""RPC objects: an operation in flight, in the shape that old code and ndb's event loop know.

``apiproxy_stub_map.UserRPC`` is the object that callers hold, ours or, beside Google's SDK, its
own: ndb accepts no other. Both drive the ``Call`` below, which does the work.
"""

from __future__ import annotations

import contextvars
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from google.appengine.api.taskqueue._sending import Operation

if TYPE_CHECKING:
    from concurrent import futures

IDLE, RUNNING, FINISHING = range(3)
SERVICE = "taskqueue"

_MAX_THREADS = 100  # as many calls in flight as App Engine's runtime allowed
_pool: tuple[int, futures.ThreadPoolExecutor] | None = None
_pool_lock = threading.Lock()


class Call:
    """The lower half of an RPC object: starts an operation, and holds what became of it.

    Its method names are those that ``UserRPC`` calls.
    """

    def __init__(self, *, waits: bool = False) -> None:
        self.deadline: float | None = None
        self.callback: Callable[[], None] | None = None
        self.request: Operation | None = None
        self.response: Any = None
        self.future: futures.Future[None] | None = None
        self.state = IDLE
        self.package = self.call = ""
        self._waits = waits
        self._exception: BaseException | None = None

    @property
    def exception(self) -> BaseException | None:
        """Why the call as a whole failed, or None."""
        return self._exception

    def MakeCall(
        self, package: str, call: str, request: Operation, response: Any, **_: Any
    ) -> None:
        """Start the operation; in a thread, unless it is to wait until somebody waits for it."""
        if self.state != IDLE:
            raise AssertionError(f"The RPC for {package}.{call} was already started")
        self.package, self.call, self.request, self.response = package, call, request, response
        self.state = RUNNING
        if not (self._waits or request.is_lazy):
            # The namespace and the service of the caller hold for the call.
            self.future = _threads().submit(contextvars.copy_context().run, self._run)

    def Wait(self) -> None:
        """Return when the operation has run."""
        if self.future is not None:
            self.future.result()
        elif self.state == RUNNING:
            self._run()

    def CheckSuccess(self) -> None:
        """Raise what the call as a whole failed with, if it did."""
        if self._exception is not None:
            raise self._exception

    def _run(self) -> None:
        assert self.request is not None
        try:
            self.response = self.request.run(self.deadline)
        except Exception as error:
            self._exception = error
        finally:
            self.state = FINISHING
        if self.callback is not None:
            self.callback()


class _Service:
    """What stands for the task queue in a stub map: the maker of its calls."""

    def __init__(self, *, waits: bool) -> None:
        self._waits = waits

    def CreateRPC(self) -> Call:
        return Call(waits=self._waits)


def create(
    deadline: float | None, callback: Callable[[], None] | None, *, waits: bool = False
) -> Any:
    """Return an idle ``UserRPC`` for the task queue.

    Args:
        deadline: seconds for the call, or None for the backend's own.
        callback: called without arguments, once, in the thread that waits first.
        waits: whether the call runs only when waited for, in that thread.
    """
    from google.appengine.api import apiproxy_stub_map

    stub_map = apiproxy_stub_map.APIProxyStubMap()
    stub_map.RegisterStub(SERVICE, _Service(waits=waits))
    return apiproxy_stub_map.UserRPC(SERVICE, deadline, callback, stub_map)


def start(rpc: Any, operation: Operation) -> Any:
    """Start an operation on an idle RPC object, and return the object.

    Raises:
        AssertionError: it is for another service, or was used before.
    """
    if rpc.service != SERVICE:
        raise AssertionError(repr(rpc.service))
    rpc.make_call(operation.method, operation, None, _result, operation)
    return rpc


def _result(rpc: Any) -> Any:
    rpc.check_success()
    return rpc.user_data.finish(rpc.response)


def run(operation: Operation, deadline: float | None = None) -> Any:
    """Run an operation here and now, and return its result."""
    return operation.finish(operation.run(deadline))


def _threads() -> futures.ThreadPoolExecutor:
    # Most programs never start a call in a thread, and need not pay for the import.
    from concurrent import futures

    global _pool
    process = os.getpid()
    with _pool_lock:
        # The threads of a parent do not exist in a forked child.
        if _pool is None or _pool[0] != process:
            _pool = process, futures.ThreadPoolExecutor(_MAX_THREADS, "appengine-compat-rpc")
        return _pool[1]


def _after_fork_in_child() -> None:
    global _pool_lock
    _pool_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
