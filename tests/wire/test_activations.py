from __future__ import annotations

import math
from dataclasses import replace

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import wire
from tests.wire.strategies import tensors
from wire.affine import channel_axis

LOSSLESS = sorted(set(wire.TENSOR_CODINGS) - wire.LOSSY)
LOSSY = sorted(wire.LOSSY)
AFFINE = ["affine8", "affine8-png"]
TINY = float(numpy.finfo(numpy.float32).tiny)


def after_relu(shape, seed=0, order=None) -> numpy.ndarray:
    """Half zeros, smooth in the last dimension, in memory by `order`."""
    draw = numpy.random.default_rng(seed)
    order = order or range(len(shape))
    stored = draw.normal(size=[shape[dim] for dim in order]).cumsum(axis=-1)
    return stored.clip(0).astype(numpy.float32).transpose(numpy.argsort(list(order)))


def there_and_back(array: numpy.ndarray, coding: str) -> tuple[wire.Tensor, numpy.ndarray]:
    coded = wire.encode_tensor(wire.tensor_from_numpy(array), coding)
    wire.check_tensor(coded)
    return coded, wire.tensor_to_numpy(wire.decode_tensor(coded))


def same_bits(tensor: wire.Tensor, other: wire.Tensor) -> bool:
    return replace(tensor, data=b"") == replace(other, data=b"") and bytes(tensor.data) == bytes(
        other.data
    )


@st.composite
def repetitive_tensors(draw) -> wire.Tensor:
    """Tensors with zeros, -0.0, and neighbours that are equal, long enough to be worth coding."""
    dtype = draw(st.sampled_from(sorted(wire.DTYPE_BYTES)))
    shape = tuple(draw(st.lists(st.integers(1, 9), min_size=1, max_size=4)))
    order = tuple(draw(st.permutations(range(len(shape)))))
    width = wire.DTYPE_BYTES[dtype]
    random = numpy.random.default_rng(draw(st.integers(0, 1 << 32)))
    # Eight random elements, zero, and the sign bit alone: -0.0 in a float.
    few = random.integers(0, 256, (10, width), dtype=numpy.uint8)
    few[0] = few[1] = 0
    few[1, -1] = 0x80
    if dtype == "bool":
        few &= 1
    steps = random.random(math.prod(shape)) < draw(st.sampled_from([0.1, 0.5, 1.0]))
    picked = random.integers(0, 10, len(steps))[numpy.cumsum(steps) % len(steps)]
    return wire.Tensor(dtype, shape, order, few[picked].tobytes())


raw_tensors = tensors().filter(lambda tensor: tensor.coding == "raw") | repetitive_tensors()


# Round trips.


@pytest.mark.parametrize("coding", LOSSLESS)
@given(tensor=raw_tensors)
def test_lossless_codings_keep_every_bit(coding, tensor):
    coded = wire.encode_tensor(tensor, coding)
    assert coded.coding in ("raw", coding)
    wire.check_tensor(coded)
    assert same_bits(wire.decode_tensor(coded), tensor)


@pytest.mark.parametrize("coding", LOSSY)
@given(tensor=raw_tensors.filter(lambda tensor: tensor.dtype != "float32"))
def test_lossy_codings_leave_other_dtypes_exact(coding, tensor):
    coded = wire.encode_tensor(tensor, coding)
    assert coded.coding in ("raw", "planes")
    assert same_bits(wire.decode_tensor(coded), tensor)


@pytest.mark.parametrize("coding", wire.TENSOR_CODINGS)
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 2, 3, 1), (3, 2, 1, 0)])
def test_codings_keep_the_order_in_memory(coding, order):
    array = after_relu((2, 5, 6, 7), order=order)
    coded, back = there_and_back(array, coding)
    assert coded.coding == coding
    assert (coded.shape, coded.order) == (array.shape, order)
    assert back.strides == array.strides
    numpy.testing.assert_allclose(back, array, atol=0.05)


@pytest.mark.parametrize("coding", sorted({*wire.TENSOR_CODINGS} - {"raw"}))
def test_decoded_data_is_writable_and_its_own(coding):
    tensor = wire.tensor_from_numpy(after_relu((1, 8, 9, 9)))
    decoded = wire.decode_tensor(wire.encode_tensor(tensor, coding))
    assert decoded.coding == "raw"
    before = bytes(tensor.data)
    memoryview(decoded.data)[:4] = b"\xff" * 4
    assert bytes(tensor.data) == before


@pytest.mark.parametrize("size", [40_000, 300_000])
@pytest.mark.parametrize("dtype", ["uint8", "int64", "float32", "float64", "complex64"])
def test_large_tensors_whose_way_is_chosen_by_a_sample(size, dtype):
    array = after_relu((1, size // 100, 10, 10)).astype(dtype)
    array[:, 3:7] = 1  # Not what the sample from the middle is like.
    coded, back = there_and_back(array, "planes")
    assert coded.coding == "planes"
    numpy.testing.assert_array_equal(back, array)


@pytest.mark.parametrize("shape", [(1, 16, 27, 27), (1, 13, 13, 16), (1, 3600)])
def test_overlapping_pooling_repeats_neighbours_and_is_coded_shorter(shape):
    pooled = after_relu((1, 24, 300))[:, :, : math.prod(shape) // 24].repeat(2, axis=2)
    pooled = pooled.reshape(-1)[: math.prod(shape)].reshape(shape)
    coded, back = there_and_back(pooled, "planes")
    numpy.testing.assert_array_equal(back, pooled)
    alone = wire.encode_tensor(wire.tensor_from_numpy(pooled.reshape(-1)[::2].copy()), "planes")
    assert len(coded.data) < 1.2 * len(alone.data)


def test_zeros_after_a_relu_are_not_sent():
    coded, _ = there_and_back(after_relu((1, 32, 28, 28)), "planes")
    assert len(coded.data) < 0.5 * 4 * 32 * 28 * 28


def test_minus_zero_and_nans_come_back_bit_by_bit():
    values = numpy.array([0.0, -0.0, numpy.nan, -numpy.inf, 1e-45] * 40, "<f4")
    values.view("<u4")[2::5] |= 0x1234  # NaN's payload
    coded, back = there_and_back(values, "planes")
    assert coded.coding == "planes"
    assert back.tobytes() == values.tobytes()


@pytest.mark.parametrize("coding", wire.TENSOR_CODINGS)
@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 0, 2), (1, 1, 1, 1)])
def test_what_cannot_become_shorter_stays_raw(coding, shape):
    tensor = wire.tensor_from_numpy(numpy.full(shape, 1.5, numpy.float32))
    assert wire.encode_tensor(tensor, coding) == tensor


# What the lossy codings lose.


@pytest.mark.parametrize("coding", AFFINE)
@given(
    array=arrays.arrays(
        numpy.float32,
        arrays.array_shapes(min_dims=1, max_dims=5, max_side=6),
        elements=st.floats(-(2.0**100), 2.0**100, width=32),
    ),
    data=st.data(),
)
def test_8_bits_are_off_by_half_a_step_of_the_channel_at_most(coding, array, data):
    order = data.draw(st.permutations(range(array.ndim)))
    stored = numpy.ascontiguousarray(array.transpose(order))
    array = stored.transpose(numpy.argsort(order))
    _, back = there_and_back(array, coding)
    axis = channel_axis(array.ndim)
    others = tuple(dim for dim in range(array.ndim) if dim != axis)
    exact = array.astype(numpy.float64)
    step = (exact.max(others, keepdims=True) - exact.min(others, keepdims=True)) / 255
    rounding = 4 * 2.0**-24 * numpy.abs(exact).max(others, keepdims=True)
    error = numpy.abs(back.astype(numpy.float64) - exact)
    # Steps are rounded up to 8 significant bits.
    assert (error <= step * 0.5001 * (1 + 2**-7) + rounding + TINY).all()


@pytest.mark.parametrize("coding", AFFINE)
def test_zeros_after_a_relu_stay_zero_in_8_bits(coding):
    array = after_relu((1, 16, 10, 10))
    _, back = there_and_back(array, coding)
    assert (back[array == 0] == 0).all()


@pytest.mark.parametrize("coding", AFFINE)
def test_the_steps_of_small_channels_take_two_bytes_each(coding):
    array = numpy.random.default_rng(0).normal(size=(1, 512, 2, 2)).astype(numpy.float32)
    coded, _ = there_and_back(array, coding)
    # An offset, a step and four bytes for each channel.
    assert len(coded.data) < 512 * (4 + 2.25 + 4)


@pytest.mark.parametrize("coding", AFFINE)
@pytest.mark.parametrize(("shape", "dim"), [((1, 4, 9, 9), 1), ((1, 90, 4), 2)])
def test_a_channel_of_large_values_costs_the_others_nothing(coding, shape, dim):
    array = after_relu(shape)
    large = array.copy()
    large.swapaxes(0, dim)[1] *= 1e6
    _, back = there_and_back(array, coding)
    coded, back_large = there_and_back(large, coding)
    assert coded.coding == coding
    kept = [0, 2, 3]
    numpy.testing.assert_array_equal(back.swapaxes(0, dim)[kept], back_large.swapaxes(0, dim)[kept])


@given(
    arrays.arrays(numpy.float32, st.integers(1, 200), elements=st.floats(-65_504, 65_504, width=32))
)
def test_float16_rounds_to_the_nearest(array):
    coded, back = there_and_back(array, "float16")
    assert coded.coding in ("raw", "planes", "float16")
    if coded.coding == "float16":
        numpy.testing.assert_array_equal(back, array.astype(numpy.float16).astype(numpy.float32))
    else:
        numpy.testing.assert_array_equal(back, array)


@pytest.mark.parametrize("coding", LOSSY)
@pytest.mark.parametrize("value", [numpy.inf, -numpy.inf, numpy.nan])
def test_what_is_not_finite_falls_back_to_lossless(coding, value):
    array = after_relu((1, 8, 9, 9))
    array[0, 3, 4, 5] = value
    coded, back = there_and_back(array, coding)
    assert coded.coding == "planes"
    numpy.testing.assert_array_equal(back, array)


@pytest.mark.parametrize(("coding", "extremes"), [
    ("float16", (65_520.0, 0.0)),
    ("affine8", (-3e38, 3e38)),
    ("affine8-png", (-3e38, 3e38)),
    # 255 steps, rounded up, are more than the range.
    ("affine8", (0.0, 3.4028e38)),
])  # fmt: skip
def test_overflow_falls_back_to_lossless(coding, extremes):
    array = after_relu((1, 8, 9, 9))
    array[0, 0, 0, :2] = extremes
    coded, back = there_and_back(array, coding)
    assert coded.coding == "planes"
    numpy.testing.assert_array_equal(back, array)


def test_lossy_codings_are_much_shorter():
    tensor = wire.tensor_from_numpy(after_relu((1, 64, 27, 27)))
    size = {coding: len(wire.encode_tensor(tensor, coding).data) for coding in wire.TENSOR_CODINGS}
    assert size["float16"] < 0.6 * size["planes"]
    assert size["affine8"] < 0.6 * size["float16"]
    assert size["affine8-png"] < 0.7 * size["float16"]


# Misuse on this side.


def test_coding_twice_and_unknown_codings_are_our_bugs():
    tensor = wire.tensor_from_numpy(after_relu((1, 8, 9, 9)))
    with pytest.raises(wire.LocalProtocolError, match="from planes to 'float16'"):
        wire.encode_tensor(wire.encode_tensor(tensor, "planes"), "float16")
    with pytest.raises(wire.LocalProtocolError, match="to 'jpeg'"):
        wire.encode_tensor(tensor, "jpeg")
    with pytest.raises(wire.LocalProtocolError, match="takes"):
        wire.encode_tensor(replace(tensor, data=tensor.data[1:]), "planes")
