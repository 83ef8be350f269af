"""One HTTP/2 connection: an independent library is its client, or bytes that none would send."""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Iterable, Sequence
from typing import Any

import hpack
import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    PingAckReceived,
    RemoteSettingsChanged,
    ResponseReceived,
    SettingsAcknowledged,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.settings import SettingCodes
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    PushPromiseFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from appengine_compat.local.fronts import http2_connection as connections
from appengine_compat.local.fronts import http2_frames as frames
from appengine_compat.local.fronts.http2_connection import Http2Connection, Received
from appengine_compat.local.fronts.http2_frames import ConnectionFault, NotHttp2Error, header_block

Headers = tuple[tuple[bytes, bytes], ...]

HEAD: Headers = (
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", b"/service/Method"),
    (b":authority", b"localhost"),
    (b"te", b"trailers"),
)
REPLY_HEAD = header_block((b":status", b"200"))
TRAILERS = header_block((b"grpc-status", b"0"))
MOST_BODY_BYTES = 100_000
START = frames.PREFACE + SettingsFrame(0).serialize()
PREFACE_LENGTH = len(frames.PREFACE)


def plain(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    return tuple((bytes(name), bytes(value)) for name, value in headers)


def connection(most_body_bytes: int = MOST_BODY_BYTES) -> Http2Connection[Headers]:
    return Http2Connection(plain, most_body_bytes)


def begun(*sent: Frame | bytes) -> Http2Connection[Headers]:
    """Return a connection whose client has sent its preface and these frames."""
    made = connection()
    made.receive(START + wire(*sent))
    made.take_output()
    return made


def wire(*sent: Frame | bytes) -> bytes:
    return b"".join(each if isinstance(each, bytes) else each.serialize() for each in sent)


def read(data: bytes) -> list[Frame]:
    found = []
    while data:
        frame, length = Frame.parse_frame_header(memoryview(data[:9]))
        frame.parse_body(memoryview(data[9 : 9 + length]))
        found.append(frame)
        data = data[9 + length :]
    return found


def opening(number: int = 1, *flags: str, headers: Headers = HEAD) -> HeadersFrame:
    return HeadersFrame(number, header_block(*headers), flags=("END_HEADERS", *flags))


def whole(number: int = 1) -> HeadersFrame:
    return opening(number, "END_STREAM")


def faulty(code: int, *sent: Frame | bytes) -> str:
    """Expect a fault at the last of these, and return what it says."""
    made = begun(*sent[:-1])
    with pytest.raises(ConnectionFault) as caught:
        made.receive(wire(sent[-1]))
    assert caught.value.code == code
    made.end(caught.value.code)
    (last,) = [each for each in read(made.take_output()) if isinstance(each, GoAwayFrame)]
    assert last.error_code == code
    return str(caught.value)


def receive_each(made: Http2Connection[Headers], pieces: Iterable[bytes]) -> list[Any]:
    return [received for piece in pieces for received in made.receive(piece)]


class Pair:
    """A client and the connection, with a wire between."""

    def __init__(self, client_settings: dict[int, int] | None = None) -> None:
        self.server = connection()
        self.client = H2Connection(H2Configuration(client_side=True, header_encoding=None))
        self.received: list[Received[Headers]] = []
        self.events: list[Any] = []
        self.sent = b""
        self.client.initiate_connection()
        self.exchange()
        self.client.update_settings(client_settings or {})
        self.exchange()

    def exchange(self) -> None:
        """Carry bytes until neither has any."""
        while True:
            there = self.client.data_to_send()
            if there:
                self.sent += there
                self.received += self.server.receive(there)
            back = self.server.take_output()
            if back:
                self.events += self.client.receive_data(back)
            elif not there:
                return

    def ask(self, body: bytes = b"", headers: Headers = HEAD) -> int:
        """Send a request, and return its stream."""
        stream = self.client.get_next_available_stream_id()
        self.client.send_headers(stream, headers, end_stream=not body)
        at = 0
        while at < len(body):
            allowed = self.client.local_flow_control_window(stream)
            length = min(allowed, self.client.max_outbound_frame_size, len(body) - at)
            self.client.send_data(stream, body[at : at + length], at + length == len(body))
            at += length
            self.exchange()
        self.exchange()
        return stream

    def of(self, kind: type, stream: int | None = None) -> list[Any]:
        return [
            event
            for event in self.events
            if isinstance(event, kind) and (stream is None or event.stream_id == stream)
        ]

    def body(self, stream: int) -> bytes:
        return b"".join(event.data for event in self.of(DataReceived, stream))


# --- the beginning ---


def test_it_tells_its_settings_first_and_acknowledges_the_clients() -> None:
    pair = Pair()
    (told,) = pair.of(RemoteSettingsChanged)
    assert told.changed_settings[SettingCodes.MAX_CONCURRENT_STREAMS].new_value == 256
    assert pair.of(SettingsAcknowledged)
    assert pair.client.outbound_flow_control_window == connections.WINDOW_BYTES


def test_it_says_nothing_to_who_has_not_spoken_yet() -> None:
    made = connection()
    made.receive(frames.PREFACE[:-1])
    made.end()
    assert made.take_output() == b""
    made.receive(frames.PREFACE[-1:])
    assert isinstance(read(made.take_output())[0], SettingsFrame)


@pytest.mark.parametrize("place", range(1, PREFACE_LENGTH))
def test_the_preface_may_come_in_two_pieces(place: int) -> None:
    made = connection()
    data = START + wire(whole())
    assert made.receive(data[:place]) == []
    assert made.receive(data[place:]) == [Received(1, HEAD, b"")]


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST / HTTP/1.1\r\n",
        b"PRI * HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\0",
        frames.PREFACE[:-1] + b"x",
    ],
)
def test_what_is_no_http_2_is_said_in_whatever_pieces(data: bytes) -> None:
    with pytest.raises(NotHttp2Error):
        connection().receive(data)
    with pytest.raises(NotHttp2Error):
        receive_each(connection(), [data[place : place + 1] for place in range(len(data))])


# --- requests ---


def test_a_request_without_a_body() -> None:
    pair = Pair()
    stream = pair.ask()
    assert pair.received == [Received(stream, HEAD, b"")]
    assert pair.server.under_way == 1


@pytest.mark.parametrize("size", [1, 16_384, 16_385, MOST_BODY_BYTES])
def test_a_request_with_a_body(size: int) -> None:
    pair = Pair()
    body = bytes(range(256)) * (size // 256 + 1)
    stream = pair.ask(body[:size])
    assert pair.received == [Received(stream, HEAD, body[:size])]


def test_a_client_may_send_more_than_the_windows_hold() -> None:
    pair = Pair()
    pair.server = connection(most_body_bytes=5 * connections.WINDOW_BYTES)
    pair.client = H2Connection(H2Configuration(client_side=True, header_encoding=None))
    pair.client.initiate_connection()
    pair.exchange()
    body = b"x" * (4 * connections.WINDOW_BYTES)
    for stream in (pair.ask(body), pair.ask(body)):
        assert Received(stream, HEAD, body) in pair.received


def test_what_is_sent_to_requests_that_are_over_counts_for_the_connections_window() -> None:
    pair = Pair()
    for _ in range(3):
        stream = pair.client.get_next_available_stream_id()
        pair.client.send_headers(stream, HEAD)
        pair.exchange()
        left = connections.WINDOW_BYTES - 100_000
        while left > 0:
            length = min(left, pair.client.local_flow_control_window(stream), 16_384)
            pair.client.send_data(stream, bytes(length))
            pair.exchange()
            left -= length
        pair.client.reset_stream(stream)
        pair.exchange()
    assert pair.client.outbound_flow_control_window > connections.WINDOW_BYTES // 4


def recorded() -> bytes:
    pair = Pair()
    pair.ask(b"a" * 300)
    pair.ask()
    pair.ask(b"b", (*HEAD, (b"long", b"x" * 20_000)))
    pair.client.ping(b"12345678")
    pair.ask(b"c" * 40_000, (*HEAD, (b"grpc-timeout", b"10S")))
    stream = pair.client.get_next_available_stream_id()
    pair.client.send_headers(stream, HEAD)
    pair.client.send_data(stream, b"padded", pad_length=200)
    pair.client.send_headers(stream, [(b"trailer", b"yes")], end_stream=True)
    pair.exchange()
    return pair.sent


RECORDED = recorded()
EXPECTED = [
    Received(1, HEAD, b"a" * 300),
    Received(3, HEAD, b""),
    Received(5, (*HEAD, (b"long", b"x" * 20_000)), b"b"),
    Received(7, (*HEAD, (b"grpc-timeout", b"10S")), b"c" * 40_000),
    Received(9, HEAD, b"padded"),
]


def test_everything_at_once() -> None:
    assert connection().receive(RECORDED) == EXPECTED


def test_byte_by_byte() -> None:
    made, short = connection(), RECORDED[:2000]
    received = receive_each(made, [short[place : place + 1] for place in range(len(short))])
    assert received + made.receive(RECORDED[2000:]) == EXPECTED


@given(st.lists(st.integers(0, len(RECORDED)), max_size=40))
@settings(max_examples=60, deadline=None)
def test_in_any_pieces(cuts: list[int]) -> None:
    made, received, output = connection(), [], b""
    edges = [0, *sorted(cuts), len(RECORDED)]
    for start, end in zip(edges, edges[1:]):  # noqa: B905, RUF007
        received += made.receive(RECORDED[start:end])
        output += made.take_output()
    assert received == EXPECTED
    other = connection()
    other.receive(RECORDED)
    assert output == other.take_output()


def test_padding_and_priority_are_read_over() -> None:
    first = opening(1)
    first.flags |= {"PADDED", "PRIORITY"}
    first.pad_length, first.depends_on, first.stream_weight = 30, 0, 5
    data = DataFrame(1, b"body", pad_length=100, flags=("PADDED", "END_STREAM"))
    made = begun(PriorityFrame(1, stream_weight=5), first, PriorityFrame(1, stream_weight=9))
    assert made.receive(wire(data)) == [Received(1, HEAD, b"body")]


def test_headers_may_be_continued() -> None:
    block = header_block(*HEAD)
    made = begun(HeadersFrame(1, block[:10], flags=("END_STREAM",)))
    assert made.receive(wire(ContinuationFrame(1, block[10:20]))) == []
    last = ContinuationFrame(1, block[20:], flags=("END_HEADERS",))
    assert made.receive(wire(last)) == [Received(1, HEAD, b"")]


@pytest.mark.parametrize(
    "unknown",
    [
        frames.frame(0x42, 0xFF, 0, b"what is this"),
        frames.frame(0xFF, 0, 7),
        GoAwayFrame(0, 0, 0),
        PriorityFrame(9, stream_weight=1),
        SettingsFrame(0, {0x99: 5}),
        SettingsFrame(0, flags=("ACK",)),
        PingFrame(0, b"12345678", flags=("ACK",)),
    ],
)
def test_what_concerns_nobody_here_is_ignored(unknown: Frame | bytes) -> None:
    made = begun(unknown)
    assert made.receive(wire(opening(1), unknown, DataFrame(1, b"x", flags=("END_STREAM",)))) == [
        Received(1, HEAD, b"x")
    ]


def test_a_ping_is_answered() -> None:
    pair = Pair()
    pair.client.ping(b"\0abcdef\xff")
    pair.exchange()
    (answer,) = pair.of(PingAckReceived)
    assert answer.ping_data == b"\0abcdef\xff"


def test_a_request_that_is_taken_back_before_its_end_does_not_come() -> None:
    made = begun(opening(1), DataFrame(1, b"x"))
    assert made.under_way == 1
    assert made.receive(wire(RstStreamFrame(1, 8), whole(3))) == [Received(3, HEAD, b"")]
    assert made.under_way == 1


def test_data_and_trailers_of_a_request_that_was_taken_back_are_ignored() -> None:
    late = (DataFrame(1, b"x", flags=("END_STREAM",)), opening(1, "END_STREAM"))
    made = begun(opening(1), RstStreamFrame(1, 8))
    assert made.receive(wire(*late)) == []
    assert made.take_output() == b""


def test_too_many_requests_at_once_are_refused_and_those_after_are_not() -> None:
    pair = Pair()
    # h2 knows the limit too, so that it must be told not to.
    pair.client.remote_settings[SettingCodes.MAX_CONCURRENT_STREAMS] = 1000
    pair.client.remote_settings.acknowledge()
    streams = [pair.ask() for _ in range(connections.MOST_STREAMS + 3)]
    assert [each.stream for each in pair.received] == streams[: connections.MOST_STREAMS]
    refused = pair.of(StreamReset)
    assert [each.stream_id for each in refused] == streams[connections.MOST_STREAMS :]
    assert {each.error_code for each in refused} == {frames.REFUSED_STREAM}
    pair.server.reply(streams[0], REPLY_HEAD, b"", TRAILERS)
    assert pair.received[-1].stream == streams[255]
    assert pair.ask() == pair.received[-1].stream


def test_after_its_end_it_refuses_what_is_new_and_finishes_what_is_under_way() -> None:
    pair = Pair()
    stream = pair.ask(b"x")
    pair.server.end()
    assert pair.server.receive(wire(whole(stream + 2))) == []
    pair.server.reply(stream, REPLY_HEAD, b"late", TRAILERS)
    sent = read(pair.server.take_output())
    assert isinstance(sent[0], GoAwayFrame)
    assert (sent[0].last_stream_id, sent[0].error_code) == (stream, frames.NO_ERROR)
    assert isinstance(sent[1], RstStreamFrame)
    assert (sent[1].stream_id, sent[1].error_code) == (stream + 2, frames.REFUSED_STREAM)
    assert [each.stream_id for each in sent[2:]] == [stream] * 3


# --- bodies that are too long ---


def test_a_body_beyond_the_limit_comes_as_none_and_only_once() -> None:
    pair = Pair()
    stream = pair.ask(b"x" * (MOST_BODY_BYTES + 1))
    assert pair.received == [Received(stream, HEAD, None)]
    pair.server.reply(stream, header_block((b":status", b"200"), (b"grpc-status", b"8")))
    pair.exchange()
    assert pair.of(StreamEnded, stream)


def test_of_a_body_beyond_the_limit_nothing_is_kept() -> None:
    made = begun(opening(1))
    piece = wire(DataFrame(1, b"x" * 16_000))
    received = []
    tracemalloc.start()
    try:
        for _ in range(500):
            received += made.receive(piece)
            made.take_output()
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert received == [Received(1, HEAD, None)]
    assert kept < MOST_BODY_BYTES
    assert made.receive(wire(DataFrame(1, b"", flags=("END_STREAM",)))) == []


def test_frames_of_nothing_are_not_kept() -> None:
    made = begun(opening(1))
    nothing = wire(DataFrame(1, b""), DataFrame(1, b"", pad_length=1, flags=("PADDED",))) * 500
    tracemalloc.start()
    try:
        for _ in range(50):
            made.receive(nothing)
            made.take_output()
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 50_000


# --- faults ---


def test_streams_that_clients_may_not_begin() -> None:
    block = header_block(*HEAD)
    for number in (0, 2, 256):
        faulty(frames.PROTOCOL_ERROR, frames.frame(frames.HEADERS, 5, number, block))


def test_what_belongs_to_a_request_that_never_began() -> None:
    for number in (1, 3):
        faulty(frames.PROTOCOL_ERROR, DataFrame(number, b"x"))
        faulty(frames.PROTOCOL_ERROR, RstStreamFrame(number, 8))
        faulty(frames.PROTOCOL_ERROR, WindowUpdateFrame(number, 8))
    faulty(frames.PROTOCOL_ERROR, frames.frame(frames.DATA, 0, 0, b"x"))
    faulty(frames.PROTOCOL_ERROR, frames.frame(frames.RST_STREAM, 0, 0, bytes(4)))


def test_data_after_the_end() -> None:
    faulty(frames.STREAM_CLOSED, whole(), DataFrame(1, b"x"))
    faulty(frames.STREAM_CLOSED, opening(), DataFrame(1, b"", flags=("END_STREAM",)), DataFrame(1))


def test_headers_in_the_midst_of_a_request_or_after_it() -> None:
    faulty(frames.PROTOCOL_ERROR, opening(1), opening(1))
    faulty(frames.PROTOCOL_ERROR, whole(1), whole(1))


def test_headers_that_are_broken_off() -> None:
    part = HeadersFrame(1, header_block(*HEAD)[:5])
    rest = header_block(*HEAD)[5:]
    for other in (
        whole(3),
        DataFrame(1, b"x"),
        PingFrame(0, bytes(8)),
        SettingsFrame(0),
        RstStreamFrame(1, 8),
        PriorityFrame(1),
        frames.frame(0x42, 0, 1),
        ContinuationFrame(3, rest, flags=("END_HEADERS",)),
    ):
        assert faulty(frames.PROTOCOL_ERROR, part, other) == "headers broken off"


def test_a_continuation_of_nothing() -> None:
    faulty(frames.PROTOCOL_ERROR, ContinuationFrame(1, b""))
    faulty(frames.PROTOCOL_ERROR, whole(1), ContinuationFrame(1, b""))


@pytest.mark.parametrize("size", [0, 100, 16_000])
def test_headers_without_end(size: int) -> None:
    made = begun(HeadersFrame(1, b""))
    more = wire(ContinuationFrame(1, bytes(size)))
    with pytest.raises(ConnectionFault, match="without end") as caught:
        receive_each(made, itertools.repeat(more, 70_000))
    assert caught.value.code == frames.ENHANCE_YOUR_CALM


def test_frames_of_more_than_was_agreed_are_refused_before_they_have_come() -> None:
    made = begun(opening(1))
    assert made.receive(wire(DataFrame(1, bytes(16_384)))) == []
    head = (16_385).to_bytes(3, "big") + b"\0\0\0\0\0\1"
    faulty(frames.FRAME_SIZE_ERROR, opening(1), head)


def test_header_blocks_that_do_not_decode() -> None:
    for block in (
        b"\x80",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\xbe",
        b"\x00\x05ab",
        b"\x40\x81\xff\x01a",
        b"\x82\x20",
        b"\x3f\xff\xff\x03",
        b"\x41",
    ):
        frame = HeadersFrame(1, block, flags=("END_HEADERS", "END_STREAM"))
        faulty(frames.COMPRESSION_ERROR, frame)


def test_a_header_list_that_is_too_large_though_its_block_is_small() -> None:
    encoder = hpack.Encoder()
    first = encoder.encode([(b"a", b"x" * 4000)])
    bomb = encoder.encode([(b"a", b"x" * 4000)]) * 300
    assert len(bomb) < 1000
    faulty(
        frames.COMPRESSION_ERROR,
        HeadersFrame(1, first, flags=("END_HEADERS",)),
        HeadersFrame(3, bomb, flags=("END_HEADERS",)),
    )


def test_padding_beyond_the_frame() -> None:
    faulty(frames.PROTOCOL_ERROR, opening(), frames.frame(frames.DATA, 8, 1, b"\x09abc"))
    faulty(frames.FRAME_SIZE_ERROR, opening(), frames.frame(frames.DATA, 8, 1))
    faulty(frames.PROTOCOL_ERROR, frames.frame(frames.HEADERS, 0x24, 1, b"abc"))


def test_windows_that_are_nonsense() -> None:
    grow = frames.window_update
    faulty(frames.PROTOCOL_ERROR, grow(0, 0))
    faulty(frames.PROTOCOL_ERROR, opening(), grow(1, 0))
    faulty(frames.FLOW_CONTROL_ERROR, grow(0, 2**31 - 1))
    faulty(frames.FLOW_CONTROL_ERROR, opening(), grow(1, 2**31 - 1))
    faulty(frames.FLOW_CONTROL_ERROR, SettingsFrame(0, {4: 2**31}))
    most = SettingsFrame(0, {4: 2**31 - 1})
    faulty(frames.FLOW_CONTROL_ERROR, opening(), grow(1, 1), most)
    faulty(frames.FRAME_SIZE_ERROR, frames.frame(frames.WINDOW_UPDATE, 0, 0, bytes(3)))


def test_a_window_may_grow_to_its_bound() -> None:
    made = begun(opening(), frames.window_update(0, 2**31 - 1 - 65_535))
    made.receive(wire(frames.window_update(1, 2**31 - 1 - 65_535)))
    made.receive(wire(SettingsFrame(0, {4: 65_535})))


def test_settings_that_are_nonsense() -> None:
    for size in (16_383, 2**24):
        faulty(frames.PROTOCOL_ERROR, SettingsFrame(0, {5: size}))
    faulty(frames.PROTOCOL_ERROR, frames.frame(frames.SETTINGS, 0, 1))
    faulty(frames.FRAME_SIZE_ERROR, frames.frame(frames.SETTINGS, 0, 0, bytes(5)))


def test_pings_and_pushes_that_are_nonsense() -> None:
    faulty(frames.FRAME_SIZE_ERROR, frames.frame(frames.PING, 0, 0, bytes(7)))
    faulty(frames.PROTOCOL_ERROR, PushPromiseFrame(1, 2, header_block(*HEAD)))


# --- replies ---


def answered(pair: Pair, stream: int, body: bytes) -> None:
    """Expect a reply that is whole, with its trailers."""
    (head,) = pair.of(ResponseReceived, stream)
    assert plain(head.headers) == ((b":status", b"200"),)
    assert pair.body(stream) == body
    (trailers,) = pair.of(TrailersReceived, stream)
    assert plain(trailers.headers) == ((b"grpc-status", b"0"),)
    assert pair.of(StreamEnded, stream)


@pytest.mark.parametrize("size", [0, 5, 16_384, 16_385, 65_535])
def test_a_reply_that_the_window_holds(size: int) -> None:
    pair = Pair()
    stream = pair.ask(b"x")
    pair.server.reply(stream, REPLY_HEAD, b"y" * size, TRAILERS)
    pair.exchange()
    answered(pair, stream, b"y" * size)
    assert pair.server.under_way == 0


def test_a_reply_of_headers_alone() -> None:
    pair = Pair()
    stream = pair.ask(b"x")
    pair.server.reply(stream, header_block((b":status", b"415")))
    pair.exchange()
    (head,) = pair.of(ResponseReceived, stream)
    assert plain(head.headers) == ((b":status", b"415"),)
    assert pair.of(StreamEnded, stream)
    assert not pair.of(StreamReset)


def test_a_reply_before_the_requests_end_says_that_the_rest_is_not_wanted() -> None:
    made = begun(opening(1), DataFrame(1, b"x"))
    made.reply(1, REPLY_HEAD, b"y", TRAILERS)
    *reply, last = read(made.take_output())
    assert [type(each) for each in reply] == [HeadersFrame, DataFrame, HeadersFrame]
    assert isinstance(last, RstStreamFrame)
    assert last.error_code == frames.NO_ERROR
    assert made.receive(wire(DataFrame(1, b"more"), whole(1))) == []


def test_a_reply_to_what_was_taken_back_is_not_sent() -> None:
    made = begun(whole(1), RstStreamFrame(1, 8))
    made.reply(1, REPLY_HEAD, b"y", TRAILERS)
    made.reply(99, REPLY_HEAD)
    assert made.take_output() == b""


def test_a_second_reply_is_not_sent() -> None:
    made = begun(whole(1))
    made.reply(1, REPLY_HEAD)
    made.take_output()
    made.reply(1, REPLY_HEAD)
    assert made.take_output() == b""


def test_a_reply_whose_client_gives_up_in_its_midst_goes_no_further() -> None:
    pair = Pair()
    first, second = pair.ask(b"x"), pair.ask(b"x")
    for stream in (first, second):
        pair.server.reply(stream, REPLY_HEAD, b"y" * 100_000, TRAILERS)
    pair.exchange()
    assert pair.body(first) == b"y" * 65_535
    pair.client.reset_stream(first)
    pair.client.increment_flow_control_window(200_000)
    pair.client.increment_flow_control_window(200_000, second)
    pair.exchange()
    answered(pair, second, b"y" * 100_000)
    assert pair.server.under_way == 0


def test_a_head_and_trailers_longer_than_a_frame_are_continued() -> None:
    pair = Pair({SettingCodes.MAX_HEADER_LIST_SIZE: 200_000})
    stream = pair.ask(b"x")
    head = ((b":status", b"200"), (b"long", b"h" * 40_000))
    trailers = ((b"long", b"t" * 40_000),)
    pair.server.reply(stream, header_block(*head), b"y", header_block(*trailers))
    pair.exchange()
    assert plain(pair.of(ResponseReceived, stream)[0].headers) == head
    assert pair.body(stream) == b"y"
    assert plain(pair.of(TrailersReceived, stream)[0].headers) == trailers


@pytest.mark.parametrize("frame_bytes", [16_384, 16_385, 1_000_000])
def test_frames_are_as_large_as_the_client_takes_them_and_no_larger(frame_bytes: int) -> None:
    made = begun(SettingsFrame(0, {4: 2**31 - 1, 5: frame_bytes}), frames.window_update(0, 2**30))
    made.receive(wire(whole(1)))
    made.reply(1, REPLY_HEAD, b"y" * 2_500_000, TRAILERS)
    sent = [each for each in read(made.take_output()) if isinstance(each, DataFrame)]
    assert max(len(each.data) for each in sent) == frame_bytes
    assert b"".join(each.data for each in sent) == b"y" * 2_500_000


def test_a_reply_of_100_mb() -> None:
    made = begun(SettingsFrame(0, {4: 2**31 - 1}), frames.window_update(0, 2**30), whole(1))
    body = bytes(100_000_000)  # which takes minutes where every frame copies all of the rest
    made.reply(1, REPLY_HEAD, body, TRAILERS)
    assert len(made.take_output()) > len(body)


def test_nothing_is_sent_beyond_a_window_of_any_bytes() -> None:
    """h2 ends the connection at the first byte that it has not allowed."""
    pair = Pair({SettingCodes.INITIAL_WINDOW_SIZE: 7})
    stream = pair.ask(b"x")
    body = bytes(range(200))
    pair.server.reply(stream, REPLY_HEAD, body, TRAILERS)
    pair.exchange()
    sent = 7
    for more in (1, 2, 50, 100, 39, 1):
        assert pair.body(stream) == body[:sent]
        assert not pair.of(StreamEnded)
        pair.client.increment_flow_control_window(more, stream)
        pair.exchange()
        sent += more
    answered(pair, stream, body)


def test_a_smaller_window_in_the_midst_of_a_reply_is_a_debt_first() -> None:
    pair = Pair({SettingCodes.INITIAL_WINDOW_SIZE: 100})
    first, second = pair.ask(b"x"), pair.ask(b"x")
    pair.server.reply(first, REPLY_HEAD, b"y" * 200, TRAILERS)
    pair.exchange()
    assert len(pair.body(first)) == 100
    pair.client.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 30})
    pair.exchange()
    pair.server.reply(second, REPLY_HEAD, b"", TRAILERS)
    pair.exchange()
    answered(pair, second, b"")
    pair.client.increment_flow_control_window(70, first)
    pair.exchange()
    assert len(pair.body(first)) == 100
    pair.client.increment_flow_control_window(30, first)
    pair.exchange()
    assert len(pair.body(first)) == 130
    pair.client.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 1000})
    pair.exchange()
    answered(pair, first, b"y" * 200)


def test_an_empty_body_needs_no_window_at_all() -> None:
    made = begun(whole(1), SettingsFrame(0, {4: 0}))
    made.reply(1, REPLY_HEAD, b"", TRAILERS)
    assert made.under_way == 0
    assert "END_STREAM" in read(made.take_output())[-1].flags


@given(
    sizes=st.lists(st.integers(0, 150_000), min_size=1, max_size=6),
    grants=st.lists(st.tuples(st.integers(0, 6), st.integers(1, 90_000)), max_size=30),
    window=st.integers(0, 70_000),
    frame_bytes=st.integers(16_384, 40_000),
)
@settings(max_examples=80, deadline=None)
def test_several_replies_at_once_all_arrive_whatever_the_client_allows_when(
    sizes: Sequence[int], grants: Sequence[tuple[int, int]], window: int, frame_bytes: int
) -> None:
    pair = Pair(
        {SettingCodes.INITIAL_WINDOW_SIZE: window, SettingCodes.MAX_FRAME_SIZE: frame_bytes}
    )
    streams = [pair.ask(b"x") for _ in sizes]
    bodies = [bytes([number]) * size for number, size in enumerate(sizes)]
    for stream, body in zip(streams, bodies, strict=True):
        pair.server.reply(stream, REPLY_HEAD, body, TRAILERS)
    for place, more in grants:
        stream = streams[place] if place < len(streams) else None
        if stream is None or not pair.of(StreamEnded, stream):
            pair.client.increment_flow_control_window(more, stream)
        pair.exchange()
    pair.client.increment_flow_control_window(1_000_000)
    pair.exchange()
    for stream in streams:
        if not pair.of(StreamEnded, stream):
            pair.client.increment_flow_control_window(1_000_000, stream)
            pair.exchange()
    for stream, body in zip(streams, bodies, strict=True):
        answered(pair, stream, body)
    assert pair.server.under_way == 0
    assert not pair.of(ConnectionTerminated)


# --- how much of bodies is kept ---


def short(most_body_bytes: int, *sent: Frame | bytes) -> Http2Connection[Headers]:
    made = connection(most_body_bytes)
    made.receive(START + wire(*sent))
    return made


def test_two_of_the_longest_bodies_may_be_under_way_and_a_byte_more_is_refused_alone() -> None:
    made = short(100, opening(1), opening(3), opening(5))
    assert made.receive(wire(DataFrame(1, bytes(100)), DataFrame(3, bytes(100)))) == []
    assert made.receive(wire(DataFrame(5, b"x"))) == [Received(5, HEAD, None)]
    ends = [DataFrame(number, b"", flags=("END_STREAM",)) for number in (1, 3, 5)]
    assert made.receive(wire(*ends)) == [
        Received(1, HEAD, bytes(100)),
        Received(3, HEAD, bytes(100)),
    ]


def test_a_body_counts_until_its_request_is_answered() -> None:
    made = short(100, opening(1), DataFrame(1, bytes(100), flags=("END_STREAM",)))
    made.receive(wire(opening(3), DataFrame(3, bytes(100), flags=("END_STREAM",))))
    (refused,) = made.receive(wire(opening(5), DataFrame(5, b"x")))
    assert refused.body is None
    made.reply(5, REPLY_HEAD)
    made.reply(1, REPLY_HEAD, b"y", TRAILERS)
    again = wire(opening(7), DataFrame(7, bytes(100), flags=("END_STREAM",)))
    assert made.receive(again) == [Received(7, HEAD, bytes(100))]


@pytest.mark.parametrize("is_padded", [False, True])
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["begin", "data", "last", "trailers", "reset", "reply", "refuse"]),
            st.integers(0, 4),
            st.integers(0, 120),
        ),
        max_size=40,
    )
)
@settings(max_examples=150, deadline=None)
def test_whatever_becomes_of_requests_their_bodies_do_not_count_after_them(
    is_padded: bool, steps: list[tuple[str, int, int]]
) -> None:
    made = short(100, frames.window_update(0, 2**30))
    numbers = itertools.count(1, 2)
    sending: list[int] = []
    under_way: list[int] = []
    flags, more = (("PADDED",), {"pad_length": 9}) if is_padded else ((), {})
    for kind, place, size in steps:
        if kind == "begin":
            number = next(numbers)
            made.receive(wire(opening(number)))
            sending.append(number)
            under_way.append(number)
        elif kind in ("data", "last", "trailers") and sending:
            number = sending[place % len(sending)]
            ends = ("END_STREAM",) if kind == "last" else ()
            made.receive(wire(DataFrame(number, bytes(size), flags=(*flags, *ends), **more)))
            if kind == "trailers":
                made.receive(wire(whole(number)))
            if kind != "data":
                sending.remove(number)
        elif kind in ("reset", "reply", "refuse") and under_way:
            number = under_way.pop(place % len(under_way))
            if kind == "reset":
                made.receive(wire(RstStreamFrame(number, 8)))
                sending = [each for each in sending if each != number]
            elif kind == "reply":
                made.reply(number, REPLY_HEAD, bytes(size), TRAILERS)
            else:
                made.reply(number, REPLY_HEAD)
    for number in under_way:
        made.reply(number, REPLY_HEAD, b"y", TRAILERS)
    assert made.under_way == 0
    first, second, third = (next(numbers) for _ in range(3))
    largest = [
        made.receive(wire(opening(number), DataFrame(number, bytes(100), flags=("END_STREAM",))))
        for number in (first, second)
    ]
    assert largest == [[Received(first, HEAD, bytes(100))], [Received(second, HEAD, bytes(100))]]
    beyond = made.receive(wire(opening(third), DataFrame(third, b"x")))
    assert beyond == [Received(third, HEAD, None)]


def test_what_waits_to_be_let_through_is_counted_until_it_is_or_nobody_wants_it() -> None:
    made = begun(SettingsFrame(0, {4: 10}), whole(1), whole(3))
    for number in (1, 3):
        made.reply(number, REPLY_HEAD, bytes(100), TRAILERS)
    assert made.held_back_bytes == 180
    made.receive(wire(frames.window_update(1, 30)))
    assert made.held_back_bytes == 150
    made.receive(wire(RstStreamFrame(3, 8)))
    assert made.held_back_bytes == 60
    assert made.is_open(1)
    assert not made.is_open(3)
    made.receive(wire(frames.window_update(1, 60)))
    assert made.held_back_bytes == 0
    assert not made.is_open(1)


def test_of_a_client_that_has_gone_nothing_is_kept() -> None:
    made = begun(whole(1), SettingsFrame(0, {4: 0}), opening(3), DataFrame(3, b"x"))
    made.reply(1, REPLY_HEAD, bytes(100), TRAILERS)
    made.abandon()
    assert (made.under_way, made.held_back_bytes) == (0, 0)
    assert not made.is_open(3)


# --- headers that are decoded once ---

NAMES = [b":path", b"te", b"grpc-timeout", b"authorization", b"a", b"b"]
VALUES = [b"", b"trailers", b"/service/Method", b"x", b"y" * 40, b"z" * 200, b"w" * 5000]
header_lists = st.lists(
    st.tuples(st.sampled_from(NAMES), st.sampled_from(VALUES), st.booleans()), max_size=6
)
steps = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.booleans(),
        st.none() | st.sampled_from([0, 40, 64, 100, 200, 500, 4096]),
    ),
    min_size=1,
    max_size=30,
)


@given(st.lists(header_lists, min_size=4, max_size=4), steps)
@settings(max_examples=300, deadline=None)
def test_headers_are_what_a_plain_decoder_makes_of_them(
    lists: list[list[tuple[bytes, bytes, bool]]],
    chosen: list[tuple[int, bool, int | None]],
) -> None:
    encoder, decoder, made = hpack.Encoder(), hpack.Decoder(), begun()
    for place, (which, huffman, table_size) in enumerate(chosen):
        if table_size is not None:
            encoder.header_table_size = table_size
        headers = [
            hpack.NeverIndexedHeaderTuple(name, value) if is_secret else (name, value)
            for name, value, is_secret in lists[which]
        ]
        block = encoder.encode(headers, huffman=huffman)
        number = 2 * place + 1
        (received,) = made.receive(wire(*frames.header_frames(number, block, 1, 16_384)))
        assert received.head == plain(decoder.decode(block, raw=True))
        made.reply(number, REPLY_HEAD)


raw_blocks = st.lists(
    st.one_of(
        st.binary(min_size=1, max_size=6),
        st.sampled_from(
            [
                b"\x20",
                b"\x3f\x21",
                b"\x3f\xe1\x1f",
                b"\x40\x01a\x01b",
                b"\x40\x01a\x64" + b"c" * 100,
                b"\xbe",
                b"\xbf",
                b"\x7e\x01d",
                b"\x00\x01a\x01b",
                b"\x10\x01a\x01b",
                b"\x0f\x2f\x01e",
                b"\x84",
            ]
        ),
    ),
    min_size=1,
    max_size=4,
).map(b"".join)


@given(st.lists(raw_blocks, min_size=1, max_size=4), st.lists(st.integers(0, 3), max_size=30))
@settings(max_examples=600, deadline=None)
def test_blocks_that_no_encoder_makes_are_what_a_plain_decoder_makes_of_them(
    blocks: list[bytes], order: list[int]
) -> None:
    decoder, made = hpack.Decoder(), begun()
    for place, which in enumerate(order):
        block, number = blocks[which % len(blocks)], 2 * place + 1
        frame = wire(HeadersFrame(number, block, flags=("END_HEADERS", "END_STREAM")))
        try:
            expected = plain(decoder.decode(block, raw=True))
        except hpack.HPACKError:
            with pytest.raises(ConnectionFault):
                made.receive(frame)
            return
        (received,) = made.receive(frame)
        assert received.head == expected
        made.reply(number, REPLY_HEAD)


def test_a_block_that_put_nothing_into_a_table_of_no_size_does_once_it_has_one() -> None:
    insert, use = b"\x40\x01a\x01b", b"\xbe"
    blocks = [b"\x20", insert, b"\x3f\xe1\x1f", insert, use]
    made = begun()
    received = made.receive(
        wire(
            *(
                HeadersFrame(2 * place + 1, block, flags=("END_HEADERS", "END_STREAM"))
                for place, block in enumerate(blocks)
            )
        )
    )
    assert received[-1].head == ((b"a", b"b"),)


def test_each_of_many_blocks_is_known_and_their_memory_is_bounded() -> None:
    made = begun()
    tracemalloc.start()
    try:
        for place in range(3000):
            number = 2 * place + 1
            headers = (*HEAD, (b"trace", b"%d" % place + b"x" * 500))
            (received,) = made.receive(wire(opening(number, "END_STREAM", headers=headers)))
            assert received.head == headers
            made.reply(number, REPLY_HEAD)
            made.take_output()
        del received, headers
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 600_000


def test_what_reads_the_head_is_asked_once_for_the_same_headers() -> None:
    asked = []
    made = Http2Connection(lambda headers: asked.append(list(headers)) or len(asked), 10)
    made.receive(START)
    received = made.receive(wire(whole(1), whole(3), whole(5)))
    assert [each.head for each in received] == [1, 1, 1]
