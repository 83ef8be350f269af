"""``require_task`` around WSGI apps and views: tasks come in, others are told why not."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

import flask
import pytest

from appengine_compat import require_task
from appengine_compat.local import tokens

SECRET = b"the secret of the guard's test"
CLOUD = {"X-CloudTasks-QueueName": "q", "X-CloudTasks-TaskName": "t"}


def task_headers(path: str) -> dict[str, str]:
    tokens.register_secret(SECRET)
    token = tokens.make(SECRET, queue_id="q", task_id="t", path=path)
    return {**CLOUD, "X-AEC-Local-Token": token}


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> flask.Flask:
    monkeypatch.delenv("GAE_ENV", raising=False)
    app = flask.Flask(__name__)

    @app.route("/", defaults={"path": ""})
    @app.route("/<path:path>", methods=["GET", "POST"])
    def anything(path: str) -> str:
        return flask.request.headers.get("X-AppEngine-TaskName", "no task")

    return app


@pytest.mark.parametrize("path", ["/_ah/queue/deferred", "/_ah/queue/x", "/_ah/queue/"])
def test_an_app_keeps_the_paths_of_queues_for_tasks(app: flask.Flask, path: str) -> None:
    assert require_task(app) is app
    client = app.test_client()
    refused = client.post(path, headers=CLOUD)
    assert refused.status_code == 401
    assert refused.text.startswith("AEC-NO-CREDENTIALS: ")
    assert refused.headers["WWW-Authenticate"] == "Bearer"
    assert client.post(path, headers=task_headers(path)).text == "t"


def test_other_paths_are_open_and_forged_headers_are_gone(app: flask.Flask) -> None:
    app.wsgi_app = require_task(app.wsgi_app)  # type: ignore[method-assign]
    response = app.test_client().get("/page", headers={"X-AppEngine-TaskName": "forged"})
    assert (response.status_code, response.text) == (200, "no task")


def test_which_paths_is_a_setting(app: flask.Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APPENGINE_COMPAT_TASK_PATHS", "/tasks/,/internal/")
    client = require_task(app).test_client()
    assert client.get("/tasks/a").status_code == 401
    assert client.get("/internal/a").status_code == 401
    assert client.get("/tasks").status_code == 200
    assert client.get("/tasks/a", headers=task_headers("/tasks/a")).text == "t"


@pytest.mark.parametrize(
    "path", ["//tasks/a", "/./tasks/a", "/x/../tasks/a", "///tasks//a", "tasks/a", "/%2e/tasks/"]
)
def test_another_spelling_of_a_path_is_guarded_too(path: str) -> None:
    """Some routers go by the parts of a path, to whom these are all the same."""
    served: list[str] = []

    def app(environ: Any, start_response: Any) -> list[bytes]:
        served.append(environ["PATH_INFO"])
        start_response("200 OK", [])
        return [b""]

    statuses: list[str] = []
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": unquote(path)}
    list(require_task(app, paths="/tasks/")(environ, lambda status, _: statuses.append(status)))
    assert (statuses, served) == (["401 Unauthorized"], [])


def test_or_an_argument(app: flask.Flask) -> None:
    client = require_task(app, paths=["/mine"]).test_client()
    assert client.get("/mine/a").status_code == 401
    assert client.get("/_ah/queue/a").status_code == 200


def test_a_view_is_guarded_whatever_its_path(app: flask.Flask) -> None:
    @app.get("/do/<thing>")
    @require_task
    def do(thing: str) -> str:
        return f"{thing} by {flask.request.headers['X-AppEngine-TaskName']}"

    client = app.test_client()
    assert client.get("/do/it").status_code == 401
    assert client.get("/do/it", headers={"X-AEC-Local-Token": "0" * 64}).status_code == 403
    assert client.get("/do/it", headers=task_headers("/do/it")).text == "it by t"


def test_a_plain_function_cannot_be_guarded() -> None:
    with pytest.raises(TypeError, match="WSGI apps and the views of Flask and Django"):
        require_task(lambda: "x")()


def test_a_wrapped_function_keeps_its_name() -> None:
    def handler() -> Any: ...

    assert require_task(handler).__name__ == "handler"
