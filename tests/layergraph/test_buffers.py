"""Tensors through bytes keep elements, shape and stride order."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from layergraph import InvalidInput, tensor_from_buffer, tensor_to_buffer
from layergraph.symbols import DTYPES


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (2, 3, 4)])
def test_every_element_type(name: str, shape: tuple[int, ...]) -> None:
    tensor = (torch.rand(shape) * 5).to(DTYPES[name])
    dtype, sent_shape, order, data = tensor_to_buffer(tensor)
    assert (dtype, sent_shape) == (name, shape)
    assert data.nbytes == tensor.nbytes
    back = tensor_from_buffer(dtype, sent_shape, order, bytes(data))
    assert back.dtype == tensor.dtype
    assert torch.equal(back, tensor)


@given(st.permutations(range(4)), st.lists(st.integers(1, 4), min_size=4, max_size=4))
def test_dense_strides_come_back(order: list[int], sizes: list[int]) -> None:
    tensor = torch.arange(torch.Size(sizes).numel()).view(sizes).permute(order)
    back = tensor_from_buffer(*tensor_to_buffer(tensor))
    assert torch.equal(back, tensor)
    significant = [dim for dim in range(4) if tensor.shape[dim] > 1]
    assert [back.stride(d) for d in significant] == [tensor.stride(d) for d in significant]


@given(
    st.sampled_from(sorted(DTYPES)),
    st.permutations(range(3)),
    st.lists(st.integers(0, 3), min_size=3, max_size=3),
)
def test_what_may_not_be_shared_is_the_same_where_torch_allocates(
    name: str, order: list[int], sizes: list[int]
) -> None:
    dense = torch.arange(torch.Size(sizes).numel()).view(sizes).to(DTYPES[name])
    tensor = dense.permute(order)
    dtype, shape, sent_order, data = tensor_to_buffer(tensor)
    back = tensor_from_buffer(dtype, shape, sent_order, bytes(data))
    shared = tensor_from_buffer(dtype, shape, sent_order, bytearray(data))
    assert torch.equal(back, tensor)
    assert back.stride() == shared.stride()
    assert back.data_ptr() % 64 == 0


def test_a_contiguous_tensor_is_not_copied() -> None:
    tensor = torch.zeros(2, 3, dtype=torch.float16)
    *_, data = tensor_to_buffer(tensor)
    data[:] = bytes(range(12))
    assert bytes(tensor.view(torch.uint8).numpy()) == bytes(range(12))


def test_a_negative_view_is_sent_as_what_it_means() -> None:
    tensor = torch.tensor([1 + 2j, 3 - 4j]).conj().imag
    assert tensor.is_neg()
    assert torch.equal(tensor_from_buffer(*tensor_to_buffer(tensor)), torch.tensor([-2.0, 4.0]))


def test_channels_last_stays_channels_last() -> None:
    tensor = torch.randn(1, 3, 4, 5).to(memory_format=torch.channels_last)
    back = tensor_from_buffer(*tensor_to_buffer(tensor))
    assert back.is_contiguous(memory_format=torch.channels_last)


def test_dense_tensors_are_not_copied() -> None:
    tensor = torch.randn(2, 3, 4).permute(2, 0, 1)
    *_, data = tensor_to_buffer(tensor)
    data[:4] = b"\0\0\0\0"
    assert tensor[0, 0, 0] == 0
    received = bytearray(data)
    back = tensor_from_buffer("float32", (24,), (0,), received)
    received[:4] = torch.tensor(7.0).numpy().tobytes()
    assert back[0] == 7


@pytest.mark.parametrize(
    "tensor",
    [
        torch.randn(1, 4).expand(3, 4),
        torch.randn(6, 8)[::2, 1:5],
        torch.randn(4, 4, dtype=torch.complex64).conj(),
        torch.randn(3, 3, requires_grad=True),
        torch.randn(2, 3, 4).permute(2, 0, 1)[:, :1],
    ],
    ids=["broadcast", "sliced", "conjugate", "requires a gradient", "sliced permutation"],
)
def test_odd_tensors(tensor: torch.Tensor) -> None:
    assert torch.equal(tensor_from_buffer(*tensor_to_buffer(tensor)), tensor)


def test_the_bytes_keep_the_memory_alive() -> None:
    buffers = [tensor_to_buffer(torch.full((1000,), float(i)))[3] for i in range(50)]
    for number, data in enumerate(buffers):
        assert torch.equal(
            tensor_from_buffer("float32", (1000,), (0,), data), torch.full((1000,), float(number))
        )


def test_unaligned_and_read_only_bytes_are_copied() -> None:
    data = bytearray(65)
    data[1:] = torch.arange(16, dtype=torch.float32).numpy().tobytes()
    for view in (memoryview(data)[1:], memoryview(bytes(data))[1:]):
        tensor = tensor_from_buffer("float32", (16,), (0,), view)
        assert tensor.data_ptr() % 16 == 0
        assert tensor.tolist() == list(range(16))


def test_a_bool_is_zero_or_one_whatever_the_byte() -> None:
    tensor = tensor_from_buffer("bool", (3,), (0,), b"\x00\x02\xff")
    assert tensor.view(torch.uint8).tolist() == [0, 1, 1]


BAD: list[tuple[Any, ...]] = [
    ("float23", (1,), (0,), b"1234"),
    ("float32", (1,), (0,), b"12345"),
    ("float32", (2,), (0,), b"1234"),
    ("float32", (-1,), (0,), b""),
    ("float32", (True,), (0,), b"1234"),
    ("float32", (1 << 70,), (0,), b""),
    ("float32", (1.0,), (0,), b"1234"),
    ("float32", (1,) * 17, tuple(range(17)), b"1234"),
    ("float32", (1, 1), (0,), b"1234"),
    ("float32", (1, 1), (0, 0), b"1234"),
    ("float32", (1, 1), (0, 2), b"1234"),
    ("float32", (1, 1), (-1, 0), b"1234"),
]


@pytest.mark.parametrize("arguments", BAD)
def test_what_does_not_fit_is_refused(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(InvalidInput):
        tensor_from_buffer(*arguments)


def test_a_sparse_tensor_cannot_be_sent() -> None:
    with pytest.raises(InvalidInput, match="sparse"):
        tensor_to_buffer(torch.eye(2).to_sparse())


def test_orders_are_all_different() -> None:
    shape = (2, 3, 4)
    orders = {
        tensor_to_buffer(
            torch.randn([shape[d] for d in p]).permute([p.index(d) for d in range(3)])
        )[2]
        for p in itertools.permutations(range(3))
    }
    assert len(orders) == 6
