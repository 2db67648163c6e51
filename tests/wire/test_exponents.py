from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Sequence

import numpy
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

import wire
from tests.wire.test_activations import after_relu
from tests.wire.test_activations_hostile import is_refused_or_whole
from wire.exponents import coded_exponents, take_exponents


def joined(exponents: Sequence[int], there: numpy.ndarray, block: int) -> bytes:
    return b"".join(coded_exponents(numpy.array(exponents, numpy.uint8), there, block))


def maps(shape: tuple[int, ...], seed: int = 0) -> wire.Tensor:
    """What a ReLU leaves of maps that are smooth, each of its own size."""
    channels = after_relu((64, 14, 14), seed)
    channels *= 2.0 ** numpy.random.default_rng(seed).integers(-8, 8, (64, 1, 1))
    return wire.tensor_from_numpy(channels.reshape(shape))


@given(st.data())
def test_any_exponents_come_back_and_nothing_more_is_taken(data: st.DataObject) -> None:
    there = numpy.array(data.draw(st.lists(st.booleans(), min_size=1, max_size=60)))
    kept = int(there.sum())
    exponents = data.draw(st.lists(st.integers(0, 255), min_size=kept, max_size=kept))
    block = data.draw(st.integers(0, there.size - 1))
    coded = joined(exponents, there, block) + b"rest"
    back, rest = take_exponents(memoryview(coded), there, block)
    assert (back.tolist(), bytes(rest)) == (exponents, b"rest")


def test_those_of_louder_blocks_go_first_and_those_far_below_apart() -> None:
    there = numpy.array([True, True, False, True, True, True])
    coded = joined([100, 80, 120, 119, 118], there, 2)
    # Blocks of the means 90, 120 and 118.5: of the second and third, 120, 119 and 118.
    parts = [b"\x60", b"\x10\x02", b"\xff", b"\x05\x19"]
    expected = b"\x78" + b"".join(struct.pack("<I", len(part)) + part for part in parts)
    assert coded == expected


@pytest.mark.parametrize("shape", [(1, 64, 14, 14), (1, 12544), (64, 14, 14, 1)])
def test_maps_take_less_than_their_zero_mask_and_planes_alone(shape: tuple[int, ...]) -> None:
    tensor = maps(shape)
    coded = wire.encode_tensor(tensor, "planes")
    assert bytes(wire.decode_tensor(coded).data) == bytes(tensor.data)
    if shape[-1] > 1:
        assert bytes(coded.data[:1]) == b"\x02"
        # Of doubles, which have no such exponents, 29 bits more each are sent in any case.
        values = wire.tensor_to_numpy(tensor)
        bits = 8 * len(coded.data) - 24 * numpy.count_nonzero(values)
        assert bits < 3.5 * values.size


def test_maps_of_bfloat16_too() -> None:
    values = wire.tensor_to_numpy(maps((1, 64, 14, 14)))
    words = (numpy.ascontiguousarray(values).view("<u4") >> 16).astype("<u2").tobytes()
    tensor = wire.Tensor("bfloat16", values.shape, (0, 1, 2, 3), words)
    coded = wire.encode_tensor(tensor, "planes")
    assert bytes(coded.data[:1]) == b"\x02"
    assert bytes(wire.decode_tensor(coded).data) == words


def refused(tensor: wire.Tensor, data: bytes, text: str) -> None:
    coded = wire.Tensor(tensor.dtype, tensor.shape, tensor.order, data, "planes")
    with pytest.raises(wire.RemoteProtocolError, match=text) as caught:
        wire.decode_tensor(coded)
    assert caught.value.code == "input"


def head(zeros: int = 1, stride: int = 0, lag: int = 0, row: int = 0, block: int = 0) -> bytes:
    return struct.pack("<BBBIIII", 2, zeros, stride, lag, 0, row, block)


def part(data: bytes) -> bytes:
    return struct.pack("<I", len(data)) + data


# Forty numbers, as rows of seventeen: 17, 17 and 6 bits.
FORTY = wire.Tensor("float32", (40,), (0,), bytes(160))
ALL = part(b"\xff" * 5)
ROWS = (b"\xff\xff\x80", b"\xff\xff\x80", b"\xfc\x00\x00")
LOW = part(zstandard.compress(bytes(40))) * 3
NONE_BELOW = part(zstandard.compress(bytes(20)))


def test_maps_by_hand() -> None:
    # 40 exponents 127 - 1 = 126, but the last, 127.
    below = part(b"\x11" * 19 + b"\x01")
    data = head(row=17) + part(b"".join(ROWS)) + LOW + b"\x7f" + below + part(b"")
    coded = wire.Tensor("float32", (40,), (0,), data, "planes")
    values = wire.tensor_to_numpy(wire.decode_tensor(coded))
    assert values.tolist() == [0.5] * 39 + [1.0]


@pytest.mark.parametrize(("data", "text"), [
    (head()[:-1], "ends before its maps"),
    (head(zeros=0) + ALL, "no such way"),
    (head(stride=1) + ALL, "no such way"),
    (head(lag=40) + ALL, "no such way"),
    (head(row=40) + ALL, "no such way"),
    (head(block=40) + ALL, "no such way"),
    (head(block=1 << 31) + ALL, "no such way"),
    (head(row=17) + part(ROWS[0] + b"\xff\xff\xc0" + ROWS[2]), "goes on after"),
    (head(row=17) + part(ROWS[0] + ROWS[1] + b"\xfe\x00\x00"), "goes on after"),
    (head() + ALL + LOW, "ends before the exponents"),
    (head() + ALL + LOW + b"\x01" + part(b"\x02" * 20) + part(b""), "below the least"),
    (head() + ALL + LOW + b"\x10" + part(b"\x0f" + bytes(19)) + part(b"\x02"), "below the"),
    (head() + ALL + LOW + b"\xff" + part(b"\x0f" + bytes(19)) + part(b"\xff"), "below the"),
    (head() + ALL + LOW + b"\x7f" + NONE_BELOW + part(b"") + b"\x00", "after its end"),
    (head() + ALL + LOW + b"\x7f" + NONE_BELOW + part(b"\x00"), "a part of 1"),
    (head(block=15) + ALL + LOW + b"\x7f" + part(b"\x10"), "goes on after"),
    (head(block=15) + ALL + LOW + b"\x7f" + part(b"\x80") + part(bytes(7) + b"\x10"), "half byte"),
])  # fmt: skip
def test_maps_that_are_none(data: bytes, text: str) -> None:
    refused(FORTY, data, text)


def test_maps_of_numbers_without_such_exponents() -> None:
    for dtype, width in (("float16", 2), ("float64", 8), ("int32", 4)):
        tensor = wire.Tensor(dtype, (40,), (0,), bytes(40 * width))
        refused(tensor, head() + ALL, "no such way")


@given(st.data())
def test_other_bytes_anywhere_are_refused_or_give_as_many(data: st.DataObject) -> None:
    tensor = wire.encode_tensor(maps((1, 12544)), "planes")
    changed = bytearray(tensor.data)
    for _ in range(data.draw(st.integers(1, 3))):
        first = data.draw(st.sampled_from([0, 30, len(changed) - 9000]))
        changed[data.draw(st.integers(first, len(changed) - 1))] = data.draw(st.integers(0, 255))
    other = wire.Tensor(tensor.dtype, tensor.shape, tensor.order, bytes(changed), "planes")
    assert is_refused_or_whole(other)


def test_coding_maps_imports_nothing_that_a_first_image_has_not() -> None:
    # A worker that is shut in can open no more files.
    program = """
import sys
import numpy
import wire
from tests.wire.test_exponents import maps

def code(tensor):
    for coding in wire.TENSOR_CODINGS:
        wire.decode_tensor(wire.encode_tensor(tensor, coding))

found = [maps((1, 64, 14, 14)), maps((1, 12544))]
code(wire.tensor_from_numpy(numpy.zeros((1, 3, 32, 32), numpy.float32)))
before = set(sys.modules)
for tensor in found:
    code(tensor)
print(set(sys.modules) - before)
"""
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert ran.stdout == "set()\n"
