from __future__ import annotations

import io
import math
import struct
import tracemalloc
import zlib
from dataclasses import replace

import numpy
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import wire
from tests.wire.test_activations import AFFINE, after_relu

IMAGE = after_relu((1, 4, 6, 6))


def coded_image(coding: str) -> wire.Tensor:
    tensor = wire.encode_tensor(wire.tensor_from_numpy(IMAGE), coding)
    assert tensor.coding == coding
    return tensor


def refused(tensor: wire.Tensor, text: str | None = None) -> None:
    with pytest.raises(wire.RemoteProtocolError, match=text) as caught:
        wire.decode_tensor(tensor)
    assert caught.value.code == "input"


def is_refused_or_whole(tensor: wire.Tensor) -> bool:
    try:
        decoded = wire.decode_tensor(tensor)
    except wire.RemoteProtocolError as error:
        return error.code == "input"
    return memoryview(decoded.data).nbytes == wire.tensor_bytes(tensor.dtype, tensor.shape)


CODED = sorted(set(wire.TENSOR_CODINGS) - {"raw"})


@pytest.mark.parametrize("coding", CODED)
def test_truncated_anywhere(coding):
    tensor = coded_image(coding)
    for end in range(len(tensor.data)):
        refused(replace(tensor, data=tensor.data[:end]))


@pytest.mark.parametrize("coding", CODED)
def test_bytes_after_the_end(coding):
    tensor = coded_image(coding)
    refused(replace(tensor, data=bytes(tensor.data) + b"\x00"))


@pytest.mark.parametrize("coding", CODED)
@given(data=st.data())
def test_any_other_byte_anywhere_is_refused_or_gives_as_many_bytes(coding, data):
    tensor = coded_image(coding)
    changed = bytearray(tensor.data)
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    assert is_refused_or_whole(replace(tensor, data=changed))


@pytest.mark.parametrize("coding", CODED)
@given(data=st.binary(max_size=500))
def test_random_bytes_are_refused_or_give_as_many_bytes(coding, data):
    tensor = wire.Tensor("float32", IMAGE.shape, (0, 1, 2, 3), data, coding)
    assert is_refused_or_whole(tensor)


@pytest.mark.parametrize("coding", CODED)
def test_another_shape(coding):
    refused(replace(coded_image(coding), shape=(1, 4, 6, 7)))
    refused(replace(coded_image(coding), shape=(1, 4, 6, 1 << 30)), "more than 67108864 bytes")


def test_descriptions_that_do_not_fit():
    tensor = coded_image("planes")
    refused(replace(tensor, coding="jpeg"), "no such coding")
    refused(replace(tensor, order=(0, 1, 2, 2)), "not a permutation")
    refused(replace(tensor, dtype="float"), "unknown dtype")
    refused(replace(coded_image("float16"), dtype="int32"), "for float32 only")
    refused(replace(tensor, data=bytes(4 * IMAGE.size)), "raw")


def part(frame: bytes) -> bytes:
    return struct.pack("<I", len(frame)) + frame


def planes(data: bytes, dtype: str = "uint8", count: int = 1_000) -> wire.Tensor:
    return wire.Tensor(dtype, (count,), (0,), data, "planes")


def zeros_head(stride: int = 0, lags: tuple[int, int] = (0, 0), zeros: int = 1) -> bytes:
    return struct.pack("<BBBII", 1, zeros, stride, *lags)


ALL_THERE = part(zstandard.compress(b"\xff" * 125))


def test_a_frame_that_lies_about_its_size():
    small, bomb = zstandard.compress(bytes(1_000)), zstandard.compress(bytes(1 << 28))
    assert wire.decode_tensor(planes(b"\x00" + part(small))).data == bytes(1_000)
    refused(planes(b"\x00" + part(bomb[:900])), "does not declare 1000 bytes")
    unsized = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(1_000))
    refused(planes(b"\x00" + part(unsized)), "does not declare")


def test_a_frame_within_its_frame_and_two_frames():
    frame = zstandard.compress(bytes(1_000))
    refused(planes(b"\x00" + part(frame + frame)))
    refused(planes(b"\x00" + part(frame) + part(frame)), "after its end")


def test_a_length_that_lies():
    refused(planes(b"\x00" + struct.pack("<I", 0xFFFFFFFF) + bytes(500)), "a part of 4294967295")
    refused(planes(b"\x00" + struct.pack("<I", 501) + bytes(500)), "a part of 501")


def test_a_mask_of_more_numbers_than_there_are():
    zero = planes(zeros_head() + part(zstandard.compress(bytes(126))) + part(b""), count=1_001)
    assert wire.decode_tensor(zero).data == bytes(1_001)
    beyond = part(zstandard.compress(bytes(125) + b"\x01")) + part(b"")
    refused(planes(zeros_head() + beyond, count=1_001), "after the last|goes on")


def test_repeats_of_what_lies_before_the_first_number():
    repeats = planes(zeros_head(lags=(2, 0)) + ALL_THERE + ALL_THERE + part(b""))
    refused(repeats, "repeats one before the first")


def test_a_few_bytes_of_repeats_take_little_memory():
    count = 1 << 19
    masks = [
        part(zstandard.compress(first + b"\xff" * (count // 8 - 1))) for first in (b"\xff", b"\x7f")
    ]
    chain = planes(zeros_head(lags=(1, 0)) + b"".join(masks) + part(b"\x05"), count=count)
    tracemalloc.start()
    try:
        assert bytes(wire.decode_tensor(chain).data) == b"\x05" * count
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(chain.data) < 200
    assert peak_bytes < 3 * count + (16 << 20)


def test_repeats_of_repeats_end():
    after_two = part(zstandard.compress(b"\x3f" + b"\xff" * 124))
    chain = planes(zeros_head(lags=(2, 0)) + ALL_THERE + after_two + part(b"\x05\x07"))
    assert bytes(wire.decode_tensor(chain).data) == b"\x05\x07" * 500


@pytest.mark.parametrize("head", [
    zeros_head(lags=(1_000, 0)),
    zeros_head(lags=(0, 0xFFFFFFFF)),
    zeros_head(lags=(1, 0), zeros=0),
    zeros_head(zeros=2),
    b"\x02" + zeros_head()[1:],
])  # fmt: skip
def test_steps_that_do_not_exist(head):
    refused(planes(head + ALL_THERE * 3), "no such way|neither")


def test_repeats_among_more_numbers_than_it_takes_memory_for():
    refused(planes(zeros_head(lags=(1, 0)) + ALL_THERE, count=(1 << 19) + 1), "no such way")


def test_8_bits_put_together_by_hand():
    # Two channels of 20 in a tensor with channels last; all there, each one more than the last.
    offsets, steps = struct.pack("<2f", 0.0, -1.0), struct.pack("<2f", 0.5, 2.0)
    sparse = zeros_head(stride=1) + part(b"\xff" * 5) + part(b"\x01" * 40)
    data = part(offsets) + part(steps) + sparse
    decoded = wire.decode_tensor(
        wire.Tensor("float32", (1, 2, 4, 5), (0, 2, 3, 1), data, "affine8")
    )
    values = wire.tensor_to_numpy(decoded).reshape(2, 20)
    numpy.testing.assert_array_equal(values[0], 0.5 * numpy.arange(1, 21))
    numpy.testing.assert_array_equal(values[1], 2 * numpy.arange(21, 41) - 1)
    assert decoded.order == (0, 2, 3, 1)


def test_differences_of_wide_numbers_do_not_exist():
    refused(planes(zeros_head(stride=1) + ALL_THERE * 5, "float32"), "no such way")


def test_a_bool_is_0_or_1():
    assert wire.decode_tensor(planes(b"\x00" + part(zstandard.compress(b"\x01" * 1_000)), "bool"))
    refused(planes(b"\x00" + part(zstandard.compress(b"\x02" * 1_000)), "bool"), "other than 0")
    summed = zeros_head(stride=1) + ALL_THERE + part(zstandard.compress(b"\x01" * 1_000))
    refused(planes(summed, "bool"), "other than 0")


@pytest.mark.parametrize("coding", AFFINE)
@pytest.mark.parametrize(("offset", "step"), [
    (math.nan, 1.0), (math.inf, 1.0), (0.0, math.nan), (0.0, math.inf), (0.0, -1.0),
    (0.0, 3e38), (3.4e38, 1e37),
])  # fmt: skip
def test_offsets_and_steps_out_of_range(coding, offset, step):
    levels = part(zstandard.compress(bytes(36)))
    data = part(struct.pack("<f", offset)) + part(struct.pack("<f", step)) + b"\x00" + levels
    refused(wire.Tensor("float32", (6, 6), (0, 1), data, coding), "out of range")


# Hostile images.


def png(shape=(6, 6), **options) -> bytes:
    target = io.BytesIO()
    Image.fromarray(numpy.zeros(shape, numpy.uint8)).save(target, "PNG", **options)
    return target.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def pixels(size: int) -> bytes:
    return zlib.compress(bytes(size))


def file_of(*chunks: bytes, head: tuple[int, ...] = (6, 6, 8, 0, 0, 0, 0)) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", *head))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks)


END = chunk(b"IEND", b"")
PIXELS = chunk(b"IDAT", pixels(42))


def image(file: bytes, shape=(6, 6)) -> wire.Tensor:
    # Its own offset and step, so that a larger file still fits under the raw size.
    data = part(struct.pack("<f", 0.0)) + part(struct.pack("<f", 1.0)) + file
    return wire.Tensor("float32", shape, tuple(range(len(shape))), data, "affine8-png")


def test_the_least_png_decodes():
    half = len(pixels(42)) // 2
    halves = chunk(b"IDAT", pixels(42)[:half]) + chunk(b"IDAT", pixels(42)[half:])
    empty = chunk(b"IDAT", b"")
    for file in (png(), file_of(PIXELS, END), file_of(halves, END), file_of(empty, PIXELS, END)):
        assert bytes(wire.decode_tensor(image(file)).data) == bytes(144)


def test_a_png_of_another_size_before_a_pixel_is_inflated():
    wide = file_of(chunk(b"IDAT", b""), END, head=(1 << 20, 1 << 20, 8, 0, 0, 0, 0))
    refused(image(wide), "not a grey PNG of 6 x 6")
    refused(image(png((6, 7))), "not a grey PNG of 6 x 6")


def test_a_png_that_inflates_beyond_its_size():
    shape = (80, 80)
    head = (80, 80, 8, 0, 0, 0, 0)
    assert wire.decode_tensor(
        image(file_of(chunk(b"IDAT", pixels(80 * 81)), END, head=head), shape)
    )
    bomb = chunk(b"IDAT", zlib.compress(bytes(10_000_000), 9))
    refused(image(file_of(bomb, END, head=head), shape), "too few or too many")
    short = chunk(b"IDAT", pixels(80 * 81 - 1))
    refused(image(file_of(short, END, head=head), shape), "too few or too many")
    trailing = chunk(b"IDAT", pixels(80 * 81) + b"x")
    refused(image(file_of(trailing, END, head=head), shape), "too few or too many")


@pytest.mark.parametrize("kind", [b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"PLTE", b"tRNS", b"acTL"])
def test_a_png_with_other_chunks(kind):
    extra = chunk(kind, b"name\x00\x00" + zlib.compress(bytes(9)))
    refused(image(file_of(extra, PIXELS, END)), "more than pixels")
    refused(image(file_of(PIXELS, extra, END)), "more than pixels")


@pytest.mark.parametrize("head", [
    (6, 6, 1, 0, 0, 0, 0), (6, 6, 16, 0, 0, 0, 0), (6, 6, 8, 2, 0, 0, 0), (6, 6, 8, 3, 0, 0, 0),
    (6, 6, 8, 0, 1, 0, 0), (6, 6, 8, 0, 0, 1, 0), (6, 6, 8, 0, 0, 0, 1),
])  # fmt: skip
def test_a_png_of_another_kind(head):
    refused(image(file_of(PIXELS, END, head=head)), "not a grey PNG")


def test_a_png_with_wrong_checksums_filters_or_nothing_in_it():
    broken = bytearray(file_of(PIXELS, END))
    broken[-20] ^= 1
    refused(image(bytes(broken)), "wrong checksum")
    filtered = zlib.compress(b"\x05" + bytes(41))
    refused(image(file_of(chunk(b"IDAT", filtered), END)), "unknown filter")
    refused(image(file_of(END)), "too few")
    refused(image(file_of(chunk(b"IDAT", b"not deflated"), END)), "pixels")


def test_other_image_formats():
    target = io.BytesIO()
    Image.fromarray(numpy.zeros((6, 6), numpy.uint8)).save(target, "GIF")
    refused(image(target.getvalue()[:100]), "not a PNG")


# Three channels of 4 x 40 make one row of tiles; of 4 x 56, two rows of two.
TILED = wire.Tensor("float32", (1, 3, 4, 40), (0, 1, 2, 3), b"", "affine8-png")


def tiles(canvas: numpy.ndarray, low: bytes = b"\0\1\2", high: bytes = bytes(3)) -> wire.Tensor:
    target = io.BytesIO()
    Image.fromarray(canvas).save(target, "PNG")
    header = part(bytes(12)) + part(struct.pack("<3f", 1, 1, 1)) + part(low) + part(high)
    return replace(TILED, data=header + target.getvalue())


def test_channels_go_in_the_order_that_is_told():
    canvas = numpy.zeros((4, 120), numpy.uint8)
    canvas[:, :40], canvas[:, 80:] = 7, 9
    values = wire.tensor_to_numpy(wire.decode_tensor(tiles(canvas, b"\2\0\1")))
    assert [values[0, channel].max() for channel in range(3)] == [0, 9, 7]
    assert values.sum() == 160 * 16


@pytest.mark.parametrize(("low", "high"), [
    (b"\0\1\1", bytes(3)), (b"\0\1\3", bytes(3)), (b"\0\1\2", b"\0\0\1"), (b"\0\1\2", b"\0\0\0\0"),
    (b"\0\1", bytes(3)),
])  # fmt: skip
def test_an_order_that_is_not_one_of_all_channels(low, high):
    assert wire.decode_tensor(tiles(numpy.zeros((4, 120), numpy.uint8)))
    refused(tiles(numpy.zeros((4, 120), numpy.uint8), low, high), "an order|a part|bytes")


def test_pixels_after_the_last_tile():
    canvas = numpy.zeros((8, 112), numpy.uint8)
    tensor = replace(TILED, shape=(1, 3, 4, 56))
    assert wire.decode_tensor(replace(tensor, data=tiles(canvas).data))
    canvas[7, 111] = 1
    refused(replace(tensor, data=tiles(canvas).data), "after its last tile")


def test_more_channels_than_an_order_can_tell_are_no_image():
    values = numpy.zeros((1, (1 << 16) + 1, 2, 2), numpy.float32)
    tensor = wire.tensor_from_numpy(values)
    assert wire.encode_tensor(tensor, "affine8-png").coding == "planes"
