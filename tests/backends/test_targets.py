"""Which service runs a task, and where that service is."""

from __future__ import annotations

import contextvars
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appengine_compat import platform, settings
from appengine_compat.backends import targets
from appengine_compat.backends.base import BackendError, Reason
from appengine_compat.core.model import AppEngineRouting
from appengine_compat.local import ngrok

SHAPES = [
    ("worker", AppEngineRouting(service="worker")),
    (" Worker ", AppEngineRouting(service="worker")),
    ("v1.worker", AppEngineRouting(service="worker", version="v1")),
    ("v1-dot-worker", AppEngineRouting(service="worker", version="v1")),
    ("2.v1.worker", AppEngineRouting(service="worker", version="v1", instance="2")),
    ("py3-tasks-io", AppEngineRouting(service="py3-tasks-io")),
    ("app.appspot.com", AppEngineRouting(service="default")),
    ("app.uc.r.appspot.com", AppEngineRouting(service="default")),
    ("worker.app.appspot.com", AppEngineRouting(service="worker")),
    ("worker-dot-app.uc.r.appspot.com", AppEngineRouting(service="worker")),
    (
        "2-dot-v1-dot-worker-dot-app.uc.r.appspot.com",
        AppEngineRouting(service="worker", version="v1", instance="2"),
    ),
]


@pytest.mark.parametrize(("text", "routing"), SHAPES)
def test_every_form_of_target_is_understood(text: str, routing: AppEngineRouting) -> None:
    assert targets.parse_target(text) == routing


def test_a_host_below_the_apps_own_is_a_target(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEFAULT_VERSION_HOSTNAME", "tasks.example.com")
    routing = AppEngineRouting(service="worker", version="v1")
    assert targets.parse_target("v1.worker.tasks.example.com") == routing
    assert targets.parse_target("tasks.example.com") == AppEngineRouting(service="default")


@pytest.mark.parametrize("text", ["a.b.c.d", "-a", "a b", "a/b", "https://x", ".worker", "v1..w"])
def test_what_is_no_target_is_refused(text: str) -> None:
    with pytest.raises(BackendError, match="is not one") as caught:
        targets.parse_target(text)
    assert caught.value.reason is Reason.INVALID_TARGET
    assert repr(text) in str(caught.value)


part = st.from_regex(r"\A[a-z0-9][a-z0-9\-]{0,20}\Z").filter(lambda text: "-dot-" not in text)


@given(st.lists(part, min_size=1, max_size=3), st.sampled_from([".", "-dot-"]))
def test_names_come_back_as_they_were_put_together(names: list[str], separator: str) -> None:
    # A name that ends or begins in part of the separator can be read in two ways.
    names = [name.strip("-").replace("dot", "x") or "a" for name in names]
    routing = targets.parse_target(separator.join(names))
    found = [routing.instance, routing.version, routing.service]
    assert [name for name in found if name] == names


class TestCurrentService:
    @pytest.fixture(autouse=True)
    def _bare(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("GAE_SERVICE", raising=False)
        monkeypatch.delenv("K_SERVICE", raising=False)

    def test_is_default_where_nothing_tells(self) -> None:
        assert targets.current_service() == "default"

    @pytest.mark.parametrize("variable", ["GAE_SERVICE", "K_SERVICE"])
    def test_is_what_the_platform_says(
        self, monkeypatch: pytest.MonkeyPatch, variable: str
    ) -> None:
        monkeypatch.setenv(variable, "worker")
        assert targets.current_service() == "worker"

    def test_is_the_requests_own_where_a_process_serves_several(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("GAE_SERVICE", "worker")

        def serve() -> str:
            targets.SERVICE.set("api")
            return targets.current_service()

        assert contextvars.copy_context().run(serve) == "api"
        assert targets.current_service() == "worker"


class TestFinding:
    TABLE = {
        "default": "https://a.example.com",
        "v2.worker": "https://two.example.com",
        "worker": "https://b.example.com/app",
        "old": "appengine",
    }

    @pytest.mark.parametrize(
        ("target", "place"),
        [
            ("default", "https://a.example.com"),
            ("worker", "https://b.example.com/app"),
            ("v1.worker", "https://b.example.com/app"),
            ("v2.worker", "https://two.example.com"),
            ("0.v2.worker", "https://b.example.com/app"),
            ("old", AppEngineRouting(service="old")),
            ("v3.old", AppEngineRouting(service="old", version="v3")),
        ],
    )
    def test_the_closest_entry_counts(self, target: str, place: AppEngineRouting | str) -> None:
        assert targets.find(target, self.TABLE) == place

    def test_one_address_may_stand_for_all(self) -> None:
        table = {"": "https://all.example.com", "api": "https://api.example.com"}
        assert targets.find("anything", table) == "https://all.example.com"
        assert targets.find("api", table) == "https://api.example.com"

    def test_an_unknown_service_is_refused_with_those_known(self) -> None:
        with pytest.raises(BackendError, match=r"default, old, v2\.worker, worker") as caught:
            targets.find("v1.api", self.TABLE)
        assert caught.value.reason is Reason.INVALID_TARGET
        assert "api=https://" in str(caught.value)

    def test_the_advice_is_for_the_place_where_the_table_stands(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.delenv("APPENGINE_COMPAT_TARGETS", raising=False)
        Path("appengine-compat.toml").write_text('[services]\nworker = "https://w.example.com"\n')
        with pytest.raises(BackendError) as caught:
            targets.find("api", settings.TARGETS.get())
        assert (
            'Add api = "https://its-address" to [services] of appengine-compat.toml, or '
            'api = "appengine" if' in str(caught.value)
        )

    def test_an_address_with_a_query_is_refused(self) -> None:
        with pytest.raises(BackendError, match="has a query"):
            targets.find("x", {"": "https://a.example.com/?a=b"})


class TestOnCloudRun:
    OWN = "https://web-1.europe-west3.run.app"

    @pytest.fixture(autouse=True)
    def _on_cloud_run(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("K_SERVICE", "web")
        monkeypatch.setattr(platform, "own_url", lambda: self.OWN)

    @pytest.mark.parametrize("target", ["web", "v1.web"])
    def test_the_service_itself_is_found_without_a_table(self, target: str) -> None:
        assert targets.find(target, {}) == self.OWN
        assert targets.find(target, {"worker": "https://w.example.com"}) == self.OWN

    @pytest.mark.parametrize("key", ["web", ""])
    def test_the_table_goes_first(self, key: str) -> None:
        assert targets.find("web", {key: "https://own.example.com"}) == "https://own.example.com"

    def test_other_services_are_not_guessed(self) -> None:
        with pytest.raises(BackendError, match=r"those known are: web, worker\."):
            targets.find("api", {"worker": "https://w.example.com"})


class TestHere:
    """Targets among the processes of one machine, each of which knows its own apps only."""

    TABLE = {"default": "http://localhost:8081", "v2.worker": "http://localhost:8082"}

    @pytest.mark.parametrize("target", ["default", "v1.default", "v2.worker", "api", "v9.api"])
    def test_a_service_of_the_table_or_of_this_process_is_known(self, target: str) -> None:
        assert targets.here(target, self.TABLE, {"api"}) == targets.parse_target(target)

    @pytest.mark.parametrize("target", ["wroker", "v1.worker"])
    def test_another_is_refused_with_those_known(self, target: str) -> None:
        known = r"those known are: api, default, v2\.worker\."
        with pytest.raises(BackendError, match=known) as caught:
            targets.here(target, self.TABLE, {"api"})
        assert caught.value.reason is Reason.INVALID_TARGET
        assert "appengine-compat dev w" in str(caught.value)

    @pytest.mark.parametrize("table", [{}, {"": "http://localhost:8081"}])
    def test_without_a_list_of_services_none_can_be_unknown(self, table: dict[str, str]) -> None:
        assert targets.here("anything", table, {"api"}) == AppEngineRouting(service="anything")

    def test_what_is_no_target_is_refused_all_the_same(self) -> None:
        with pytest.raises(BackendError, match="is not one"):
            targets.here("a b", {}, ())


@pytest.mark.parametrize(
    ("address", "relative", "url"),
    [
        ("https://a.example.com", "/work?x=1&y=%2F", "https://a.example.com/work?x=1&y=%2F"),
        ("https://a.example.com/", "/work", "https://a.example.com/work"),
        ("https://a.example.com/app", "/work", "https://a.example.com/app/work"),
        ("http://localhost:8081", "work", "http://localhost:8081/work"),
    ],
)
def test_path_and_query_are_kept_below_the_address(address: str, relative: str, url: str) -> None:
    assert targets.url(address, relative) == url


class TestNgrok:
    """Against a stand-in for the agent's local API, over real HTTP."""

    @pytest.fixture
    def agent(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
        answer: list[Any] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                found = self.path == "/api/tunnels"
                self.send_response(200 if found else 404)
                self.end_headers()
                self.wfile.write(json.dumps({"tunnels": answer}).encode())

            def log_message(self, *args: Any) -> None:
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        monkeypatch.setattr(ngrok, "AGENT", f"127.0.0.1:{server.server_port}")
        yield answer
        server.shutdown()
        thread.join()
        server.server_close()

    def test_the_open_tunnels_address_is_asked_of_the_agent(self, agent: list[Any]) -> None:
        agent.append({"public_url": "https://abc.ngrok.app", "proto": "https"})
        agent.append({"public_url": "tcp://0.tcp.ngrok.io:1234", "proto": "tcp"})
        assert targets.find("any", {"": "ngrok"}) == "https://abc.ngrok.app"

    def test_no_tunnel_is_told(self, agent: list[Any]) -> None:
        with pytest.raises(BackendError, match=r"no https tunnel open: open one \(ngrok http"):
            targets.find("any", {"": "ngrok"})

    def test_several_tunnels_are_told(self, agent: list[Any]) -> None:
        agent += [{"public_url": f"https://{name}.ngrok.app"} for name in "ba"]
        with pytest.raises(BackendError, match=r"https://a\.ngrok\.app, https://b\.ngrok\.app"):
            targets.find("any", {"": "ngrok"})

    def test_no_agent_is_told_with_what_to_start(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ngrok, "AGENT", "127.0.0.1:1")
        with pytest.raises(BackendError, match=r"no ngrok agent answers .* start one \(ngrok http"):
            targets.find("any", {"": "ngrok"})
