"""A ``TaskRequest`` as Cloud Tasks' own message."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from google.cloud import tasks_v2

from appengine_compat import settings
from appengine_compat.backends import targets
from appengine_compat.backends.base import BackendError, Reason, TaskRequest
from appengine_compat.core import headers, limits
from appengine_compat.core.model import HTTP_METHODS, AppEngineRouting, RetryOverrides
from appengine_compat.payload import signing

CreateTaskRequest = tasks_v2.CreateTaskRequest.pb()
BatchCreateTasksRequest = tasks_v2.BatchCreateTasksRequest.pb()
BatchCreateTasksResponse = tasks_v2.BatchCreateTasksResponse.pb()
BatchCreateTasksMetadata = tasks_v2.BatchCreateTasksMetadata.pb()
BatchDeleteTasksRequest = tasks_v2.BatchDeleteTasksRequest.pb()
BatchDeleteTasksMetadata = tasks_v2.BatchDeleteTasksMetadata.pb()
PurgeQueueRequest = tasks_v2.PurgeQueueRequest.pb()

_METHODS: dict[str, int] = {name: getattr(tasks_v2.HttpMethod, name).value for name in HTTP_METHODS}

_MOST_KEPT = 1000
"""Programs name few targets; one that makes them up must not fill the memory."""


class Addressing:
    """Where tasks are delivered and as whom, as the settings say when it is made."""

    def __init__(
        self, *, on_app_engine: bool, emulated: bool, version: str, is_google: bool = False
    ) -> None:
        """Read the settings.

        Args:
            on_app_engine: services without an entry in the table are on App Engine.
            emulated: the endpoint is an emulator's: it needs no token.
            is_google: the endpoint is known to be Google's, which reaches public addresses only.
            version: the version that enqueues, where the platform tells.
        """
        table = settings.TARGETS.get()
        self._table = {targets.EVERY_SERVICE: targets.APP_ENGINE} | dict(table)
        if not on_app_engine:
            self._table = dict(table)
        accounts = settings.SERVICE_ACCOUNT.get()
        self.service_account = accounts[0] if accounts else ""
        self._audience = settings.AUDIENCE.get() or ""
        self._emulated = emulated
        self._is_google = is_google
        # A service on this machine that issues tokens puts them on plain requests to it, too.
        self._has_local_issuer = settings.OIDC_ISSUER.get() is not None
        self._version = version
        self._own_service = os.environ.get("GAE_SERVICE") or os.environ.get("K_SERVICE")
        # A tunnel's address changes while the program runs.
        self._may_keep = targets.NGROK not in self._table.values()
        self._kept: dict[tuple[str, str], AppEngineRouting | str] = {}

    def write(self, task: Any, request: TaskRequest) -> None:
        """Put the request's target, headers and body on a task.

        Raises:
            BackendError: the target is not known, or the method carries no body there.
        """
        service = targets.SERVICE.get("") or self._own_service or targets.DEFAULT_SERVICE
        found = self._kept.get((request.target, service)) or self._find(request.target, service)
        if isinstance(found, str):
            self._write_http(task.http_request, found, request)
        else:
            _write_app_engine(task.app_engine_http_request, found, request)

    def _find(self, target: str, service: str) -> AppEngineRouting | str:
        found = targets.find(target or service, self._table)
        if not target and not isinstance(found, str):
            # App Engine's queues kept a task on the version that enqueued it.
            version = self._version if service == self._own_service else ""
            found = AppEngineRouting(service=service, version=version)
        if self._is_google and isinstance(found, str):
            _refuse_loopback(found)
        if self._may_keep and len(self._kept) < _MOST_KEPT:
            self._kept[target, service] = found
        return found

    def _write_http(self, message: Any, address: str, request: TaskRequest) -> None:
        message.http_method = _method(request)
        _refuse_body("HttpRequest", request, limits.HTTP_BODY_METHODS)
        message.url = targets.url(address, request.relative_url)
        message.headers.update(headers.carry(request.headers))
        if request.payload:
            message.body = request.payload
        if self._emulated and not (address.startswith("https://") or self._has_local_issuer):
            return
        if self.service_account:
            message.oidc_token.service_account_email = self.service_account
            message.oidc_token.audience = self._audience or address
        elif not self._emulated:
            raise BackendError(
                Reason.INVALID_TARGET,
                f"Tasks for {address} would arrive without an identity, and be refused there: "
                f"set {settings.SERVICE_ACCOUNT.variable} to the service account that tasks "
                "come as.",
            )


def _refuse_loopback(address: str) -> None:
    host = urlsplit(address).hostname or ""
    # A task for it would be taken, tried in vain for its whole life, and then be gone.
    if host == "localhost" or host.startswith("127.") or host == "::1":
        raise BackendError(
            Reason.INVALID_TARGET,
            f"Google's Cloud Tasks cannot reach {address}, which is this machine (from "
            f"{settings.targets_place()}): set {settings.TARGETS.variable} to public addresses or "
            "=ngrok for a tunnel, or CLOUD_TASKS_EMULATOR_HOST to a service on this machine.",
        )


def _write_app_engine(message: Any, routing: AppEngineRouting, request: TaskRequest) -> None:
    message.http_method = _method(request)
    _refuse_body("AppEngineHttpRequest", request, limits.APP_ENGINE_BODY_METHODS)
    message.relative_uri = request.relative_url
    message.app_engine_routing.service = routing.service
    if routing.version:
        message.app_engine_routing.version = routing.version
    if routing.instance:
        message.app_engine_routing.instance = routing.instance
    message.headers.update(headers.carry(request.headers))
    if request.payload:
        message.body = request.payload


def write_task(task: Any, name: str, request: TaskRequest, addressing: Addressing) -> None:
    """Fill a task's message.

    Args:
        task: the empty message.
        name: the whole resource name.
        request: what the task is to be.
        addressing: where it is to go.

    Raises:
        BackendError: the request cannot be a task: unknown target, a body where none is
            allowed, values that do not fit the message, or too large.
        ConfigError: tasks must be signed, and there is no key.
    """
    task.name = name
    addressing.write(task, request)
    _sign(task, request)
    try:
        if request.schedule_time is not None:
            task.schedule_time.FromDatetime(request.schedule_time)
        if request.dispatch_deadline_seconds:
            _write_seconds(task.dispatch_deadline, request.dispatch_deadline_seconds)
        if request.retry is not None:
            _write_retry(task.retry_config, request.retry)
    except (ValueError, OverflowError) as error:
        raise BackendError(
            Reason.INVALID_REQUEST, f"A time, duration or count of the task does not fit: {error}"
        ) from error
    size = task.ByteSize()
    if size > limits.MAX_STORED_TASK_BYTES:
        raise BackendError(
            Reason.TASK_TOO_LARGE,
            f"The task takes {size:,} bytes with its headers, and Cloud Tasks keeps "
            f"{limits.MAX_STORED_TASK_BYTES:,} at most: put what is large elsewhere (Cloud "
            "Storage, Datastore) and pass its key.",
        )


def _sign(task: Any, request: TaskRequest) -> None:
    _, queue_id, _, task_id = task.name.rsplit("/", 3)
    is_http = task.HasField("http_request")
    message = task.http_request if is_http else task.app_engine_http_request
    message.headers.update(
        signing.header_for(
            method=request.method,
            url=message.url if is_http else message.relative_uri,
            queue=queue_id,
            task_name=task_id,
            body=request.payload,
            at=None if request.schedule_time is None else request.schedule_time.timestamp(),
        )
    )


def _write_retry(message: Any, retry: RetryOverrides) -> None:
    if retry.max_attempts is not None:
        message.max_attempts = retry.max_attempts
    if retry.max_doublings is not None:
        message.max_doublings = retry.max_doublings
    if retry.max_retry_duration_seconds is not None:
        _write_seconds(message.max_retry_duration, retry.max_retry_duration_seconds)
    if retry.min_backoff_seconds is not None:
        _write_seconds(message.min_backoff, retry.min_backoff_seconds)
    if retry.max_backoff_seconds is not None:
        _write_seconds(message.max_backoff, retry.max_backoff_seconds)


def _write_seconds(message: Any, seconds: float) -> None:
    message.FromTimedelta(timedelta(seconds=seconds))
    message.SetInParent()  # a duration of nothing is not the same as none


def _method(request: TaskRequest) -> int:
    number = _METHODS.get(request.method)
    if number is None:
        raise BackendError(
            Reason.INVALID_REQUEST,
            f"Cloud Tasks has no method {request.method!r}: it has {', '.join(_METHODS)}.",
        )
    return number


def _refuse_body(kind: str, request: TaskRequest, allowed: tuple[str, ...]) -> None:
    if request.payload and request.method not in allowed:
        raise BackendError(
            Reason.INVALID_REQUEST,
            f"A task with the method {request.method} carries no payload ({kind} allows one for "
            f"{', '.join(allowed)}): leave it out, or put it in the query.",
        )
