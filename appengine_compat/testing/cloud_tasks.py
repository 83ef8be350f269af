"""A local Cloud Tasks for the length of a test: real gRPC and REST, tasks really delivered."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from google.cloud import tasks_v2

    from appengine_compat.core.model import Queue
    from appengine_compat.local.control import Control
    from appengine_compat.local.doors import Doors
    from appengine_compat.local.service import LocalService

PROJECT = "test-project"
LOCATION = "us-central1"
_THREADS = 8
_MOST_SLOW = 100
_CLOSING_SECONDS = 5.0


@dataclass(frozen=True)
class LocalCloudTasks:
    """A local Cloud Tasks that runs, with what a test needs to know and do.

    Attributes:
        project: the project of ``parent``.
        location: the location of ``parent``.
        grpc_address: ``host:port`` for gRPC without TLS.
        rest_url: the address for REST, without a slash at the end.
        page_url: the address of the page of queues and tasks.
    """

    project: str
    location: str
    grpc_address: str
    rest_url: str
    page_url: str
    _control: Control

    @property
    def parent(self) -> str:
        """The resource name of the location: ``projects/P/locations/L``."""
        return f"projects/{self.project}/locations/{self.location}"

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables that lead this package's own backend here.

        With them its handlers believe the identity tokens of this server, as they would Google's.

        A test sets them with ``monkeypatch.setenv``, or hands them to the process it starts.
        """
        return {
            "CLOUD_TASKS_EMULATOR_HOST": self.grpc_address,
            "APPENGINE_COMPAT_PROJECT": self.project,
            "APPENGINE_COMPAT_LOCATION": self.location,
            "APPENGINE_COMPAT_OIDC_ISSUER": self.rest_url,
        }

    @property
    def service(self) -> LocalService:
        """The service itself, for what a test wants to know without a client."""
        return self._control.service

    def queue_path(self, queue: str) -> str:
        """Return the resource name of a queue by its id."""
        return f"{self.parent}/queues/{queue}"

    def client(self) -> tasks_v2.CloudTasksClient:
        """Return a client of Google's library that talks to this server over gRPC.

        Leave it with ``with``, or call its ``transport.close()`` at the end.
        """
        import grpc
        from google.cloud import tasks_v2
        from google.cloud.tasks_v2.services.cloud_tasks.transports import CloudTasksGrpcTransport

        channel: Any = grpc.insecure_channel(self.grpc_address)
        return tasks_v2.CloudTasksClient(transport=CloudTasksGrpcTransport(channel=channel))

    def wait_idle(self, timeout_seconds: float = 10.0) -> None:
        """Wait until no task is due or running.

        Tasks scheduled for later do not count, and so neither do those that wait to be tried
        again; nor do those of queues that are paused.

        Raises:
            TimeoutError: some still were.
        """
        if not self.service.wait_idle(timeout_seconds):
            raise TimeoutError(
                f"Tasks were still due or running after {timeout_seconds:g} seconds: "
                f"{self._control.busy()}."
            )

    def advance(self, seconds: float) -> None:
        """Step the clock forward; what becomes due by that is dispatched.

        Raises:
            ValueError: it was not started with ``stepped_clock=True``, or the seconds are
                negative.
        """
        self._control.advance(seconds)

    def reset(self) -> None:
        """Remove every queue and task, but make the queues anew that it was started with."""
        self._control.reset()

    def export_state(self, path: str | os.PathLike[str]) -> None:
        """Write queues and tasks into a new file.

        Raises:
            StoreError: it cannot be written, or is there already.
        """
        self._control.export(Path(path))

    def import_state(self, path: str | os.PathLike[str]) -> None:
        """Put what ``export_state`` has written in the place of all that is there.

        Raises:
            StoreError: the file is none of these; nothing was changed.
        """
        self._control.replace(Path(path))


@contextlib.contextmanager
def local_cloud_tasks(
    *,
    queues: Sequence[str] = ("default",),
    queue_yaml: str | os.PathLike[str] | None = None,
    project: str = PROJECT,
    location: str = LOCATION,
    services: Mapping[str, str] | None = None,
    app_engine_target: str | None = None,
    stepped_clock: bool = False,
    db: str | os.PathLike[str] | None = None,
    threads: int = _THREADS,
) -> Iterator[LocalCloudTasks]:
    """Run a local Cloud Tasks in threads of this process, on free ports of the loopback.

    It needs waitress: ``pip install 'appengine-compat[dev]'``.

    Args:
        queues: ids, or resource names, of the queues that there are at the start and after
            a reset.
        queue_yaml: a file whose queues there are too.
        project: the project of queues that are named by id alone.
        location: their location.
        services: addresses of App Engine services that take tasks, by service or
            version.service.
        app_engine_target: the address for the App Engine tasks of all other services.
        stepped_clock: whether time stands still but for ``advance``. It begins at the next whole
            second, so that steps of whole seconds arrive exactly where tasks are due.
        db: a file that keeps queues and tasks; None for memory.
        threads: how many tasks run at once; those whose target keeps them waiting do not count.

    Yields:
        The server, which takes calls.

    Raises:
        ConfigError: waitress is not installed, or the queue.yaml cannot be used.
        StoreError: the database cannot be used.
    """
    import math
    import time

    from appengine_compat.local.clock import ManualClock, SystemClock
    from appengine_compat.local.control import Control
    from appengine_compat.local.doors import ANY_PORT, Ports, open_doors
    from appengine_compat.local.http_transport import HttpTransport
    from appengine_compat.local.identity import Identity
    from appengine_compat.local.service import LocalService
    from appengine_compat.local.service_addresses import ServiceAddresses
    from appengine_compat.local.store import Store

    parent = f"projects/{project}/locations/{location}"
    addresses = ServiceAddresses(services, app_engine_target)
    at_start = _queues(parent, queues, queue_yaml)
    clock = ManualClock(math.ceil(time.time())) if stepped_clock else SystemClock()
    service = LocalService(Store(db), clock=clock)
    doors: Doors | None = None
    transport: HttpTransport | None = None
    try:
        service.put_queues(at_start)
        control = Control(service, clock, at_start)
        identity = Identity(service.store)
        transport = HttpTransport(addresses, identity)
        doors = open_doors(
            control,
            host="127.0.0.1",
            ports=Ports(ANY_PORT, ANY_PORT, ANY_PORT),
            location=location,
            identity=identity,
        )
        service.start(transport, threads=threads, most_slow=_MOST_SLOW)
        yield LocalCloudTasks(
            project, location, doors.grpc_address, doors.rest_url, doors.page_url, control
        )
    finally:
        if doors is not None:
            doors.stop(0.2)
        service.close(_CLOSING_SECONDS)
        if transport is not None:
            transport.close()


def _queues(
    parent: str, queues: Sequence[str], queue_yaml: str | os.PathLike[str] | None
) -> list[Queue]:
    from appengine_compat.core import names, validation
    from appengine_compat.core.model import Queue

    found: dict[str, Queue] = {}
    for each in queues:
        name = each if "/" in each else f"{parent}/queues/{each}"
        names.parse_queue_name(name)
        found[name] = validation.canonical_queue(Queue(name=name))
    if queue_yaml is not None:
        from appengine_compat.queues import queue_yaml as reader

        found |= {queue.name: queue for queue in reader.load(os.fspath(queue_yaml), parent)}
    return list(found.values())
