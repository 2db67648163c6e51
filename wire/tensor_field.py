"""The field that holds tensors: described in the header, their bytes out of band."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy

from wire.fields import (
    PREFIX_BYTES,
    Buffers,
    Field,
    Unfit,
    buffer,
    items,
    kind_name,
    one_of,
    row,
    wholes,
)
from wire.limits import MAX_WEIGHT_BYTES, Limits
from wire.messages import TENSOR_CODINGS, Tensor
from wire.tensors import DTYPE_BYTES, tensor_bytes, tensor_fault


def tensors(limits: Limits) -> Field:
    """A tuple of Tensors; [dtype, shape, order, coding, bytes] each in the header."""

    shape_of = wholes(limits.max_rank, MAX_WEIGHT_BYTES)
    data_of = buffer(0, limits.max_buffer_bytes)
    coding_of = one_of("a tensor's coding", TENSOR_CODINGS)

    def decoded_size(dtype: Any, shape: Any, order: Any, coding: Any, data_bytes: int) -> int:
        fault = tensor_fault(dtype, shape, order, coding, data_bytes)
        if fault is not None:
            raise Unfit(fault)
        size = tensor_bytes(dtype, shape)
        if size > limits.max_buffer_bytes:
            raise Unfit(f"decodes to more than {limits.max_buffer_bytes} bytes")
        return size

    def check_sum(decoded_bytes: int) -> None:
        if decoded_bytes > limits.max_message_bytes:
            raise Unfit(f"decode to more than {limits.max_message_bytes} bytes together")

    def encode(value: Any, buffers: Buffers) -> Any:
        plain = []
        decoded_bytes = 0
        for tensor in items(value, limits.max_tensors, (tuple,)):
            if type(tensor) is not Tensor:
                raise Unfit(f"expected a Tensor, got {kind_name(tensor)}")
            shape = shape_of.encode(tensor.shape, buffers)
            order = shape_of.encode(tensor.order, buffers)
            coding = coding_of.encode(tensor.coding, buffers)
            data_bytes = data_of.encode(tensor.data, buffers)
            described = (tensor.dtype, shape, order, coding, data_bytes)
            decoded_bytes += decoded_size(*described)
            plain.append(described)
        check_sum(decoded_bytes)
        return plain

    def decode(value: Any, sizes: list[int]) -> Any:
        checked = []
        decoded_bytes = 0
        for plain in items(value, limits.max_tensors, (list,)):
            dtype, shape, order, coding, data_bytes = row(plain, 5, "tensor")
            shape = shape_of.decode(shape, sizes)
            order = shape_of.decode(order, sizes)
            coding = coding_of.decode(coding, sizes)
            data_bytes = data_of.decode(data_bytes, sizes)
            decoded_bytes += decoded_size(dtype, shape, order, coding, data_bytes)
            checked.append((dtype, shape, order, coding))
        check_sum(decoded_bytes)
        return checked

    def attach(value: Any, frames: Iterator[memoryview]) -> Any:
        return tuple(_tensor(*described, data=next(frames)) for described in value)

    row_bytes = PREFIX_BYTES + max(map(len, DTYPE_BYTES)) + PREFIX_BYTES
    row_bytes += 2 * shape_of.max_bytes + coding_of.max_bytes + data_of.max_bytes
    return Field(PREFIX_BYTES + limits.max_tensors * row_bytes, encode, decode, attach)


def _tensor(
    dtype: str, shape: tuple[int, ...], order: tuple[int, ...], coding: str, *, data: memoryview
) -> Tensor:
    # Kernels count and index by booleans, and take for granted that one is 0 or 1.
    if (
        dtype == "bool"
        and coding == "raw"
        and numpy.frombuffer(data, numpy.uint8).max(initial=0) > 1
    ):
        raise Unfit("a bool tensor holds bytes other than 0 and 1")
    return Tensor(dtype, shape, order, data, coding)
