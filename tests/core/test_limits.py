"""What a stored task weighs is what protobuf says it weighs."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from google.cloud import tasks_v2
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st

from appengine_compat.core import limits, validation
from appengine_compat.core.model import (
    AppEngineRequest,
    AppEngineRouting,
    HttpRequest,
    OAuthToken,
    OidcToken,
    RetryOverrides,
    Task,
)
from appengine_compat.core.names import QueueName
from appengine_compat.errors import ApiError

QUEUE = QueueName("my-project", "us-central1", "default")
NOW = datetime(2026, 8, 1, 12, 0, 0, 123456, tzinfo=timezone.utc)


def as_protobuf(task: Task) -> int:
    """Weigh a task with Google's own message."""

    def stamp(moment: datetime) -> Timestamp:
        message = Timestamp()
        message.FromDatetime(moment.replace(tzinfo=None))
        return message

    def span(seconds: float) -> Duration:
        message = Duration()
        message.FromTimedelta(timedelta(seconds=seconds))
        return message

    pb = tasks_v2.Task.pb(tasks_v2.Task())
    pb.name = task.name
    pb.schedule_time.CopyFrom(stamp(task.schedule_time))
    pb.create_time.CopyFrom(stamp(task.create_time))
    pb.view = 2
    if task.dispatch_deadline_seconds:
        pb.dispatch_deadline.CopyFrom(span(task.dispatch_deadline_seconds))
    request = task.request
    if isinstance(request, HttpRequest):
        pb.http_request.url = request.url
        pb.http_request.http_method = tasks_v2.HttpMethod[request.method]
        pb.http_request.headers.update(request.headers)
        pb.http_request.body = request.body
        if isinstance(request.token, OidcToken):
            pb.http_request.oidc_token.service_account_email = request.token.service_account_email
            pb.http_request.oidc_token.audience = request.token.audience
        elif request.token is not None:
            pb.http_request.oauth_token.service_account_email = request.token.service_account_email
            pb.http_request.oauth_token.scope = request.token.scope
    else:
        target = pb.app_engine_http_request
        target.relative_uri = request.relative_uri
        target.http_method = tasks_v2.HttpMethod[request.method]
        target.headers.update(request.headers)
        target.body = request.body
        target.app_engine_routing.host = request.routing.host
    retry = task.retry_config
    if retry is not None:
        pb.retry_config.SetInParent()
        for field in ("max_attempts", "max_doublings"):
            if getattr(retry, field) is not None:
                setattr(pb.retry_config, field, getattr(retry, field))
        for field in ("max_retry_duration", "min_backoff", "max_backoff"):
            seconds = getattr(retry, field + "_seconds")
            if seconds is not None:
                getattr(pb.retry_config, field).CopyFrom(span(seconds))
    return pb.ByteSize()


text = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=40)
values = text.filter(lambda value: "\r" not in value and "\n" not in value)
header_maps = st.dictionaries(st.from_regex(r"\A[A-Za-z][A-Za-z0-9\-]{0,20}\Z"), values, max_size=5)
bodies = st.integers(0, 20_000).map(bytes)
retries = st.none() | st.builds(
    RetryOverrides,
    max_attempts=st.none() | st.integers(-1, 10**6),
    max_doublings=st.none() | st.integers(0, 1000),
    max_retry_duration_seconds=st.none() | st.integers(0, 10**6).map(float),
    min_backoff_seconds=st.none() | st.sampled_from([0.1, 0.25, 1.0, 300.0]),
    max_backoff_seconds=st.none() | st.sampled_from([1.0, 3600.0]),
)
requests = st.one_of(
    st.builds(
        HttpRequest,
        url=text.map("https://example.com/".__add__),
        headers=header_maps,
        body=bodies,
        token=st.none()
        | st.builds(OidcToken, service_account_email=text, audience=text)
        | st.builds(OAuthToken, service_account_email=text, scope=text),
    ),
    st.builds(
        AppEngineRequest,
        relative_uri=st.from_regex(r"\A/[a-z0-9?=%]{0,60}\Z"),
        headers=header_maps,
        body=bodies,
        routing=st.builds(
            AppEngineRouting, service=st.sampled_from(["", "api"]), version=st.just("")
        ),
    ),
)
tasks = st.builds(
    Task,
    name=st.just(""),
    request=requests,
    schedule_time=st.none() | st.integers(0, 30 * 86400).map(lambda s: NOW + timedelta(seconds=s)),
    dispatch_deadline_seconds=st.sampled_from([0.0, 15.0, 20.5, 600.0]),
    retry_config=retries,
)


@settings(max_examples=300)
@given(tasks)
def test_a_stored_task_weighs_what_its_protobuf_does(task):
    stored = validation.canonical_task(QUEUE, task, NOW)
    assert limits.stored_size(stored) == as_protobuf(stored)


@pytest.mark.parametrize(
    "make",
    [
        lambda body: AppEngineRequest(body=body),
        lambda body: HttpRequest(url="https://example.com/", body=body),
    ],
)
def test_the_limit_is_met_to_the_byte(make):
    def sized(length: int) -> Task:
        return Task(name=QUEUE.task("t"), request=make(bytes(length)))

    room = limits.MAX_STORED_TASK_BYTES - limits.stored_size(
        validation.canonical_task(QUEUE, sized(1_000_000), NOW)
    )
    at_limit = 1_000_000 + room
    stored = validation.canonical_task(QUEUE, sized(at_limit), NOW)
    assert limits.stored_size(stored) == limits.MAX_STORED_TASK_BYTES
    with pytest.raises(ApiError, match="Task size too large"):
        validation.canonical_task(QUEUE, sized(at_limit + 1), NOW)
