"""What a queue.yaml becomes when it is deployed."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from appengine_compat.core.model import UNLIMITED, AppEngineRouting, Queue, QueueState, RetryConfig
from appengine_compat.core.names import short_id
from appengine_compat.core.rate import burst_for_rate
from appengine_compat.queues import queue_yaml
from appengine_compat.queues.deployed import deployed_queues

PARENT = "projects/p/locations/l"


def deployed(lines: str) -> Queue:
    text = "queue:\n- name: mail\n" + "".join(f"  {line}\n" for line in lines.split("\n"))
    (queue,) = deployed_queues(queue_yaml.parse(text), PARENT)
    return queue


def retries(**parameters: object) -> RetryConfig:
    written = ", ".join(f"{name}: {value}" for name, value in parameters.items())
    return deployed(f"rate: 5/s\nretry_parameters: {{{written}}}").retry_config


def test_what_is_not_said_has_the_defaults_of_queue_yaml() -> None:
    queue = deployed("rate: 5/s")
    assert queue.name == f"{PARENT}/queues/mail"
    assert queue.rate_limits.max_dispatches_per_second == 5.0
    assert queue.rate_limits.max_burst_size == 5
    assert queue.rate_limits.max_concurrent_dispatches == 1000
    assert queue.retry_config == RetryConfig(max_attempts=UNLIMITED)
    assert queue.state is QueueState.RUNNING
    assert queue.app_engine_routing_override is None


def test_names_are_reserved_for_nine_days_and_tasks_kept_for_ten_years() -> None:
    queue = deployed("rate: 5/s")
    assert queue.tombstone_ttl_seconds == 777_600
    assert queue.task_ttl_seconds == 315_360_000


@pytest.mark.parametrize(("limit", "attempts"), [(0, 1), (1, 2), (7, 8)])
def test_a_retry_limit_is_one_less_than_attempts(limit: int, attempts: int) -> None:
    assert retries(task_retry_limit=limit).max_attempts == attempts


def test_an_age_limit_is_whole_seconds() -> None:
    assert retries(task_age_limit="90.9s").max_retry_duration_seconds == 90.0


@pytest.mark.parametrize("rate", ["0", "0/s"])
def test_a_rate_of_nothing_pauses(rate: str) -> None:
    assert deployed(f"rate: {rate}").state is QueueState.PAUSED


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"min_backoff_seconds": 4000}, (4000.0, 4000.0)),
        ({"max_backoff_seconds": 0.05}, (0.05, 0.05)),
        ({"min_backoff_seconds": 2, "max_backoff_seconds": 9}, (2.0, 9.0)),
    ],
)
def test_a_backoff_bound_follows_the_only_one_given(
    given: dict[str, float], expected: tuple[float, float]
) -> None:
    config = retries(**given)
    assert (config.min_backoff_seconds, config.max_backoff_seconds) == expected


@pytest.mark.parametrize(
    ("target", "routing"),
    [
        ("worker", AppEngineRouting(service="worker")),
        ("v2.worker", AppEngineRouting(service="worker", version="v2")),
    ],
)
def test_a_target_routes(target: str, routing: AppEngineRouting) -> None:
    assert deployed(f"rate: 5/s\ntarget: {target}").app_engine_routing_override == routing


def test_a_written_zero_is_deployed_as_the_default_and_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        queue = deployed(
            "rate: 5/s\nbucket_size: 0\nmax_concurrent_requests: 0\n"
            "retry_parameters: {max_doublings: 0, min_backoff_seconds: 0}"
        )
    assert queue.rate_limits.max_burst_size == 5
    assert queue.rate_limits.max_concurrent_dispatches == 1000
    assert queue.retry_config.max_doublings == 16
    assert queue.retry_config.min_backoff_seconds == 0.1
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 4
    assert (
        "queue.yaml:2: queue 'mail': 'max_doublings: 0' is deployed as 16, so 16 is used here "
        "as well. Write that, or another value." in said
    )


@pytest.mark.parametrize(("written", "used"), [(-3, 1), (6000, 5000)])
def test_concurrency_is_kept_within_its_limits_and_said(
    written: int, used: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        queue = deployed(f"rate: 5/s\nmax_concurrent_requests: {written}")
    assert queue.rate_limits.max_concurrent_dispatches == used
    assert f"deployed as {used}" in caplog.text


def test_a_file_without_oddities_is_read_quietly(caplog: pytest.LogCaptureFixture) -> None:
    deployed("rate: 5/s\nmax_concurrent_requests: 3\nretry_parameters: {task_retry_limit: 0}")
    assert caplog.records == []


def test_pull_queues_are_left_out_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "queue.yaml"
    path.write_text("queue:\n- name: old\n  mode: pull\n- name: mail\n  rate: 1/s\n")
    queues = queue_yaml.load(path, PARENT)
    assert [short_id(queue.name) for queue in queues] == ["mail"]
    assert f"{path}:2: queue 'old' is a pull queue" in caplog.text


# --- the repository's own queue.yaml, against the commands that make the queues in production ---

FLAGS = """
admin               --max-dispatches-per-second 5 --max-attempts -1
api-track-call      --max-dispatches-per-second 500 --max-attempts 1
backups             --max-dispatches-per-second 0.1 --max-concurrent-dispatches 1 --max-attempts -1
cache-clearing      --max-dispatches-per-second 5 --max-attempts -1
datafeed            --max-dispatches-per-second 5 --max-attempts -1 --max-retry-duration 3600s
default             --max-dispatches-per-second 10 --max-attempts 1
firebase            --max-dispatches-per-second 50 --max-attempts -1
post-update-hooks   --max-dispatches-per-second 5 --max-attempts -1
push-notifications  --max-dispatches-per-second 100 --max-attempts -1 --max-retry-duration 180s \
--min-backoff=10s --max-backoff=30s
run-in-order        --max-dispatches-per-second 5 --max-concurrent-dispatches 1 --max-attempts -1
search-index-update --max-dispatches-per-second 10 --max-attempts -1
"""


def test_the_repositorys_queue_yaml_says_what_the_commands_say() -> None:
    queues = queue_yaml.load(Path(__file__).parents[2] / "queue.yaml", PARENT)
    by_id = {short_id(queue.name): queue for queue in queues}
    commands = [line.replace("=", " ").split() for line in FLAGS.strip().splitlines()]
    assert sorted(by_id) == [name for name, *_ in commands]
    for name, *words in commands:
        flags = dict(zip(words[::2], words[1::2], strict=True))
        queue = by_id[name]
        rate = float(flags["--max-dispatches-per-second"])
        limits, retry = queue.rate_limits, queue.retry_config
        assert limits.max_dispatches_per_second == rate, name
        assert limits.max_burst_size == burst_for_rate(rate), name
        assert limits.max_concurrent_dispatches == int(
            flags.get("--max-concurrent-dispatches", 1000)
        ), name
        assert retry == RetryConfig(
            max_attempts=int(flags["--max-attempts"]),
            max_retry_duration_seconds=float(flags.get("--max-retry-duration", "0s")[:-1]),
            min_backoff_seconds=float(flags.get("--min-backoff", "0.1s")[:-1]),
            max_backoff_seconds=float(flags.get("--max-backoff", "3600s")[:-1]),
        ), name
