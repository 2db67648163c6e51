"""Codings of live tensors: what crosses at a cut, as few bytes of it as its caller allows.

    raw          the elements as they are
    planes       the same bits in fewer bytes (wire.sparse)
    float16      rounded to float16, then as planes
    affine8      8 bits, an offset and a step per channel (wire.affine), then as planes
    affine8-png  the same 8 bits as tiles of a PNG image: JointDNN (TMC'19), section 4.2

Knows nothing of cuts, links or who chooses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy

from wire.affine import decode_affine, encode_affine
from wire.byteplanes import Bytes, undecodable
from wire.errors import LocalProtocolError, RemoteProtocolError
from wire.limits import DEFAULT_LIMITS
from wire.messages import TENSOR_CODINGS, Tensor
from wire.sparse import decode_sparse, encode_sparse
from wire.tensors import check_tensor, tensor_bytes, tensor_fault

LOSSY = frozenset({"float16", "affine8", "affine8-png"})


def encode_tensor(tensor: Tensor, coding: str) -> Tensor:
    """A raw tensor in the coding wanted, or as near to it as it goes.

    A lossy coding becomes "planes" for all but float32, and for values that it cannot hold:
    infinities, NaNs, for "float16" what overflows it. Where the result would not be shorter,
    the tensor itself comes back. "float16" is off by at most 2**-11 of a value or by 2**-25,
    the 8-bit codings by half a step, 1/506 of a channel's range. Raises LocalProtocolError for
    an unknown coding, a tensor that is coded already, or data that does not fit its shape.
    """
    if coding not in TENSOR_CODINGS or tensor.coding != "raw":
        raise LocalProtocolError(f"no way from {tensor.coding} to {ascii(coding)[:40]}")
    check_tensor(tensor)
    raw_bytes = tensor_bytes(tensor.dtype, tensor.shape)
    if coding == "raw" or raw_bytes == 0:
        return tensor
    lossy = coding in LOSSY and tensor.dtype == "float32"
    data = _LOSSY_ENCODERS[coding](tensor) if lossy else None
    if data is None or len(data) >= raw_bytes:
        coding, data = "planes", _encode_lossless(tensor.dtype, tensor, _elements(tensor))
    if len(data) >= raw_bytes:
        return tensor
    return replace(tensor, data=memoryview(data), coding=coding)


def decode_tensor(tensor: Tensor) -> Tensor:
    """The raw tensor, in writable memory of its own unless it is raw already.

    Raises RemoteProtocolError ("input") for data that is not exactly a coding of a tensor of
    this dtype and shape, or of one above the default limit of a buffer. Allocates no more than
    a few times what the shape takes, and 16 MiB.
    """
    if tensor.coding == "raw":
        return tensor
    try:
        _check_coded(tensor)
        return replace(tensor, data=_DECODERS[tensor.coding](tensor).data, coding="raw")
    except RemoteProtocolError as error:
        raise RemoteProtocolError(
            f"{tensor.dtype}{list(tensor.shape)} as {ascii(tensor.coding)[:40]}: {error}", "input"
        ) from None


def _check_coded(tensor: Tensor) -> None:
    data_bytes = memoryview(tensor.data).nbytes
    fault = tensor_fault(tensor.dtype, tensor.shape, tensor.order, tensor.coding, data_bytes)
    if fault is None and tensor.coding not in _DECODERS:
        fault = "no such coding"
    if fault is None and tensor.coding in LOSSY and tensor.dtype != "float32":
        fault = "for float32 only"
    if fault is None and tensor_bytes(tensor.dtype, tensor.shape) > DEFAULT_LIMITS.max_buffer_bytes:
        fault = f"more than {DEFAULT_LIMITS.max_buffer_bytes} bytes"
    if fault is not None:
        raise undecodable(fault)


def _elements(tensor: Tensor) -> Bytes:
    return numpy.frombuffer(tensor.data, numpy.uint8)


# Lossless.


def _encode_lossless(dtype: str, tensor: Tensor, elements: Bytes) -> bytes:
    return encode_sparse(dtype, [tensor.shape[dim] for dim in tensor.order], elements)


def _decode_lossless(tensor: Tensor) -> Bytes:
    elements = decode_sparse(tensor.dtype, tensor_bytes(tensor.dtype, tensor.shape), tensor.data)
    # Kernels count and index by booleans, and take for granted that one is 0 or 1.
    if tensor.dtype == "bool" and elements.max(initial=0) > 1:
        raise undecodable("a bool tensor holds bytes other than 0 and 1")
    return elements


# Lossy, for float32.


def _encode_float16(tensor: Tensor) -> bytes | None:
    with numpy.errstate(over="ignore", invalid="ignore"):
        halves = _elements(tensor).view("<f4").astype("<f2")
    if not numpy.isfinite(halves).all():
        return None
    return _encode_lossless("float16", tensor, halves.view(numpy.uint8))


def _decode_float16(tensor: Tensor) -> Bytes:
    halves = decode_sparse("float16", tensor_bytes("float16", tensor.shape), tensor.data)
    with numpy.errstate(invalid="ignore"):
        return halves.view("<f2").astype("<f4").view(numpy.uint8)


_LOSSY_ENCODERS: Mapping[str, Callable[[Tensor], bytes | None]] = {
    "float16": _encode_float16,
    "affine8": lambda tensor: encode_affine(tensor, png=False),
    "affine8-png": lambda tensor: encode_affine(tensor, png=True),
}
_DECODERS: Mapping[str, Callable[[Tensor], Bytes]] = {
    "planes": _decode_lossless,
    "float16": _decode_float16,
    "affine8": lambda tensor: decode_affine(tensor, png=False),
    "affine8-png": lambda tensor: decode_affine(tensor, png=True),
}
