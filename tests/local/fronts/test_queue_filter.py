"""The language of ListQueues' filters."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appengine_compat.core.model import (
    AppEngineRouting,
    HttpTarget,
    Queue,
    QueueState,
    RateLimits,
    RetryConfig,
    UriOverride,
)
from appengine_compat.errors import ApiError
from appengine_compat.local.fronts.queue_filter import compiled
from appengine_compat.local.fronts.queue_messages import write_queue
from appengine_compat.local.fronts.versions import V2

NAME = "projects/p/locations/l/queues/Mail"
QUEUE = write_queue(
    V2,
    Queue(
        name=NAME,
        state=QueueState.PAUSED,
        rate_limits=RateLimits(max_dispatches_per_second=0.5, max_concurrent_dispatches=10),
        retry_config=RetryConfig(max_attempts=-1, min_backoff_seconds=2.5),
        purge_time=datetime(2024, 5, 6, 7, tzinfo=timezone.utc),
        app_engine_routing_override=AppEngineRouting(service="api"),
        http_target=HttpTarget(
            uri_override=UriOverride(port=8080), header_overrides={"X-A": "one", "X-B": "two"}
        ),
    ),
)


@pytest.mark.parametrize(
    "text",
    [
        "state: PAUSED",
        "state:PAUSED",
        "state = paused",
        "state=2",
        "state != RUNNING",
        'state="PAUSED"',
        "name:mail",
        'name = "projects/p/locations/l/queues/mail"',
        "name=projects/p/locations/l/queues/Mail",
        "name > a AND name < z",
        "rateLimits.maxDispatchesPerSecond = 0.5",
        "rate_limits.max_dispatches_per_second < 1",
        "rateLimits.maxConcurrentDispatches >= 10",
        "retryConfig.maxAttempts = -1",
        "retryConfig.minBackoff = 2.5s",
        "retryConfig.minBackoff > 2",
        'retryConfig.minBackoff <= "2.500s"',
        'purgeTime > "2024-01-01T00:00:00Z"',
        "purgeTime < 2025-01-01T00:00:00Z",
        "purgeTime:*",
        "httpTarget:*",
        "httpTarget.uriOverride.port = 8080",
        "httpTarget.headerOverrides.header.value = two",
        "appEngineRoutingOverride.service = api",
        "state=RUNNING OR name:mail",
        "state=PAUSED name:mail",
        "state=PAUSED AND NOT name:other",
        "-name:other",
        "NOT (name:other OR state=RUNNING)",
        "((state=PAUSED))",
        # OR binds closer than AND: (RUNNING or PAUSED) and (mail or other).
        "state=RUNNING OR state=PAUSED AND name:mail OR name:other",
    ],
)
def test_it_holds(text: str) -> None:
    assert compiled(text)(QUEUE)


@pytest.mark.parametrize(
    "text",
    [
        "state: RUNNING",
        "NOT state: PAUSED",
        "state=PAUSED AND name:other",
        "state=PAUSED name:other",
        "rateLimits.maxDispatchesPerSecond > 0.5",
        "retryConfig.maxDoublings != 16",
        # What is not set compares as nothing, and differs from nothing.
        "stackdriverLoggingConfig.samplingRatio = 0",
        "stackdriverLoggingConfig.samplingRatio != 1",
        "httpTarget.uriOverride.host:*",
        "httpTarget.uriOverride.host != x",
        # (RUNNING) and (PAUSED or mail): were AND to bind closer, this would hold.
        "state=RUNNING AND state=PAUSED OR name:mail",
    ],
)
def test_it_does_not_hold(text: str) -> None:
    assert not compiled(text)(QUEUE)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("colour = red", "a queue has no field colour."),
        ("name.length = 3", "a queue has no field name.length."),
        ("state", "state must be followed by one of =, :, !=, <, <=, >, >=."),
        ("state =", "a value is expected after state =."),
        ("state = = PAUSED", "a value is expected after state =."),
        ("= PAUSED", "a field is expected where '=' is."),
        ("state = PAUSED AND", "a field is expected where 'it ends' is."),
        ("(state = PAUSED", "a bracket is not closed."),
        ("state = PAUSED)", "')' is not expected."),
        ("state = SLEEPING", "'SLEEPING' is no value for state."),
        ("rateLimits.maxBurstSize = many", "'many' is no value for rateLimits.maxBurstSize."),
        ("purgeTime > yesterday", "'yesterday' is no value for purgeTime."),
        ("retryConfig.minBackoff > soon", "'soon' is no value for retryConfig.minBackoff."),
        ("rateLimits = 5", "rateLimits is not a single value; rateLimits:* tells if it is set."),
        ('name = "open', "'\"open' cannot be read."),
        ("name =~ x", "name must be followed by one of =, :, !=, <, <=, >, >=."),
        ("(" * 5000, "its brackets are nested too deep."),
        ("x" * 20_001, "it is longer than 20000 characters."),
    ],
    ids=lambda value: value[:24],
)
def test_what_cannot_be_read_is_told(text: str, why: str) -> None:
    with pytest.raises(ApiError) as caught:
        compiled(text)
    assert caught.value.code == "INVALID_ARGUMENT"
    assert caught.value.message == f"Invalid filter: {why}"


@given(st.text(alphabet='state=PAUSED():!<> ANDORNOT"\\-.*5', max_size=60))
def test_no_text_breaks_it(text: str) -> None:
    with suppress(ApiError):
        assert compiled(text)(QUEUE) in (True, False)
