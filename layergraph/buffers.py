"""Tensors as bytes and back, with the order of their strides and without copies where possible.

The stride order matters: convolutions choose another algorithm, and round otherwise, when a
channels-last tensor comes back contiguous.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import torch

from layergraph.errors import InvalidInput
from layergraph.nodes import DTYPE_BYTES, MAX_RANK
from layergraph.symbols import DTYPE_NAMES, DTYPES

Buffer: TypeAlias = bytes | bytearray | memoryview
_ALIGNMENT_BYTES = 16
# Those that numpy has, and of which any bytes are one.
_NUMPY_DTYPES = frozenset(DTYPES) - {"bool", "bfloat16"}


def tensor_to_buffer(
    tensor: torch.Tensor,
) -> tuple[str, tuple[int, ...], tuple[int, ...], memoryview]:
    """The tensor as (element type, shape, order, bytes).

    `order` lists the dimensions from the largest stride to the smallest, and the bytes are the
    elements in that order, so a dense tensor is not copied. The view keeps the tensor alive.
    Raises InvalidInput for an element type without a name.
    """
    if (dense := _dense_memory(tensor)) is not None:
        name, shape = DTYPE_NAMES[tensor.dtype], tuple(tensor.shape)
        return name, shape, stride_order(tensor), dense
    tensor = tensor.detach().resolve_conj().resolve_neg()
    if tensor.dtype not in DTYPE_NAMES or tensor.layout is not torch.strided:
        raise InvalidInput(f"a {tensor.layout} tensor of {tensor.dtype} cannot be sent")
    tensor = tensor.cpu()
    order = stride_order(tensor)
    if not tensor.permute(order).is_contiguous():
        # Torch's own rule for what a broadcast or sliced tensor looks like once it is dense.
        tensor = tensor.clone(memory_format=torch.preserve_format)
        order = stride_order(tensor)
    return (
        DTYPE_NAMES[tensor.dtype],
        tuple(tensor.shape),
        order,
        dense_bytes(tensor.permute(order)),
    )


def _dense_memory(tensor: torch.Tensor) -> memoryview | None:
    """The bytes of a tensor that is as most are; None where more is to be asked and done.

    Each call of torch's takes microseconds where it is not in a loop.
    """
    if tensor.dtype not in DTYPE_NAMES or not tensor.numel() or not tensor.is_contiguous():
        return None
    try:
        array: Any = tensor.numpy()
    # Of another device or layout, or of a dtype that numpy has not; conjugated, or with a gradient.
    except (RuntimeError, TypeError):
        return None
    return memoryview(array.reshape(-1).view("u1"))


def tensor_from_buffer(
    dtype: str, shape: Sequence[int], order: Sequence[int], data: Buffer
) -> torch.Tensor:
    """The tensor that `tensor_to_buffer` took apart, with its strides.

    Shares memory with `data` where that is writable and aligned. Raises InvalidInput for an
    unknown element type, a bad shape or order, or the wrong number of bytes.
    """
    if dtype not in DTYPES:
        raise InvalidInput(f"unknown element type {dtype!r}")
    if len(shape) > MAX_RANK or any(
        isinstance(n, bool) or not isinstance(n, int) or not 0 <= n < 1 << 63 for n in shape
    ):
        raise InvalidInput(f"{str(shape)[:80]} is not a shape of at most {MAX_RANK} dimensions")
    if len(order) != len(shape) or sorted(order) != list(range(len(shape))):
        raise InvalidInput(f"{str(order)[:80]} does not order {len(shape)} dimensions")
    expected_bytes = math.prod(shape) * DTYPE_BYTES[dtype]
    view = memoryview(data)
    if view.nbytes != expected_bytes:
        raise InvalidInput(
            f"{dtype}{list(shape)} needs {expected_bytes} bytes; there are {view.nbytes}"
        )
    ordered = [shape[dim] for dim in order]
    if view.readonly and view.nbytes and view.c_contiguous and dtype in _NUMPY_DTYPES:
        permuted = torch.empty(ordered, dtype=DTYPES[dtype])
        array: Any = permuted.numpy()
        memoryview(array.reshape(-1).view("u1"))[:] = view.cast("B")
    else:
        permuted = _shaped(_flat_from(view, dtype), ordered)
    if list(order) == list(range(len(shape))):
        return permuted
    return permuted.permute([order.index(dim) for dim in range(len(shape))])


def stride_order(tensor: torch.Tensor) -> tuple[int, ...]:
    """The dimensions from the largest stride to the smallest.

    Where strides tie, dimensions of size 1 come last: only so do they get the stride back that
    they had, and kernels look at it to tell channels-last.
    """
    strides, shape = tensor.stride(), tensor.shape
    if 1 not in shape and tensor.is_contiguous():
        return tuple(range(len(shape)))
    return tuple(sorted(range(tensor.dim()), key=lambda dim: (-strides[dim], shape[dim] == 1)))


def _shaped(flat: torch.Tensor, shape: list[int]) -> torch.Tensor:
    return flat if len(shape) == 1 else flat.view(shape)


def dense_bytes(tensor: torch.Tensor) -> memoryview:
    """The bytes of a contiguous tensor, not copied."""
    return _memory(tensor.detach().reshape(-1).view(torch.uint8))


def _memory(flat: torch.Tensor) -> memoryview:
    array: Any = flat.numpy()
    return memoryview(array)


def _flat_from(view: memoryview, dtype: str) -> torch.Tensor:
    if view.nbytes == 0:
        return torch.empty(0, dtype=DTYPES[dtype])
    if not view.c_contiguous:
        view = memoryview(bytes(view))
    flat = None
    if not view.readonly:
        flat = torch.frombuffer(view, dtype=torch.uint8 if dtype == "bool" else DTYPES[dtype])
    if flat is None or flat.data_ptr() % _ALIGNMENT_BYTES:
        # Torch cannot promise to leave read-only memory alone, and warns at its sight.
        flat = torch.empty(view.nbytes, dtype=torch.uint8)
        _memory(flat)[:] = view.cast("B")
    if dtype == "bool":
        # A byte other than 0 and 1 is no bool, and kernels count on that.
        return flat != 0
    return flat if flat.dtype is DTYPES[dtype] else flat.view(DTYPES[dtype])
