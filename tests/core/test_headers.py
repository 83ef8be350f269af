"""Which headers are stored, and what a handler is told of earlier attempts."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appengine_compat.core import headers
from appengine_compat.core.headers import AttemptFacts, Family

ETA = datetime(2022, 10, 25, 3, 7, 35, 329625, tzinfo=timezone.utc)

# Recorded on the real service: these replies in turn, then 200.
REPLIES = (503, 404, 429, 500, 302)
EXECUTIONS = {Family.HTTP: (0, 0, 1, 2, 2, 3), Family.APP_ENGINE: (0, 1, 2, 3, 4, 5)}


@pytest.mark.parametrize("family", Family)
def test_the_recorded_sequence(family):
    replies = 0
    seen = []
    for attempt in range(len(REPLIES) + 1):
        previous = REPLIES[attempt - 1] if attempt else None
        if previous is not None:
            replies += headers.counts_as_execution(family, previous)
        facts = AttemptFacts(
            queue_id="q", task_id="t", eta=ETA, retries=attempt, replies=replies,
            previous_response=previous,
        )  # fmt: skip
        sent = dict(headers.task_headers(family, facts))
        prefix = family.value
        seen.append(
            (
                sent[prefix + "TaskRetryCount"],
                sent[prefix + "TaskExecutionCount"],
                sent.get(prefix + "TaskPreviousResponse"),
                sent.get(prefix + "TaskRetryReason"),
            )
        )
    reason = "" if family is Family.HTTP else "App Error"
    counts = [str(count) for count in EXECUTIONS[family]]
    assert seen == [("0", counts[0], None, None)] + [
        (str(retry), counts[retry], str(REPLIES[retry - 1]), reason) for retry in range(1, 6)
    ]


@pytest.mark.parametrize(
    ("family", "previous", "reason"),
    [(Family.HTTP, "504", ""), (Family.APP_ENGINE, "0", "Instance Unavailable")],
)
def test_after_an_attempt_without_a_reply(family, previous, reason):
    facts = AttemptFacts(queue_id="q", task_id="t", eta=ETA, retries=1, previous_response=0)
    sent = dict(headers.task_headers(family, facts))
    assert sent[family.value + "TaskPreviousResponse"] == previous
    assert sent[family.value + "TaskRetryReason"] == reason
    assert sent[family.value + "TaskExecutionCount"] == "0"


def test_the_eta_is_decimal_seconds():
    assert headers.eta_text(ETA) == "1666667255.329625"


def test_what_an_http_target_stores():
    stored = headers.stored_http_headers(
        {"User-Agent": "mine", "content-type": "text/plain", "Host": "x", "X-Google-A": "1",
         "x-appengine-b": "2", "X-CloudTasks-C": "3", "Content-Length": "9", "X-Own": "4"}
    )  # fmt: skip
    assert stored == {
        "content-type": "text/plain",
        "X-Own": "4",
        "User-Agent": "Google-Cloud-Tasks",
    }


def test_what_an_app_engine_target_stores():
    agent = headers.APP_ENGINE_USER_AGENT
    assert headers.stored_app_engine_headers({"X-Own": "1"}, b"body") == {
        "X-Own": "1",
        "User-Agent": agent,
        "Content-Type": "application/octet-stream",
        "Content-Length": "4",
    }
    assert headers.stored_app_engine_headers({"user-agent": "mine"}, b"") == {
        "user-agent": f"mine {agent}"
    }
    assert "Content-Type" not in headers.stored_app_engine_headers({"content-type": "a/b"}, b"x")


names = st.text(st.sampled_from("abXYZ-_09"), min_size=1, max_size=12)
some = st.one_of(names, names.map("X-AppEngine-".__add__), names.map("x-google-".__add__),
                 st.just("Host"))  # fmt: skip


@given(st.lists(st.tuples(some, st.text(max_size=8))))
def test_carrying_loses_no_value_and_leaves_nothing_that_is_refused(given_headers):
    carried = headers.carry(given_headers)
    assert all(headers.is_carried_natively(name) for name in carried)
    assert len({name.lower() for name in carried}) == len(carried)
    for name, value in given_headers:
        key = name if headers.is_carried_natively(name) else headers.CARRIED_PREFIX + name
        (joined,) = [text for other, text in carried.items() if other.lower() == key.lower()]
        assert value in joined
