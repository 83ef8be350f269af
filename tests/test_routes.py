"""Routes for deferred tasks: a label behind the path, POST only, behind the door."""

from __future__ import annotations

import asyncio
import pickle
from typing import Any

import flask
import pytest
from google.appengine.api import namespace_manager, wrap_wsgi_app

from appengine_compat import defer_middleware, install_defer_routes
from appengine_compat.local import tokens

SECRET = b"the secret of the routes' test"
CALLS: list[Any] = []
PATHS = [
    "/_ah/queue/deferred",
    "/_ah/queue/deferred_manipulator_clearCache",
    "/_ah/queue/deferred/",
    "/_ah/queue/deferred/a/b",
    "/_ah/queue/deferred-x/y",
]


def note(value: object) -> None:
    CALLS.append((value, namespace_manager.get_namespace()))


BODY = pickle.dumps((note, (1,), {}))


def task_headers(path: str) -> dict[str, str]:
    token = tokens.make(SECRET, queue_id="q", task_id="t", path=path)
    return {
        "X-CloudTasks-QueueName": "q", "X-CloudTasks-TaskName": "t", "X-AEC-Local-Token": token,
        "X-AEC-Carried-X-AppEngine-Current-Namespace": "ns1",
    }  # fmt: skip


def plain() -> flask.Flask:
    return install_defer_routes(flask.Flask(__name__))


def wrapped() -> flask.Flask:
    app = install_defer_routes(flask.Flask(__name__))
    app.wsgi_app = wrap_wsgi_app(app.wsgi_app, use_deferred=True)
    return app


def by_middleware() -> flask.Flask:
    app = flask.Flask(__name__)
    app.wsgi_app = defer_middleware(app.wsgi_app)  # type: ignore[method-assign]
    return app


@pytest.fixture(params=[plain, wrapped, by_middleware])
def client(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("APPENGINE_COMPAT_BACKEND", "cloudtasks")
    monkeypatch.delenv("GAE_ENV", raising=False)
    tokens.register_secret(SECRET)
    CALLS.clear()
    app = request.param()

    @app.get("/page")
    def page() -> str:
        return flask.request.headers.get("X-AppEngine-TaskName", "no task")

    return app.test_client()


@pytest.mark.parametrize("path", PATHS)
def test_tasks_run_at_every_such_path_in_their_namespace(client: Any, path: str) -> None:
    response = client.post(path, data=BODY, headers=task_headers(path))
    assert (response.status_code, response.text) == (200, "Success")
    assert response.headers["Content-Type"].startswith("text/plain")
    assert CALLS == [(1, "ns1")]
    assert namespace_manager.get_namespace() == ""


@pytest.mark.parametrize("path", PATHS)
def test_nobody_else_runs_anything(client: Any, path: str) -> None:
    response = client.post(
        path, data=BODY, headers={"X-AppEngine-TaskName": "t", "X-AppEngine-User-IP": "0.1.0.2"}
    )
    assert response.status_code == 401
    assert response.text.startswith("AEC-NO-CREDENTIALS")
    assert CALLS == []


@pytest.mark.parametrize("path", PATHS)
def test_other_methods_are_refused(client: Any, path: str) -> None:
    response = client.get(path, headers=task_headers(path))
    assert response.status_code == 405
    assert "POST" in response.headers["Allow"]


def test_other_paths_are_the_apps(client: Any) -> None:
    assert client.get("/page").text == "no task"
    assert client.post("/_ah/queue/other").status_code == 404


def test_other_apps_are_pointed_to_the_middleware() -> None:
    with pytest.raises(TypeError, match="defer_middleware"):
        install_defer_routes(lambda environ, start_response: [])


class TestDjango:
    @pytest.fixture
    def client(self) -> Any:
        django = pytest.importorskip("django")
        from django.conf import settings as django_settings

        if not django_settings.configured:
            django_settings.configure(
                SECRET_KEY="x", ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], DEBUG=False,
                MIDDLEWARE=["django.middleware.csrf.CsrfViewMiddleware"],
            )  # fmt: skip
            django.setup()
        from django.test import Client

        global urlpatterns
        urlpatterns = install_defer_routes([])
        tokens.register_secret(SECRET)
        CALLS.clear()
        return Client(enforce_csrf_checks=True)

    @pytest.mark.parametrize("path", PATHS)
    def test_tasks_run_and_others_do_not(self, client: Any, path: str) -> None:
        content = {"data": BODY, "content_type": "application/octet-stream"}
        done = client.post(path, headers=task_headers(path), **content)
        assert (done.status_code, done.content) == (200, b"Success")
        assert CALLS == [(1, "ns1")]
        assert client.post(path, **content).status_code == 401
        assert client.get(path, headers=task_headers(path)).status_code == 405
        assert len(CALLS) == 1

    @pytest.mark.parametrize("path", PATHS)
    def test_the_same_holds_where_django_is_served_by_asgi(self, client: Any, path: str) -> None:
        from django.test import AsyncClient

        async def ask(method: str, **headers: str) -> Any:
            asker = AsyncClient(enforce_csrf_checks=True)
            body = {"data": BODY, "content_type": "application/octet-stream"}
            return await getattr(asker, method)(
                path, headers=headers, **(body if method == "post" else {})
            )

        done = asyncio.run(ask("post", **task_headers(path)))
        assert (done.status_code, done.content) == (200, b"Success")
        assert CALLS == [(1, "ns1")]
        assert asyncio.run(ask("post")).status_code == 401
        assert asyncio.run(ask("get", **task_headers(path))).status_code == 405
        assert len(CALLS) == 1


urlpatterns: list[Any] = []
