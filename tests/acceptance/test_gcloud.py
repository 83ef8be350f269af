"""The real gcloud against a running server, led there by CLOUDSDK_* variables alone.

gcloud comes neither from PyPI nor from Debian, so ``.ci/run`` cannot bring it. Where it is missing
these tests are skipped on a laptop, and fail where CI=true: what they hold would else be held
nowhere without anybody noticing. A CI that is to do without says so by AEC_WITHOUT_GCLOUD=1.
"""

from __future__ import annotations

import base64
import http.server
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
LOCATION = ("--location", "us-central1")
HTTP_OVERRIDES = (
    "--http-uri-override=scheme:http,host:localhost,port:8080,path:/all,query:a=b,mode:ALWAYS",
    "--http-method-override=PUT",
    "--http-header-override=X-One: 1",
)

# The eleven queues of production, by the commands that make them.
TABLE = {
    "admin": "--max-dispatches-per-second 5 --max-attempts -1",
    "api-track-call": "--max-dispatches-per-second 500 --max-attempts 1",
    "backups": "--max-dispatches-per-second 0.1 --max-concurrent-dispatches 1 --max-attempts -1",
    "cache-clearing": "--max-dispatches-per-second 5 --max-attempts -1",
    "datafeed": "--max-dispatches-per-second 5 --max-attempts -1 --max-retry-duration 3600s",
    "default": "--max-dispatches-per-second 10 --max-attempts 1",
    "firebase": "--max-dispatches-per-second 50 --max-attempts -1",
    "post-update-hooks": "--max-dispatches-per-second 5 --max-attempts -1",
    "push-notifications": "--max-dispatches-per-second 100 --max-attempts -1 "
    "--max-retry-duration 180s --min-backoff=10s --max-backoff=30s",
    "run-in-order": "--max-dispatches-per-second 5 --max-concurrent-dispatches 1 --max-attempts -1",
    "search-index-update": "--max-dispatches-per-second 10 --max-attempts -1",
}


class Gcloud:
    """gcloud with nothing set but what the server prints for ``eval``."""

    def __init__(self, variables: dict[str, str], config: Path) -> None:
        kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        # Without a folder of its own it would read, and write, the developer's settings.
        self.environment = {
            **kept,
            **{name: value for name, value in variables.items() if name.startswith("CLOUDSDK_")},
            "CLOUDSDK_CONFIG": str(config),
        }

    def run(self, *words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["gcloud", *words, "--quiet"],
            env=self.environment, cwd=cwd, capture_output=True, text=True, timeout=120,
            check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def ask(self, *words: str) -> Any:
        """Return what a command answers, which must succeed."""
        done = self.run(*words, "--format=json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if done.stdout.strip() else None

    def tasks(self, *words: str) -> Any:
        return self.ask("tasks", *words, *LOCATION)

    def refused(self, *words: str) -> str:
        """Return what a command says, which must fail."""
        done = self.run("tasks", *words, *LOCATION)
        assert done.returncode != 0, done.stdout
        return done.stderr


@pytest.fixture(scope="module", autouse=True)
def _gcloud_is_there() -> None:
    if shutil.which("gcloud"):
        return
    why = "gcloud is not installed: https://cloud.google.com/sdk/docs/install"
    if os.environ.get("CI") and not os.environ.get("AEC_WITHOUT_GCLOUD"):
        pytest.fail(why)
    pytest.skip(why)


@pytest.fixture(scope="module")
def server(local_server: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    directory = tmp_path_factory.mktemp("server")
    with local_server(
        directory, "--ephemeral", "--project", "p-one", "--location", "us-central1"
    ) as started:
        yield started.ready()


@pytest.fixture(scope="module")
def gcloud(server: Any, tmp_path_factory: pytest.TempPathFactory) -> Gcloud:
    from appengine_compat.cli import server_options

    variables = server_options.environment(
        "", server.door("REST"), "projects/p-one/locations/us-central1"
    )
    return Gcloud(variables, tmp_path_factory.mktemp("gcloud"))


@pytest.fixture(scope="module")
def target() -> Iterator[Any]:
    """An HTTP server that remembers what it was sent."""
    received: list[tuple[str, str, dict[str, str], bytes]] = []
    came = threading.Condition()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            with came:
                received.append((self.command, self.path, dict(self.headers), body))
                came.notify_all()
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_PUT = do_GET = do_POST

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as served:
        thread = threading.Thread(target=served.serve_forever)
        thread.start()

        class Target:
            url = f"http://localhost:{served.server_address[1]}"

            @staticmethod
            def wait_for(path: str) -> tuple[str, str, dict[str, str], bytes]:
                def found() -> Any:
                    return next((each for each in received if each[1] == path), None)

                with came:
                    assert came.wait_for(found, timeout=30), [each[:2] for each in received]
                    return found()

        yield Target
        served.shutdown()
        thread.join()


def test_every_command_of_the_table_makes_its_queue(gcloud: Gcloud, server: Any) -> None:
    server.ask("POST", "/_local/reset")

    def each(verb: str, names: Iterable[str]) -> list[Any]:
        with ThreadPoolExecutor(3) as pool:
            return list(
                pool.map(
                    lambda name: gcloud.tasks("queues", verb, name, *TABLE[name].split()), names
                )
            )

    made = each("create", TABLE)
    # Those that together have every flag: a command takes gcloud a second or two.
    updated = each("update", ("backups", "default", "push-notifications"))

    by_name = {queue["name"].rpartition("/")[2]: queue for queue in gcloud.tasks("queues", "list")}

    assert sorted(by_name) == sorted(TABLE)
    assert [by_name[queue["name"].rpartition("/")[2]] for queue in made] == made
    assert all(queue in made for queue in updated)
    assert by_name["default"]["rateLimits"] == {
        "maxDispatchesPerSecond": 10, "maxBurstSize": 10, "maxConcurrentDispatches": 1000,
    }  # fmt: skip
    assert by_name["backups"]["rateLimits"]["maxDispatchesPerSecond"] == 0.1
    assert by_name["backups"]["rateLimits"]["maxConcurrentDispatches"] == 1
    assert by_name["push-notifications"]["retryConfig"] == {
        "maxAttempts": -1, "maxRetryDuration": "180s", "minBackoff": "10s", "maxBackoff": "30s",
        "maxDoublings": 16,
    }  # fmt: skip


def test_the_life_of_a_queue(gcloud: Gcloud) -> None:
    gcloud.tasks("queues", "create", "life")
    again = gcloud.refused("queues", "create", "life")
    updated = gcloud.tasks(
        "queues", "update", "life", "--max-dispatches-per-second=7", "--max-attempts=unlimited",
        "--routing-override=service:worker", "--log-sampling-ratio=0.5", *HTTP_OVERRIDES,
    )  # fmt: skip
    cleared = gcloud.tasks(
        "queues", "update", "life", "--clear-routing-override", "--clear-max-attempts",
        "--clear-http-uri-override",
    )  # fmt: skip
    gcloud.tasks("queues", "pause", "life")
    state = gcloud.tasks("queues", "describe", "life")["state"]
    gcloud.tasks("queues", "resume", "life")
    gcloud.tasks("queues", "purge", "life")
    purged = gcloud.tasks("queues", "describe", "life")
    policy = gcloud.tasks("queues", "get-iam-policy", "life")
    gcloud.tasks("queues", "delete", "life")
    gone = gcloud.refused("queues", "describe", "life")
    reborn = gcloud.refused("queues", "create", "life")

    assert "Queue already exists" in again
    assert updated["rateLimits"]["maxDispatchesPerSecond"] == 7
    assert updated["retryConfig"]["maxAttempts"] == -1
    assert updated["appEngineRoutingOverride"]["service"] == "worker"
    assert updated["stackdriverLoggingConfig"]["samplingRatio"] == 0.5
    override = updated["httpTarget"]["uriOverride"]
    assert (override["host"], override["port"]) == ("localhost", "8080")
    assert override["pathOverride"] == {"path": "/all"}
    assert updated["httpTarget"]["httpMethod"] == "PUT"
    assert updated["httpTarget"]["headerOverrides"] == [{"header": {"key": "X-One", "value": "1"}}]
    assert "appEngineRoutingOverride" not in cleared
    assert cleared["retryConfig"]["maxAttempts"] == 100
    assert "uriOverride" not in cleared["httpTarget"]
    assert cleared["rateLimits"]["maxDispatchesPerSecond"] == 7
    assert state == "PAUSED"
    assert purged["state"] == "RUNNING"
    assert purged["purgeTime"].endswith("Z")
    assert policy == {"etag": "ACAB"}
    assert "Queue does not exist." in gone
    assert "existed too recently" in reborn


def test_the_life_of_a_task(gcloud: Gcloud, target: Any) -> None:
    gcloud.tasks("queues", "create", "work")
    gcloud.tasks("queues", "pause", "work")
    http_task = gcloud.tasks(
        "create-http-task", "one", "--queue=work", f"--url={target.url}/one", "--method=PUT",
        "--header=X-Kind: test", "--header=Content-Type: text/plain", "--body-content=??>>~~",
    )  # fmt: skip
    again = gcloud.refused("create-http-task", "one", "--queue=work", f"--url={target.url}/one")
    gcloud.tasks(
        "create-app-engine-task", "two", "--queue=work", "--relative-uri=/two",
        "--routing=service:worker",
    )  # fmt: skip
    listed = gcloud.tasks("list", "--queue=work")
    basic = gcloud.tasks("describe", "one", "--queue=work")
    full = gcloud.tasks("describe", "one", "--queue=work", "--response-view=full")
    gcloud.tasks("run", "one", "--queue=work")
    method, _, headers, body = target.wait_for("/one")
    gcloud.tasks("delete", "two", "--queue=work")
    gone = gcloud.refused("describe", "two", "--queue=work")

    assert http_task["name"].endswith("/queues/work/tasks/one")
    assert "Requested entity already exists" in again
    assert {task["name"].rpartition("/")[2] for task in listed} == {"one", "two"}
    assert "body" not in basic["httpRequest"]
    assert base64.urlsafe_b64decode(full["httpRequest"]["body"]) == b"??>>~~"
    assert (method, body) == ("PUT", b"??>>~~")
    assert headers["X-Kind"] == "test"
    assert headers["X-CloudTasks-TaskName"] == "one"
    assert headers["User-Agent"] == "Google-Cloud-Tasks"
    assert "no longer exists" in gone


def test_a_buffered_task(gcloud: Gcloud, target: Any) -> None:
    port = target.url.rpartition(":")[2]
    gcloud.tasks(
        "queues", "create", "buffer",
        f"--http-uri-override=scheme:http,host:localhost,port:{port},path:/buffered,mode:ALWAYS",
    )  # fmt: skip
    named = gcloud.run("tasks", "buffer", "--queue=buffer", "--task-id=mine", *LOCATION)
    unnamed = gcloud.run("tasks", "buffer", "--queue=buffer", *LOCATION)

    assert named.returncode == 0, named.stderr
    assert unnamed.returncode == 0, unnamed.stderr
    target.wait_for("/buffered")


def test_locations(gcloud: Gcloud) -> None:
    locations = gcloud.ask("tasks", "locations", "list")

    assert [each["locationId"] for each in locations] == ["us-central1"]


def test_the_location_is_found_when_no_command_names_it(gcloud: Gcloud) -> None:
    gcloud.tasks("queues", "create", "somewhere")

    found = gcloud.ask("tasks", "queues", "describe", "somewhere")

    assert found["name"] == "projects/p-one/locations/us-central1/queues/somewhere"


class TestAppDeploy:
    """``gcloud app deploy queue.yaml``, with nothing of Google's to ask."""

    def deploy(self, gcloud: Gcloud, directory: Path, text: str) -> None:
        file = directory / "queue.yaml"
        file.write_text(text)
        done = gcloud.run("app", "deploy", str(file), cwd=directory)
        assert done.returncode == 0, done.stderr
        assert "Task queues have been updated" in done.stderr

    def test_what_the_file_says_arrives(self, gcloud: Gcloud, server: Any, tmp_path: Path) -> None:
        server.ask("POST", "/_local/reset")
        text = (ROOT / "queue.yaml").read_text()

        self.deploy(gcloud, tmp_path, text)

        by_name = {
            queue["name"].rpartition("/")[2]: queue for queue in gcloud.tasks("queues", "list")
        }
        assert sorted(by_name) == sorted(TABLE)
        assert by_name["api-track-call"]["retryConfig"]["maxAttempts"] == 1
        assert by_name["backups"]["rateLimits"] == {
            "maxDispatchesPerSecond": 0.1, "maxBurstSize": 10, "maxConcurrentDispatches": 1,
        }  # fmt: skip
        assert by_name["push-notifications"]["retryConfig"]["minBackoff"] == "10s"

    def test_a_queue_that_is_left_out_is_paused_and_one_listed_again_runs(
        self, gcloud: Gcloud, server: Any, tmp_path: Path
    ) -> None:
        server.ask("POST", "/_local/reset")
        one = "- name: one\n  rate: 1/s\n"
        both = f"queue:\n{one}- name: two\n  rate: 2/s\n  target: worker\n"
        self.deploy(gcloud, tmp_path, both)

        self.deploy(gcloud, tmp_path, f"queue:\n{one}")
        left_out = gcloud.tasks("queues", "describe", "two")
        self.deploy(gcloud, tmp_path, both)
        again = gcloud.tasks("queues", "describe", "two")

        assert left_out["state"] == "PAUSED"
        assert again["state"] == "RUNNING"
        assert again["appEngineRoutingOverride"]["service"] == "worker"
        assert again["rateLimits"]["maxBurstSize"] == 5

    def test_an_app_is_not_deployed_here(self, gcloud: Gcloud, tmp_path: Path) -> None:
        (tmp_path / "app.yaml").write_text("runtime: python312\n")

        done = gcloud.run("app", "deploy", str(tmp_path / "app.yaml"), cwd=tmp_path)

        assert done.returncode != 0
        assert "local Cloud Tasks of appengine-compat" in done.stderr
