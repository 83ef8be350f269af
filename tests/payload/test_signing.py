"""Signatures: what they cover, who can make them, and until when they are believed."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appengine_compat.errors import ConfigError
from appengine_compat.payload import signing
from appengine_compat.payload.signing import Fault, SignatureError, Signed

KEYS = (("new", "a secret of the new key"), ("old", "a secret of the old key"))
TASK: dict[str, Any] = {
    "method": "POST", "url": "/tasks/do%20it?a=1%262", "queue": "mail", "task_name": "t1",
    "body": b"\x80\x05N.", "at": 1_000_000.0,
}  # fmt: skip
ARRIVED: dict[str, Any] = {
    "method": "POST", "path": b"/tasks/do it", "query": "a=1%262", "queue": "mail",
    "task_name": "t1", "max_age_seconds": 3600, "now": 1_000_000.0,
}  # fmt: skip


def verified(signature: str, keys: signing.Keys = KEYS, **changes: Any) -> Signed:
    return signing.verify(signature, keys, **{**ARRIVED, **changes})


def fault(signature: str, keys: signing.Keys = KEYS, **changes: Any) -> Fault:
    with pytest.raises(SignatureError) as caught:
        verified(signature, keys, **changes)
    return caught.value.fault


def test_the_request_as_it_was_signed_is_believed() -> None:
    signed = verified(signing.sign(KEYS, **TASK))
    assert signed.key_id == "new"
    assert signed.fits(TASK["body"])
    assert not signed.fits(TASK["body"] + b" ")
    assert not signed.fits(b"")


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "PUT"}, {"path": b"/tasks/do"}, {"query": ""}, {"query": "a=1&2"},
        {"queue": "mail2"}, {"queue": ""}, {"task_name": "t2"}, {"task_name": ""},
        {"path": b"/tasks/do itm", "queue": "ail"},
    ],
    ids=str,
)  # fmt: skip
def test_every_part_is_covered(changes: dict[str, Any]) -> None:
    assert fault(signing.sign(KEYS, **TASK), **changes) is Fault.MISMATCH


@pytest.mark.parametrize("part", ["at=1000000", "name=fixed", "length=4"])
def test_what_the_header_says_is_covered_too(part: str) -> None:
    signature = signing.sign(KEYS, **TASK)
    assert part in signature
    other = {"name=fixed": "name=any"}.get(part, part + "0")
    assert fault(signature.replace(part, other)) is Fault.MISMATCH


def test_a_name_that_is_not_fixed_may_be_any() -> None:
    signature = signing.sign(KEYS, **{**TASK, "task_name": ""})
    assert verified(signature, task_name="made by the service").key_id == "new"
    assert fault(signature.replace("name=any", "name=fixed")) is Fault.MISMATCH


def test_keys_are_rotated_without_a_gap() -> None:
    by_old = signing.sign(KEYS[1:], **TASK)
    assert verified(by_old).key_id == "old"
    assert fault(by_old, KEYS[:1]) is Fault.KEY
    same_id = (("old", "another secret, same id"),)
    assert fault(by_old, same_id) is Fault.MISMATCH


def test_the_age_counts_from_the_moment_that_was_signed() -> None:
    signature = signing.sign(KEYS, **TASK)
    assert verified(signature, now=1_003_600.0)
    assert fault(signature, now=1_003_601.0) is Fault.AGE
    # "Run now" may come before the time that a task was for.
    assert verified(signature, now=0.0)


def test_a_whole_url_is_signed_as_its_path_and_query() -> None:
    signature = signing.sign(KEYS, **{**TASK, "url": "https://x.example.com:8443" + TASK["url"]})
    assert verified(signature)
    root = signing.sign(KEYS, **{**TASK, "url": "https://x.example.com"})
    assert verified(root, path=b"/", query="")


@pytest.mark.parametrize(
    "text", ["", "v1", "v2 key=a", "v1 key=new at=1 name=any length=0 sha256= mac=", "x" * 10_000]
)
def test_what_is_no_signature_is_malformed(text: str) -> None:
    assert fault(text) is Fault.MALFORMED
    assert fault(signing.sign(KEYS, **TASK) + text + ",") is Fault.MALFORMED


@given(st.text(max_size=300))
def test_no_text_does_more_than_be_refused(text: str) -> None:
    with pytest.raises(SignatureError):
        verified(text)


@given(
    path=st.text(st.characters(exclude_categories=("Cs",)), max_size=20),
    query=st.text("abc=&%+;/?~", max_size=10),
    key=st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=8),
    body=st.binary(max_size=50),
    name=st.text("abcXYZ-_09", max_size=5),
)
def test_any_request_verifies_as_it_arrives(
    path: str, query: str, key: str, body: bytes, name: str
) -> None:
    keys = ((key, "a secret of any text"),)
    url = f"/{quote(path)}" + (f"?{query}" if query else "")
    signature = signing.sign(
        keys, method="POST", url=url, queue="q", task_name=name, body=body, at=5
    )
    assert signature.isascii()
    signed = signing.verify(
        signature, keys, method="post", path=b"/" + path.encode(), query=query, queue="q",
        task_name=name, max_age_seconds=1, now=5,
    )  # fmt: skip
    assert signed.fits(body)


class TestSettings:
    def header(self) -> dict[str, str]:
        return dict(signing.header_for(**TASK))

    def test_nothing_is_signed_without_keys(self) -> None:
        assert signing.mode() == signing.OFF
        assert self.header() == {}

    def test_keys_alone_sign_and_accept_the_unsigned(self, monkeypatch: Any) -> None:
        monkeypatch.setenv("APPENGINE_COMPAT_SIGNING_KEYS", "k:0123456789abcdef")
        assert signing.mode() == signing.ACCEPT_UNSIGNED
        assert verified(self.header()[signing.HEADER], (("k", "0123456789abcdef"),))
        monkeypatch.setenv("APPENGINE_COMPAT_SIGNATURES", "off")
        assert self.header() == {}

    @pytest.mark.parametrize(
        "variable", ["APPENGINE_COMPAT_SIGNATURES=require", "APPENGINE_COMPAT_BACKEND=rq"]
    )
    def test_required_signatures_need_a_key(self, monkeypatch: Any, variable: str) -> None:
        monkeypatch.setenv(*variable.split("="))
        assert signing.mode() == signing.REQUIRE
        with pytest.raises(ConfigError, match="APPENGINE_COMPAT_SIGNING_KEYS"):
            self.header()
