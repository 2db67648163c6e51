from __future__ import annotations

import struct
from concurrent.futures import ThreadPoolExecutor

import numpy
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

import wire
from tests.wire.test_planes import EDGES, LATE_NANS, planes_of, word_of
from wire import COARSE, FINE, MIDDLE, WHOLE, float8
from wire.float8 import step_of

PLANES = dict.fromkeys(wire.DTYPE_BYTES, (WHOLE,)) | {"float32": (WHOLE, COARSE, MIDDLE, FINE)}
CASES = [(dtype, plane) for dtype, planes in PLANES.items() for plane in planes]
SPECIAL = numpy.concatenate([EDGES, LATE_NANS]).tobytes()
NORMAL = numpy.random.default_rng(1).normal(0, 0.05, 40_000).astype("<f4")


def stored(dtype, plane, blob, start, count):
    """A segment's decoded form, by the definition of the planes."""
    size = wire.DTYPE_BYTES[dtype]
    elements = blob[start * size : (start + count) * size]
    if plane == WHOLE:
        return elements
    block = numpy.frombuffer(blob, "<u4")
    return planes_of(numpy.frombuffer(elements, "<u4"), block)[plane - COARSE]


def coarse_for(plane, blob, start, count):
    """What a segment of MIDDLE is decoded beside."""
    return stored("float32", COARSE, blob, start, count) if plane == MIDDLE else None


def check(dtype, plane, blob, start, count, coding):
    payload = wire.encode_segment(dtype, plane, blob, start, count, coding)
    assert 0 < payload.nbytes <= wire.max_coded_bytes(dtype, plane, count, coding)
    beside = coarse_for(plane, blob, start, count)
    decoded = wire.decode_segment(dtype, plane, count, coding, payload, beside)
    assert decoded.format == "B"
    assert bytes(decoded) == stored(dtype, plane, blob, start, count)
    return payload.nbytes


@pytest.mark.parametrize("coding", wire.SEGMENT_CODINGS)
@pytest.mark.parametrize(("dtype", "plane"), CASES)
@settings(max_examples=40)
@given(data=st.data())
def test_any_bits_come_back(dtype, plane, coding, data):
    size = wire.DTYPE_BYTES[dtype]
    # Long enough to be compressed, of any bits: floats of every kind among them.
    pieces = data.draw(st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=4))
    blob = b"".join(piece * data.draw(st.integers(1, 40)) for piece in pieces)
    blob += bytes(-len(blob) % size)
    start = data.draw(st.integers(0, len(blob) // size - 1))
    count = data.draw(st.integers(1, len(blob) // size - start))
    check(dtype, plane, blob, start, count, coding)


@pytest.mark.parametrize("coding", wire.SEGMENT_CODINGS)
@pytest.mark.parametrize("plane", [WHOLE, COARSE, MIDDLE, FINE])
@pytest.mark.parametrize("count", [1, 2, 3, 27])
def test_special_values_come_back(plane, coding, count):
    for start in range(27 - count + 1):
        check("float32", plane, SPECIAL, start, count, coding)


@pytest.mark.parametrize(("dtype", "plane"), CASES)
def test_a_usual_segment_keeps_to_the_limits(dtype, plane):
    count = wire.segment_elements(dtype, plane)
    most = wire.DEFAULT_LIMITS.max_segment_bytes
    assert 0 < wire.stored_bytes(dtype, plane, count) <= most
    assert wire.max_coded_bytes(dtype, plane, count, "planes") <= most
    noise = numpy.random.default_rng(2).bytes(count * wire.DTYPE_BYTES[dtype])
    for coding in wire.SEGMENT_CODINGS:
        size = check(dtype, plane, noise, 0, count, coding)
        # The announcement's own check must never refuse what is coded here.
        announced = wire.Segment(0, plane, 0, count, coding, size)
        assert wire.encode(announced)


def test_a_whole_raw_segment_is_never_copied():
    blob = bytearray(NORMAL.tobytes())
    payload = wire.encode_segment("float32", WHOLE, blob, 10, 5, "raw")
    decoded = wire.decode_segment("float32", WHOLE, 5, "raw", payload)
    blob[40] ^= 0xFF
    assert decoded[0] == payload[0] == blob[40]


@pytest.mark.parametrize(("plane", "bits"), [(COARSE, 8), (MIDDLE, 7.5), (FINE, 16)])
def test_a_raw_plane_is_packed(plane, bits):
    payload = wire.encode_segment("float32", plane, NORMAL.tobytes(), 0, 1000, "raw")
    assert payload.nbytes <= 1 + 1000 * bits // 8


def parts_of_the_page(dtype, plane, blob):
    """A segment's parts, number by number, as docs/protocol.md (section 7) has them."""
    width = {"complex64": 4, "complex128": 8}.get(dtype, wire.DTYPE_BYTES[dtype])
    numbers = [int.from_bytes(blob[at : at + width], "little") for at in range(0, len(blob), width)]
    if plane in (COARSE, MIDDLE):
        step = step_of(numpy.frombuffer(blob, "<u4"), 0, len(blob) // 4)
        return parts_of_a_top(plane, numbers, step)
    if plane == FINE:
        return [bytes(u & 255 for u in numbers), bytes(u >> 8 & 255 for u in numbers)]
    if "float" in dtype or "complex" in dtype:
        numbers = [rotated(u, 8 * width) for u in numbers]
    return [bytes(u >> 8 * at & 255 for u in numbers) for at in range(width)]


def parts_of_a_top(plane, numbers, step):
    words = [word_of(u, step) & 0x7FFF for u in numbers]
    if plane == COARSE:
        magnitudes = [
            0 if word == 0 else 127 if word >> 7 == 255 else 1 if word >> 7 < step
            else 1 + code_of(word, step) for word in words
        ]  # fmt: skip
        return [
            bytes([step]),
            bytes(m | u >> 31 << 7 for m, u in zip(magnitudes, numbers, strict=True)),
        ]
    pairs = list(zip(numbers, words, strict=True))
    small = [u for u, word in pairs if word and word >> 7 < step]
    lowest = [(u, word & 127 & -(word & 127) or (64 if word >> 7 == 255 else 128) if word else 0)
              for u, word in pairs]  # fmt: skip
    bits = [[u >> 16 >> at & 1 for u, low in lowest if low >= 1 << at] for at in (6, 5, 4)]
    exponents = bytes(u >> 23 & 255 for u in small)
    return [exponents, *map(packed, bits), half_bytes([u >> 16 & 15 for u in numbers])]


def code_of(word, step):
    """Steps that a number has, up to 16, and then the binade and three bits of mantissa."""
    binade, mantissa = (word >> 7) - step, word & 127
    known = min(binade, 3)
    if binade <= 3:
        return (128 | mantissa) >> (7 - known)
    return 8 * (binade - 2) + (mantissa >> 4)


def packed(bits):
    bits = [*bits, *[0] * (-len(bits) % 8)]
    return bytes(int("".join(map(str, bits[at : at + 8])), 2) for at in range(0, len(bits), 8))


def rotated(u, bits):
    low = bits - 16
    word = u >> low
    return (word << 1 | word >> 15) % 65536 << low | u % (1 << low)


def half_bytes(halves):
    pairs = zip(halves[0::2], [*halves[1::2], 0], strict=False)
    return bytes(first | second << 4 for first, second in pairs)


@pytest.mark.parametrize(("dtype", "plane"), CASES)
def test_the_parts_are_those_of_the_page(dtype, plane):
    count = 27 * 4 // wire.DTYPE_BYTES[dtype]
    blob = SPECIAL if dtype == "float32" else bytes(range(1, 109))
    blob = blob[: count * wire.DTYPE_BYTES[dtype]]
    parts = parts_of_the_page(dtype, plane, blob)
    if plane != WHOLE:
        assert bytes(wire.encode_segment(dtype, plane, blob, 0, count, "raw")) == b"".join(parts)
    payload = memoryview(wire.encode_segment(dtype, plane, blob, 0, count, "planes"))
    if plane == WHOLE:
        assert payload[:4] == bytes(4)
        payload = payload[4:]
    for part in parts:
        (length,) = struct.unpack_from("<I", payload)
        data, payload = bytes(payload[4 : 4 + length]), payload[4 + length :]
        assert (data if length == len(part) else zstandard.decompress(data)) == part
    assert not payload
    # Whatever else a sender may choose to compress.
    no_mask = bytes(4) if plane == WHOLE else b""
    for mixed in (prefixed(*parts), prefixed(*map(shorter, parts))):
        beside = coarse_for(plane, blob, 0, count)
        decoded = wire.decode_segment(dtype, plane, count, "planes", no_mask + mixed, beside)
        assert bytes(decoded) == stored(dtype, plane, blob, 0, count)


def test_a_mask_tells_which_numbers_are_left():
    numbers = [0, 7, 0, 0, 0x80000000, 0, 0, 0, 9, 0]
    blob = numpy.array(numbers, "<u4").tobytes()
    left = [rotated(u, 32) for u in numbers if u]
    parts = [bytes([0b01001000, 0b10000000])]
    parts += [bytes(u >> 8 * at & 255 for u in left) for at in range(4)]
    payload = prefixed(*parts)
    assert bytes(wire.decode_segment("float32", WHOLE, 10, "planes", payload)) == blob
    assert bytes(wire.encode_segment("float32", WHOLE, blob, 0, 10, "planes")) == payload
    parts[0] = bytes([0b01001000, 0b10100000])
    assert "after the last" in refused("float32", WHOLE, 10, "planes", prefixed(*parts))
    parts[0] = bytes([0b01001000, 0b11000000])
    refused("float32", WHOLE, 10, "planes", prefixed(*parts))


def test_what_is_all_zero_is_a_mask():
    assert check("float32", WHOLE, bytes(4000), 0, 1000, "planes") < 60


def shorter(part):
    return min(part, frame(part, level=19), key=len)


def share(dtype, plane, blob, of=None):
    count = min(wire.segment_elements(dtype, plane), len(blob) // wire.DTYPE_BYTES[dtype])
    size = check(dtype, plane, blob, 0, count, "planes")
    return size / (of or count * wire.DTYPE_BYTES[dtype])


def as_dtype(values, dtype):
    if dtype == "bfloat16":
        return (values.view("<u4") >> 16).astype("<u2").tobytes()
    return values.astype(numpy.dtype(dtype).newbyteorder("<")).tobytes()


@pytest.mark.parametrize(("dtype", "plane", "most"), [
    ("float32", WHOLE, 0.84), ("float32", COARSE, 0.175), ("float32", MIDDLE, 0.162),
    ("float32", FINE, 0.501), ("bfloat16", WHOLE, 0.68), ("float16", WHOLE, 0.86),
    ("complex64", WHOLE, 0.84),
])  # fmt: skip
def test_how_small_seeded_weights_get(dtype, plane, most):
    assert share(dtype, plane, as_dtype(NORMAL, dtype)) < most


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_fine_plane_of_weights_that_were_shorter_vanishes(dtype):
    if dtype == "bfloat16":
        widened = (NORMAL.view("<u4") & 0xFFFF0000).view("<f4")
        assert share("float32", FINE, widened.tobytes()) < 0.001
    else:
        # Three of FINE's 16 bits are still in use.
        widened = NORMAL.astype("<f2").astype("<f4")
        assert share("float32", FINE, widened.tobytes()) < 0.13


def test_zeros_and_small_integers_vanish():
    assert share("float32", WHOLE, bytes(1 << 16)) < 0.01
    assert share("int64", WHOLE, numpy.arange(8_192, dtype="<i8").tobytes()) < 0.02
    pruned = numpy.where(numpy.arange(40_000) % 5 == 0, NORMAL, numpy.float32(0))
    assert share("float32", WHOLE, pruned.tobytes()) < 0.2


def test_the_same_elements_give_the_same_bytes_in_every_thread():
    blob = NORMAL.tobytes()

    def encoded(plane):
        return bytes(wire.encode_segment("float32", plane, blob, 0, 30_000, "planes"))

    with ThreadPoolExecutor(4) as pool:
        for plane in (WHOLE, COARSE, MIDDLE, FINE):
            assert set(pool.map(encoded, [plane] * 40)) == {encoded(plane)}


@pytest.mark.parametrize(("dtype", "plane", "start", "count", "coding"), [
    ("float32", WHOLE, 0, 0, "raw"),
    ("float32", WHOLE, 0, 11, "raw"),
    ("float32", WHOLE, -1, 1, "raw"),
    ("float32", WHOLE, 10, 1, "planes"),
    ("float32", WHOLE, 0, 1, "zstd"),
    ("float32", 4, 0, 1, "raw"),
    ("float16", COARSE, 0, 1, "raw"),
    ("float", WHOLE, 0, 1, "raw"),
    ("float32", COARSE, -1, 1, "raw"),
])  # fmt: skip
def test_misuse(dtype, plane, start, count, coding):
    with pytest.raises(wire.LocalProtocolError):
        wire.encode_segment(dtype, plane, bytes(40), start, count, coding)


@pytest.mark.parametrize("plane", [COARSE, MIDDLE])
def test_a_segment_of_several_blocks(plane):
    blob = NORMAL.tobytes()
    wire.encode_segment("float32", plane, blob, float8.BLOCK - 10, 10, "raw")
    with pytest.raises(wire.LocalProtocolError, match="several blocks"):
        wire.encode_segment("float32", plane, blob, float8.BLOCK - 10, 11, "raw")


@pytest.mark.parametrize("coarse", [None, bytes(2 * 9), bytes(2 * 11)])
def test_middle_is_nothing_without_as_much_of_coarse(coarse):
    payload = wire.encode_segment("float32", MIDDLE, NORMAL.tobytes(), 0, 10, "raw")
    with pytest.raises(wire.LocalProtocolError, match="beside 10 of MIDDLE"):
        wire.decode_segment("float32", MIDDLE, 10, "raw", payload, coarse)


def refused(dtype, plane, count, coding, payload, coarse=None):
    if plane == MIDDLE and coarse is None:
        coarse = bytes(2 * max(count, 0))
    with pytest.raises(wire.RemoteProtocolError) as caught:
        wire.decode_segment(dtype, plane, count, coding, payload, coarse)
    assert caught.value.code == "coding"
    return str(caught.value)


def prefixed(*parts):
    return b"".join(struct.pack("<I", len(part)) + part for part in parts)


def frame(data, **options):
    return zstandard.ZstdCompressor(**options).compress(data)


def skippable(data):
    return struct.pack("<II", 0x184D2A50, len(data)) + data


STREAMED = zstandard.ZstdCompressor().compressobj()
UNSIZED = STREAMED.compress(bytes(1000)) + STREAMED.flush()
BLOCK = frame(bytes(1000))
# MIDDLE of 2,000 elements that are zero as far as known: four empty parts, and one of 1,000 bytes.
EMPTY = bytes(4 * 4)
PARTS = {
    "nothing": b"",
    "half a length": b"\x01\x00",
    "a length and nothing": struct.pack("<I", 1000),
    "a length beyond the end": struct.pack("<I", 900) + bytes(800),
    "a length of 4 billion": struct.pack("<I", 0xFFFFFFFF) + bytes(2000),
    "longer than the part": prefixed(bytes(1001)),
    "an empty frame": prefixed(b""),
    "noise for a frame": prefixed(b"\x07" * 500),
    "trailing bytes": prefixed(bytes(1000)) + b"\x00",
    "trailing part": prefixed(bytes(1000), bytes(1000)),
    "truncated": prefixed(BLOCK[:-1]),
    "bytes after the frame": prefixed(BLOCK + b"\x00"),
    "two frames": prefixed(frame(bytes(500)) + frame(bytes(500))),
    "a frame of less": prefixed(frame(bytes(999))),
    "a frame of more": prefixed(frame(bytes(1001))),
    "a frame of no declared size": prefixed(UNSIZED),
    "a skippable frame": prefixed(skippable(BLOCK)),
    "a bomb of 16 MB": prefixed(frame(bytes(1 << 24))),
}


def test_the_bomb_is_small_enough_to_be_looked_at():
    assert len(PARTS["a bomb of 16 MB"]) < 1000


@pytest.mark.parametrize("payload", PARTS.values(), ids=PARTS)
def test_parts_that_are_not_what_they_should_be(payload):
    refused("float32", MIDDLE, 2_000, "planes", EMPTY + payload)


def test_a_frame_whose_blocks_hold_more_than_it_declares():
    # The declared size sits behind the magic number and the descriptor; make it lie.
    lying = bytearray(frame(bytes(1500), level=1))
    assert struct.unpack_from("<H", lying, 5) == (1500 - 256,)
    struct.pack_into("<H", lying, 5, 1000 - 256)
    assert zstandard.frame_content_size(bytes(lying)) == 1000
    refused("float32", MIDDLE, 2_000, "planes", EMPTY + prefixed(bytes(lying)))


def test_parts_that_are_what_they_should_be():
    for payload in (prefixed(BLOCK), prefixed(bytes(1000))):
        decoded = wire.decode_segment(
            "float32", MIDDLE, 2_000, "planes", EMPTY + payload, bytes(4_000)
        )
        assert bytes(decoded) == bytes(4_000)


@pytest.mark.parametrize(("dtype", "plane"), CASES)
@pytest.mark.parametrize("coding", wire.SEGMENT_CODINGS)
def test_a_payload_cut_or_drawn_out(dtype, plane, coding):
    blob = bytes(range(256)) * 8
    payload = bytes(wire.encode_segment(dtype, plane, blob, 0, 101, coding))
    beside = coarse_for(plane, blob, 0, 101)
    for length in range(len(payload)):
        refused(dtype, plane, 101, coding, payload[:length], beside)
    refused(dtype, plane, 101, coding, payload + b"\x00", beside)
    refused(dtype, plane, 103, coding, payload, beside and beside + bytes(4))
    refused(dtype, plane, 98, coding, payload, beside and beside[:-6])


def test_the_last_half_byte_is_zero():
    blob = NORMAL.tobytes()
    raw = bytearray(wire.encode_segment("float32", MIDDLE, blob, 0, 3, "raw"))
    raw[-1] |= 0x10
    beside = coarse_for(MIDDLE, blob, 0, 3)
    assert "half byte" in refused("float32", MIDDLE, 3, "raw", raw, beside)


@pytest.mark.parametrize(("dtype", "plane", "count", "coding"), [
    ("float32", WHOLE, 0, "raw"),
    ("float32", WHOLE, -1, "raw"),
    ("float32", WHOLE, (1 << 18) + 1, "planes"),
    ("complex128", WHOLE, 1 << 20, "planes"),
    ("int8", FINE, 4, "planes"),
    ("float32", 7, 4, "planes"),
    ("float32", WHOLE, 1, "zip"),
])  # fmt: skip
def test_segments_that_cannot_be(dtype, plane, count, coding):
    refused(dtype, plane, count, coding, bytes(4))
    with pytest.raises(wire.RemoteProtocolError):
        wire.max_coded_bytes(dtype, plane, count, coding)


@settings(max_examples=300)
@given(st.sampled_from(CASES), st.integers(1, 40), st.binary(max_size=80), st.booleans())
def test_noise_decodes_to_the_size_or_not_at_all(case, count, noise, framed):
    payload = prefixed(frame(noise), noise) if framed else noise
    beside = bytes(2 * count) if case[1] == MIDDLE else None
    try:
        decoded = wire.decode_segment(*case, count, "planes", payload, beside)
    except wire.RemoteProtocolError:
        refused(*case, count, "planes", payload)
    else:
        assert decoded.nbytes == wire.stored_bytes(*case, count)
