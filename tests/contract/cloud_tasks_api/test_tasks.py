"""Tasks: how they are stored and shown, listed, deleted and run."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from google.api_core import exceptions
from google.cloud import tasks_v2

from tests.contract.cloud_tasks_api.calls import (
    BASIC,
    FULL,
    GONE,
    NO_ENTITY,
    add,
    now_of,
    refused,
)
from tests.contract.cloud_tasks_doors import QUEUE


def test_9_a_created_task_comes_back_in_the_basic_view(door, client) -> None:
    request = {"url": "https://example.com/a?b=c", "body": b"\xff\xfe?>", "headers": {"X-a": "1"}}
    made = client.create_task(parent=QUEUE, task={"http_request": request})
    assert made.view == BASIC
    assert not made.http_request.body
    assert made.http_request.headers == {"X-a": "1", "User-Agent": "Google-Cloud-Tasks"}
    assert made.http_request.http_method == tasks_v2.HttpMethod.POST
    assert made.dispatch_deadline == timedelta(minutes=10)
    assert made.schedule_time == now_of(door)
    assert made.create_time == now_of(door).replace(microsecond=0)
    assert "first_attempt" not in made
    full = client.get_task(request={"name": made.name, "response_view": FULL})
    assert full.view == FULL
    assert full.http_request.body == b"\xff\xfe?>"
    assert client.get_task(name=made.name) == made


def test_25_automatic_ids_are_digits(client) -> None:
    task_id = add(client).name.rpartition("/")[2]
    assert task_id.isdigit()
    assert 17 <= len(task_id) <= 20


def test_6_the_headers_that_the_service_adds_are_stored(client) -> None:
    request = {"body": b"{}", "headers": {"content-type": "application/json", "User-Agent": "me"}}
    made = client.create_task(parent=QUEUE, task={"app_engine_http_request": request})
    assert dict(made.app_engine_http_request.headers) == {
        "content-type": "application/json",
        "User-Agent": "me AppEngine-Google; (+http://code.google.com/appengine)",
        "Content-Length": "2",
    }
    assert made.app_engine_http_request.app_engine_routing.host == "p.us-central1.r.appspot.com"
    assert made.app_engine_http_request.relative_uri == "/"
    assert "dispatch_deadline" not in made


def test_8_an_agent_of_the_callers_is_replaced_or_appended_to(client) -> None:
    request = {"url": "http://localhost/", "headers": {"User-Agent": "me"}}
    http = client.create_task(parent=QUEUE, task={"http_request": request})
    assert dict(http.http_request.headers) == {"User-Agent": "Google-Cloud-Tasks"}
    request = {"headers": {"User-Agent": "me"}}
    app_engine = client.create_task(parent=QUEUE, task={"app_engine_http_request": request})
    assert app_engine.app_engine_http_request.headers["User-Agent"].startswith("me AppEngine-")


def test_7_only_app_engine_targets_get_a_content_type(client) -> None:
    http = client.create_task(
        parent=QUEUE, task={"http_request": {"url": "http://localhost/", "body": b"1"}}
    )
    app_engine = client.create_task(parent=QUEUE, task={"app_engine_http_request": {"body": b"1"}})
    assert "Content-Type" not in http.http_request.headers
    headers = app_engine.app_engine_http_request.headers
    assert headers["Content-Type"] == "application/octet-stream"


def test_what_only_the_service_may_set_is_passed_over(client) -> None:
    made = add(
        client,
        create_time=datetime(2020, 1, 1, tzinfo=timezone.utc),
        dispatch_count=5,
        response_count=5,
        view="FULL",
        first_attempt={"dispatch_time": datetime(2020, 1, 1, tzinfo=timezone.utc)},
    )
    assert made.create_time.year == 2026
    assert made.dispatch_count == made.response_count == 0
    assert "first_attempt" not in made


def test_tasks_keep_their_own_retry_settings_and_tokens(client) -> None:
    retry = {"max_attempts": 3, "min_backoff": timedelta(seconds=2)}
    token = {"service_account_email": "a@b", "audience": "c"}
    request = {"url": "https://example.com", "oidc_token": token}
    made = client.create_task(parent=QUEUE, task={"http_request": request, "retry_config": retry})
    assert made.retry_config == tasks_v2.RetryConfig(retry)
    assert made.http_request.oidc_token == tasks_v2.OidcToken(token)


def test_4_a_schedule_time_in_the_past_becomes_now(door, client) -> None:
    past = datetime(2001, 1, 1, tzinfo=timezone.utc)
    assert add(client, schedule_time=past).schedule_time == now_of(door)
    later = now_of(door) + timedelta(hours=1, microseconds=7)
    assert add(client, "later", schedule_time=later).schedule_time == later
    assert client.get_task(name=f"{QUEUE}/tasks/later").schedule_time == later


def test_1_the_name_of_a_deleted_task_stays_reserved(door, client) -> None:
    name = add(client, "a").name
    client.delete_task(name=name)
    with refused("NOT_FOUND", GONE):
        client.get_task(name=name)
    with refused("NOT_FOUND", NO_ENTITY):
        client.get_task(name=f"{QUEUE}/tasks/never")
    with pytest.raises(exceptions.Conflict, match="TOMBSTONED_TASK"):
        add(client, "a")
    door.clock.advance(3601)
    with refused("NOT_FOUND", NO_ENTITY):
        client.get_task(name=name)
    add(client, "a")


@pytest.mark.parametrize("kind", ["http_request", "app_engine_http_request"])
def test_5_the_size_limit_is_on_the_whole_task_as_stored(client, kind: str) -> None:
    limit = 1_048_569
    target: dict[str, Any] = {"headers": {"x-lower": "1"}}
    if kind == "http_request":
        target["url"] = "http://localhost:9/"

    def weighed(task_id: str, size: int) -> int:
        task = {"name": f"{QUEUE}/tasks/{task_id}", kind: {**target, "body": b"x" * size}}
        client.create_task(parent=QUEUE, task=task)
        full = client.get_task(request={"name": task["name"], "response_view": FULL})
        return tasks_v2.Task.pb(full).ByteSize()

    # The sizes of long bodies take as many bytes to write, so the rest weighs the same.
    size = 1_000_000 + limit - weighed("first", 1_000_000)
    assert weighed("lasts", size) == limit
    with refused("INVALID_ARGUMENT", "Task size too large"):
        weighed("heavy", size + 1)


def test_tasks_are_listed_by_pages_without_their_bodies(client) -> None:
    for number in range(5):
        add(client, f"t{number}", http_request={"url": "http://localhost", "body": b"b"})
    pages = list(client.list_tasks(request={"parent": QUEUE, "page_size": 2}).pages)
    assert [len(page.tasks) for page in pages] == [2, 2, 1]
    listed = [task for page in pages for task in page.tasks]
    assert {task.name for task in listed} == {f"{QUEUE}/tasks/t{number}" for number in range(5)}
    assert all(task.view == BASIC and not task.http_request.body for task in listed)
    full = list(client.list_tasks(request={"parent": QUEUE, "response_view": FULL}))
    assert [task.http_request.body for task in full] == [b"b"] * 5


def test_a_page_of_long_bodies_is_short(client) -> None:
    body = b"x" * 900_000
    for number in range(11):
        add(client, f"t{number}", http_request={"url": "http://localhost", "body": body})
    request = {"parent": QUEUE, "response_view": FULL}
    pages = list(client.list_tasks(request=request).pages)
    # What a client of gRPC takes where nobody tells it otherwise.
    assert all(page._pb.ByteSize() < 4 * 1024 * 1024 for page in pages)
    assert [len(page.tasks) for page in pages] == [3, 3, 3, 2]
    assert len(list(client.list_tasks(parent=QUEUE).pages)) == 1


def test_a_page_of_long_headers_is_short(client) -> None:
    headers = {f"X-{number}": "x" * 4000 for number in range(10)}
    for number in range(80):
        add(client, f"t{number}", http_request={"url": "http://localhost", "headers": headers})
    pages = list(client.list_tasks(parent=QUEUE).pages)
    assert len(pages) == 2
    assert sum(len(page.tasks) for page in pages) == 80


def test_17_running_a_task_tells_of_its_dispatch_before_the_reply(door, client) -> None:
    client.pause_queue(name=QUEUE)
    add(client, "a", schedule_time=now_of(door) + timedelta(days=1))
    ran = client.run_task(name=f"{QUEUE}/tasks/a")
    assert ran.dispatch_count == 1
    assert ran.response_count == 0
    assert ran.first_attempt.dispatch_time == now_of(door)
    assert ran.last_attempt.dispatch_time == now_of(door)
    assert "response_time" not in ran.last_attempt
    with refused("NOT_FOUND", NO_ENTITY):
        client.run_task(name=f"{QUEUE}/tasks/never")
