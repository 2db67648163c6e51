"""Codings of live tensors: what crosses at a cut, as few bytes of it as its caller allows.

    raw          the elements as they are
    planes       the same bits: which elements are zero, and byte planes of the others
    float16      rounded to float16, then as planes
    affine8      8 bit, an offset and a scale per channel (see wire.affine), then zstd
    affine8-png  the same 8 bit as tiles of a PNG image: JointDNN (TMC'19), section 4.2

What a ReLU leaves is half zeros and half random mantissas: the zeros are what can be saved. The
bytes are specified in docs/protocol.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy

from wire.affine import decode_affine, encode_affine
from wire.byteplanes import (
    Bytes,
    compress_part,
    join,
    number_bytes,
    split,
    take_part,
    take_parts,
    undecodable,
)
from wire.errors import LocalProtocolError, RemoteProtocolError
from wire.limits import DEFAULT_LIMITS
from wire.messages import TENSOR_CODINGS, Buffer, Tensor
from wire.tensors import check_tensor, tensor_bytes, tensor_fault

LOSSY = frozenset({"float16", "affine8", "affine8-png"})

# The first byte of coded planes: what the rest is.
_ALIKE, _ALL, _NONZERO = 0, 1, 2

_SAMPLE_BYTES = 1 << 16


def encode_tensor(tensor: Tensor, coding: str) -> Tensor:
    """A raw tensor in the coding wanted, or as near to it as it goes.

    A lossy coding becomes "planes" for all but float32, and for values that it cannot hold:
    infinities, NaNs, for "float16" what overflows it. Where the result would not be shorter,
    the tensor itself comes back. Raises LocalProtocolError for an unknown coding, a tensor that
    is coded already, or one whose data does not fit its shape.
    """
    if coding not in TENSOR_CODINGS or tensor.coding != "raw":
        raise LocalProtocolError(f"no way from {tensor.coding} to {ascii(coding)[:40]}")
    check_tensor(tensor)
    raw_bytes = tensor_bytes(tensor.dtype, tensor.shape)
    if coding == "raw" or raw_bytes == 0:
        return tensor
    lossy = coding in LOSSY and tensor.dtype == "float32"
    data = _LOSSY_ENCODERS[coding](tensor) if lossy else None
    if data is None:
        coding, data = "planes", _encode_planes(tensor.dtype, _elements(tensor))
    if len(data) >= raw_bytes:
        return tensor
    return replace(tensor, data=memoryview(data), coding=coding)


def decode_tensor(tensor: Tensor) -> Tensor:
    """The raw tensor, in writable memory of its own unless it is raw already.

    Raises RemoteProtocolError ("input") for data that is not exactly a coding of a tensor of
    this dtype and shape, or of one above the default limit of a buffer. Allocates no more than
    a few times what the shape takes.
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


def _encode_planes(dtype: str, elements: Bytes) -> bytes:
    """The shortest of the ways, judged by a sample from the middle."""
    if elements.size <= 2 * _SAMPLE_BYTES:
        return min((encode(dtype, elements) for encode in _WAYS), key=len)
    start = (elements.size - _SAMPLE_BYTES) // 2 & -16
    sample = elements[start : start + _SAMPLE_BYTES]
    best = min(_WAYS, key=lambda encode: len(encode(dtype, sample)))
    return best(dtype, elements)


def _encode_alike(_dtype: str, elements: Bytes) -> bytes:
    return b"".join((bytes([_ALIKE]), *compress_part(elements, matches=True)))


def _encode_all(dtype: str, elements: Bytes) -> bytes:
    return bytes([_ALL]) + _coded_planes(dtype, elements)


def _encode_nonzero(dtype: str, elements: Bytes) -> bytes:
    # By their bits, so that -0.0 is not lost among the zeros.
    numbers = elements.view(f"<u{number_bytes(dtype)}")
    there = numbers != 0
    mask = b"".join(compress_part(numpy.packbits(there), matches=True))
    return bytes([_NONZERO]) + mask + _coded_planes(dtype, numbers[there].view(numpy.uint8))


_WAYS: tuple[Callable[[str, Bytes], bytes], ...] = (_encode_nonzero, _encode_alike, _encode_all)


def _coded_planes(dtype: str, elements: Bytes) -> bytes:
    return b"".join(each for plane in split(dtype, elements) for each in compress_part(plane))


def _decode_planes(dtype: str, size: int, data: Buffer) -> Bytes:
    """`size` bytes of elements from what _encode_planes made of them."""
    view = memoryview(data).cast("B")
    if not view.nbytes:
        raise undecodable("it is empty")
    way, view = view[0], view[1:]
    if way == _ALIKE:
        return take_parts(view, [size])[0].copy()
    width = number_bytes(dtype)
    count = size // width
    if way == _ALL:
        return join(dtype, take_parts(view, [count] * width))
    if way != _NONZERO:
        raise undecodable(f"an unknown way {way}")
    packed, view = take_part(view, (count + 7) // 8)
    there = numpy.unpackbits(packed).view(numpy.bool_)
    if there[count:].any():
        raise undecodable("its mask goes on after the last element")
    there = there[:count]
    nonzero = join(dtype, take_parts(view, [int(numpy.count_nonzero(there))] * width))
    numbers = numpy.zeros(count, f"<u{width}")
    numbers[there] = nonzero.view(f"<u{width}")
    return numbers.view(numpy.uint8)


def _decode_lossless(tensor: Tensor) -> Bytes:
    elements = _decode_planes(tensor.dtype, tensor_bytes(tensor.dtype, tensor.shape), tensor.data)
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
    return _encode_planes("float16", halves.view(numpy.uint8))


def _decode_float16(tensor: Tensor) -> Bytes:
    halves = _decode_planes("float16", tensor_bytes("float16", tensor.shape), tensor.data)
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
