"""The plain page of queues and tasks, as a browser asks it."""

from __future__ import annotations

import html
import io
import re
from urllib.parse import urlencode

import pytest

from appengine_compat.core.model import AppEngineRequest, HttpRequest, Queue, Task
from appengine_compat.local.clock import ManualClock
from appengine_compat.local.control_page import TaskQueuePage
from appengine_compat.local.http_messages import application
from appengine_compat.local.service import LocalService
from appengine_compat.local.store import Store

PARENT = "projects/p/locations/l"
MAIL = f"{PARENT}/queues/mail"
EVIL = "<script>alert(1)</script>&\"'"


class Browser:
    def __init__(self, service, **options) -> None:
        self.app = application(TaskQueuePage(service, **options).answer)

    def ask(self, method, path, query="", form=None):
        body = urlencode(form or {}).encode()
        answers = []
        environ = {
            "REQUEST_METHOD": method,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_TYPE": "application/x-www-form-urlencoded",
            "CONTENT_LENGTH": str(len(body)),
            "wsgi.input": io.BytesIO(body),
        }
        chunks = self.app(environ, lambda status, headers: answers.append((status, dict(headers))))
        (status, headers), text = answers[0], b"".join(chunks).decode()
        return int(status[:3]), headers, text

    def get(self, query=""):
        return self.ask("GET", "/taskqueue", query)

    def press(self, page, action, name):
        """Send the form of a page that has this button for this queue or task."""
        for form in re.findall(r"<form .*?</form>", page, flags=re.S):
            fields = dict(re.findall(r'name=(\w+) value="(.*?)"', form))
            fields = {key: html.unescape(value) for key, value in fields.items()}
            path = re.search(r"action=(\S+?)>", form)[1]
            if path.endswith(f"/{action}") and fields["name"] == name:
                return self.ask("POST", path, form=fields)
        raise AssertionError(f"there is no {action} for {name}")


@pytest.fixture
def service():
    made = LocalService(Store(None), clock=ManualClock())
    made.create_queue(PARENT, Queue(name=MAIL))
    yield made
    made.close()


@pytest.fixture
def browser(service):
    return Browser(service)


def add(service, task_id, request=None):
    name = f"{MAIL}/tasks/{task_id}"
    service.create_task(MAIL, Task(name=name, request=request or AppEngineRequest()))
    return name


def test_it_lists_the_queues_of_all_projects(service, browser):
    service.create_queue("projects/q/locations/l", Queue(name="projects/q/locations/l/queues/web"))
    add(service, "one")

    status, headers, text = browser.get()

    assert status == 200
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert ">mail</a>" in text
    assert ">web</a>" in text
    assert "500/s" in text


def test_it_says_when_there_are_none(service, browser):
    service.delete_queue(MAIL)

    assert "There are no queues yet" in browser.get()[2]


def test_a_queue_shows_its_tasks_by_pages(service, browser):
    for number in range(101):
        add(service, f"t{number:03}", HttpRequest(url=f"http://localhost/{number}"))

    first = browser.get(urlencode({"queue": MAIL}))[2]
    link = html.unescape(re.search(r'<a href="/taskqueue\?(.*?)">The next', first)[1])
    second = browser.get(link)[2]

    assert "POST http://localhost/99" in first
    assert "http://localhost/100" not in first
    assert "http://localhost/100" in second
    assert "The next" not in second


def test_what_a_task_does_is_said_by_whoever_knows(service):
    add(service, "one", AppEngineRequest(body=b"call"))
    browser = Browser(service, describe=lambda method, address, body: f"{body.decode()}!")

    assert "call!" in browser.get(urlencode({"queue": MAIL}))[2]


def test_nothing_of_a_task_becomes_part_of_the_page(service):
    add(service, "one", AppEngineRequest(relative_uri=f"/{EVIL.replace(' ', '')}"))
    browser = Browser(service, describe=lambda method, address, body: EVIL)

    for query in (urlencode({"queue": MAIL}), urlencode({"queue": EVIL}), "queue=%ff%3Cscript"):
        assert "<script" not in browser.get(query)[2]


def test_the_browser_is_told_to_run_and_frame_nothing(browser):
    policy = browser.get()[1]["Content-Security-Policy"]

    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "form-action 'self'" in policy


def test_a_queue_that_is_not_there_is_not_found(browser):
    assert browser.get(urlencode({"queue": f"{PARENT}/queues/none"}))[0] == 404
    assert browser.get("queue=nonsense")[0] == 400
    assert browser.ask("GET", "/taskqueue/other")[0] == 404
    assert browser.ask("PUT", "/taskqueue")[0] == 405


class TestActions:
    def test_run_asks_for_a_dispatch(self, service, browser):
        service.pause_queue(MAIL)
        name = add(service, "one")

        status, headers, _ = browser.press(browser.get(urlencode({"queue": MAIL}))[2], "run", name)

        assert status == 303
        assert headers["Location"] == f"/taskqueue?{urlencode({'queue': MAIL})}"
        forced = service.store.read(
            lambda connection: connection.execute("SELECT forced > 0 FROM tasks").fetchone()
        )
        assert forced == (1,)

    def test_delete_removes_the_task(self, service, browser):
        name = add(service, "one")
        kept = add(service, "two")

        browser.press(browser.get(urlencode({"queue": MAIL}))[2], "delete", name)

        assert [task.name for task in service.list_tasks(MAIL).items] == [kept]

    def test_purge_removes_all(self, service, browser):
        add(service, "one")

        assert browser.press(browser.get()[2], "purge", MAIL)[0] == 303
        assert service.list_tasks(MAIL).items == []

    def test_pause_and_resume(self, service, browser):
        browser.press(browser.get()[2], "pause", MAIL)
        assert service.get_queue(MAIL).state.value == "PAUSED"

        browser.press(browser.get()[2], "resume", MAIL)
        assert service.get_queue(MAIL).state.value == "RUNNING"

    def test_a_task_that_has_ended_meanwhile_is_told(self, service, browser):
        name = add(service, "one")
        page = browser.get(urlencode({"queue": MAIL}))[2]
        service.delete_task(name)

        status, _, text = browser.press(page, "delete", name)

        assert status == 404
        assert "no longer exists" in text

    @pytest.mark.parametrize("token", [None, "", "wrong", "é"])
    def test_a_form_of_another_site_does_nothing(self, service, browser, token):
        add(service, "one")
        form = {"name": MAIL} if token is None else {"name": MAIL, "token": token}

        status, _, _ = browser.ask("POST", "/taskqueue/purge", form=form)

        assert status == 403
        assert len(service.list_tasks(MAIL).items) == 1

    def test_a_token_of_another_server_does_nothing(self, service, browser):
        page = Browser(service).get()[2]

        assert browser.press(page, "purge", MAIL)[0] == 403

    def test_looking_never_acts(self, service, browser):
        add(service, "one")

        assert browser.ask("GET", "/taskqueue/purge", urlencode({"name": MAIL}))[0] == 404
        assert len(service.list_tasks(MAIL).items) == 1

    def test_an_unknown_action_is_not_found(self, browser):
        assert browser.ask("POST", "/taskqueue/explode")[0] == 404
