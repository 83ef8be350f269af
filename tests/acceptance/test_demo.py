"""The example under ``appengine-compat dev``, as a newcomer meets it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.acceptance import demo_script

SERVICES = ("main:app", "py3-web=web:app", "py3-tasks-io=tasks_io:app")


def test_make_demo_starts_what_is_tested_here() -> None:
    command = demo_script.recipe_of("demo").replace("\\\n", " ").split()
    assert command[-5:-3] == ["../../$(BIN)/appengine-compat", "dev"]
    assert tuple(command[-3:]) == SERVICES


def test_the_start_tells_addresses_and_queues(demo: Any) -> None:
    assert len({demo.address(service) for service in ("default", "py3-web", "py3-tasks-io")}) == 3
    demo.wait_for(r"^  default +10/s, 1000 at once, given up after 8 attempts$")
    demo.wait_for(r"^  push-notifications +100/s, 1000 at once, given up after 180 s$")
    demo.wait_for(r"^  run-in-order +5/s, 1 at once, retried without end$")


def test_the_page_shows_what_can_be_deferred(demo: Any) -> None:
    page = demo.get("/")

    assert "<h1>Guestbook</h1>" in page
    assert page.count("<form") == 7


def test_signing_defers_thanks_and_a_task_for_another_service(demo: Any) -> None:
    demo.post("/sign", name="Ann", message="hello")

    demo.wait_for(r"default  default  work\.thank\(\d+, name='Ann'\)  attempt 1  200  \d+ ms$")
    demo.wait_for(r"default  py3-web  POST /tasks/wall  attempt 1  200  \d+ ms$")
    assert re.search(r"<b>Ann</b> hello\s+<small>thanked", demo.get("/"))
    assert "<li><b>Ann</b> hello" in demo.get("/", "py3-web")


def test_an_unreliable_task_fails_twice_and_then_succeeds(demo: Any) -> None:
    demo.post("/flaky")

    call = r"work\.import_feed\('news\.example'\)"
    demo.wait_for(rf"{call}  attempt 1  500  \d+ ms  next try in \d+\.\d s$")
    demo.wait_for(rf"{call}  attempt 2  500  \d+ ms  next try in \d+\.\d s$")
    demo.wait_for(rf"{call}  attempt 3  200  \d+ ms$")
    demo.wait_for("RuntimeError: news.example did not answer", count=2)
    assert "failed, to be tried again" in demo.get("/")


def test_a_hopeless_task_fails_once_and_for_good(demo: Any) -> None:
    demo.post("/broken")

    call = r"work\.charge\('4000-0002'\)"
    demo.wait_for(rf"{call}  attempt 1  200  \d+ ms  failed for good: .*card 4000-0002 was refused")
    # Its first retry would be before another task's third attempt.
    demo.post("/flaky")
    demo.wait_for(r"work\.import_feed.*attempt 3  200", count=1 + _count(demo, "attempt 3  200"))
    assert "attempt 2" not in "\n".join(line for line in demo.lines if "work.charge" in line)
    assert "failed for good" in demo.get("/")


def test_a_countdown_runs_later(demo: Any) -> None:
    demo.post("/later")

    demo.wait_for(r"run-in-order  default  work\.remind\('tea is ready'\)  attempt 1  200")


def test_a_get_task_runs_on_the_service_it_names(demo: Any) -> None:
    demo.post("/points")

    demo.wait_for(r"default  py3-tasks-io  GET /tasks/math/do/points/2019nyny  attempt 1  200")
    assert re.search(r"points/2019nyny</code><td>py3-tasks-io / default<td>1<td>done", _rows(demo))


def test_a_custom_route_runs_the_call(demo: Any) -> None:
    assert demo.get("/do_the_thing") == "Done! deferred expensive work for later."

    demo.wait_for(r"default  default  work\.do_expensive_work\('a', b='c'\)  attempt 1  200")


def test_a_notification_runs_on_its_queue_service_and_url(demo: Any) -> None:
    demo.post("/notify")

    demo.wait_for(
        r"push-notifications  py3-tasks-io  "
        r"work\.send_notification\('Ann', text='You have a visitor'\)  attempt 1  200"
    )


def test_whoever_calls_from_outside_is_not_taken_for_a_task(demo: Any) -> None:
    forged = {
        "X-AppEngine-QueueName": "default",
        "X-AppEngine-TaskName": "1",
        "X-AppEngine-User-IP": "0.1.0.2",
        "X-CloudTasks-QueueName": "default",
        "X-CloudTasks-TaskName": "1",
    }

    assert demo.post("/tasks/wall", "py3-web", forged, entry="1")[0] == 403
    status, text = demo.post("/_ah/queue/deferred", "default", forged)
    assert status in (401, 403)
    assert "APPENGINE_COMPAT_SERVICE_ACCOUNT" in text


def test_after_kill_9_the_same_database_goes_on(
    guestbook: Callable[[], Path], start_dev: Callable[..., Any]
) -> None:
    directory = guestbook()
    first = start_dev(directory, *SERVICES).ready()
    first.post("/broken")
    first.wait_for(r"work\.charge.*attempt 1  200")
    first.post("/flaky")
    first.wait_for(r"work\.import_feed.*attempt 1  500")
    first.post("/later")
    first.kill()
    assert "work.remind" not in first.output

    second = start_dev(directory, *SERVICES).ready()

    second.wait_for(r"work\.import_feed.*attempt 3  200")
    second.wait_for(r"work\.remind.*attempt 1  200")
    assert "work.charge" not in second.output


def _count(demo: Any, text: str) -> int:
    return sum(text in line for line in demo.lines)


def _rows(demo: Any) -> str:
    return re.sub(r"\s+", " ", demo.get("/"))
