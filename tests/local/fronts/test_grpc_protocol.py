"""What gRPC puts into requests and replies, as its specification has it."""

from __future__ import annotations

import base64
import gzip
import re
import zlib
from urllib.parse import unquote_to_bytes

import hpack
import pytest
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from appengine_compat.errors import ApiError
from appengine_compat.local.fronts import grpc_protocol
from appengine_compat.local.fronts.grpc_protocol import Head, read_head, read_message

PLAIN = Head("/s/M", True, None, b"identity")
GZIP = Head("/s/M", True, None, b"gzip")
DEFLATE = Head("/s/M", True, None, b"deflate")
GOOD = {b":method": b"POST", b":path": b"/s/M", b"content-type": b"application/grpc"}
messages = st.binary(max_size=3000)


def head_of(**given: bytes) -> Head:
    headers = GOOD | {name.replace("_", "-").encode(): value for name, value in given.items()}
    return read_head(headers.items())


def decoded(block: bytes) -> dict[str, str]:
    return dict(hpack.Decoder().decode(block))


def body(message: bytes, flag: int = 0) -> bytes:
    return bytes((flag,)) + len(message).to_bytes(4, "big") + message


def refused(code: str, text: str = ""):
    return pytest.raises(ApiError, match=f"^{code}: .*{text}")


# --- heads ---


def test_a_call_says_its_method_and_waits_for_as_long_as_it_takes() -> None:
    assert read_head(GOOD.items()) == PLAIN


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (b"2H", 7200.0),
        (b"3M", 180.0),
        (b"30S", 30.0),
        (b"1500m", 1.5),
        (b"250000u", 0.25),
        (b"99999999n", 0.099999999),
        (b"0S", 0.0),
        (b"99999999H", 99999999 * 3600.0),
    ],
)
def test_timeouts_have_units(text: bytes, seconds: float) -> None:
    assert head_of(grpc_timeout=text).timeout_seconds == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", [b"", b"S", b"1", b"1s", b"1h", b"-1S", b"1.5S", b"123456789S", b"1S ", b"\xb2S"]
)
def test_a_timeout_that_is_none_is_no_timeout(text: bytes) -> None:
    assert head_of(grpc_timeout=text).timeout_seconds is None


@pytest.mark.parametrize(
    ("kind", "is_grpc"),
    [
        (b"application/grpc", True),
        (b"application/grpc+proto", True),
        (b"application/grpc;charset=utf-8", True),
        (b"application/grpc-web", False),
        (b"application/grpc-web+proto", False),
        (b"application/grpcurl", False),
        (b"application/json", False),
        (b"", False),
    ],
)
def test_a_call_is_known_by_its_content_type(kind: bytes, is_grpc: bool) -> None:
    assert head_of(content_type=kind).is_grpc is is_grpc


def test_what_is_not_posted_is_no_call() -> None:
    assert not read_head((GOOD | {b":method": b"GET"}).items()).is_grpc
    assert not read_head([]).is_grpc


@given(st.lists(st.tuples(st.binary(), st.binary())))
@settings(deadline=None)
def test_any_headers_can_be_read(headers: list[tuple[bytes, bytes]]) -> None:
    assert read_head([*headers, *GOOD.items()]).method == "/s/M"


# --- messages ---


@given(messages)
@settings(deadline=None)
def test_a_message_comes_as_it_was_sent(message: bytes) -> None:
    assert read_message(PLAIN, body(message)) == message
    assert grpc_protocol.framed(message) == body(message)


@given(messages)
@settings(deadline=None)
def test_what_is_compressed_is_plain_again(message: bytes) -> None:
    assert read_message(GZIP, body(gzip.compress(message), 1)) == message
    assert read_message(DEFLATE, body(zlib.compress(message), 1)) == message


def test_a_flag_says_whether_a_message_is_compressed_not_the_header() -> None:
    assert read_message(GZIP, body(b"plain")) == b"plain"


@pytest.mark.parametrize("encoding", [b"identity", b"snappy", b"\xff", b""])
def test_a_compression_that_is_not_known(encoding: bytes) -> None:
    with refused("UNIMPLEMENTED", "cannot be read"):
        read_message(Head("/s/M", True, None, encoding), body(b"x", 1))


@pytest.mark.parametrize("flag", [2, 3, 128, 255])
def test_flags_that_there_are_not(flag: int) -> None:
    with refused("INTERNAL", f"a flag that there is not: {flag}"):
        read_message(GZIP, body(b"x", flag))


@pytest.mark.parametrize(
    "given_body",
    [
        b"",
        b"\0\0\0\0",
        b"\0\0\0\0\2x",
        body(b"a") + body(b"b"),
        body(b"a") + b"\0",
        body(b"abc")[:-1],
    ],
)
def test_there_is_exactly_one_message(given_body: bytes) -> None:
    with refused("INTERNAL", "exactly one message"):
        read_message(PLAIN, given_body)


@given(messages, st.sampled_from([GZIP, DEFLATE]), st.data())
@settings(deadline=None)
def test_what_is_cut_off_is_not_taken_for_whole(
    message: bytes, head: Head, data: st.DataObject
) -> None:
    packed = gzip.compress(message) if head is GZIP else zlib.compress(message)
    length = data.draw(st.integers(0, len(packed) - 1))
    with refused("INTERNAL", "cannot be decompressed"):
        read_message(head, body(packed[:length], 1))


@pytest.mark.parametrize("packed", [b"x", b"nothing of the kind", b"\x1f\x8b\xff", b"\x78\x9cxx"])
def test_what_was_never_compressed(packed: bytes) -> None:
    with refused("INTERNAL", "cannot be decompressed"):
        read_message(GZIP, body(packed, 1))


@pytest.mark.parametrize("more", [b"\0", gzip.compress(b"another")], ids=["a byte", "another"])
def test_what_follows_a_compressed_message_is_not_lost_silently(more: bytes) -> None:
    with refused("INTERNAL", "cannot be decompressed"):
        read_message(GZIP, body(gzip.compress(b"one") + more, 1))


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
def test_a_message_that_unpacks_to_more_than_is_taken(monkeypatch, pack) -> None:
    monkeypatch.setattr(grpc_protocol, "MOST_MESSAGE_BYTES", 10_000)
    assert read_message(GZIP, body(pack(bytes(9_999)), 1)) == bytes(9_999)
    assert read_message(GZIP, body(pack(bytes(10_000)), 1)) == bytes(10_000)
    for size in (10_001, 10_100, 50_000_000):
        with refused("RESOURCE_EXHAUSTED", "10000 bytes"):
            read_message(GZIP, body(pack(bytes(size)), 1))


def test_a_body_that_was_too_long_to_be_taken() -> None:
    with refused("RESOURCE_EXHAUSTED", "167772160 bytes"):
        read_message(PLAIN, None)


# --- replies ---


def test_a_reply_begins_and_ends_as_clients_expect() -> None:
    assert decoded(grpc_protocol.REPLY_HEAD) == {
        ":status": "200",
        "content-type": "application/grpc",
        "grpc-accept-encoding": "identity,deflate,gzip",
    }
    assert decoded(grpc_protocol.OK_TRAILERS) == {"grpc-status": "0"}
    assert decoded(grpc_protocol.not_grpc_block()) == {":status": "415"}


def test_a_refusal_is_headers_alone() -> None:
    assert decoded(grpc_protocol.refusal_block(ApiError("NOT_FOUND", "No such queue."))) == {
        ":status": "200",
        "content-type": "application/grpc",
        "grpc-accept-encoding": "identity,deflate,gzip",
        "grpc-status": "5",
        "grpc-message": "No such queue.",
    }


def test_a_refusal_of_a_compression_says_which_there_are() -> None:
    with pytest.raises(ApiError) as caught:
        read_message(Head("/s/M", True, None, b"snappy"), body(b"x", 1))
    assert "gzip" in caught.value.message


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=300))
@settings(deadline=None)
def test_the_text_of_a_refusal_is_encoded_as_the_specification_has_it(text: str) -> None:
    block = grpc_protocol.refusal_block(ApiError("NOT_FOUND", text))
    written = decoded(block)["grpc-message"]
    assert re.fullmatch(r"(?:[ -$&-~]|%[0-9A-F]{2})*", written)
    # HTTP/2 takes no value that spaces surround.
    assert written == written.strip(" ")
    assert unquote_to_bytes(written).decode() == text


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30))
@settings(deadline=None)
def test_a_long_text_is_cut_between_letters(part: str) -> None:
    text = part * 1501
    written = decoded(grpc_protocol.refusal_block(ApiError("NOT_FOUND", text)))["grpc-message"]
    said = unquote_to_bytes(written).decode()
    assert said.endswith("...")
    assert text.startswith(said.removesuffix("..."))
    assert 1497 <= len(said.encode()) - 3 <= 1500


def test_details_travel_in_binary() -> None:
    refusal = ApiError("INVALID_ARGUMENT", "That \u2260 this.", help_links=(("Docs", "http://x/"),))
    headers = decoded(grpc_protocol.refusal_block(refusal))
    encoded = headers["grpc-status-details-bin"]
    status = status_pb2.Status.FromString(base64.b64decode(encoded + "=" * (-len(encoded) % 4)))
    assert (status.code, status.message) == (3, "That \u2260 this.")
    links = error_details_pb2.Help()
    assert status.details[0].Unpack(links)
    assert [(each.description, each.url) for each in links.links] == [("Docs", "http://x/")]


@pytest.mark.parametrize(("length", "are_sent"), [(100, True), (100_000, False)])
def test_details_that_no_client_would_take_are_left_out(length: int, are_sent: bool) -> None:
    refusal = ApiError("PERMISSION_DENIED", "No.", metadata=(("consumer", "x" * length),))
    headers = decoded(grpc_protocol.refusal_block(refusal))
    assert headers["grpc-message"] == "No."
    assert ("grpc-status-details-bin" in headers) is are_sent


def test_however_long_a_refusal_its_headers_are_not() -> None:
    for letter in ("a", "\u00e9", "\U0001f600", "%", "\n"):
        for length in (100, 300, 800, 1000, 2000, 100_000):
            long = letter * length
            refusal = ApiError("INVALID_ARGUMENT", long, metadata=(("consumer", long),))
            assert len(grpc_protocol.refusal_block(refusal)) <= 8192
