"""``appengine-compat rq-worker``: what is said, in one line, when it cannot begin."""

from __future__ import annotations

import sys

import pytest

from appengine_compat.cli.main import main


@pytest.mark.parametrize("count", ["0", "-1", "many", "1001"])
def test_a_number_of_workers_is_one(count: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["rq-worker", f"--workers={count}"])
    assert ended.value.code == 2
    assert f"{count!r} is not a number from 1 to 1000" in capsys.readouterr().err


def test_without_an_address_of_redis_the_setting_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("APPENGINE_COMPAT_REDIS_URL", raising=False)
    assert main(["rq-worker"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "APPENGINE_COMPAT_REDIS_URL" in line


def test_a_malformed_address_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("APPENGINE_COMPAT_REDIS_URL", "localhost:6379")
    assert main(["rq-worker"]) == 2
    assert "is no address of a Redis server" in capsys.readouterr().err


def test_without_rq_it_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "rq", None)
    assert main(["rq-worker"]) == 2
    assert "pip install 'appengine-compat[rq]'" in capsys.readouterr().err
