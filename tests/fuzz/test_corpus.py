"""What the fuzzers once found of interest goes through every target again, without atheris."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from tests.fuzz import corpus, targets
from tests.fuzz.targets import TARGETS


@pytest.fixture(autouse=True)
def watching(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for variable in ("GAE_ENV", "GAE_APPLICATION", "GAE_INSTANCE", "APPENGINE_COMPAT_BACKEND"):
        monkeypatch.delenv(variable, raising=False)
    with targets.watched():
        yield


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_the_corpus(target: str) -> None:
    known = corpus.load(target)
    assert known
    for data in known:
        TARGETS[target](data)


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_changes_of_it(target: str) -> None:
    chance = random.Random(20261121)
    known = corpus.load(target)
    for _ in range(300):
        data = bytearray(chance.choice(known))
        for _ in range(chance.randrange(1, 6)):
            place = chance.randrange(len(data) + 1)
            data[place : place + chance.randrange(4)] = chance.randbytes(chance.randrange(4))
        TARGETS[target](bytes(data))


def test_a_payload_that_runs_something_is_seen() -> None:
    """Without this, the fuzzers would prove nothing."""
    # The fixture's own monkeypatch would put the variable back after ``watched`` took it away.
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("APPENGINE_COMPAT_ALLOWED_CALLABLES")
        with pytest.raises(targets.Executed, match=r"os\.system"):
            TARGETS["bounded"](b"cos\nsystem\n(S'true'\ntR.")


def test_a_believed_token_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets.oidc, "verified_account", lambda *_: "someone")
    with pytest.raises(AssertionError, match="was believed"):
        TARGETS["token"](b"a.b.c")
