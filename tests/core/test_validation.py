"""What Create and Update accept, with the service's own words for what they refuse."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appengine_compat.core import validation
from appengine_compat.core.model import (
    AppEngineRequest,
    AppEngineRouting,
    HttpRequest,
    HttpTarget,
    OidcToken,
    Queue,
    QueueState,
    RateLimits,
    RetryConfig,
    Task,
    UriOverride,
)
from appengine_compat.core.names import QueueName
from appengine_compat.errors import ApiError

QUEUE = QueueName("p", "us-central1", "q")
NOW = datetime(2026, 8, 1, 12, 0, 0, 123456, tzinfo=timezone.utc)
APP_ENGINE = Task(name="", request=AppEngineRequest())
HTTP = Task(name="", request=HttpRequest(url="https://example.com/x"))


def canonical(task: Task) -> Task:
    return validation.canonical_task(QUEUE, task, NOW)


def http(**changes) -> Task:
    return replace(HTTP, request=replace(HTTP.request, **changes))


def app_engine(**changes) -> Task:
    return replace(APP_ENGINE, request=replace(APP_ENGINE.request, **changes))


def test_what_is_missing_is_filled_in():
    stored = canonical(APP_ENGINE)
    assert stored.name.startswith(f"{QUEUE}/tasks/")
    assert stored.schedule_time == NOW
    assert stored.create_time == NOW.replace(microsecond=0)
    assert stored.request.relative_uri == "/"
    assert stored.request.routing.host == "p.us-central1.r.appspot.com"
    assert stored.dispatch_deadline_seconds == 0
    assert canonical(HTTP).dispatch_deadline_seconds == 600


def test_a_past_schedule_time_becomes_now_and_a_future_one_stays():
    past = replace(APP_ENGINE, schedule_time=NOW - timedelta(days=1))
    later = replace(APP_ENGINE, schedule_time=NOW + timedelta(days=30))
    assert canonical(past).schedule_time == NOW
    assert canonical(later).schedule_time == NOW + timedelta(days=30)


def test_output_only_fields_of_a_caller_are_dropped():
    given_by_caller = replace(APP_ENGINE, dispatch_count=7, response_count=3, create_time=NOW)
    stored = canonical(given_by_caller)
    assert (stored.dispatch_count, stored.response_count) == (0, 0)


def test_service_version_and_instance_are_in_the_host():
    routing = AppEngineRouting(service="api", version="v2", instance="0", host="evil.example")
    assert canonical(app_engine(routing=routing)).request.routing.host == (
        "0.v2.api.p.us-central1.r.appspot.com"
    )


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (replace(APP_ENGINE, request=None), "message_type is not set"),
        (replace(APP_ENGINE, name=f"{QUEUE}x/tasks/t"), "must be the same as the queue name"),
        (replace(APP_ENGINE, name=f"{QUEUE}/tasks/a.b"), 'Task ID "a.b" can contain only'),
        (
            replace(APP_ENGINE, schedule_time=datetime(2100, 1, 1, 0, 0, 0, tzinfo=timezone.utc)),
            "The Task.scheduleTime, 2099-12-31T16:00:00-08:00, is too far in the future. "
            "Schedule time must be no more than 720h in the future.",
        ),
        (
            replace(APP_ENGINE, dispatch_deadline_seconds=14),
            r"Task.dispatchDeadline must be between \[15s, 24h15s\]",
        ),
        (
            replace(APP_ENGINE, dispatch_deadline_seconds=86416),
            r"Task.dispatchDeadline must be between \[15s, 24h15s\]",
        ),
        (
            replace(HTTP, dispatch_deadline_seconds=1801),
            r"Task.dispatchDeadline must be between \[15s, 30m\]",
        ),
        (http(url=""), "HttpRequest.url is required."),
        (http(url="ftp://x/"), "HttpTarget.url must start with 'http://' or 'https://'."),
        (http(url="https://x/" + "a" * 2083), "no more than 2083 characters"),
        (
            http(url="http://x/", token=OidcToken(service_account_email="a@b")),
            "HttpRequest.url must start with 'https://' for request with "
            "HttpRequest.authorization_header",
        ),
        (http(method="GET", body=b"x"), "only allowed for the HTTP methods POST, PUT, PATCH"),
        (http(headers={"X-A": "a" * 81920}), "less than 81920 bytes"),
        (http(headers={"X-A": "a\r\nX-B: b"}), "Header 'X-A' has a line break"),
        (app_engine(headers={"X-A": "a\nb"}), "Header 'X-A' has a line break"),
        (app_engine(headers={"X-A\rX-B": "a"}), "has a line break in its name"),
        (app_engine(relative_uri="x"), "must start with '/'"),
        (app_engine(relative_uri="/a b"), "must not contain spaces"),
        (app_engine(relative_uri="/" + "a" * 2083), "no more than 2083 characters"),
        (app_engine(method="PATCH", body=b"x"), "only allowed for the HTTP methods POST, PUT"),
        (app_engine(body=bytes(1_048_569)), "Task size too large"),
    ],
)
def test_what_is_refused(task, message):
    with pytest.raises(ApiError, match=message) as caught:
        canonical(task)
    assert caught.value.code == "INVALID_ARGUMENT"


def test_a_token_may_go_to_this_machine_without_tls():
    token = OidcToken(service_account_email="a@b")
    for address in ("http://localhost:8080/x", "http://127.0.0.1/", "http://[::1]:80/"):
        assert canonical(http(url=address, token=token)).request.token == token


@pytest.mark.parametrize(
    "url", ["http://[/", "http://\u2100.com", "HTTP://example.com", "http://[::1", "http://"]
)
def test_a_token_may_go_to_no_malformed_address_without_tls(url: str):
    with pytest.raises(ApiError, match="must start with 'https://'") as caught:
        canonical(http(url=url, token=OidcToken(service_account_email="a@b")))
    assert caught.value.code == "INVALID_ARGUMENT"


@pytest.mark.parametrize("url", ["https://[/", "HTTPS://\u2100.com", "https://"])
def test_a_malformed_address_with_tls_is_the_attempts_affair_with_a_token_or_without(url: str):
    token = OidcToken(service_account_email="a@b")
    for carried in (None, token):
        assert canonical(http(url=url, token=carried)).request.url == url


def test_a_bad_percent_escape_is_the_targets_affair():
    assert canonical(http(url="https://x/%zz")).request.url == "https://x/%zz"


# --- queues ---

NEW = Queue(name=str(QUEUE))


def queue_with(rates=None, retry=None, **fields) -> Queue:
    return replace(
        NEW,
        rate_limits=replace(NEW.rate_limits, **(rates or {})),
        retry_config=replace(NEW.retry_config, **(retry or {})),
        **fields,
    )


@pytest.mark.parametrize(
    ("queue", "message"),
    [
        (queue_with({"max_dispatches_per_second": -1}),
         "RateLimits.maxDispatchesPerSecond cannot be negative."),
        (queue_with({"max_dispatches_per_second": 500.5}),
         "RateLimits.maxDispatchesPerSecond must be less than or equal to 500."),
        (queue_with({"max_concurrent_dispatches": -1}),
         "RateLimits.maxConcurrentDispatches cannot be negative."),
        (queue_with({"max_concurrent_dispatches": 5001}),
         "RateLimits.maxConcurrentDispatches must be less than or equal to 5000."),
        (queue_with(retry={"max_attempts": -2}),
         "RetryConfig.maxAttempts must be greater or equal to -1."),
        (queue_with(retry={"max_doublings": -1}),
         "RetryConfig.maxDoublings cannot be negative."),
        (queue_with(retry={"min_backoff_seconds": -0.1}),
         "RetryConfig.minBackoff cannot be negative."),
        (queue_with(retry={"min_backoff_seconds": 4000}),
         "RetryConfig.minBackoff must be less than or equal to RetryConfig.maxBackoff."),
        (queue_with(http_target=HttpTarget(uri_override=UriOverride(host=""))),
         "UriOverride.host"),
    ],
)  # fmt: skip
def test_queue_settings_out_of_range_are_refused(queue, message):
    with pytest.raises(ApiError, match=message):
        validation.canonical_queue(queue)


def test_nought_means_the_default_and_the_burst_follows_the_rate():
    stored = validation.canonical_queue(
        queue_with(
            {"max_dispatches_per_second": 0, "max_concurrent_dispatches": 0, "max_burst_size": -9},
            {"max_attempts": 0, "max_retry_duration_seconds": 9.9},
        )
    )
    assert stored.rate_limits == RateLimits()
    assert stored.retry_config == RetryConfig(max_retry_duration_seconds=9)


def test_a_queue_yamls_burst_is_kept():
    queue = queue_with({"max_burst_size": 5})
    assert validation.canonical_queue(queue, keeps_burst=True).rate_limits.max_burst_size == 5


CURRENT = queue_with(
    {"max_dispatches_per_second": 5, "max_concurrent_dispatches": 2},
    {"max_attempts": 7, "max_doublings": 3},
    state=QueueState.PAUSED,
    log_sampling_ratio=0.5,
)


def test_an_empty_mask_changes_everything_but_what_is_output_only():
    updated = validation.updated_queue(CURRENT, NEW)
    assert updated == replace(NEW, state=QueueState.PAUSED)


def test_a_masked_leaf_changes_alone():
    given_by_caller = queue_with({"max_dispatches_per_second": 9}, {"max_attempts": 1})
    updated = validation.updated_queue(
        CURRENT, given_by_caller, ["rate_limits.max_dispatches_per_second"]
    )
    assert updated == replace(
        CURRENT, rate_limits=replace(CURRENT.rate_limits, max_dispatches_per_second=9)
    )


def test_a_masked_field_that_is_left_out_is_cleared():
    mask = ["retry_config", "stackdriver_logging_config"]
    updated = validation.updated_queue(CURRENT, NEW, mask)
    assert updated.retry_config == RetryConfig()
    assert updated.log_sampling_ratio is None
    assert updated.rate_limits == CURRENT.rate_limits


def test_output_only_paths_change_nothing_and_unknown_ones_are_refused():
    assert validation.updated_queue(CURRENT, NEW, ["state", "purge_time"]) == CURRENT
    with pytest.raises(ApiError, match=r"nonsense\.path"):
        validation.updated_queue(CURRENT, NEW, ["nonsense.path"])


def test_parts_of_the_http_target_change_alone():
    target = HttpTarget(uri_override=UriOverride(host="a", port=0), header_overrides={"X": "1"})
    current = replace(CURRENT, http_target=target)
    given_by_caller = replace(NEW, http_target=HttpTarget(uri_override=UriOverride(host="b")))
    updated = validation.updated_queue(current, given_by_caller, ["http_target.uri_override.host"])
    assert updated.http_target == replace(target, uri_override=UriOverride(host="b", port=0))
    assert validation.updated_queue(current, NEW, ["http_target"]).http_target is None
    cleared = validation.updated_queue(current, NEW, ["http_target.header_overrides"])
    assert cleared.http_target.header_overrides == {}
    with pytest.raises(ApiError, match=r"http_target\.nonsense"):
        validation.updated_queue(current, NEW, ["http_target.nonsense"])


names = st.text(st.sampled_from("abAB"), min_size=1, max_size=3)
maps = st.dictionaries(names, st.text(max_size=3), max_size=4)


@given(maps, maps)
def test_a_queues_headers_win_whatever_their_case(own, overrides):
    merged = validation.headers_with_overrides(own, overrides)
    assert {**merged, **overrides} == merged
    lowered = {name.lower() for name in overrides}
    assert {k: v for k, v in merged.items() if k not in overrides} == {
        k: v for k, v in own.items() if k.lower() not in lowered
    }
