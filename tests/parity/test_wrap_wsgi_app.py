"""What an app sees behind ``wrap_wsgi_app`` on App Engine: Google's, and ours beside the SDK."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

BASE = {
    "REQUEST_METHOD": "GET", "SCRIPT_NAME": "", "PATH_INFO": "/x", "QUERY_STRING": "a=b",
    "SERVER_NAME": "0.0.0.0", "SERVER_PORT": "8080", "SERVER_PROTOCOL": "HTTP/1.1",
    "SERVER_SOFTWARE": "gunicorn/23", "REMOTE_ADDR": "169.254.1.1", "wsgi.url_scheme": "http",
    "HTTP_HOST": "app.appspot.com", "HTTP_X_FORWARDED_PROTO": "https",
    "HTTP_X_APPENGINE_HTTPS": "on", "HTTP_X_APPENGINE_USER_IP": "192.0.2.1",
    "HTTP_X_APPENGINE_COUNTRY": "CH",
}  # fmt: skip
TASK = {
    "REQUEST_METHOD": "POST", "HTTP_X_APPENGINE_TASKNAME": "t", "HTTP_X_APPENGINE_QUEUENAME": "q",
    "HTTP_X_APPENGINE_TASKRETRYCOUNT": "1", "HTTP_X_APPENGINE_USER_IP": "0.1.0.2",
}  # fmt: skip
REQUESTS: dict[str, dict[str, str]] = {
    "a visitor": {},
    "a visitor over http": {"HTTP_X_FORWARDED_PROTO": "http", "HTTP_X_APPENGINE_HTTPS": "off"},
    "a port": {"HTTP_HOST": "app.appspot.com:8443"},
    "someone signed in": {
        "HTTP_X_APPENGINE_USER_EMAIL": "a@example.com", "HTTP_X_APPENGINE_USER_ID": "12",
        "HTTP_X_APPENGINE_USER_IS_ADMIN": "1", "HTTP_X_APPENGINE_USER_NICKNAME": "a",
        "HTTP_X_APPENGINE_AUTH_DOMAIN": "example.com",
        "HTTP_X_APPENGINE_USER_ORGANIZATION": "example.com",
    },
    "a request with a log id": {"HTTP_X_APPENGINE_REQUEST_LOG_ID": "5f0c"},
    "the platform's own": {
        "HTTP_X_APPENGINE_DATACENTER": "us1", "HTTP_X_APPENGINE_APPSERVER_TASK_BNS": "b",
        "HTTP_X_APPENGINE_DEFAULT_VERSION_HOSTNAME": "app.appspot.com",
    },
    "a cron job": {"HTTP_X_APPENGINE_CRON": "true", "HTTP_X_APPENGINE_USER_IP": "0.1.0.1"},
    "a task": TASK,
    "a task in a namespace": {**TASK, "HTTP_X_APPENGINE_CURRENT_NAMESPACE": "ns1"},
    "a task in the empty namespace": {**TASK, "HTTP_X_APPENGINE_CURRENT_NAMESPACE": ""},
    "a malformed namespace": {**TASK, "HTTP_X_APPENGINE_CURRENT_NAMESPACE": "no space"},
}  # fmt: skip

Ask = Callable[[dict[str, str]], dict[str, Any]]


def asking(python: str, whose: str, legacy: bool) -> Iterator[Ask]:
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("APPENGINE_COMPAT_", "GAE_", "GOOGLE_", "HTTP_"))
    }
    process = subprocess.Popen(
        [python, "-W", "ignore", str(HERE / "wrapped.py"), whose, str(legacy)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={
            **inherited, "PYTHONPATH": str(ROOT), "GAE_ENV": "standard",
            "GAE_APPLICATION": "s~parity-test", "APPENGINE_COMPAT_BACKEND": "cloudtasks",
        },
    )  # fmt: skip

    def ask(changes: dict[str, str]) -> dict[str, Any]:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps({**BASE, **changes}) + "\n")
        process.stdin.flush()
        seen: dict[str, Any] = json.loads(process.stdout.readline())
        return seen

    yield ask
    process.communicate()


@pytest.fixture(scope="module", params=[True, False], ids=["legacy", "not legacy"])
def legacy(request: pytest.FixtureRequest) -> bool:
    mode: bool = request.param
    return mode


@pytest.fixture(scope="module")
def googles(sdk_python: str, legacy: bool) -> Iterator[Ask]:
    yield from asking(sdk_python, "google's", legacy)


@pytest.fixture(scope="module")
def beside(sdk_python: str, legacy: bool) -> Iterator[Ask]:
    yield from asking(sdk_python, "ours", legacy)


@pytest.mark.parametrize("name", REQUESTS)
def test_the_app_sees_the_same(googles: Ask, beside: Ask, name: str) -> None:
    theirs, ours = googles(REQUESTS[name]), beside(REQUESTS[name])
    if "raised" in theirs:
        assert theirs == ours
        return
    assert theirs["environ"] == ours["environ"]
    assert (theirs["namespace"], theirs["is_admin"]) == (ours["namespace"], ours["is_admin"])
    assert theirs["host"] == ours["host"]
    assert theirs["os"] == ours["os"]


def test_one_request_leaves_nothing_to_the_next(beside: Ask) -> None:
    assert beside(REQUESTS["a task in a namespace"])["namespace"] == "ns1"
    second = beside({})
    assert second["namespace"] == ""
    assert "HTTP_X_APPENGINE_TASKNAME" not in second["os"]


def test_a_scheme_of_neither_kind_is_not_taken_over(googles: Ask, beside: Ask) -> None:
    forwarded = {"HTTP_X_FORWARDED_PROTO": "gopher"}
    assert googles(forwarded)["environ"]["wsgi.url_scheme"] == "gopher"
    assert beside(forwarded)["environ"]["wsgi.url_scheme"] == "http"


def test_no_client_chooses_the_proxy_beside_the_sdk_either(beside: Ask) -> None:
    assert "HTTP_PROXY" not in beside({"HTTP_PROXY": "http://evil.example"})["os"]
