"""Queues and tasks go into protobuf and JSON and come back as they were."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

from appengine_compat.core.model import (
    HTTP_METHODS,
    AppEngineRequest,
    AppEngineRouting,
    Attempt,
    EnforceMode,
    HttpRequest,
    HttpTarget,
    OAuthToken,
    OidcToken,
    Queue,
    QueueState,
    RateLimits,
    RetryConfig,
    RetryOverrides,
    Task,
    UriOverride,
)
from appengine_compat.errors import ApiError
from appengine_compat.local.fronts import rest_json
from appengine_compat.local.fronts.queue_messages import read_queue, write_queue
from appengine_compat.local.fronts.task_messages import BASIC, FULL, read_task, write_task
from appengine_compat.local.fronts.versions import V2, V2BETA3, Version

texts = st.text(st.characters(codec="utf-8"), max_size=12)
headers = st.dictionaries(texts, texts, max_size=3)
methods = st.sampled_from(HTTP_METHODS)
counts = st.integers(1, 2**31 - 1)
seconds = st.integers(0, 10**9).map(lambda micros: micros / 1e6)
moments = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(timezone.utc))
tokens = st.none() | st.one_of(
    st.builds(OidcToken, service_account_email=texts, audience=texts),
    st.builds(OAuthToken, service_account_email=texts, scope=texts),
)
routings = st.builds(AppEngineRouting, service=texts, version=texts, instance=texts)
requests = st.one_of(
    st.builds(
        HttpRequest, url=texts, method=methods, headers=headers, body=st.binary(), token=tokens
    ),
    st.builds(
        AppEngineRequest,
        relative_uri=texts,
        method=methods,
        headers=headers,
        body=st.binary(),
        routing=routings,
    ),
)
retries = st.builds(
    RetryOverrides,
    max_attempts=st.none() | counts | st.just(-1),
    max_doublings=st.none() | counts,
    max_retry_duration_seconds=st.none() | seconds,
    min_backoff_seconds=st.none() | seconds,
    max_backoff_seconds=st.none() | seconds,
)
tasks = st.builds(
    Task,
    name=texts,
    request=requests,
    schedule_time=st.none() | moments,
    dispatch_deadline_seconds=seconds,
    retry_config=st.none() | retries,
)
overrides = st.builds(
    UriOverride,
    scheme=st.sampled_from([None, "HTTP", "HTTPS"]),
    host=st.none() | texts,
    port=st.none() | st.integers(0, 2**40),
    path=st.none() | texts,
    query=st.none() | texts,
    mode=st.sampled_from(EnforceMode),
)
queues = st.builds(
    Queue,
    name=texts,
    rate_limits=st.builds(
        RateLimits,
        max_dispatches_per_second=st.floats(0, 500),
        max_burst_size=st.integers(0, 500),
        max_concurrent_dispatches=st.integers(0, 5000),
    ),
    retry_config=st.builds(
        RetryConfig,
        max_attempts=counts,
        max_retry_duration_seconds=seconds,
        min_backoff_seconds=seconds,
        max_backoff_seconds=seconds,
        max_doublings=counts,
    ),
    app_engine_routing_override=st.none() | routings,
    http_target=st.none()
    | st.builds(
        HttpTarget,
        uri_override=st.none() | overrides,
        method=methods | st.just(""),
        header_overrides=headers,
        token=tokens,
    ),
    log_sampling_ratio=st.none() | st.floats(0, 1),
    task_ttl_seconds=seconds,
    tombstone_ttl_seconds=seconds,
)

both = pytest.mark.parametrize("version", [V2, V2BETA3], ids=lambda version: version.label)


@both
@given(task=tasks)
def test_a_task_comes_back(version: Version, task: Task) -> None:
    assert read_task(write_task(version, task, FULL)) == task


@both
@given(task=tasks)
def test_the_basic_view_lacks_the_body_alone(version: Version, task: Task) -> None:
    assert task.request is not None
    bodiless = replace(task, request=replace(task.request, body=b""))
    assert read_task(write_task(version, task, BASIC)) == bodiless


@given(queue=queues)
def test_a_queue_comes_back_in_v2beta3(queue: Queue) -> None:
    assert read_queue(V2BETA3, write_queue(V2BETA3, queue)) == queue


@given(queue=queues)
def test_v2_has_no_place_for_how_long_things_are_kept(queue: Queue) -> None:
    default = Queue(name="")
    kept = replace(
        queue,
        task_ttl_seconds=default.task_ttl_seconds,
        tombstone_ttl_seconds=default.tombstone_ttl_seconds,
    )
    assert read_queue(V2, write_queue(V2, queue)) == kept


def read_json(message_class: Any, value: Any) -> Any:
    message = message_class()
    problems = rest_json.Problems()
    rest_json.read(message, value, "", problems)
    problems.check()
    return message


@both
@given(task=tasks, queue=queues, numbers=st.booleans(), own_names=st.booleans())
def test_json_as_any_client_writes_it_is_read(
    version: Version, task: Task, queue: Queue, numbers: bool, own_names: bool
) -> None:
    for message in (write_task(version, task, FULL), write_queue(version, queue)):
        value = json_format.MessageToDict(
            message,
            use_integers_for_enums=numbers,
            preserving_proto_field_name=own_names,
        )
        assert read_json(type(message), value) == message
        written = rest_json.parse(rest_json.write(message, enums_as_numbers=numbers))
        assert read_json(type(message), written) == message


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["task", "httpRequest", "url", "headers", "body", "httpMethod", "scheduleTime", "x"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(value=json_values)
def test_no_json_breaks_the_reader(value: Any) -> None:
    with suppress(ApiError):
        read_json(V2.message("CreateTaskRequest"), value)


def test_attempts_and_counts_are_told() -> None:
    moment = datetime(2024, 5, 6, 7, 8, 9, 123456, tzinfo=timezone.utc)
    last = Attempt(
        schedule_time=moment,
        dispatch_time=moment,
        response_time=moment,
        response_code=13,
        response_message="INTERNAL(13): HTTP status code 500",
    )
    task = Task(
        name="t",
        dispatch_count=2,
        response_count=1,
        first_attempt=Attempt(dispatch_time=moment),
        last_attempt=last,
    )
    shown = json_format.MessageToDict(write_task(V2, task, BASIC))
    stamp = "2024-05-06T07:08:09.123456Z"
    assert shown == {
        "name": "t",
        "view": "BASIC",
        "dispatchCount": 2,
        "responseCount": 1,
        "firstAttempt": {"dispatchTime": stamp},
        "lastAttempt": {
            "scheduleTime": stamp,
            "dispatchTime": stamp,
            "responseTime": stamp,
            "responseStatus": {"code": 13, "message": "INTERNAL(13): HTTP status code 500"},
        },
    }


def test_a_success_has_a_status_and_a_running_attempt_none() -> None:
    moment = datetime(2024, 5, 6, tzinfo=timezone.utc)
    done = Task(name="t", last_attempt=Attempt(dispatch_time=moment, response_time=moment))
    running = Task(name="t", last_attempt=Attempt(dispatch_time=moment))
    assert write_task(V2, done, BASIC).last_attempt.HasField("response_status")
    assert not write_task(V2, running, BASIC).last_attempt.HasField("response_status")


def test_nanoseconds_are_cut_to_microseconds() -> None:
    message = V2.task()
    message.schedule_time.seconds, message.schedule_time.nanos = 5, 1999
    schedule_time = read_task(message).schedule_time
    assert schedule_time == datetime(1970, 1, 1, 0, 0, 5, 1, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("field", "seconds", "nanos"),
    [
        ("schedule_time", 10**12, 0),
        ("schedule_time", -(10**12), 0),
        ("schedule_time", 0, -1),
        ("dispatch_deadline", 10**12, 0),
        ("dispatch_deadline", 1, -1),
        ("dispatch_deadline", 0, 2**31 - 1),
    ],
)
def test_times_that_there_are_not_are_refused(field: str, seconds: int, nanos: int) -> None:
    message = V2.task()
    getattr(message, field).seconds = seconds
    getattr(message, field).nanos = nanos
    with pytest.raises(ApiError, match="is not a valid"):
        read_task(message)


def test_a_method_that_there_is_not_is_refused() -> None:
    message = V2.task()
    message.http_request.http_method = 99
    with pytest.raises(ApiError, match=r"HttpRequest\.httpMethod has no method 99"):
        read_task(message)


def test_pull_tasks_are_refused() -> None:
    message = V2BETA3.task()
    message.pull_message.payload = b"x"
    with pytest.raises(ApiError, match="Pull tasks are not served"):
        read_task(message)


def test_a_queue_of_any_state_is_written() -> None:
    for state in QueueState:
        assert write_queue(V2, Queue(name="q", state=state)).state == getattr(V2.queue, state.value)
