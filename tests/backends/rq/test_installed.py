"""RQ is asked for before anything is done with it, and one that is new enough."""

from __future__ import annotations

import sys

import pytest

from appengine_compat.backends.rq import installed
from appengine_compat.errors import BackendChoiceError


@pytest.mark.parametrize("version", ["2.9", "2.12.0", "3.0.0", "3.1.0rc1", "10.0"])
def test_new_enough(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr("rq.__version__", version)
    installed.require()


@pytest.mark.parametrize("version", ["1.16.2", "2.0.0", "2.8.0"])
def test_too_old(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr("rq.__version__", version)
    with pytest.raises(BackendChoiceError, match=r"RQ 2\.9 or later, and ") as caught:
        installed.require()
    assert version in str(caught.value)
    assert "pip install 'appengine-compat[rq]' --upgrade" in str(caught.value)


@pytest.mark.parametrize("module", ["rq", "redis"])
def test_not_there(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(BackendChoiceError, match=r"pip install 'appengine-compat\[rq\]'"):
        installed.require()
