"""Which backend takes the tasks, and why."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.cloud import tasks_v2

import appengine_compat
from appengine_compat import platform
from appengine_compat.backends import choice
from appengine_compat.backends.base import Outcome, TaskRequest
from appengine_compat.backends.cloud_tasks import CloudTasksBackend
from appengine_compat.core.model import QueueStats
from appengine_compat.errors import BackendChoiceError, ConfigError

Settings = Callable[..., None]
ACCOUNT = "tasks@p.iam.gserviceaccount.com"


class Fake:
    """The least that is a backend."""

    kind = "fake"

    def create_tasks(
        self, queue: str, requests: Sequence[TaskRequest], *, timeout_seconds: float | None = None
    ) -> list[Outcome]:
        return []

    def delete_tasks(
        self, queue: str, task_ids: Sequence[str], *, timeout_seconds: float | None = None
    ) -> list[Outcome]:
        return []

    def purge_queue(self, queue: str, *, timeout_seconds: float | None = None) -> None:
        pass

    def queue_stats(
        self, queues: Sequence[str], *, timeout_seconds: float | None = None
    ) -> list[QueueStats]:
        return []


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Settings:
    """An environment that says nothing but project and location; and a way to add to it."""
    prefixes = ("APPENGINE_COMPAT_", "GAE_", "K_", "KUBERNETES_", "CLOUD_RUN_", "CLOUD_TASKS_")
    for name in list(os.environ):
        if name.startswith(prefixes):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)

    def set_all(**values: str) -> None:
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    set_all(APPENGINE_COMPAT_PROJECT="p", APPENGINE_COMPAT_LOCATION="l")
    return set_all


@pytest.fixture
def active() -> Iterator[Fake]:
    fake = Fake()
    choice.activate(fake)
    yield fake
    choice.deactivate(fake)


TARGETS = {"APPENGINE_COMPAT_TARGETS": "https://a.b", "APPENGINE_COMPAT_SERVICE_ACCOUNT": ACCOUNT}
REDIS = {
    "APPENGINE_COMPAT_REDIS_URL": "redis://localhost:1/0",
    "APPENGINE_COMPAT_TARGETS": "http://localhost:8080",
    "APPENGINE_COMPAT_SIGNING_KEYS": "test:0123456789abcdef",
}
CHOICES: list[tuple[dict[str, str], str, str]] = [
    ({}, "embedded", "no Google platform"),
    ({"APPENGINE_COMPAT_BACKEND": "embedded"}, "embedded", "APPENGINE_COMPAT_BACKEND"),
    ({"APPENGINE_COMPAT_BACKEND": "rq", **REDIS}, "rq", "APPENGINE_COMPAT_BACKEND"),
    ({"APPENGINE_COMPAT_BACKEND": "cloudtasks", **TARGETS}, "cloudtasks", "_BACKEND is cloudtasks"),
    (
        {"APPENGINE_COMPAT_BACKEND": "cloudtasks", "APPENGINE_COMPAT_TARGETS": "appengine"},
        "cloudtasks",
        "APPENGINE_COMPAT_BACKEND",
    ),
    ({"CLOUD_TASKS_EMULATOR_HOST": "localhost:8123"}, "cloudtasks", "localhost:8123"),
    (
        {"APPENGINE_COMPAT_BACKEND": "embedded", "CLOUD_TASKS_EMULATOR_HOST": "localhost:8123"},
        "embedded",
        "APPENGINE_COMPAT_BACKEND",
    ),
    (
        {"APPENGINE_COMPAT_BACKEND": "cloudtasks", "CLOUD_TASKS_EMULATOR_HOST": "localhost:8123"},
        "cloudtasks",
        "APPENGINE_COMPAT_BACKEND",
    ),
    ({"GAE_ENV": "standard"}, "cloudtasks", "this is App Engine"),
    ({"GAE_ENV": "standard", "CLOUD_TASKS_EMULATOR_HOST": "h:1"}, "cloudtasks", "EMULATOR"),
    ({"K_SERVICE": "web", **TARGETS}, "cloudtasks", "Cloud Run"),
    ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", **TARGETS}, "cloudtasks", "Kubernetes"),
    ({"K_SERVICE": "w", "APPENGINE_COMPAT_BACKEND": "embedded"}, "embedded", "is embedded"),
]


@pytest.mark.parametrize(("variables", "kind", "reason"), CHOICES)
def test_the_first_that_speaks_decides(
    environment: Settings, variables: dict[str, str], kind: str, reason: str
) -> None:
    environment(**variables)
    assert choice.describe()[0] == kind
    assert reason in choice.describe()[1]


@pytest.mark.parametrize(
    ("variables", "missing"),
    [
        ({"K_SERVICE": "web"}, ["APPENGINE_COMPAT_TARGETS", "APPENGINE_COMPAT_SERVICE_ACCOUNT"]),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, ["APPENGINE_COMPAT_TARGETS"]),
        (
            {"K_SERVICE": "web", "APPENGINE_COMPAT_TARGETS": "https://a.b"},
            ["APPENGINE_COMPAT_SERVICE_ACCOUNT"],
        ),
        (
            {"K_SERVICE": "web", "APPENGINE_COMPAT_SERVICE_ACCOUNT": ACCOUNT},
            ["APPENGINE_COMPAT_TARGETS"],
        ),
        ({"APPENGINE_COMPAT_BACKEND": "cloudtasks"}, ["APPENGINE_COMPAT_TARGETS"]),
    ],
)
def test_where_a_guess_would_lose_tasks_the_settings_are_named(
    environment: Settings, variables: dict[str, str], missing: list[str]
) -> None:
    environment(**variables)
    with pytest.raises(BackendChoiceError) as caught:
        choice.current()
    for setting in missing:
        assert setting in str(caught.value)
    assert caught.value.setting == missing[0]
    assert "APPENGINE_COMPAT_BACKEND=embedded" in str(caught.value)


def test_on_cloud_run_the_services_own_address_is_target_enough(
    environment: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "own_url", lambda: "https://web-1.europe-west3.run.app")
    environment(K_SERVICE="web")
    with pytest.raises(BackendChoiceError) as caught:
        choice.current()
    assert caught.value.setting == "APPENGINE_COMPAT_SERVICE_ACCOUNT"
    assert "APPENGINE_COMPAT_TARGETS" not in str(caught.value)
    environment(APPENGINE_COMPAT_SERVICE_ACCOUNT=ACCOUNT)
    kind, reason = choice.describe()
    assert kind == "cloudtasks"
    assert "its address is https://web-1.europe-west3.run.app" in reason


def test_a_table_in_a_file_is_one(environment: Settings) -> None:
    Path("appengine-compat.toml").write_text('[services]\nweb = "https://web.example.com"\n')
    environment(K_SERVICE="web", APPENGINE_COMPAT_SERVICE_ACCOUNT=ACCOUNT)
    assert choice.describe() == ("cloudtasks", "this is Cloud Run, and targets are set")


@pytest.mark.parametrize("missing", REDIS)
def test_rq_names_what_it_cannot_do_without(environment: Settings, missing: str) -> None:
    rest = {name: value for name, value in REDIS.items() if name != missing}
    environment(APPENGINE_COMPAT_BACKEND="rq", **rest)
    with pytest.raises(BackendChoiceError) as caught:
        choice.current()
    assert caught.value.setting == missing
    assert missing in str(caught.value)
    for name in rest:
        assert name not in str(caught.value)


def test_rq_that_is_not_installed_says_how_to(
    environment: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment(APPENGINE_COMPAT_BACKEND="rq", **REDIS)
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(BackendChoiceError, match=r"pip install 'appengine-compat\[rq\]'"):
        choice.current()


def test_rq_needs_no_table_for_the_one_service_whose_address_the_platform_tells(
    environment: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "own_url", lambda: "https://web-1.europe-west3.run.app")
    rest = {name: value for name, value in REDIS.items() if not name.endswith("TARGETS")}
    environment(K_SERVICE="web", APPENGINE_COMPAT_BACKEND="rq", **rest)
    assert choice.describe()[0] == "rq"


def test_a_misspelt_setting_is_an_error_at_the_first_task(environment: Settings) -> None:
    environment(APPENGINE_COMPAT_BAKEND="embedded")
    with pytest.raises(ConfigError, match="did you mean APPENGINE_COMPAT_BACKEND"):
        choice.current()


class TestKeeping:
    @pytest.fixture(autouse=True)
    def _cloud_tasks(self, environment: Settings) -> None:
        environment(CLOUD_TASKS_EMULATOR_HOST="localhost:8123")

    def test_one_backend_is_kept(self) -> None:
        assert choice.current() is choice.current()

    def test_threads_get_the_same(self, environment: Settings) -> None:
        environment(CLOUD_TASKS_EMULATOR_HOST="localhost:8124")
        seen: list[object] = []
        start = threading.Barrier(8)

        def run() -> None:
            start.wait()
            seen.append(choice.current())

        threads = [threading.Thread(target=run) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len({id(backend) for backend in seen}) == 1

    def test_a_changed_variable_changes_it(self, environment: Settings) -> None:
        before = choice.current()
        environment(CLOUD_TASKS_EMULATOR_HOST="localhost:9999")
        assert choice.current() is not before
        assert "localhost:9999" in repr(choice.current())

    def test_configure_changes_it(self) -> None:
        before = choice.current()
        appengine_compat.configure(location="other")
        try:
            assert "locations/other" in repr(choice.current())
        finally:
            appengine_compat.configure(location=None)
        assert choice.current() is not before

    def test_it_is_logged_once_with_its_reason(
        self, environment: Settings, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        environment(CLOUD_TASKS_EMULATOR_HOST="localhost:7777")
        choice.current()
        environment(APPENGINE_COMPAT_AUDIENCE="changes nothing about the choice")
        choice.current()
        choice.current()
        lines = [record for record in caplog.records if record.name == choice.__name__]
        assert [record.getMessage() for record in lines] == [
            "Tasks go to Cloud Tasks: CLOUD_TASKS_EMULATOR_HOST is localhost:7777."
        ]
        assert lines[0].levelno == logging.INFO


class TestActivation:
    def test_an_active_backend_wins_over_all_settings(
        self, environment: Settings, active: Fake
    ) -> None:
        environment(APPENGINE_COMPAT_BACKEND="rq")
        assert choice.current() is active
        assert choice.describe() == ("fake", "a test has activated it")

    def test_the_last_one_wins_whatever_the_order_of_the_ends(self, active: Fake) -> None:
        second, third = Fake(), Fake()
        choice.activate(second)
        choice.activate(third)
        assert choice.current() is third
        choice.deactivate(second)
        assert choice.current() is third
        choice.deactivate(third)
        assert choice.current() is active

    def test_ending_what_is_not_active_is_an_error(self) -> None:
        with pytest.raises(ValueError, match="not active"):
            choice.deactivate(Fake())


class TestExplicitClient:
    def test_a_backend_is_taken_as_it_is(self) -> None:
        fake = Fake()
        assert choice.as_backend(fake) is fake

    def test_a_cloud_tasks_client_is_wrapped_and_kept(self, environment: Settings) -> None:
        environment(APPENGINE_COMPAT_TARGETS="appengine")
        transport = tasks_v2.CloudTasksClient.get_transport_class("grpc")
        channel = grpc.insecure_channel("127.0.0.1:1")
        client = tasks_v2.CloudTasksClient(transport=transport(channel=channel))
        backend = choice.as_backend(client)
        assert isinstance(backend, CloudTasksBackend)
        assert choice.as_backend(client) is backend
        environment(APPENGINE_COMPAT_LOCATION="other")
        assert "locations/other" in repr(choice.as_backend(client))

    def test_it_passes_by_what_is_active(self, active: Fake) -> None:
        fake = Fake()
        assert choice.as_backend(fake) is fake is not active

    @pytest.mark.parametrize("client", [None, object(), "client", Fake, 1])
    def test_anything_else_is_refused_with_what_may_be_given(self, client: Any) -> None:
        with pytest.raises(TypeError, match="CloudTasksClient or an object with the methods"):
            choice.as_backend(client)

    def test_an_asynchronous_client_is_refused_with_the_reason(self) -> None:
        client = object.__new__(tasks_v2.CloudTasksAsyncClient)
        with pytest.raises(TypeError, match="not asynchronous"):
            choice.as_backend(client)


def test_choosing_loads_no_client_library(environment: Settings, tmp_path: Path) -> None:
    program = textwrap.dedent(
        """
        import sys
        from appengine_compat.backends import choice
        choice.describe()
        try:
            choice.as_backend(object())
        except TypeError:
            pass
        heavy = {"grpc", "google.cloud", "google.protobuf", "sqlite3", "yaml"}
        print(sorted(heavy.intersection(sys.modules)))
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes fork on POSIX systems only")
def test_a_child_chooses_though_its_parent_was_choosing(tmp_path: Path) -> None:
    """The lock may be held by a thread that does not exist in the child."""
    program = textwrap.dedent(
        """
        import os, sys, threading
        from appengine_compat.backends import choice

        held, release = threading.Event(), threading.Event()

        def hold():
            with choice._lock:
                held.set()
                release.wait()

        threading.Thread(target=hold).start()
        held.wait()
        child = os.fork()
        if child == 0:
            choice.current()
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        release.set()
        sys.exit(status)
        """
    )
    environ = dict(os.environ) | {
        "CLOUD_TASKS_EMULATOR_HOST": "localhost:1",
        "APPENGINE_COMPAT_PROJECT": "p",
        "APPENGINE_COMPAT_LOCATION": "l",
    }
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program],
        env=environ,
        cwd=tmp_path,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0
