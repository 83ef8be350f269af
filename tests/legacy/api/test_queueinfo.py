"""queueinfo: queue.yaml as App Engine's own module read it."""

from __future__ import annotations

import io
from typing import Any

import pytest
from google.appengine.api import queueinfo, yaml_errors

INVALID = queueinfo.MalformedQueueConfiguration


@pytest.mark.parametrize(
    ("text", "per_second"),
    [("0", 0.0), ("5/s", 5.0), ("30/m", 0.5), ("1/h", 1 / 3600), ("86400/d", 1.0), ("5/", None),
     ("5/sm", None), ("-1/s", -1.0), (" 5/s", 5.0)],
)  # fmt: skip
def test_rates(text: str, per_second: float | None) -> None:
    assert queueinfo.ParseRate(text) == per_second


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("5", 'Rate "5" is invalid.'),
        ("", 'Rate "" is invalid.'),
        ("x/s", 'Rate "x/s" is invalid: "x" is not a number.'),
        ("5/x", 'Rate "5/x" is invalid: "x" is not one of s, m, h, d.'),
    ],
)
def test_what_is_no_rate(text: str, words: str) -> None:
    with pytest.raises(INVALID) as caught:
        queueinfo.ParseRate(text)
    assert str(caught.value) == words


@pytest.mark.parametrize(
    ("text", "size"),
    [("100", 100), ("5B", 5), ("1K", 1024), ("120M", 125829120), ("1.5G", 1610612736),
     ("1T", 1 << 40), ("-1M", -1048576)],
)  # fmt: skip
def test_storage_limits(text: str, size: int) -> None:
    assert queueinfo.ParseTotalStorageLimit(text) == size


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "Total Storage Limit must not be empty."),
        ("M", 'Total Storage Limit "M" is invalid.'),
        ("12X", 'Total Storage Limit "12X" is invalid.'),
        ("1.5", 'Total Storage Limit "1.5" is invalid.'),
    ],
)
def test_what_is_no_storage_limit(text: str, words: str) -> None:
    with pytest.raises(INVALID) as caught:
        queueinfo.ParseTotalStorageLimit(text)
    assert str(caught.value) == words


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5s", 5), ("3m", 180), ("1.5h", 5400), ("2d", 172800), ("-1s", -1), ("0.5s", 0)],
)
def test_age_limits(text: str, seconds: int) -> None:
    assert queueinfo.ParseTaskAgeLimit(text) == seconds


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "Task Age Limit must not be empty."),
        ("5", "Task Age_Limit must be in s (seconds), m (minutes), h (hours), or d (days)"),
        ("xs", 'Task Age_Limit "xs" is invalid.'),
    ],
)
def test_what_is_no_age_limit(text: str, words: str) -> None:
    with pytest.raises(INVALID) as caught:
        queueinfo.ParseTaskAgeLimit(text)
    assert str(caught.value) == words


def test_a_whole_file() -> None:
    text = """\
application: guestbook
total_storage_limit: 5M
resume_paused_queues: yes
queue:
- name: mail
  rate: 5/s
  bucket_size: 40
  target: v1.worker
  retry_parameters:
    task_retry_limit: 7
    task_age_limit: 5d
    min_backoff_seconds: 1.5
- name: pulled
  mode: pull
  acl:
  - user_email: a@example.com
"""
    info = queueinfo.LoadSingleQueue(text)
    assert info == queueinfo.LoadSingleQueue(io.StringIO(text))
    assert info == queueinfo.LoadSingleQueue(io.BytesIO(text.encode()))
    assert info.application == "guestbook"
    assert info.total_storage_limit == "5M"
    assert info.resume_paused_queues == "True"
    mail, pulled = info.queue
    assert (mail.name, mail.rate, mail.bucket_size, mail.target) == ("mail", "5/s", 40, "v1.worker")
    assert (mail.mode, mail.acl, mail.max_concurrent_requests) == (None, None, None)
    assert mail.retry_parameters == queueinfo.RetryParameters(
        task_retry_limit=7, task_age_limit="5d", min_backoff_seconds=1.5
    )
    assert pulled.acl == [queueinfo.Acl(user_email="a@example.com")]
    assert pulled.ToDict() == {
        "name": "pulled",
        "mode": "pull",
        "acl": [{"user_email": "a@example.com"}],
    }


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("queue:\n", None),
        ("queue:\n- name: a\n", ["a"]),
        ('queue:\n- name: ""\n  rate: 5/s\n', [""]),
        ("queue:\n- name: a\n- name: a\n", ["a", "a"]),
        ("queue:\n- name: 5\n  rate:\n", ["5"]),
    ],
)
def test_it_is_as_lenient_as_the_original(text: str, names: list[str] | None) -> None:
    queue = queueinfo.LoadSingleQueue(text).queue
    assert (None if queue is None else [entry.name for entry in queue]) == names


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "Empty queue configuration."),
        ("queue:\n---\nqueue:\n", "Multiple queue: sections in configuration."),
    ],
)
def test_a_file_that_means_nothing(text: str, words: str) -> None:
    with pytest.raises(INVALID) as caught:
        queueinfo.LoadSingleQueue(text)
    assert str(caught.value) == words


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("foo: 1", 1, "Unexpected attribute 'foo' for object of type QueueInfoExternal."),
        (
            "queue:\n- name: a\n  foo: 1",
            3,
            "Unexpected attribute 'foo' for object of type QueueEntry.",
        ),
        (
            "queue:\n- name: a\n  max_dispatches_per_second: 5",
            3,
            "Unexpected attribute 'max_dispatches_per_second' for object of type QueueEntry.",
        ),
        ("queue:\n- rate: 5/s", 2, "Missing required value [name]."),
        ("queue:\n- name: a\n  rate: 5/s\n  rate: 6/s", 4, "Duplicate attribute 'rate'."),
        ("queue:\n- name: a_b", 2, "Unable to assign value 'a_b' to attribute 'name'"),
        ("queue:\n- name: a\n  rate: 5", 3, "Unable to assign value '5' to attribute 'rate'"),
        ("queue:\n- name: a\n  mode: x", 3, "is not pull or push"),
        ("queue:\n- name: a\n  target: A", 3, "Unable to assign value 'A'"),
        (
            "queue:\n- name: a\n  bucket_size: x",
            3,
            "Value 'x' for bucket_size could not be converted to type int.",
        ),
        (
            "queue:\n- name: a\n  retry_parameters:\n    task_age_limit: 5",
            4,
            "must be a non-negative number followed by a time unit, such as 1h or 3.5d",
        ),
        ("queue:\n- name: a\n  retry_parameters: x", 3, "not of the expected type RetryParam"),
        ("queue: x", 1, "should be a sequence but is not"),
        ("queue:\n- name: [a]", 2, "should be a single value but is not"),
        ("total_storage_limit: 5X", 1, "Unable to assign value '5X'"),
        ("resume_paused_queues: perhaps", 1, "is not True or False"),
    ],
)
def test_a_fault_is_told_with_its_line(text: str, line: int, words: str) -> None:
    with pytest.raises(yaml_errors.EventError) as caught:
        queueinfo.LoadSingleQueue(text)
    assert caught.value.line == line
    assert words in str(caught.value)
    assert f"(line: {line})" in str(caught.value)


def test_what_is_not_yaml() -> None:
    with pytest.raises(yaml_errors.EventListenerYAMLError, match="expected the node content"):
        queueinfo.LoadSingleQueue("queue: [")


def test_attributes_are_checked_when_they_are_set() -> None:
    entry = queueinfo.QueueEntry(name="a", rate="5/s", bucket_size="7")
    assert entry.bucket_size == 7
    assert entry == queueinfo.QueueEntry(name="a", rate="5/s", bucket_size=7)
    assert repr(entry).startswith("<QueueEntry name='a', rate='5/s', mode=None, bucket_size=7")
    with pytest.raises(queueinfo.ValidationError, match="Value 'x' for rate"):
        entry.rate = "x"
    with pytest.raises(queueinfo.ValidationError, match="Unexpected attribute 'nope'"):
        queueinfo.QueueEntry(nope=1)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {}),
        ({"min_backoff_seconds": 4000}, {"min_backoff_sec": 4000, "max_backoff_sec": 4000}),
        ({"max_backoff_seconds": 0.05}, {"min_backoff_sec": 0.05, "max_backoff_sec": 0.05}),
        (
            {"task_age_limit": "5h", "task_retry_limit": 3},
            {"retry_limit": 3, "age_limit_sec": 18000},
        ),
    ],
)
def test_retry_parameters_are_translated(given: dict[str, Any], expected: dict[str, Any]) -> None:
    translated = queueinfo.TranslateRetryParameters(queueinfo.RetryParameters(**given))
    names = ("retry_limit", "age_limit_sec", "min_backoff_sec", "max_backoff_sec", "max_doublings")
    assert {n: getattr(translated, n) for n in names if translated.HasField(n)} == expected
    assert translated.max_doublings == 16


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"task_retry_limit": -1}, "Task retry limit must not be less than zero."),
        ({"task_age_limit": "0s"}, "Task age limit must be greater than zero."),
        ({"min_backoff_seconds": -1}, "Min backoff seconds must not be less than zero."),
        ({"max_doublings": -1}, "Max doublings must not be less than zero."),
        (
            {"min_backoff_seconds": 5, "max_backoff_seconds": 1},
            "Min backoff sec must not be greater than than max backoff sec.",
        ),
    ],
)
def test_retry_parameters_that_contradict_each_other(given: dict[str, Any], words: str) -> None:
    with pytest.raises(INVALID) as caught:
        queueinfo.TranslateRetryParameters(queueinfo.RetryParameters(**given))
    assert str(caught.value) == words
