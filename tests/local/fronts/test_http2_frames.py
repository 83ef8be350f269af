"""HTTP/2's frames and header blocks, as libraries of others read and write them."""

from __future__ import annotations

import hpack
import pytest
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from appengine_compat.local.fronts import http2_frames as frames
from appengine_compat.local.fronts.http2_frames import ConnectionFault

streams = st.integers(0, 2**31 - 1)
headers = st.lists(st.tuples(st.binary(min_size=1, max_size=300), st.binary(max_size=70_000)))


def read(data: bytes) -> list[Frame]:
    """Return the frames as hyperframe reads them."""
    found = []
    while data:
        frame, length = Frame.parse_frame_header(memoryview(data[:9]))
        frame.parse_body(memoryview(data[9 : 9 + length]))
        assert len(data) >= 9 + length
        found.append(frame)
        data = data[9 + length :]
    return found


@given(streams, st.binary(max_size=70_000))
@settings(deadline=None)
def test_a_frame_is_what_a_library_makes(stream: int, payload: bytes) -> None:
    made = frames.frame(frames.DATA, frames.END_STREAM, stream or 1, payload)
    assert made == DataFrame(stream or 1, payload, flags=("END_STREAM",)).serialize()


@given(st.integers(0, 2**24 - 1), st.integers(0, 255), st.integers(0, 255), streams, st.booleans())
@settings(deadline=None)
def test_the_head_of_a_frame_is_read_whatever_the_reserved_bit(
    length: int, kind: int, flags: int, stream: int, reserved: bool
) -> None:
    head = length.to_bytes(3, "big") + bytes((kind, flags))
    head += (stream | reserved << 31).to_bytes(4, "big")
    assert frames.read_head(b"before" + head, 6) == (length, kind, flags, stream)


@pytest.mark.parametrize(
    ("kind", "made"),
    [
        (frames.DATA, DataFrame),
        (frames.HEADERS, HeadersFrame),
        (frames.RST_STREAM, RstStreamFrame),
        (frames.SETTINGS, SettingsFrame),
        (frames.PING, PingFrame),
        (frames.GOAWAY, GoAwayFrame),
        (frames.WINDOW_UPDATE, WindowUpdateFrame),
        (frames.CONTINUATION, ContinuationFrame),
    ],
)
def test_kinds_have_their_numbers(kind: int, made: type[Frame]) -> None:
    assert kind == made.type


@given(headers)
@settings(deadline=None)
def test_a_header_block_says_what_was_given_and_leaves_the_table_alone(
    given_headers: list[tuple[bytes, bytes]],
) -> None:
    decoder = hpack.Decoder(max_header_list_size=2**30)
    decoded = decoder.decode(frames.header_block(*given_headers), raw=True)
    assert [tuple(each) for each in decoded] == given_headers
    assert not decoder.header_table.dynamic_entries


@pytest.mark.parametrize("length", [0, 1, 126, 127, 128, 254, 255, 16_510, 16_511, 2_097_278])
def test_strings_of_every_width_of_length(length: int) -> None:
    block = frames.header_block((b"n", b"x" * length))
    ((_, value),) = hpack.Decoder(2**30).decode(block, raw=True)
    assert value == b"x" * length


@given(st.binary(max_size=500), st.integers(1, 100), st.sampled_from([0, frames.END_STREAM]))
@settings(deadline=None)
def test_a_long_header_block_is_continued(block: bytes, most: int, flags: int) -> None:
    first, *others = read(b"".join(frames.header_frames(5, block, flags, most)))
    assert isinstance(first, HeadersFrame)
    assert all(isinstance(each, ContinuationFrame) for each in others)
    assert {each.stream_id for each in (first, *others)} == {5}
    assert ("END_STREAM" in first.flags) == bool(flags)
    assert not any("END_STREAM" in each.flags for each in others)
    ends = ["END_HEADERS" in each.flags for each in (first, *others)]
    assert ends == [False] * len(others) + [True]
    assert all(len(each.data) <= most for each in (first, *others))
    assert b"".join(each.data for each in (first, *others)) == block


@given(streams, st.binary(max_size=300), st.binary(max_size=70_000), st.binary(max_size=300))
@settings(deadline=None)
def test_a_whole_reply_is_its_three_frames(
    stream: int, head: bytes, body: bytes, trailers: bytes
) -> None:
    number = stream or 1
    assert frames.whole_reply(number, head, body, trailers) == b"".join(
        (
            *frames.header_frames(number, head, 0, 2**24 - 1),
            frames.frame(frames.DATA, 0, number, body),
            *frames.header_frames(number, trailers, frames.END_STREAM, 2**24 - 1),
        )
    )


@given(st.dictionaries(st.integers(1, 0xFFFF), st.integers(0, 2**32 - 1), max_size=20))
@settings(deadline=None)
def test_settings_come_back(values: dict[int, int]) -> None:
    (made,) = read(frames.settings(values))
    assert isinstance(made, SettingsFrame)
    assert made.settings == values
    assert dict(frames.read_settings(frames.settings(values)[9:])) == values


def test_a_setting_given_twice_is_read_twice_in_order() -> None:
    payload = b"\0\4\0\0\0\1" + b"\0\4\0\0\0\2"
    assert list(frames.read_settings(payload)) == [(4, 1), (4, 2)]


@pytest.mark.parametrize("length", [1, 5, 7])
def test_settings_of_a_broken_length_are_a_fault(length: int) -> None:
    with pytest.raises(ConnectionFault, match="broken length") as caught:
        list(frames.read_settings(bytes(length)))
    assert caught.value.code == frames.FRAME_SIZE_ERROR


@given(streams, st.integers(1, 2**31 - 1))
@settings(deadline=None)
def test_a_window_update(stream: int, more: int) -> None:
    (made,) = read(frames.window_update(stream, more))
    assert isinstance(made, WindowUpdateFrame)
    assert (made.stream_id, made.window_increment) == (stream, more)


@given(st.binary(max_size=300), st.integers(0, 255), st.booleans(), st.booleans())
@settings(deadline=None)
def test_padding_and_priority_are_taken_off(
    data: bytes, padding: int, is_padded: bool, is_prioritized: bool
) -> None:
    made = HeadersFrame(1, data)
    flags = 0
    if is_padded:
        made.flags.add("PADDED")
        made.pad_length = padding
        flags |= frames.PADDED
    if is_prioritized:
        made.flags.add("PRIORITY")
        made.depends_on, made.stream_weight, made.exclusive = 3, 200, True
        flags |= frames.PRIORITIZED
    assert frames.unwrapped(flags, made.serialize()[9:]) == data


@pytest.mark.parametrize(
    ("flags", "payload", "code"),
    [
        (frames.PADDED, b"", frames.FRAME_SIZE_ERROR),
        (frames.PADDED, b"\1", frames.PROTOCOL_ERROR),
        (frames.PADDED, b"\3ab", frames.PROTOCOL_ERROR),
        (frames.PRIORITIZED, b"1234", frames.PROTOCOL_ERROR),
        (frames.PADDED | frames.PRIORITIZED, b"\1" + b"12345", frames.PROTOCOL_ERROR),
    ],
)
def test_more_padding_than_there_is_is_a_fault(flags: int, payload: bytes, code: int) -> None:
    with pytest.raises(ConnectionFault) as caught:
        frames.unwrapped(flags, payload)
    assert caught.value.code == code


def test_padding_may_be_all_there_is() -> None:
    assert frames.unwrapped(frames.PADDED, b"\2\0\0") == b""
