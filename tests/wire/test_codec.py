from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import wire
from tests.wire.strategies import MESSAGES, messages
from wire.plans import plans


def decode(frames, limits=wire.DEFAULT_LIMITS):
    """Messages that the frames hold; they must end between two messages."""
    decoder = wire.Decoder(limits)
    heard = [message for frame in frames if (message := decoder.feed(frame)) is not None]
    decoder.finish()
    return heard


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_every_message_arrives_as_it_was_sent(kind, data):
    message = data.draw(MESSAGES[kind])
    assert decode(map(bytes, wire.encode(message))) == [message]


LARGE = 4 * wire.INLINE_BYTES


@settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(messages, max_size=6))
def test_messages_follow_each_other_on_one_connection(sent):
    encoder = wire.Encoder()
    assert decode(frame for message in sent for frame in encoder.encode(message)) == sent


def test_every_kind_has_a_plan_with_its_fields_in_order():
    assert set(MESSAGES) == set(wire.KINDS.values())
    for kind, plan in plans(wire.DEFAULT_LIMITS).items():
        declared = tuple(field.name for field in dataclasses.fields(wire.KINDS[kind]))
        assert plan.names == declared
        assert len(declared) < 15, "a header is a short list"


def test_large_buffers_are_not_copied_on_the_way_out():
    payload = bytearray(LARGE)
    _, frame = wire.encode(wire.Chunk(payload))
    payload[3] = 42
    assert frame[3] == 42


def test_large_buffers_are_not_copied_on_the_way_in():
    header, _ = wire.encode(wire.Chunk(bytes(LARGE)))
    arrived = bytearray(LARGE)
    decoder = wire.Decoder()
    assert decoder.feed(header) is None
    chunk = decoder.feed(arrived)
    arrived[3] = 42
    assert chunk.payload[3] == 42


def test_a_buffer_of_other_elements_travels_as_bytes():
    floats = memoryview(bytearray(LARGE)).cast("f")
    _, frame = wire.encode(wire.Chunk(floats))
    assert (frame.format, frame.nbytes) == ("B", LARGE)
    square = memoryview(bytearray(LARGE)).cast("B", (4, LARGE // 4))
    assert wire.encode(wire.Chunk(square))[1].nbytes == LARGE


def test_an_empty_tensor_has_no_frame_of_its_own_unless_others_have():
    empty = wire.Tensor("float32", (0, 3), (0, 1), b"")
    large = wire.Tensor("uint8", (LARGE,), (0,), bytes(LARGE))
    for message, sizes in ((execute(empty, empty), []), (execute(empty, large), [0, LARGE])):
        frames = wire.encode(message)
        assert [len(frame) for frame in frames[1:]] == sizes
        assert decode(frames) == [message]


@pytest.mark.parametrize("size", [1, 1400, wire.INLINE_BYTES])
def test_small_buffers_go_in_the_headers_frame(size):
    message = execute(
        wire.Tensor("uint8", (size - 1,), (0,), bytes(size - 1)),
        wire.Tensor("uint8", (1,), (0,), b"x"),
    )
    (frame,) = wire.encode(message)
    assert decode([frame]) == [message]
    # A frame of its own for each is as good to a receiver.
    frames = wire.encode(message, inline_bytes=0)
    assert [len(each) for each in frames[1:]] == [size - 1, 1]
    assert decode(frames) == [message]


def test_an_integer_does_where_a_float_is_declared():
    (pong,) = decode(wire.encode(wire.Pong(1, 2)))
    assert type(pong.clock_s) is float


def test_tuples_in_a_predictor_arrive_as_lists():
    welcome = wire.Welcome(1, "a", "e", "cpu", 1, 1, 1, 1, {"rows": ((1, 2.0), (3, 4.0))}, "l", 0.0)
    (heard,) = decode(wire.encode(welcome))
    assert heard.predictor == {"rows": [[1, 2.0], [3, 4.0]]}


def test_a_decoder_tells_where_it_is():
    decoder = wire.Decoder()
    assert repr(decoder) == "<Decoder: between messages>"
    decoder.feed(wire.encode(wire.Chunk(b"ab"), inline_bytes=0)[0])
    assert repr(decoder) == "<Decoder: Chunk, 0 of 1 buffers>"
    with pytest.raises(wire.RemoteProtocolError):
        decoder.feed(b"abc")
    assert repr(decoder) == "<Decoder: failed>"


@pytest.mark.parametrize("frame", ["text", None, memoryview(bytes(8))[::2]])
def test_a_frame_that_is_no_run_of_bytes_is_a_bug_here(frame):
    decoder = wire.Decoder()
    with pytest.raises(wire.LocalProtocolError, match="frame: "):
        decoder.feed(frame)
    assert decoder.feed(wire.encode(wire.Ping(1))[0]) == wire.Ping(1)


def execute(*tensors):
    return wire.Execute(1, 0, 1, None, "exact", "raw", tensors)


TENSOR = wire.Tensor("float32", (1,), (0,), bytes(4))
MISUSE = {
    "not a message": "hello",
    "a part of a message": TENSOR,
    "wrong type": wire.Ping("7"),
    "bool for int": wire.Ping(True),
    "int for bool": wire.Held(0, 0, 1, 1),
    "negative": wire.Ping(-1),
    "too large": wire.Ping(1 << 63),
    "nan": wire.Pong(1, math.nan),
    "infinite": wire.Pong(1, math.inf),
    "negative time": wire.Pong(1, -0.5),
    "integer beyond any float": wire.Pong(1, 10**400),
    "slowdown below one": wire.Load(0, 0, 0, 0.5, 0, 0),
    "empty name": wire.Bye(""),
    "long name": wire.Bye("x" * 257),
    "long name in bytes": wire.Bye("é" * 200),
    "escape sequence": wire.Bye("\x1b[2J"),
    "line break": wire.Error("graph", "one\ntwo"),
    "lone surrogate": wire.Bye("\ud800"),
    "unknown error code": wire.Error("oops", "text"),
    "unhashable error code": wire.Error([], "text"),
    "versions backwards": wire.Hello(3, 2, "agent"),
    "empty range": wire.Execute(1, 4, 4, None, "exact", "raw", ()),
    "list for tuple": wire.Have("f", "e", [1, 2], ()),
    "an empty run": wire.Have("f", "e", (1, 0, 2), ()),
    "more weights than a model has": wire.Have("f", "e", (65_536, 1), ()),
    "rows out of order": wire.Have("f", "e", (2,), (wire.Partial(1, 0, 1), wire.Partial(0, 0, 1))),
    "a row twice": wire.Have("f", "e", (2,), (wire.Partial(1, 2, 1), wire.Partial(1, 2, 3))),
    "a row of no weight": wire.Have("f", "e", (2,), (wire.Partial(2, 0, 1),)),
    "a row of nothing": wire.Have("f", "e", (2,), (wire.Partial(1, 0, 0),)),
    "not a row": wire.Have("f", "e", (2,), ((1, 0, 1),)),
    "unknown plane": wire.Segment(0, 4, 0, 1, "raw", 1),
    "unknown segment coding": wire.Segment(0, 0, 0, 1, "zstd", 1),
    "empty segment": wire.Segment(0, 0, 0, 0, "raw", 1),
    "segment beyond any weight": wire.Segment(0, 0, 1 << 40, 1, "raw", 1),
    "segment longer than its elements": wire.Segment(0, 0, 0, 1, "planes", 53),
    "segment too long": wire.Segment(0, 0, 0, 1 << 20, "planes", (1 << 20) + 1),
    "unknown precision": wire.Execute(1, 0, 1, None, "int8", "raw", ()),
    "unknown reply coding": wire.Execute(1, 0, 1, None, "exact", "zstd", ()),
    "bytes for graph missing": wire.Offer("f", None),
    "text for payload": wire.Chunk("text"),
    "empty chunk": wire.Chunk(b""),
    "gaps in memory": wire.Chunk(memoryview(bytes(10))[::2]),
    "not a tensor": execute("tensor"),
    "not a model": wire.Load(0, 0, 0, 1.0, 0, 0, ("model",)),
    "more held than there is": wire.Load(0, 0, 0, 1.0, 0, 0, (wire.ModelLoad("f", 2, 1, 0, 0),)),
    "unknown dtype": execute(dataclasses.replace(TENSOR, dtype="f4")),
    "wrong data": execute(dataclasses.replace(TENSOR, data=b"x")),
    "unknown tensor coding": execute(dataclasses.replace(TENSOR, coding="zstd")),
    "coded and no shorter": execute(dataclasses.replace(TENSOR, coding="planes")),
    "wrong order": execute(dataclasses.replace(TENSOR, order=(1,))),
    "object in predictor": wire.Welcome(1, "a", "e", "c", 1, 1, 1, 1, {"x": object()}, "l", 0.0),
    "number as key": wire.Welcome(1, "a", "e", "c", 1, 1, 1, 1, {1: 2}, "l", 0.0),
    "nan in predictor": wire.Welcome(1, "a", "e", "c", 1, 1, 1, 1, {"x": [math.nan]}, "l", 0.0),
}  # fmt: skip


@pytest.mark.parametrize("message", MISUSE.values(), ids=MISUSE)
def test_what_the_protocol_forbids_is_not_sent(message):
    with pytest.raises(wire.LocalProtocolError):
        wire.encode(message)


def test_an_encoder_goes_on_after_misuse():
    encoder = wire.Encoder()
    with pytest.raises(wire.LocalProtocolError):
        encoder.encode(wire.Welcome(1, "a", "e", "c", 1, 1, 1, 1, {"x": object()}, "l", 0.0))
    assert decode(encoder.encode(wire.Ping(1))) == [wire.Ping(1)]


def test_an_error_names_message_and_field():
    with pytest.raises(wire.LocalProtocolError, match=r"^ChunkAck\.clock_s: nan is not a finite"):
        wire.encode(wire.ChunkAck(math.nan))


def test_a_predictor_that_contains_itself_is_not_sent():
    loop: dict = {}
    loop["self"] = [loop]
    with pytest.raises(wire.LocalProtocolError, match="nested deeper than 8"):
        wire.encode(wire.Welcome(1, "a", "e", "c", 1, 1, 1, 1, loop, "l", 0.0))


def test_limits_bound_what_is_sent():
    small = wire.Limits(max_message_bytes=100, max_header_bytes=60, max_name_bytes=200)
    tensors = (wire.Tensor("uint8", (50,), (0,), bytes(50)),) * 2
    with pytest.raises(wire.LocalProtocolError, match="a message of"):
        wire.encode(wire.Execute(1, 0, 1, None, "exact", "raw", tensors), small)
    with pytest.raises(wire.LocalProtocolError, match="a header of"):
        wire.encode(wire.Bye("x" * 100), small)


def test_tensors_that_decode_to_too_much_together_are_not_sent():
    small = wire.Limits(max_message_bytes=1_000, max_buffer_bytes=800)
    coded = wire.Tensor("uint8", (600,), (0,), bytes(5), "planes")
    assert wire.encode(execute(coded), small)
    with pytest.raises(wire.LocalProtocolError, match="decode to more than 1000 bytes together"):
        wire.encode(execute(coded, coded), small)


def test_what_thousands_of_held_weights_take_is_small():
    have = wire.Have("9a3c" * 16, "7d20", (0, 5_000), ())
    assert sum(map(len, wire.encode(have))) < 100


def test_a_chunk_and_its_acknowledgement_are_small():
    (frame,) = wire.encode(wire.Chunk(bytes(1400)))
    assert len(frame) == 5 + 1400
    assert len(wire.encode(wire.ChunkAck(1234.5))[0]) == 11


def test_a_chunk_keeps_to_its_limit():
    with pytest.raises(wire.LocalProtocolError):
        wire.encode(wire.Chunk(bytes(17)), wire.Limits(max_chunk_bytes=16))


def test_the_transport_limit_covers_every_frame():
    assert wire.DEFAULT_LIMITS.max_frame_bytes == 64 << 20
    assert wire.Limits(max_message_bytes=10).max_frame_bytes == 1 << 20
    assert wire.Limits(max_header_bytes=1, max_buffer_bytes=2, max_chunk_bytes=3,
                       max_graph_bytes=4).max_frame_bytes == 4  # fmt: skip
