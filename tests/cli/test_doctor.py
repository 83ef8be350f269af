"""``appengine-compat doctor``: each thing that can be wrong is found, and says what mends it."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from google.appengine.api import wrap_wsgi_app

from appengine_compat.backends import cloud_tasks_inspection
from appengine_compat.cli import main
from appengine_compat.handler import oidc_keys
from appengine_compat.testing.cloud_tasks import local_cloud_tasks
from tests.handler.conftest import KEYS, jwk

TASKS = "tasks@project.iam.gserviceaccount.com"
OURS = "web@project.iam.gserviceaccount.com"

Findings = dict[str, dict[str, str]]


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A directory with nothing in it, on no platform."""
    monkeypatch.chdir(tmp_path)
    for variable in (
        "GAE_ENV", "GAE_APPLICATION", "GAE_INSTANCE", "K_SERVICE", "GOOGLE_CLOUD_PROJECT",
        "LOCATION_ID", "GAE_REGION", "GOOGLE_APPLICATION_CREDENTIALS", "http_proxy", "HTTP_PROXY",
    ):  # fmt: skip
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("GCE_METADATA_HOST", "127.0.0.1:9")
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("APPENGINE_COMPAT_BACKEND", "embedded")


def examined(capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, Findings]:
    code = main.main(["doctor", "--json", *options])
    found = json.loads(capsys.readouterr().out)
    for each in found:
        assert each["remedy"] or each["status"] != "failed", each
    return code, {each["check"]: each for each in found}


@contextmanager
def answering(answer: Callable[[str, bytes], tuple[int, Any]], **headers: str) -> Iterator[str]:
    """A server that answers by path and body."""

    class Pages(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, page = answer(self.path, body)
            content = page.encode() if isinstance(page, str) else json.dumps(page).encode()
            self.send_response_only(status)
            for name, value in {"Date": formatdate(usegmt=True), **headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST

        def log_message(self, *args: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


class TestOnThisMachine:
    def test_nothing_set_is_fine(self, capsys: pytest.CaptureFixture[str]) -> None:
        code, found = examined(capsys)
        assert code == 0
        assert found["google.appengine.ext.deferred"]["status"] == "ok"
        assert found["backend"]["text"].startswith("embedded")
        assert "tasks.db" in found["database"]["text"]

    def test_lines_for_people_end_with_the_remedy(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("APPENGINE_COMPAT_TREADS", "3")
        assert main.main(["doctor"]) == 1
        (line,) = (
            line for line in capsys.readouterr().out.splitlines() if line.startswith("failed   set")
        )
        assert "APPENGINE_COMPAT_THREADS" in line
        assert line.endswith("→ set or unset APPENGINE_COMPAT_TREADS")

    def test_a_bad_value_does_not_end_the_examination(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("APPENGINE_COMPAT_SIGNATURES", "sometimes")
        code, found = examined(capsys)
        assert code == 1
        assert found["settings"]["remedy"] == "set or unset APPENGINE_COMPAT_SIGNATURES"
        assert found["signatures"]["status"] == "failed"
        assert "handler" in found

    @pytest.mark.parametrize("backend", ["cloudtasks", "rq"])
    def test_a_backend_that_lacks_settings_is_examined_as_far_as_it_goes(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, backend: str
    ) -> None:
        monkeypatch.setenv("APPENGINE_COMPAT_BACKEND", backend)
        code, found = examined(capsys)
        assert (code, found["backend"]["status"]) == (1, "failed")
        assert found["targets"]["text"] == "no service has an address"
        if backend == "cloudtasks":
            assert found["project"]["remedy"] == "set APPENGINE_COMPAT_PROJECT"
            assert found["service account"]["status"] == "failed"

    def test_a_broken_queue_yaml(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        (tmp_path / "queue.yaml").write_text("queue:\n- name: a\n  rate: often\n")
        code, found = examined(capsys)
        assert (code, found["queue.yaml"]["status"]) == (1, "failed")
        assert "queue.yaml:3" in found["queue.yaml"]["text"]

    def test_signatures_without_keys_and_bounds_that_refuse_nothing(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("APPENGINE_COMPAT_SIGNATURES", "require")
        monkeypatch.setenv("APPENGINE_COMPAT_ALLOWED_CALLABLES", "log-only,app")
        code, found = examined(capsys)
        assert code == 1
        assert found["signatures"]["remedy"] == "set APPENGINE_COMPAT_SIGNING_KEYS"
        assert found["allowed callables"]["status"] == "warning"

    def test_secrets_are_not_shown(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("APPENGINE_COMPAT_SIGNING_KEYS", "k1:0123456789abcdefSECRET")
        main.main(["doctor"])
        printed = capsys.readouterr().out
        assert "k1" in printed
        assert "SECRET" not in printed


class TestTheHandler:
    @pytest.mark.parametrize(
        ("status", "text", "verdict", "says"),
        [
            (401, "AEC-NO-CREDENTIALS: this", "ok", "by AEC-NO-CREDENTIALS"),
            (403, "<html>", "ok", "by what stands before it"),
            (404, "", "failed", "use_deferred=True"),
            (200, "Success", "failed", "takes requests of anybody"),
            (500, "", "warning", "500"),
        ],
    )
    def test_what_it_answers(
        self, capsys: pytest.CaptureFixture[str], status: int, text: str, verdict: str, says: str
    ) -> None:
        with answering(lambda *_: (status, text)) as url:
            code, found = examined(capsys, "--url", url)
        assert found["handler"]["status"] == verdict
        assert says in found["handler"]["text"] + found["handler"]["remedy"]
        assert code == (1 if verdict == "failed" else 0)

    def test_the_real_one(self, capsys: pytest.CaptureFixture[str]) -> None:
        app = wrap_wsgi_app(lambda *_: [], use_deferred=True)

        def answer(path: str, body: bytes) -> tuple[int, str]:
            statuses: list[str] = []
            environ = {"REQUEST_METHOD": "POST", "PATH_INFO": path, "REMOTE_ADDR": "9.9.9.9"}
            text = b"".join(app(environ, lambda status, *_: statuses.append(status)))  # type: ignore
            return int(statuses[0][:3]), text.decode()

        with answering(answer) as url:
            _, found = examined(capsys, "--url", url)
        assert found["handler"]["text"].endswith("by AEC-NO-CREDENTIALS")

    def test_nobody_there(self, capsys: pytest.CaptureFixture[str]) -> None:
        code, found = examined(capsys, "--url", "http://127.0.0.1:9")
        assert (code, found["handler"]["status"]) == (1, "failed")
        assert "does not answer" in found["handler"]["text"]


class TestKeysAndClock:
    def test_a_clock_that_is_wrong(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def answer(path: str, _: bytes) -> tuple[int, Any]:
            if path.endswith("openid-configuration"):
                return 200, {"jwks_uri": url + "/jwks"}
            return 200, {"keys": [jwk("a", KEYS["a"])]}

        monkeypatch.setenv("APPENGINE_COMPAT_SERVICE_ACCOUNT", TASKS)
        for date, status in ((formatdate(usegmt=True), "ok"), (formatdate(0), "failed")):
            with answering(answer, Date=date) as url:
                monkeypatch.setenv("APPENGINE_COMPAT_OIDC_ISSUER", url)
                _, found = examined(capsys)
            assert found["token keys"]["text"].startswith("1 from")
            assert found["clock"]["status"] == status
        oidc_keys.forget()

    def test_keys_that_cannot_be_fetched(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("APPENGINE_COMPAT_SERVICE_ACCOUNT", TASKS)
        monkeypatch.setenv("APPENGINE_COMPAT_OIDC_ISSUER", "http://127.0.0.1:9")
        code, found = examined(capsys)
        assert (code, found["token keys"]["status"]) == (1, "failed")


class TestCloudTasks:
    """Against a Cloud Tasks that answers by gRPC, as Google's does."""

    @pytest.fixture
    def cloud(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
        with local_cloud_tasks(queues=("default", "slow")) as cloud:
            monkeypatch.delenv("APPENGINE_COMPAT_BACKEND")
            monkeypatch.setenv("CLOUD_TASKS_EMULATOR_HOST", cloud.grpc_address)
            monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", cloud.project)
            monkeypatch.setenv("APPENGINE_COMPAT_LOCATION", cloud.location)
            yield cloud

    def test_values_say_where_they_came_from(
        self, capsys: pytest.CaptureFixture[str], cloud: Any
    ) -> None:
        _, found = examined(capsys)
        assert found["project"]["text"] == f"{cloud.project}, from GOOGLE_CLOUD_PROJECT"
        assert found["location"]["text"] == f"{cloud.location}, from APPENGINE_COMPAT_LOCATION"

    def test_a_location_is_never_guessed(
        self, capsys: pytest.CaptureFixture[str], cloud: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("APPENGINE_COMPAT_LOCATION")
        code, found = examined(capsys)
        assert (code, found["location"]["status"]) == (1, "failed")
        assert found["location"]["remedy"] == "set APPENGINE_COMPAT_LOCATION"

    def test_queues_are_compared(
        self, capsys: pytest.CaptureFixture[str], cloud: Any, tmp_path: Path
    ) -> None:
        (tmp_path / "queue.yaml").write_text(
            "queue:\n- {name: default, rate: 5/s}\n- {name: missing, rate: 1/s}\n"
        )
        code, found = examined(capsys)
        assert code == 1
        assert found["queue default"]["status"] == "warning"
        assert "rate 500, not 5" in found["queue default"]["text"]
        assert "gcloud tasks queues update default" in found["queue default"]["remedy"]
        remedy = found["queue missing"]["remedy"]
        assert remedy.startswith("gcloud tasks queues create missing ")
        assert "--max-dispatches-per-second=1 " in remedy

    def test_a_paused_queue(self, capsys: pytest.CaptureFixture[str], cloud: Any) -> None:
        with cloud.client() as client:
            client.pause_queue(name=cloud.queue_path("default"))
        _, found = examined(capsys)
        assert found["queue default"]["text"] == "is paused: its tasks wait"
        assert found["queue default"]["remedy"].startswith("gcloud tasks queues resume default")

    def test_the_test_task_comes_through(
        self, capsys: pytest.CaptureFixture[str], cloud: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bodies: list[bytes] = []

        def answer(path: str, body: bytes) -> tuple[int, str]:
            bodies.append(body)
            return (401, "AEC-NO-CREDENTIALS: x") if body == b"not a task" else (200, "")

        with answering(answer) as url:
            monkeypatch.setenv("APPENGINE_COMPAT_TARGETS", url)
            code, found = examined(capsys, "--send-test-task")
            cloud.wait_idle()
        assert code == 0, found
        assert found["test task"]["text"].endswith("has come through")
        assert b"appengine_compat.payload.self_test" in bodies[-1]

    def test_or_says_how_far_it_came(
        self, capsys: pytest.CaptureFixture[str], cloud: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with answering(lambda *_: (403, "AEC-OIDC-AUDIENCE: x")) as url:
            monkeypatch.setenv("APPENGINE_COMPAT_TARGETS", url)
            code, found = examined(capsys, "--send-test-task", "--wait", "0.1")
            with cloud.client() as client:
                client.purge_queue(name=cloud.queue_path("default"))
            cloud.wait_idle()
        assert (code, found["test task"]["status"]) == (1, "failed")
        assert "not done after" in found["test task"]["text"]


class TestCredentials:
    """Against a server that stands for Google's token endpoint and IAM."""

    @pytest.fixture
    def google(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[dict[str, Any]]:
        said: dict[str, Any] = {"permissions": ["iam.serviceAccounts.actAs"], "status": 200}

        def answer(path: str, body: bytes) -> tuple[int, Any]:
            if path == "/token":
                return 200, {"access_token": "x", "expires_in": 3600, "token_type": "Bearer"}
            assert path == f"/v1/projects/-/serviceAccounts/{TASKS}:testIamPermissions"
            if said["status"] != 200:
                return said["status"], {"error": {"message": "no such account"}}
            return 200, {"permissions": said["permissions"]}

        with answering(answer) as url:
            key = KEYS["a"].private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            file = tmp_path / "key.json"
            file.write_text(
                json.dumps(
                    {
                        "type": "service_account", "client_email": OURS, "project_id": "project",
                        "private_key": key.decode(), "private_key_id": "a",
                        "token_uri": url + "/token",
                    }
                )
            )  # fmt: skip
            monkeypatch.setattr(cloud_tasks_inspection, "IAM_URL", url + "/v1")
            monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
            monkeypatch.setenv("APPENGINE_COMPAT_SERVICE_ACCOUNT", TASKS)
            yield said

    def findings(self) -> Findings:
        from appengine_compat.cli import surroundings

        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("APPENGINE_COMPAT_BACKEND", "cloudtasks")
            patch.setenv("APPENGINE_COMPAT_TARGETS", "https://app.example.com")
            return {each.check: each.to_json() for each in surroundings.credentials()}

    def test_who_we_are_and_that_we_may(self, google: dict[str, Any]) -> None:
        found = self.findings()
        assert found["credentials"]["text"].startswith(OURS)
        assert found["act as"]["status"] == "ok"

    def test_that_we_may_not(self, google: dict[str, Any]) -> None:
        google["permissions"] = []
        found = self.findings()["act as"]
        assert found["status"] == "failed"
        assert f"--member=serviceAccount:{OURS} --role=roles/iam.service" in found["remedy"]

    def test_that_google_does_not_tell(self, google: dict[str, Any]) -> None:
        google["status"] = 404
        found = self.findings()["act as"]
        assert found["status"] == "warning"
        assert "no such account" in found["text"]

    def test_no_credentials_at_all(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
        monkeypatch.setenv("APPENGINE_COMPAT_SERVICE_ACCOUNT", TASKS)
        found = self.findings()["credentials"]
        assert found["status"] == "failed"
        assert found["remedy"] == "gcloud auth application-default login"
