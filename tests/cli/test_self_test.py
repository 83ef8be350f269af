"""``doctor --send-test-task``: a task goes the whole way, or it is told where it stands."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from google.appengine.ext import deferred

from appengine_compat.backends import embedded
from appengine_compat.cli import self_test
from appengine_compat.cli.findings import Finding, Status
from tests import http_target, redis_server
from tests.backends.rq.rig import KEYS, Rig

PATIENCE_SECONDS = 20.0


def sent(seconds: float = PATIENCE_SECONDS) -> Finding:
    (finding,) = self_test.test_task(seconds)
    return finding


class TestEmbedded:
    @pytest.fixture
    def register(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> Iterator[Callable[[Any], None]]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("APPENGINE_COMPAT_BACKEND", "embedded")
        monkeypatch.setenv("APPENGINE_COMPAT_DB", str(tmp_path / "tasks.db"))
        backend = embedded.shared()
        yield lambda app: backend.register_app(app, "default", is_set_up=True)
        assert backend.close(PATIENCE_SECONDS) == []

    def test_it_comes_through_to_the_app(self, register: Callable[[Any], None]) -> None:
        register(deferred.application)
        finding = sent()
        assert finding.status is Status.OK, finding
        assert finding.text.endswith("has come through")

    def test_without_an_app_it_says_what_to_start(self, register: Callable[[Any], None]) -> None:
        finding = sent(0.0)
        assert finding.status is Status.FAILED
        assert "0 attempts, the last answered: nothing yet" in finding.text
        assert "start the app" in finding.remedy

    def test_a_task_that_is_given_up_is_not_taken_for_done(
        self, register: Callable[[Any], None], tmp_path: Path
    ) -> None:
        (tmp_path / "queue.yaml").write_text(
            "queue:\n- name: default\n  rate: 5/s\n  retry_parameters:\n    task_retry_limit: 0\n"
        )

        def broken(environ: Any, start_response: Any) -> list[bytes]:
            start_response("500 Internal Server Error", [])
            return [b""]

        register(broken)
        finding = sent()
        assert finding.status is Status.FAILED
        assert "was given up (1 attempts, the last answered: 500)" in finding.text


class TestRedis:
    @pytest.fixture
    def rig(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Rig]:
        monkeypatch.chdir(tmp_path)
        with redis_server.serving(tmp_path) as server, http_target.serving() as target:
            environ = {
                "APPENGINE_COMPAT_BACKEND": "rq",
                "APPENGINE_COMPAT_REDIS_URL": server.url,
                "APPENGINE_COMPAT_TARGETS": target.address,
                "APPENGINE_COMPAT_SIGNING_KEYS": KEYS,
            }
            for name, value in environ.items():
                monkeypatch.setenv(name, value)
            rig = Rig(server, target, tmp_path, environ)
            yield rig
            for process in rig.processes:
                rig.kill(process)
            rig.client.close()

    def test_it_says_which_worker_to_start_and_then_comes_through(self, rig: Rig) -> None:
        finding = sent(0.0)
        assert finding.status is Status.FAILED
        assert finding.remedy.endswith("appengine-compat rq-worker default")
        rig.start_worker("default")
        finding = sent()
        assert finding.status is Status.OK, (finding, rig.logs())
        assert b"appengine_compat.payload.self_test" in rig.target.arrived[-1].body

    def test_a_redis_that_does_not_answer_is_told(
        self, rig: Rig, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("APPENGINE_COMPAT_REDIS_URL", "redis://127.0.0.1:1/0")
        finding = self_test._waited_for("rq", "a-task", 0.0)
        assert finding.status is Status.FAILED
        assert "how far a-task has come is not known" in finding.text
