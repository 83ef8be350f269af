"""``google.appengine.api.apiproxy_stub_map``: the RPC objects, and where tests register stubs.

Beside Google's SDK its own module of this name is used.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from concurrent import futures
from typing import Any

from google.appengine.api.taskqueue import _rpc


class APIProxyStubMap:
    """Which stub answers for which service.

    A task queue stub that is registered takes the program's tasks.
    """

    def __init__(self, default_stub: Any = None) -> None:
        self._stubs: dict[str, Any] = {}
        self._default = default_stub

    def SetDefaultStub(self, stub: Any) -> None:
        """Let a stub answer for services that have none."""
        self._default = stub

    def RegisterStub(self, service: str, stub: Any) -> None:
        """Let a stub answer for a service.

        Raises:
            AssertionError: the service has one.
        """
        if service in self._stubs:
            raise AssertionError(repr(service))
        self._stubs[service] = stub

    def ReplaceStub(self, service: str, stub: Any) -> None:
        """Let a stub answer for a service, instead of the one it has."""
        self._stubs[service] = stub

    def GetStub(self, service: str) -> Any:
        """Return the stub of a service, else the default one, else None."""
        return self._stubs.get(service, self._default)

    def MakeSyncCall(self, service: str, call: str, request: Any, response: Any) -> Any:
        """Call a stub directly.

        Raises:
            AssertionError: the service has none.
        """
        stub = self.GetStub(service)
        if stub is None:
            raise AssertionError(_no_proxy(service))
        return stub.MakeSyncCall(service, call, request, response)


def GetDefaultAPIProxy() -> APIProxyStubMap:
    """Return a map as a program starts with: empty."""
    return APIProxyStubMap()


apiproxy = GetDefaultAPIProxy()


def MakeSyncCall(service: str, call: str, request: Any, response: Any) -> Any:
    """Call a stub of the program's map directly."""
    return apiproxy.MakeSyncCall(service, call, request, response)


def CreateRPC(service: str, stubmap: APIProxyStubMap | None = None) -> Any:
    """Return the lower half of an RPC object for a service.

    Raises:
        AssertionError: there is no such service here.
    """
    stub = (apiproxy if stubmap is None else stubmap).GetStub(service)
    if hasattr(stub, "CreateRPC"):
        return stub.CreateRPC()
    if service == _rpc.SERVICE:
        return _rpc.Call()
    raise AssertionError(_no_proxy(service))


def _no_proxy(service: str) -> str:
    return (
        f'No api proxy found for service "{service}". appengine-compat serves the task queue '
        "only; install Google's appengine-python-standard beside it for the others."
    )


class UserRPC:
    """A call in flight."""

    def __init__(
        self,
        service: str,
        deadline: float | None = None,
        callback: Callable[[], None] | None = None,
        stubmap: APIProxyStubMap | None = None,
    ) -> None:
        """Make an idle RPC object.

        Args:
            service: ``taskqueue``.
            deadline: seconds for the call, or None for the backend's own.
            callback: called without arguments, once, in the thread that waits first, whether the
                call succeeds or fails. May be assigned later.
            stubmap: where the service's stub is registered; the program's map by default.
        """
        self.callback = callback
        self._service = service
        self._method: str | None = None
        self._get_result_hook: Callable[[UserRPC], Any] | None = None
        self._user_data: Any = None
        self._must_call_back = False
        self._call = CreateRPC(service, stubmap)
        self._call.deadline = deadline
        self._call.callback = self._finished

    def _finished(self) -> None:
        self._must_call_back = True

    @property
    def service(self) -> str:
        """The service's name."""
        return self._service

    @property
    def method(self) -> str | None:
        """The method's name, such as ``BulkAdd``; None before the call."""
        return self._method

    @property
    def deadline(self) -> float | None:
        """Seconds for the call, if a number was given."""
        deadline: float | None = self._call.deadline
        return deadline

    @property
    def request(self) -> Any:
        """What was asked for, as the service knows it."""
        return self._call.request

    @property
    def response(self) -> Any:
        """What the service answered, or None."""
        return self._call.response

    @property
    def state(self) -> int:
        """0 before the call, 1 while it runs, 2 when it has run."""
        state: int = self._call.state
        return state

    @property
    def get_result_hook(self) -> Callable[[UserRPC], Any] | None:
        """The function that makes the result."""
        return self._get_result_hook

    @property
    def user_data(self) -> Any:
        """What that function was given."""
        return self._user_data

    @property
    def future(self) -> futures.Future[None] | None:
        """The call's future, if it runs in a thread."""
        future: futures.Future[None] | None = self._call.future
        return future

    def make_call(
        self,
        method: str,
        request: Any,
        response: Any,
        get_result_hook: Callable[[UserRPC], Any] | None = None,
        user_data: Any = None,
    ) -> None:
        """Start the call; once for each object.

        Raises:
            AssertionError: it was started before.
        """
        if self.state != _rpc.IDLE:
            raise AssertionError(repr(self.state))
        self._method = method
        self._get_result_hook = get_result_hook
        self._user_data = user_data
        self._call.MakeCall(self._service, method, request, response)

    def wait(self) -> None:
        """Return when the call has run; the first time, call the callback.

        Raises:
            AssertionError: the call was not started.
        """
        if self.state == _rpc.IDLE:
            raise AssertionError(repr(self.state))
        self._call.Wait()
        self._call_back()

    def _call_back(self) -> None:
        if self._must_call_back:
            self._must_call_back = False
            if self.callback is not None:
                self.callback()

    def check_success(self) -> None:
        """Wait, and raise what the call as a whole failed with; verdicts on tasks are results."""
        self.wait()
        self._call.CheckSuccess()

    def get_result(self) -> Any:
        """Wait, and return the result or raise why there is none; may be called again."""
        if self._get_result_hook is None:
            self.check_success()
            return None
        return self._get_result_hook(self)

    @classmethod
    def wait_any(cls, rpcs: Collection[UserRPC]) -> UserRPC | None:
        """Wait until one of the calls has run, and return it; None if there are none.

        Raises:
            AssertionError: an iterator is given, or a call was not started.
        """
        if isinstance(rpcs, Iterator):
            raise AssertionError("rpcs must be a collection, not an iterator")
        running = []
        for rpc in rpcs:
            if rpc.state == _rpc.IDLE:
                raise AssertionError(repr(rpc))
            if rpc.state == _rpc.FINISHING:
                rpc._call_back()
                return rpc
            running.append(rpc)
        if not running:
            return None
        in_threads = {rpc.future: rpc for rpc in running if rpc.future is not None}
        if in_threads:
            done, _ = futures.wait(in_threads, return_when=futures.FIRST_COMPLETED)
            first = in_threads[next(iter(done))]
        else:
            first = running[0]
        first.wait()
        return first

    @classmethod
    def wait_all(cls, rpcs: Collection[UserRPC]) -> None:
        """Wait until all of the calls have run."""
        remaining = set(rpcs)
        while remaining:
            finished = cls.wait_any(remaining)
            if finished is not None:
                remaining.remove(finished)
