"""``taskqueue_stub``: the task queue of tests, with the methods that App Engine's stub had.

Tasks are kept in memory and looked at; the stub runs none of them, and nothing ever reaches a
network. What is kept, and by which rules, is ``appengine_compat.backends.stub``.
"""

from __future__ import annotations

import base64
import datetime
import logging
import os
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from appengine_compat.backends import choice
from appengine_compat.backends.stub import StubBackend
from appengine_compat.backends.stub_queues import StubQueue, StubTask
from appengine_compat.queues import queue_info, queue_yaml

if TYPE_CHECKING:
    from appengine_compat.queues.queue_yaml import QueueFile

    _SdkStub = object
else:
    try:
        # The testbed of Google's SDK puts a stub into its map only if it is one of these.
        from google.appengine.api.apiproxy_stub import APIProxyStub as _SdkStub
    except ImportError:
        _SdkStub = object

_log = logging.getLogger(__name__)

_TIME_FORMAT = "%Y/%m/%d %H:%M:%S"
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)


class TaskQueueServiceStub(StubBackend, _SdkStub):
    """The task queue of a test: a backend, and the methods by which tests look into it.

    Differs from App Engine's: tasks may be as large as Cloud Tasks takes them, refusals say what
    is wrong, a queue.yaml that could not be deployed is refused with line and column, and there
    is no thread that runs tasks: the ``tasks`` fixture of the pytest plugin does that.
    """

    THREADSAFE = True
    _active_count = 0

    def __init__(
        self,
        service_name: str = "taskqueue",
        root_path: str | os.PathLike[str] | None = None,
        queue_config_path: str | os.PathLike[str] | None = None,
        auto_task_running: bool = False,
        task_retry_seconds: float = 30,  # noqa: ARG002 - App Engine's signature
        _all_queues_valid: bool = False,
        default_http_server: str = "localhost",
        _testing_validate_state: bool = False,
        request_data: Any = None,
        gettime: Callable[[], float] = time.time,
    ) -> None:
        """Make a stub without tasks; the testbed makes it active.

        Args:
            service_name: App Engine's name of the service.
            root_path: the folder of the queue.yaml (or queue.yml), which is read again when it
                changes. Without one there is the queue ``default``.
            queue_config_path: the queue.yaml itself; wins over ``root_path``.
            auto_task_running: accepted, with a warning when it is asked for: nothing runs tasks.
            task_retry_seconds: accepted, and of no effect.
            _all_queues_valid: whether queues that are not known are made on first use.
            default_http_server: the domain of the Host header that tasks without one get.
            _testing_validate_state: accepted, and of no effect.
            request_data: of Google's SDK; kept.
            gettime: returns seconds since the epoch.
        """
        self._service_name = service_name
        self._root_path = root_path
        self._queue_config_path = queue_config_path
        self._auto_task_running = auto_task_running
        self._default_http_server = default_http_server
        self._testing_validate_state = _testing_validate_state
        self.request_data = request_data
        self.gettime = gettime
        super().__init__(
            queue_config=self._configuration,
            all_queues_valid=_all_queues_valid,
            now=lambda: self.gettime(),
        )
        if _SdkStub is not object:
            from appengine_compat.handler import door

            # The SDK's testbed calls nothing of a stub when it begins and ends.
            door.trust_tests_while(_is_registered)

    def activate(self) -> None:
        """Take the program's tasks, and let its handlers believe those that a test brings them.

        The testbed and the fixtures call this; ``deactivate`` ends it.
        """
        from appengine_compat.handler import door

        choice.activate(self)
        TaskQueueServiceStub._active_count += 1
        door.trust_tests(True)

    def deactivate(self) -> None:
        """Stop to take tasks; handlers are closed again once no stub is active.

        Raises:
            ValueError: it is not active.
        """
        from appengine_compat.handler import door

        choice.deactivate(self)
        TaskQueueServiceStub._active_count -= 1
        if not TaskQueueServiceStub._active_count:
            door.trust_tests(False)

    def _configuration(self) -> str | os.PathLike[str] | QueueFile | None:
        # An attribute that old tests set, instead of writing a queue.yaml.
        parser = getattr(self, "queue_yaml_parser", None)
        if parser is not None:
            return queue_info.queue_file(parser(self._root_path), "what queue_yaml_parser returned")
        if self._queue_config_path is not None:
            return self._queue_config_path
        return None if self._root_path is None else queue_yaml.find(self._root_path)

    # --- what tests look at -----------------------------------------------------------------

    def GetQueues(self) -> list[dict[str, Any]]:
        """Return the queues, ordered by name.

        Returns:
            Dicts with ``name``, ``bucket_size``, ``max_rate`` (text), ``mode``, ``acl``,
            ``oldest_task`` and ``eta_delta`` ("" without tasks), ``tasks_in_queue``, and
            ``retry_parameters`` where some are set.

        Raises:
            QueueYamlError: the queue.yaml is wrong.
        """
        now = self.gettime()
        return [_queue_dict(queue, now) for queue in self.queues()]

    def GetTasks(self, queue_name: str) -> list[dict[str, Any]]:
        """Return the tasks of a queue, ordered by ETA and name.

        Args:
            queue_name: the queue.

        Returns:
            Dicts with ``name``, ``queue_name``, ``url``, ``method``, ``eta`` (UTC text),
            ``eta_usec``, ``eta_delta``, ``body`` (base64 as bytes), ``creation_time_usec``,
            ``headers`` (a list of pairs), and ``dispatch_deadline_usec`` where it is set. As on
            App Engine, ``Content-Length`` is the length of the base64 text.

        Raises:
            KeyError: there is no such queue.
        """
        now = self.gettime()
        return [self._task_dict(task, now) for task in self.queue(queue_name).ordered_tasks()]

    def get_filtered_tasks(
        self,
        url: str | None = None,
        name: str | None = None,
        queue_names: str | Iterable[str] | None = None,
    ) -> list[Any]:
        """Return tasks as ``taskqueue.Task`` objects, by queue, then ETA and name.

        Args:
            url: only tasks of this URL, query included.
            name: only tasks of this name.
            queue_names: a queue or several, whose order is kept; names that do not exist match
                nothing. None means every queue, by name.

        Returns:
            New ``Task`` objects with name, URL, method, headers (the queue's own included),
            payload as bytes, and the ETA in whole seconds. They belong to no queue
            (``queue_name`` is None), as on App Engine.
        """
        from google.appengine.api.taskqueue import taskqueue

        queues = {queue.name: queue for queue in self.queues()}
        if queue_names is None:
            queue_names = queues
        elif isinstance(queue_names, str):
            queue_names = [queue_names]
        return [
            self._rebuilt(task, taskqueue.Task)
            for queue_name in queue_names
            if queue_name in queues
            for task in queues[queue_name].ordered_tasks()
            if (url is None or task.request.relative_url == url)
            and (name is None or task.id == name)
        ]

    def FlushQueue(self, queue_name: str) -> None:
        """Remove all tasks of a queue, and free the names that were reserved there."""
        self.flush(queue_name)

    def DeleteTask(self, queue_name: str, task_name: str) -> None:
        """Remove a task without reserving its name; nothing happens if it is not there."""
        self.remove(queue_name, task_name)

    def Clear(self) -> None:
        """Drop all tasks, names and queues; automatic names begin at ``task1`` again."""
        self.clear()

    # --- what ran tasks in the background -----------------------------------------------------

    def EnableAutoTaskRunning(self) -> None:
        """Ask for tasks to be run in the background: there is nothing here that would."""
        self._auto_task_running = True

    def StartBackgroundExecution(self) -> None:
        """Do nothing, and say so if tasks were asked to run.

        Under App Engine's testbed each attempt was answered 501 by a placeholder, so that no
        task ever ran either.
        """
        if self._auto_task_running:
            _log.warning(
                "The taskqueue stub runs no tasks in the background. Run them with the fixture "
                "'tasks' of appengine-compat's pytest plugin, or deferred.run(task.payload)."
            )

    def Shutdown(self) -> None:
        """Do nothing: there is no thread to end."""

    # --- what Google's SDK asks of a stub -----------------------------------------------------

    def MakeSyncCall(
        self,
        service: str,
        call: str,
        request: Any,
        response: Any,
        request_id: str | None = None,
    ) -> None:
        """Refuse a call of the SDK's protocol: our taskqueue does not speak it.

        Raises:
            NotImplementedError: always, naming the call.
        """
        raise NotImplementedError(
            f"{service}.{call} was called through apiproxy_stub_map, which appengine-compat's "
            "taskqueue stub does not serve. Call google.appengine.api.taskqueue instead; if this "
            "comes from the SDK's own taskqueue, call appengine_compat.install() first."
        )

    # --- dicts and tasks ----------------------------------------------------------------------

    def _task_dict(self, task: StubTask, now: float) -> dict[str, Any]:
        request = task.request
        body = base64.b64encode(request.payload)
        made: dict[str, Any] = {
            "name": task.id,
            "queue_name": task.queue,
            "url": request.relative_url,
            "method": request.method,
            "eta": _eta(task).strftime(_TIME_FORMAT),
            "eta_usec": task.eta_microseconds,
            "eta_delta": _delta(task.eta_microseconds, now),
            "body": body,
            "creation_time_usec": int(task.created_at) * 1_000_000,
            "headers": self._headers(task, len(body)),
        }
        if request.dispatch_deadline_seconds:
            made["dispatch_deadline_usec"] = round(request.dispatch_deadline_seconds * 1e6)
        return made

    def _headers(self, task: StubTask, content_length: int) -> list[tuple[str, str]]:
        headers = list(task.request.headers)
        given = {name.lower() for name, _ in headers}
        if "host" not in given:
            service = os.environ.get("CURRENT_MODULE_ID") or "default"
            headers.append(("host", f"{service}.{self._default_http_server}"))
        headers += [
            ("X-AppEngine-QueueName", task.queue),
            ("X-AppEngine-TaskName", task.id),
            ("X-AppEngine-TaskRetryCount", str(task.retries)),
            ("X-AppEngine-TaskETA", repr(task.eta_microseconds / 1e6)),
            ("X-AppEngine-Development-Payload", "1"),
            ("Content-Length", str(content_length)),
        ]
        if "content-type" not in given:
            headers.append(("Content-Type", "application/octet-stream"))
        headers.append(("X-AppEngine-TaskExecutionCount", str(task.executions)))
        if task.previous_response is not None:
            headers.append(("X-AppEngine-TaskPreviousResponse", str(task.previous_response)))
        return headers

    def _rebuilt(self, task: StubTask, task_class: Callable[..., Any]) -> Any:
        request = task.request
        return task_class(
            payload=request.payload,
            name=task.id,
            url=request.relative_url,
            method=request.method,
            headers=dict(self._headers(task, len(request.payload))),
            eta=_eta(task).replace(microsecond=0),
            # The queue's headers are no part of what the limit on tasks is about.
            _size_check=False,
            # What deferred allows itself.
            _query_check=False,
        )


def _is_registered() -> bool:
    """Whether a stub of ours is in the map of Google's SDK."""
    from google.appengine.api import apiproxy_stub_map

    return isinstance(apiproxy_stub_map.apiproxy.GetStub("taskqueue"), TaskQueueServiceStub)


def _queue_dict(queue: StubQueue, now: float) -> dict[str, Any]:
    entry = queue.entry
    retry = entry.retry_parameters
    waiting = [task.eta_microseconds for task in queue.tasks.values()]
    made: dict[str, Any] = {
        "name": entry.name,
        "bucket_size": 5 if entry.bucket_size is None else entry.bucket_size,
        "max_rate": entry.rate_text,
        "mode": entry.mode or "push",
        "acl": "\n".join(f'{who}: "{address}"' for who, address in entry.acl) or None,
        "oldest_task": _moment(min(waiting)).strftime(_TIME_FORMAT) if waiting else "",
        "eta_delta": _delta(min(waiting), now) if waiting else "",
        "tasks_in_queue": len(waiting),
    }
    retry_parameters = {
        "retry_limit": retry.task_retry_limit,
        "age_limit_sec": retry.task_age_limit_seconds,
        "min_backoff_sec": retry.min_backoff_seconds,
        "max_backoff_sec": retry.max_backoff_seconds,
        "max_doublings": retry.max_doublings,
    }
    given = {name: value for name, value in retry_parameters.items() if value is not None}
    if given:
        made["retry_parameters"] = given
    return made


def _eta(task: StubTask) -> datetime.datetime:
    return _moment(task.eta_microseconds)


def _moment(microseconds: int) -> datetime.datetime:
    return _EPOCH + datetime.timedelta(microseconds=microseconds)


def _delta(eta_microseconds: int, now: float) -> str:
    """How far a moment is from now, such as "0:01:39 from now", in whole seconds."""
    ahead = eta_microseconds / 1e6 - now
    side = "from now" if ahead > 0 else "ago"
    return f"{datetime.timedelta(seconds=int(abs(ahead)))} {side}"
