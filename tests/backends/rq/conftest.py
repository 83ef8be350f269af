"""A real Redis server for each module, and a target for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import http_target, redis_server
from tests.backends.rq.rig import KEYS, Rig
from tests.redis_server import RedisServer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server.serving(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture
def rig(server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    server.flush()
    monkeypatch.chdir(tmp_path)
    with http_target.serving() as target:
        environ = {
            "APPENGINE_COMPAT_BACKEND": "rq",
            "APPENGINE_COMPAT_REDIS_URL": server.url,
            "APPENGINE_COMPAT_TARGETS": target.address,
            "APPENGINE_COMPAT_SIGNING_KEYS": KEYS,
        }
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        made = Rig(server, target, tmp_path, environ)
        try:
            yield made
        finally:
            print(made.logs())  # shown where a test fails
            for process in made.processes:
                if process.poll() is None:
                    made.kill(process)
            made.client.close()
