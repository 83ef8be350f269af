"""Tasks between the model and protobuf; v2's and v2beta3's fields have the same names."""

from __future__ import annotations

from typing import Any

from appengine_compat.core import messages
from appengine_compat.core.model import (
    AppEngineRequest,
    AppEngineRouting,
    Attempt,
    HttpRequest,
    OAuthToken,
    OidcToken,
    Request,
    RetryOverrides,
    Task,
)
from appengine_compat.local.fronts import values
from appengine_compat.local.fronts.versions import Version

BASIC, FULL = 1, 2


def read_task(message: Any) -> Task:
    """Return the task that a message describes. What only the service may set is passed over.

    Raises:
        ApiError: INVALID_ARGUMENT: a value is out of range, or it is a task of a pull queue.
    """
    schedule_time = None
    if message.HasField("schedule_time"):
        schedule_time = values.moment(message.schedule_time, "Task.scheduleTime")
    deadline = 0.0
    if message.HasField("dispatch_deadline"):
        deadline = values.seconds(message.dispatch_deadline, "Task.dispatchDeadline")
    return Task(
        name=message.name,
        request=_read_request(message),
        schedule_time=schedule_time,
        dispatch_deadline_seconds=deadline,
        retry_config=_read_retry(message.retry_config)
        if message.HasField("retry_config")
        else None,
    )


def _read_request(message: Any) -> Request | None:
    if message.HasField("http_request"):
        request = message.http_request
        return HttpRequest(
            url=request.url,
            method=values.method_name(request.http_method, "HttpRequest.httpMethod"),
            headers=dict(request.headers),
            body=request.body,
            token=read_token(request),
        )
    if message.HasField("app_engine_http_request"):
        request = message.app_engine_http_request
        return AppEngineRequest(
            relative_uri=request.relative_uri,
            method=values.method_name(request.http_method, "AppEngineHttpRequest.httpMethod"),
            headers=dict(request.headers),
            body=request.body,
            routing=read_routing(request.app_engine_routing),
        )
    if "pull_message" in message.DESCRIPTOR.fields_by_name and message.HasField("pull_message"):
        raise messages.pull_task_refused()
    return None


def read_token(message: Any) -> OidcToken | OAuthToken | None:
    """Return the token that a request or a queue's target asks for."""
    if message.HasField("oidc_token"):
        token = message.oidc_token
        return OidcToken(service_account_email=token.service_account_email, audience=token.audience)
    if message.HasField("oauth_token"):
        token = message.oauth_token
        return OAuthToken(service_account_email=token.service_account_email, scope=token.scope)
    return None


def write_token(message: Any, token: OidcToken | OAuthToken | None) -> None:
    """Put a token on a request or a queue's target."""
    if isinstance(token, OidcToken):
        message.oidc_token.service_account_email = token.service_account_email
        message.oidc_token.audience = token.audience
    elif token is not None:
        message.oauth_token.service_account_email = token.service_account_email
        message.oauth_token.scope = token.scope


def read_routing(message: Any) -> AppEngineRouting:
    """Return a routing; its host is the service's to fill."""
    return AppEngineRouting(
        service=message.service, version=message.version, instance=message.instance
    )


def write_routing(message: Any, routing: AppEngineRouting) -> None:
    """Put a routing, its host included, into a message."""
    message.service = routing.service
    message.version = routing.version
    message.instance = routing.instance
    message.host = routing.host


def _read_retry(message: Any) -> RetryOverrides:
    # Counts have no presence in proto3: 0 is what a caller who set nothing sends.
    return RetryOverrides(
        max_attempts=message.max_attempts or None,
        max_doublings=message.max_doublings or None,
        max_retry_duration_seconds=_seconds_or_none(message, "max_retry_duration"),
        min_backoff_seconds=_seconds_or_none(message, "min_backoff"),
        max_backoff_seconds=_seconds_or_none(message, "max_backoff"),
    )


def _seconds_or_none(message: Any, field: str) -> float | None:
    if not message.HasField(field):
        return None
    return values.seconds(getattr(message, field), f"RetryConfig.{field}")


def write_task(version: Version, task: Task, view: int) -> Any:
    """Return a task's message.

    Args:
        version: whose message it shall be.
        task: the task in the FULL view.
        view: ``FULL``, or anything else for ``BASIC``, which lacks the body.
    """
    message = version.task(
        name=task.name,
        dispatch_count=task.dispatch_count,
        response_count=task.response_count,
        view=FULL if view == FULL else BASIC,
    )
    if task.request is not None:
        _write_request(message, task.request, view == FULL)
    if task.schedule_time is not None:
        values.write_moment(message.schedule_time, task.schedule_time)
    if task.create_time is not None:
        values.write_moment(message.create_time, task.create_time)
    if task.dispatch_deadline_seconds:
        values.write_seconds(message.dispatch_deadline, task.dispatch_deadline_seconds)
    if task.first_attempt is not None:
        _write_attempt(message.first_attempt, task.first_attempt)
    if task.last_attempt is not None:
        _write_attempt(message.last_attempt, task.last_attempt)
    if task.retry_config is not None:
        _write_retry(message.retry_config, task.retry_config)
    return message


def _write_request(message: Any, request: Request, has_body: bool) -> None:
    if isinstance(request, HttpRequest):
        target = message.http_request
        target.url = request.url
        write_token(target, request.token)
    else:
        target = message.app_engine_http_request
        target.relative_uri = request.relative_uri
        write_routing(target.app_engine_routing, request.routing)
    target.http_method = values.method_number(request.method)
    for name, value in request.headers.items():
        target.headers[name] = value
    if has_body and request.body:
        target.body = request.body


def _write_attempt(message: Any, attempt: Attempt) -> None:
    message.SetInParent()
    if attempt.schedule_time is not None:
        values.write_moment(message.schedule_time, attempt.schedule_time)
    if attempt.dispatch_time is not None:
        values.write_moment(message.dispatch_time, attempt.dispatch_time)
    if attempt.response_time is not None:
        values.write_moment(message.response_time, attempt.response_time)
    if attempt.response_time is not None or attempt.response_code:
        message.response_status.code = attempt.response_code
        message.response_status.message = attempt.response_message
        message.response_status.SetInParent()


def _write_retry(message: Any, retry: RetryOverrides) -> None:
    message.SetInParent()
    message.max_attempts = retry.max_attempts or 0
    message.max_doublings = retry.max_doublings or 0
    for field in ("max_retry_duration", "min_backoff", "max_backoff"):
        value = getattr(retry, f"{field}_seconds")
        if value is not None:
            values.write_seconds(getattr(message, field), value)
