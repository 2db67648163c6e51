"""Element types and their sizes; Tensor <-> numpy. Copies only what is not dense in memory."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy

from wire.errors import LocalProtocolError
from wire.messages import Tensor

DTYPE_BYTES: Mapping[str, int] = {
    "bool": 1, "uint8": 1, "int8": 1, "int16": 2, "int32": 4, "int64": 8,
    "float16": 2, "bfloat16": 2, "float32": 4, "float64": 8,
    "complex64": 8, "complex128": 16,
}  # fmt: skip

# The wire is little endian, whatever the host is.
_NUMPY: dict[str, numpy.dtype[Any]] = {
    name: numpy.dtype(name).newbyteorder("<") for name in DTYPE_BYTES if name != "bfloat16"
}


def tensor_bytes(dtype: str, shape: Sequence[int]) -> int:
    """Bytes that a dense tensor takes."""
    return DTYPE_BYTES[dtype] * math.prod(shape)


def tensor_fault(
    dtype: object, shape: tuple[int, ...], order: tuple[int, ...], coding: str, data_bytes: int
) -> str | None:
    """What is wrong with a tensor's description, or None. `shape` and `order` hold integers."""
    if type(dtype) is not str or dtype not in DTYPE_BYTES:
        return f"unknown dtype {ascii(dtype)[:40]}"
    if sorted(order) != list(range(len(shape))):
        return f"order {list(order)} is not a permutation of the {len(shape)} dimensions"
    expected = tensor_bytes(dtype, shape)
    if coding == "raw" and data_bytes != expected:
        return f"{dtype}{list(shape)} takes {expected} bytes, not {data_bytes}"
    if coding != "raw" and not data_bytes < expected:
        return f"{dtype}{list(shape)} coded as {coding} takes {data_bytes} bytes, raw {expected}"
    return None


def check_tensor(tensor: Tensor) -> None:
    """Raise LocalProtocolError where a tensor's order or data does not fit its dtype and shape."""
    data_bytes = memoryview(tensor.data).nbytes
    fault = tensor_fault(tensor.dtype, tensor.shape, tensor.order, tensor.coding, data_bytes)
    if fault is not None:
        raise LocalProtocolError(fault)


def memory_order(shape: Sequence[int], strides: Sequence[int]) -> tuple[int, ...]:
    """Dimensions from the slowest to the fastest in memory; `strides` in any one unit."""
    # A dimension of one element has no stride worth the name: it stays where it is in the
    # logical order, next to its neighbour, which keeps row-major the answer where it fits.
    kept = [dim for dim, size in enumerate(shape) if size != 1]
    ordered = iter(sorted(kept, key=lambda dim: -strides[dim]))
    return tuple(next(ordered) if size != 1 else dim for dim, size in enumerate(shape))


def tensor_from_numpy(array: numpy.ndarray[Any, Any]) -> Tensor:
    """The array as a Tensor that shares its memory, or a copy's where it has gaps.

    Raises LocalProtocolError for an element type that the wire does not have.
    """
    name = array.dtype.name
    if name not in _NUMPY:
        raise LocalProtocolError(f"no tensor on the wire has elements of type {array.dtype}")
    shape = tuple(array.shape)
    order = memory_order(shape, array.strides)
    dense = numpy.ascontiguousarray(array.transpose(order), dtype=_NUMPY[name])
    return Tensor(name, shape, order, dense.reshape(-1).view(numpy.uint8).data)


def tensor_to_numpy(tensor: Tensor) -> numpy.ndarray[Any, Any]:
    """A view of the tensor's data in its logical shape; read-only where the data is.

    Raises LocalProtocolError for bfloat16, which numpy does not have.
    """
    check_tensor(tensor)
    if tensor.dtype not in _NUMPY:
        raise LocalProtocolError(f"numpy has no {tensor.dtype}")
    flat = numpy.frombuffer(tensor.data, dtype=_NUMPY[tensor.dtype])
    stored = flat.reshape([tensor.shape[dim] for dim in tensor.order])
    return stored.transpose(numpy.argsort(numpy.array(tensor.order, dtype=numpy.intp)))
