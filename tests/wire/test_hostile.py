"""What a hostile or broken peer may send: every time RemoteProtocolError, and nothing else."""

from __future__ import annotations

import math
import re
import struct
import tracemalloc

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import wire
from tests.wire.example import EXCHANGE, LANE_EXCHANGE
from wire.limits import MAX_LAYER, MAX_WEIGHT_BYTES

KIND = {of.__name__: kind for kind, of in wire.KINDS.items()}
EXAMPLES = [message for _, message, _ in EXCHANGE + LANE_EXCHANGE]
SMALL = wire.Limits(
    max_header_bytes=4_000, max_message_bytes=5_000, max_buffer_bytes=64, max_chunk_bytes=32,
    max_segment_bytes=64, max_graph_bytes=48, max_tensors=2, max_rank=3, max_weights=4,
    max_models=2, max_name_bytes=16, max_text_bytes=24, max_plain_items=10, max_plain_depth=3,
)  # fmt: skip


def pack(name, *fields):
    return msgpack.packb([KIND[name], *fields])


def feed_all(decoder, *frames):
    for frame in frames:
        assert decoder.feed(frame) is None
    decoder.finish()


def refused(header, *buffers, limits=wire.DEFAULT_LIMITS):
    """The error that these frames end in; `header` is bytes, or [name of the kind, *fields]."""
    if isinstance(header, list):
        header = pack(*header)
    decoder = wire.Decoder(limits)
    with pytest.raises(wire.RemoteProtocolError) as caught:
        feed_all(decoder, header, *buffers)
    assert caught.value.code == "malformed"
    with pytest.raises(wire.LocalProtocolError):
        decoder.feed(b"\x91\x0c")
    return str(caught.value)


def welcome(predictor):
    return ["Welcome", 1, "a", "e", "cpu", 1, 1, 1, 1, predictor, "lane", 0.0]


def execute(*tensors):
    return ["Execute", 1, 0, 1, None, "exact", "raw", list(tensors)]


def segment(plane=0, start=0, count=1, coding="raw", coded_bytes=1):
    return ["Segment", 0, plane, start, count, coding, coded_bytes]


def nested(depth):
    value = {}
    for _ in range(depth - 1):
        value = {"x": value}
    return value


MALFORMED = {
    "empty": b"",
    "one byte": b"\x91",
    "not a list": msgpack.packb({"kind": 1}),
    "text": b"GET / HTTP/1.1",
    "empty list": b"\x90",
    "long list": msgpack.packb([10] * 16),
    "unknown kind": msgpack.packb([99, 1]),
    "kind zero": msgpack.packb([0]),
    "kind of two bytes": b"\x92\xcc\x0a\x07",
    "kind as float": msgpack.packb([10.0, 7]),
    "kind as text": msgpack.packb(["Ping", 7]),
    "field missing": ["Held", 0, 0, 1],
    "field too many": ["Ping", 1, 2],
    "trailing bytes": wire.encode(wire.Ping(1))[0] + b"\x00",
    "reserved byte": b"\x92\x0a\xc1",
    "bytes for text": ["Bye", b"done"],
    "text for bytes": ["Chunk", "ab"],
    "inline bytes": ["Chunk", b"ab"],
    "not utf-8": b"\x92\x10\xa2\xff\xfe",
    "utf-8 surrogate": b"\x92\x10\xa3\xed\xa0\x80",
    "escape sequence": ["Bye", "\x1b[2J"],
    "right-to-left override": ["Bye", "\u202edone"],
    "empty name": ["Bye", ""],
    "bool for int": ["Ping", True],
    "float for int": ["Ping", 1.0],
    "int for float": ["Pong", 1, 2],
    "int for bool": ["Held", 0, 0, 1, 1],
    "nil for int": ["Ping", None],
    "negative": ["Ping", -1],
    "beyond 63 bits": ["Ping", 1 << 63],
    "nan": ["Pong", 1, math.nan],
    "infinite": ["Pong", 1, math.inf],
    "negative time": ["Pong", 1, -1e-9],
    "nan of four bytes": b"\x93\x0b\x01\xca" + struct.pack(">f", math.nan),
    "negative deadline": ["Execute", 1, 0, 1, -1.0, "exact", "raw", []],
    "nan deadline": ["Execute", 1, 0, 1, math.nan, "exact", "raw", []],
    "slowdown below one": ["Load", 0, 0, 0, 0.99, 0, 0, []],
    "version zero": ["Hello", 0, 1, "agent"],
    "version beyond 16 bits": ["Hello", 1, 65_536, "agent"],
    "versions backwards": ["Hello", 2, 1, "agent"],
    "unknown error code": ["Error", "oops", "text", None],
    "list as error code": ["Error", [], "text", None],
    "empty range": ["Execute", 1, 3, 3, None, "exact", "raw", []],
    "range backwards": ["Result", 1, 3, 2, "exact", 0.0, 0.0, 0.0, []],
    "layer out of range": ["Execute", 1, 0, MAX_LAYER + 1, None, "exact", "raw", []],
    "empty chunk": ["Chunk", 0],
    "negative chunk": ["Chunk", -1],
    "negative graph": ["Offer", "f", -1],
    "segment of an unknown plane": segment(plane=4),
    "segment of a negative plane": segment(plane=-1),
    "segment of nothing": segment(count=0),
    "segment without bytes": segment(coded_bytes=0),
    "segment with a negative start": segment(start=-1),
    "segment beyond any weight": segment(start=MAX_WEIGHT_BYTES),
    "segment of unknown coding": segment(coding="zstd"),
    "segment's coding not text": segment(coding=b"raw"),
    "segment longer than its elements": segment(count=2, coded_bytes=69),
    "map for runs": ["Have", "f", "e", {}, []],
    "text in runs": ["Have", "f", "e", [1, "2"], []],
    "bool in runs": ["Have", "f", "e", [True], []],
    "negative run": ["Have", "f", "e", [-1], []],
    "empty run": ["Have", "f", "e", [0, 0, 1], []],
    "runs that overflow": ["Have", "f", "e", [65_536] * 65_537, []],
    "row short": ["Have", "f", "e", [3], [[1, 0]]],
    "row not a list": ["Have", "f", "e", [3], [1]],
    "row of an unknown plane": ["Have", "f", "e", [3], [[1, 4, 1]]],
    "row of nothing": ["Have", "f", "e", [3], [[1, 0, 0]]],
    "row beyond the runs": ["Have", "f", "e", [1, 2], [[3, 0, 1]]],
    "row twice": ["Have", "f", "e", [3], [[1, 0, 1], [1, 0, 2]]],
    "rows out of order": ["Have", "f", "e", [3], [[1, 2, 1], [1, 1, 1]]],
    "unknown precision": ["Execute", 1, 0, 1, None, "float9", "raw", []],
    "precision not text": ["Execute", 1, 0, 1, None, 0, "raw", []],
    "unknown reply coding": ["Execute", 1, 0, 1, None, "exact", "zip", []],
    "model row short": ["Load", 0, 0, 0, 1.0, 0, 0, [["f", 1, 1, 1]]],
    "model not a row": ["Load", 0, 0, 0, 1.0, 0, 0, ["f"]],
    "model holds more than it has": ["Load", 0, 0, 0, 1.0, 0, 0, [["f", 2, 1, 0, 0]]],
    "tensor not a row": execute("float32"),
    "tensor row long": execute(["float32", [1], [0], "raw", 4, 0]),
    "tensor of unknown dtype": execute(["object", [1], [0], "raw", 8]),
    "tensor dtype not text": execute([{}, [1], [0], "raw", 8]),
    "tensor with negative dimension": execute(["float32", [-1], [0], "raw", 4]),
    "tensor dimension not integer": execute(["float32", [1.0], [0], "raw", 4]),
    "tensor of unknown coding": execute(["float32", [1], [0], "zstd", 3]),
    "tensor coding not text": execute(["float32", [1], [0], 0, 4]),
    "tensor coded and no shorter": execute(["float32", [1], [0], "planes", 4]),
    "empty tensor coded": execute(["float32", [0], [0], "planes", 0]),
    "tensor longer than declared": execute(["float32", [1], [0], "raw", 8]),
    "tensor shorter than declared": execute(["float32", [2], [0], "raw", 4]),
    "tensor overflows 64 bits to zero": execute(["uint8", [1 << 32, 1 << 32], [0, 1], "raw", 0]),
    "tensor order too short": execute(["float32", [1, 1], [0], "raw", 4]),
    "tensor order repeats": execute(["float32", [1, 1], [0, 0], "raw", 4]),
    "tensor order out of range": execute(["float32", [1], [1], "raw", 4]),
    "predictor not a map": welcome([]),
    "number as key": welcome({1: 2}),
    "bytes as key": welcome({b"x": 2}),
    "bytes in predictor": welcome({"x": b"y"}),
    "nan in predictor": welcome({"x": [1.0, math.nan]}),
    "huge integer in predictor": welcome({"x": (1 << 64) - 1}),
    "escape sequence in predictor": welcome({"\x1b": 1}),
    "duplicate key": pack(*welcome({"x": 1, "y": 2})).replace(b"\xa1y", b"\xa1x"),
    "extension": ["Ping", msgpack.ExtType(5, b"abcd")],
    "empty extension": b"\x92\x0a\xc7\x00\x05",
    "timestamp": ["Ping", msgpack.Timestamp(1)],
    "extension in predictor": welcome({"x": msgpack.ExtType(5, b"")}),
    "timestamp in predictor": welcome({"x": msgpack.Timestamp(1)}),
}


@pytest.mark.parametrize("header", MALFORMED.values(), ids=MALFORMED)
def test_malformed_headers(header):
    refused(header)


OVER_A_LIMIT = {
    "header bytes": (["Welcome", 1, "a", "e", "cpu", 1, 1, 1, 1,
                      {"x": ["y" * 16] * 300}, "l", 0.0], "a header of"),
    "header bytes of a small kind": (["Ping", "x" * 20], "Ping: a header of"),
    "buffer bytes": (execute(["uint8", [65], [0], "raw", 65]), r"65 is not in 0\.\.64"),
    "chunk bytes": (["Chunk", 33], r"33 is not in 1\.\.32"),
    "segment elements": (segment(count=65), r"65 is not in 1\.\.64"),
    "segment bytes": (segment(count=64, coded_bytes=65), r"65 is not in 1\.\.64"),
    "decoded bytes": (execute(["uint8", [65], [0], "planes", 1]), "decodes to more than 64 bytes"),
    "graph bytes": (["Offer", "f", 49], r"49 is not in 0\.\.48"),
    "tensors": (execute(*[["uint8", [1], [0], "raw", 1]] * 3), "3 items, at most 2"),
    "rank": (execute(["uint8", [1] * 4, [0, 1, 2, 3], "raw", 1]), "4 items, at most 3"),
    "weights": (["Have", "f", "e", [1, 4], []], "runs of 5 weights, at most 4"),
    "one run of weights": (["Have", "f", "e", [5], []], r"5 is not an integer in 0\.\.4"),
    "runs": (["Have", "f", "e", [1] * 6, []], "6 items, at most 5"),
    "partial": (["Have", "f", "e", [4], [[0, 0, 1]] * 13], "13 items, at most 12"),
    "weight number": (["Held", 4, 0, 1, True], r"4 is not in 0\.\.3"),
    "models": (["Load", 0, 0, 0, 1.0, 0, 0, [["f", 0, 0, 0, 0]] * 3], "3 items, at most 2"),
    "name bytes": (["Bye", "x" * 17], "17 characters"),
    "name bytes, not characters": (["Bye", "é" * 9], "18 bytes, at most 16"),
    "text bytes": (["Error", "graph", "x" * 25, None], "25 characters"),
    "plain items": (welcome({"x": list(range(10))}), "more than 10 items"),
    "plain depth": (welcome(nested(4)), "nested deeper than 3"),
    "plain string": (welcome({"x": "y" * 17}), "longer than 16 bytes"),
    "plain key": (welcome({"y" * 17: 1}), "longer than 16 bytes"),
}  # fmt: skip


@pytest.mark.parametrize(("header", "text"), OVER_A_LIMIT.values(), ids=OVER_A_LIMIT)
def test_each_limit(header, text):
    assert re.search(text, refused(header, limits=SMALL))


AT_A_LIMIT = {
    "buffer": (execute(["uint8", [64], [0], "raw", 64]), bytes(64)),
    "chunk": (["Chunk", 32], bytes(32)),
    "graph": (["Offer", "f", 48], bytes(48)),
    "tensors": (execute(*[["uint8", [1] * 3, [0, 1, 2], "raw", 1]] * 2), b"x", b"y"),
    "segment": (segment(count=64, coded_bytes=64),),
    "decoded": (execute(["uint8", [64], [0], "planes", 1]), b"x"),
    "runs": (["Have", "f", "e", [0, 1, 1, 1, 1], []],),
    "partial": (["Have", "f", "e", [4], [[w, p, 1] for w in range(4) for p in (1, 2, 3)]],),
    "models": (["Load", 0, 0, 0, 1.0, 0, 0, [["f", 0, 0, 0, 0]] * 2],),
    "name": (["Bye", "é" * 8],),
    "text": (["Error", "graph", "x" * 24, None],),
    "plain items": (welcome({"x": list(range(8))}),),
    "plain depth": (welcome(nested(3)),),
}


@pytest.mark.parametrize("frames", AT_A_LIMIT.values(), ids=AT_A_LIMIT)
def test_limits_are_inclusive(frames):
    decoder = wire.Decoder(SMALL)
    *_, message = [decoder.feed(frame) for frame in (pack(*frames[0]), *frames[1:])]
    assert message is not None


def test_the_message_limit_counts_the_header_and_every_buffer():
    limits = wire.Limits(max_message_bytes=60 + 49)
    header = execute(["uint8", [30], [0], "raw", 30], ["uint8", [30], [0], "raw", 30])
    assert len(pack(*header)) == 49
    frames = [pack(*header), bytes(30), bytes(30)]
    decoder = wire.Decoder(limits)
    assert [decoder.feed(frame) is None for frame in frames] == [True, True, False]
    one_less = wire.Limits(max_message_bytes=60 + 48)
    assert "a message of 109 bytes" in refused(header, limits=one_less)


def test_the_message_limit_counts_what_tensors_decode_to():
    limits = wire.Limits(max_message_bytes=1_000)
    header = execute(*[["uint8", [600], [0], "planes", 1]] * 2)
    assert "decode to more than 1000 bytes together" in refused(header, limits=limits)


@pytest.mark.parametrize("size", [0, 7, 9, 1000])
def test_a_buffer_of_another_length_than_announced(size):
    assert f"came with {size}" in refused(["Chunk", 8], bytes(size))


@pytest.mark.parametrize("size", [1, 7, 9, 1000])
def test_buffers_of_another_length_in_the_headers_frame(size):
    frame = pack("Chunk", 8) + bytes(size)
    assert f"{size} bytes follow the header, which announced 8" in refused(frame)


def test_bool_tensors_hold_zeros_and_ones():
    assert "0 and 1" in refused(execute(["bool", [3], [0], "raw", 3]), b"\x00\x01\x02")


@pytest.mark.parametrize(("header", "came"), [
    (["Chunk", 8], 0),
    (execute(["uint8", [1], [0], "raw", 1], ["uint8", [1], [0], "raw", 1]), 1),
])  # fmt: skip
def test_the_connection_ends_within_a_message(header, came):
    assert f"{came} of " in refused(header, *[b"x"] * came)


def test_the_connection_ends_between_messages():
    decoder = wire.Decoder()
    decoder.finish()
    decoder.feed(pack("Ping", 1))
    decoder.finish()


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda message: type(message).__name__)
def test_a_header_cut_at_any_byte(message):
    header = bytes(wire.encode(message, inline_bytes=0)[0])
    for length in range(len(header)):
        refused(header[:length])


def outcome(frames):
    decoder = wire.Decoder()
    try:
        return [decoder.feed(frame) for frame in frames]
    except wire.RemoteProtocolError as error:
        return error


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda message: type(message).__name__)
def test_any_bit_of_a_header_flipped_is_an_error_or_another_message(message):
    header, *buffers = map(bytes, wire.encode(message, inline_bytes=0))
    for at in range(len(header) * 8):
        flipped = bytearray(header)
        flipped[at // 8] ^= 1 << at % 8
        heard = outcome([flipped, *buffers])
        if isinstance(heard, list) and heard[-1] is not None:
            # Whatever it has become is within the protocol: this side could have sent it.
            assert wire.encode(heard[-1])


@settings(max_examples=300)
@given(st.lists(st.binary(max_size=64), min_size=1, max_size=3))
def test_noise(frames):
    outcome(frames)


headers = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.floats() | st.text()
    | st.binary(max_size=8) | st.sampled_from(sorted(wire.ERROR_CODES | set(wire.DTYPE_BYTES))),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=300)
@given(st.integers(0, 20), st.lists(headers, max_size=11))
def test_well_formed_msgpack_of_any_shape(kind, fields):
    outcome([msgpack.packb([kind, *fields])])


BOMBS = {
    "list of 4 billion": b"\x95\x07\x01\x00\x01\xdd\xff\xff\xff\xff",
    "map of 4 billion": b"\x9b\x02\xdf\xff\xff\xff\xff" + bytes(100),
    "string of 4 GB": b"\x92\x10\xdb\xff\xff\xff\xff",
    "bytes of 4 GB": b"\x92\x10\xc6\xff\xff\xff\xff",
    "extension of 4 GB": b"\x92\x10\xc9\xff\xff\xff\xff\x05",
    "nested lists of a million": b"\x9b\x02" + b"\xdd\x00\x0f\xff\xff" * 1000 + bytes(10**6),
    "nested maps of a million": b"\x9b\x02" + b"\xdf\x00\x07\xff\xff\xa0" * 1000 + bytes(10**6),
    "nested lists in a small header": b"\x9b\x02" + b"\xdc\x00\xf0" * 84,
    "100,000 nested lists": b"\x9b\x02" + b"\x91" * 100_000,
    "1,000 nested lists": b"\x9b\x02" + b"\x91" * 1_000 + b"\x01" + b"\x01" * 9,
    "tensor of 2**640 bytes": pack(
        *execute(["uint8", [1 << 40] * 16, list(range(16)), "raw", 1 << 20])
    ),
    "256 coded tensors of 64 MB": pack(
        *execute(*[["float32", [1 << 24], [0], "affine8-png", 1]] * 256)
    ),
    "64 MB announced": pack(*execute(["uint8", [64_000_000], [0], "raw", 64_000_000])),
    "256 tensors of 64 MB": pack(*execute(*[["uint8", [1 << 26], [0], "raw", 1 << 26]] * 256)),
}  # fmt: skip


@pytest.mark.parametrize("header", BOMBS.values(), ids=BOMBS)
def test_what_is_declared_and_does_not_come_allocates_nothing(header):
    wire.Decoder().feed(b"\x91\x0c")  # compile the plans first
    tracemalloc.start()
    try:
        outcome([header])
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 4 * len(header) + 500_000


def test_what_a_side_never_hears_is_refused_before_it_is_looked_at() -> None:
    frame = b"".join(wire.encode(wire.Have("f", "e", (1, 2), ())))
    with pytest.raises(
        wire.RemoteProtocolError, match="Have is not for this side to hear"
    ) as refused:
        wire.Decoder(heard=wire.HEARD[wire.Role.EDGE]).feed(frame[:2] + b"\xff" * 1000)
    assert refused.value.code == "unexpected"
    assert wire.Decoder(heard=wire.HEARD[wire.Role.CLIENT]).feed(frame) == wire.Have(
        "f", "e", (1, 2), ()
    )
