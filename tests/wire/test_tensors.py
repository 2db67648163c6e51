from __future__ import annotations

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

import wire
from tests.wire.strategies import tensors
from wire.tensors import tensor_fault

NUMPY_DTYPES = sorted(set(wire.DTYPE_BYTES) - {"bfloat16"})


@pytest.mark.parametrize("dtype", NUMPY_DTYPES)
def test_sizes_are_numpys(dtype):
    assert wire.DTYPE_BYTES[dtype] == numpy.dtype(dtype).itemsize


def test_bfloat16_has_two_bytes():
    assert wire.tensor_bytes("bfloat16", (3, 5)) == 30


def test_sizes_are_those_of_the_graph():
    nodes = pytest.importorskip("layergraph.nodes")
    assert wire.DTYPE_BYTES == nodes.DTYPE_BYTES


@pytest.mark.parametrize("dtype", NUMPY_DTYPES)
@given(data=st.data())
def test_arrays_come_back_with_their_strides(dtype, data):
    rank = data.draw(st.integers(0, 4))
    stored = data.draw(st.lists(st.integers(0, 3), min_size=rank, max_size=rank))
    axes = data.draw(st.permutations(range(rank)))
    count = int(numpy.prod(stored))
    array = numpy.arange(count).astype(dtype).reshape(stored).transpose(axes)
    tensor = wire.tensor_from_numpy(array)
    assert tensor.shape == array.shape
    back = wire.tensor_to_numpy(tensor)
    assert back.dtype == array.dtype
    numpy.testing.assert_array_equal(back, array)
    if array.size:
        # Strides of dimensions of one element mean nothing.
        relevant = [dim for dim, size in enumerate(array.shape) if size != 1]
        assert [back.strides[dim] for dim in relevant] == [array.strides[dim] for dim in relevant]


def test_channels_last_stays_so_without_a_copy():
    pixels = numpy.zeros((1, 5, 6, 3), numpy.float32)
    image = pixels.transpose(0, 3, 1, 2)
    tensor = wire.tensor_from_numpy(image)
    assert (tensor.shape, tensor.order) == ((1, 3, 5, 6), (0, 2, 3, 1))
    pixels[0, 0, 0, 0] = 7.0
    assert bytes(tensor.data[:4]) == numpy.float32(7.0).tobytes()


def test_gaps_are_copied_away():
    tensor = wire.tensor_from_numpy(numpy.arange(10, dtype=numpy.int16)[::2])
    assert bytes(tensor.data) == numpy.array([0, 2, 4, 6, 8], "<i2").tobytes()


def test_big_endian_arrays_travel_little_endian():
    tensor = wire.tensor_from_numpy(numpy.array([1], ">i4"))
    assert bytes(tensor.data) == b"\x01\x00\x00\x00"


def test_order_of_a_single_row_is_row_major():
    assert wire.memory_order((1, 3, 1, 4), (4, 4, 1, 1)) == (0, 1, 2, 3)


def test_numpy_has_no_bfloat16():
    tensor = wire.Tensor("bfloat16", (2,), (0,), bytes(4))
    wire.check_tensor(tensor)
    with pytest.raises(wire.LocalProtocolError, match="no bfloat16"):
        wire.tensor_to_numpy(tensor)


def test_the_wire_has_no_text():
    with pytest.raises(wire.LocalProtocolError, match="<U1"):
        wire.tensor_from_numpy(numpy.array(["a"]))


@given(tensors())
def test_a_tensor_without_fault_is_as_long_as_it_says(tensor):
    wire.check_tensor(tensor)
    raw_bytes = wire.tensor_bytes(tensor.dtype, tensor.shape)
    described = (tensor.dtype, tensor.shape, tensor.order, tensor.coding)
    if tensor.coding == "raw":
        assert tensor_fault(*described, raw_bytes) is None
        assert tensor_fault(*described, raw_bytes + 1)
    else:
        assert tensor_fault(*described, raw_bytes - 1) is None
        assert tensor_fault(*described, raw_bytes)


@pytest.mark.parametrize(("tensor", "text"), [
    (wire.Tensor("float", (1,), (0,), bytes(4)), "unknown dtype 'float'"),
    (wire.Tensor("float32", (2,), (0,), bytes(4)), r"float32\[2\] takes 8 bytes, not 4"),
    (wire.Tensor("int8", (4,), (0,), bytes(4), "planes"),
     r"int8\[4\] coded as planes takes 4 bytes, raw 4"),
    (wire.Tensor("float32", (1, 1), (0, 2), bytes(4)), r"order \[0, 2\] is not a permutation"),
])  # fmt: skip
def test_faults_say_what_was_expected(tensor, text):
    with pytest.raises(wire.LocalProtocolError, match=text):
        wire.check_tensor(tensor)
