"""Where the program runs, and how project and location are found without guessing."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

import appengine_compat
from appengine_compat import platform, settings
from appengine_compat.errors import ConfigError
from appengine_compat.platform import Found, Platform


class MetadataServer:
    """Answers as Google's metadata server does, over real HTTP."""

    def __init__(self) -> None:
        self.answers: dict[str, str] = {}
        self.asked: list[str] = []
        self.flavor = "Google"
        self.status = 200
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                owner.asked.append(self.path)
                path = self.path.removeprefix("/computeMetadata/v1/")
                known = path in owner.answers and self.headers["Metadata-Flavor"] == "Google"
                self.send_response(owner.status if known else 404)
                self.send_header("Metadata-Flavor", owner.flavor)
                self.end_headers()
                if known:
                    self.wfile.write(owner.answers[path].encode())

            def log_message(self, *args: Any) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for variable in (
        settings.PROJECT.variable,
        settings.LOCATION.variable,
        *platform.PROJECT_VARIABLES,
        *platform.LOCATION_VARIABLES,
    ):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("GCE_METADATA_HOST", "127.0.0.1:1")
    yield
    appengine_compat.configure(project=None, location=None)


@pytest.fixture
def metadata(monkeypatch: pytest.MonkeyPatch) -> Iterator[MetadataServer]:
    server = MetadataServer()
    monkeypatch.setenv("GCE_METADATA_HOST", server.address)
    yield server
    server.close()


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, Platform.ELSEWHERE),
        ({"GAE_ENV": "standard"}, Platform.APP_ENGINE),
        ({"GAE_APPLICATION": "e~app", "GAE_INSTANCE": "x"}, Platform.APP_ENGINE),
        ({"GAE_APPLICATION": "e~app"}, Platform.ELSEWHERE),
        ({"GAE_ENV": "localdev"}, Platform.ELSEWHERE),
        ({"K_SERVICE": "web"}, Platform.CLOUD_RUN),
        ({"CLOUD_RUN_JOB": "nightly"}, Platform.CLOUD_RUN),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, Platform.KUBERNETES),
        ({"K_SERVICE": "web", "KUBERNETES_SERVICE_HOST": "10.0.0.1"}, Platform.CLOUD_RUN),
    ],
)
def test_platforms_are_known_by_what_they_set(
    variables: dict[str, str], expected: Platform
) -> None:
    assert platform.detect(variables) is expected


class TestProject:
    def test_the_setting_goes_first(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("GAE_APPLICATION", "e~third")
        assert platform.project() == Found("third", "GAE_APPLICATION")
        monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "second")
        assert platform.project() == Found("second", "GOOGLE_CLOUD_PROJECT")
        monkeypatch.setenv("APPENGINE_COMPAT_PROJECT", "first")
        assert platform.project() == Found("first", "APPENGINE_COMPAT_PROJECT")
        appengine_compat.configure(project="zeroth")
        assert platform.project() == Found("zeroth", "configure")

    @pytest.mark.parametrize(
        ("text", "project"),
        [
            ("s~my-app", "my-app"),
            ("e~my-app", "my-app"),
            ("e~example.com:my-app", "example.com:my-app"),
            ("my-app", "my-app"),
        ],
    )
    def test_app_engines_region_prefix_is_taken_off(
        self, monkeypatch: pytest.MonkeyPatch, text: str, project: str
    ) -> None:
        monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", text)
        assert platform.project().value == project

    @pytest.mark.parametrize("text", ["a/b", "a b", "projects/a", "~"])
    def test_what_is_no_project_is_refused_with_its_source(
        self, monkeypatch: pytest.MonkeyPatch, text: str
    ) -> None:
        monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", text)
        with pytest.raises(ConfigError, match="GOOGLE_CLOUD_PROJECT gives") as caught:
            platform.project()
        assert caught.value.setting == "APPENGINE_COMPAT_PROJECT"

    def test_the_metadata_server_is_asked_last_and_once(self, metadata: MetadataServer) -> None:
        metadata.answers["project/project-id"] = "from-metadata\n"
        expected = Found("from-metadata", "the metadata server")
        assert platform.project() == platform.project() == expected
        assert metadata.asked == ["/computeMetadata/v1/project/project-id"]

    def test_it_is_never_guessed(self) -> None:
        with pytest.raises(ConfigError, match="GOOGLE_CLOUD_PROJECT, GAE_APPLICATION") as caught:
            platform.project()
        assert "Set APPENGINE_COMPAT_PROJECT" in str(caught.value)
        assert "127.0.0.1:1" in str(caught.value)


class TestLocation:
    def test_the_setting_goes_first(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for variable in (*reversed(platform.LOCATION_VARIABLES), settings.LOCATION.variable):
            monkeypatch.setenv(variable, "europe-west9")
            assert platform.location() == Found("europe-west9", variable)

    @pytest.mark.parametrize(
        ("legacy", "region"), [("us-central", "us-central1"), ("europe-west", "europe-west1")]
    )
    def test_app_engines_oldest_regions_have_other_names(
        self, monkeypatch: pytest.MonkeyPatch, legacy: str, region: str
    ) -> None:
        monkeypatch.setenv("APPENGINE_COMPAT_LOCATION", legacy)
        assert platform.location().value == region

    @pytest.mark.parametrize(
        ("answers", "region"),
        [
            ({"instance/region": "projects/123/regions/europe-west3"}, "europe-west3"),
            ({"instance/zone": "projects/123/zones/us-central1-b"}, "us-central1"),
        ],
    )
    def test_the_metadata_server_tells_region_or_zone(
        self, metadata: MetadataServer, answers: dict[str, str], region: str
    ) -> None:
        metadata.answers.update(answers)
        assert platform.location() == Found(region, "the metadata server")

    def test_a_zone_that_names_no_region_is_no_location(self, metadata: MetadataServer) -> None:
        metadata.answers["instance/zone"] = "projects/123/zones/us16"
        with pytest.raises(ConfigError, match="'us16', which names no region"):
            platform.location()

    def test_someone_else_who_answers_is_not_believed(self, metadata: MetadataServer) -> None:
        metadata.answers["instance/region"] = "projects/123/regions/europe-west3"
        metadata.flavor = "Portal"
        with pytest.raises(ConfigError, match="no metadata server of Google's"):
            platform.location()

    def test_a_broken_metadata_server_is_told(self, metadata: MetadataServer) -> None:
        metadata.answers["instance/region"] = "oops"
        metadata.status = 500
        with pytest.raises(ConfigError, match=r"answers 500 .*APPENGINE_COMPAT_LOCATION"):
            platform.location()


class TestEmulatorHost:
    @pytest.mark.parametrize(
        ("text", "address"),
        [
            ("", ""),
            ("localhost:8123", "localhost:8123"),
            (" http://localhost:8123/ ", "localhost:8123"),
            ("10.0.0.1:80", "10.0.0.1:80"),
            ("[::1]:8123", "[::1]:8123"),
            ("cloud_tasks-1.internal:8123", "cloud_tasks-1.internal:8123"),
        ],
    )
    def test_is_an_address_with_a_port(
        self, monkeypatch: pytest.MonkeyPatch, text: str, address: str
    ) -> None:
        monkeypatch.setenv("CLOUD_TASKS_EMULATOR_HOST", text)
        assert platform.emulator_host() == address

    @pytest.mark.parametrize("text", ["localhost", "https://a:1", "a:b", "a:1/path", ":8123"])
    def test_anything_else_is_an_error_that_shows_one(
        self, monkeypatch: pytest.MonkeyPatch, text: str
    ) -> None:
        monkeypatch.setenv("CLOUD_TASKS_EMULATOR_HOST", text)
        with pytest.raises(ConfigError, match="such as localhost:8123") as caught:
            platform.emulator_host()
        assert repr(text) in str(caught.value)


class TestOwnAddressOnCloudRun:
    @pytest.fixture(autouse=True)
    def _on_cloud_run(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
        monkeypatch.setenv("K_SERVICE", "web")
        monkeypatch.setenv("K_CONFIGURATION", "web")
        monkeypatch.setattr(platform, "_own_url_unknown_until", 0.0)

    @pytest.fixture
    def answers(self, metadata: MetadataServer) -> dict[str, str]:
        metadata.answers["project/numeric-project-id"] = "123456789012"
        metadata.answers["instance/region"] = "projects/123456789012/regions/europe-west3"
        return metadata.answers

    def test_is_made_of_service_project_number_and_region(self, answers: dict[str, str]) -> None:
        assert platform.own_url() == "https://web-123456789012.europe-west3.run.app"

    def test_is_asked_for_once(self, answers: dict[str, str], metadata: MetadataServer) -> None:
        assert platform.own_url() == platform.own_url()
        assert len(metadata.asked) == 2

    @pytest.mark.parametrize(
        ("variable", "value"),
        [("K_SERVICE", ""), ("K_CONFIGURATION", ""), ("KUBERNETES_SERVICE_HOST", "10.0.0.1")],
    )
    def test_what_is_no_service_of_cloud_run_has_none_and_asks_nobody(
        self,
        answers: dict[str, str],
        metadata: MetadataServer,
        monkeypatch: pytest.MonkeyPatch,
        variable: str,
        value: str,
    ) -> None:
        monkeypatch.setenv(variable, value)
        assert platform.own_url() == ""
        assert metadata.asked == []

    def test_a_name_that_does_not_fit_a_host_name_has_an_address_that_cannot_be_known(
        self, answers: dict[str, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("K_SERVICE", "w" * 50)
        assert platform.own_url().startswith("https://" + "w" * 50)
        monkeypatch.setenv("K_SERVICE", "w" * 51)
        assert platform.own_url() == ""

    @pytest.mark.parametrize(
        ("path", "answer"),
        [("project/numeric-project-id", "evil.example/"), ("instance/region", "a.example/b c")],
    )
    def test_answers_of_another_shape_make_no_address(
        self, answers: dict[str, str], path: str, answer: str
    ) -> None:
        answers[path] = answer
        assert platform.own_url() == ""

    def test_where_nobody_answers_it_is_asked_again_only_later(
        self, metadata: MetadataServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert platform.own_url() == platform.own_url() == ""
        assert len(metadata.asked) == 1
        metadata.answers["project/numeric-project-id"] = "1"
        metadata.answers["instance/region"] = "projects/1/regions/europe-west3"
        later = time.monotonic() + platform.OWN_URL_AGAIN_SECONDS
        monkeypatch.setattr("appengine_compat.platform.time.monotonic", lambda: later)
        assert platform.own_url() == "https://web-1.europe-west3.run.app"
