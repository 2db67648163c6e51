"""Coded segments, coded tensors and PNG images into their decoders.

Each ends in RemoteProtocolError, or in elements of just the size announced.
"""

from __future__ import annotations

import math
import random
import struct
import zlib

import numpy

import wire
from tests.fuzz.decoder import refused
from tests.fuzz.mutation import damaged
from tests.fuzz.streams import Reader
from tests.fuzz.target import Target
from wire.png import decode_png, encode_png

DTYPES = tuple(wire.DTYPE_BYTES)
_PLANES = 5
_MOST_DIMENSIONS = 6
_SEGMENT_HEAD, _TENSOR_HEAD, _IMAGE_HEAD = 5, 3 + 2 * _MOST_DIMENSIONS, 4


def mutated(rng: random.Random, data: bytes) -> bytes:
    """A change to the payload, which the choices precede, or to one of those."""
    head = _SEGMENT_HEAD
    if rng.random() < 0.2 and data:
        at = rng.randrange(min(head, len(data)))
        return data[:at] + bytes([data[at] + rng.choice([1, 255]) & 255]) + data[at + 1 :]
    for _ in range(rng.randint(1, 3)):
        data = data[:head] + damaged(rng, data[head:])
    return data


_COARSE = bytes(
    wire.coarse_words(numpy.random.default_rng(0).normal(0, 0.05, 96).astype("<f4").tobytes())
)[:30]

# Segments: dtype, plane, count (2 bytes), coding, payload.


def segment_seeds() -> list[bytes]:
    rng = numpy.random.default_rng(0)
    blobs = [rng.normal(0, 0.05, 96).astype("<f4").tobytes(), bytes(384), rng.bytes(384)]
    cases = [(dtype, wire.WHOLE) for dtype in DTYPES]
    cases += [("float32", plane) for plane in (wire.COARSE, wire.MIDDLE, wire.FINE)]
    return [
        bytes([DTYPES.index(dtype), plane, count, 0, wire.SEGMENT_CODINGS.index(coding)])
        + bytes(wire.encode_segment(dtype, plane, blob, 0, count, coding))
        for blob in blobs
        for dtype, plane in cases
        for coding in wire.SEGMENT_CODINGS
        for count in (1, 15)
    ]


def check_segment(data: bytes) -> str:
    reader = Reader(data)
    dtype, plane, count = reader.of(DTYPES), reader.below(_PLANES), reader.word()
    coding, payload = reader.of(wire.SEGMENT_CODINGS), reader.rest()
    # What MIDDLE goes on from: some of the seeds' very own, and for longer ones what there may be.
    coarse = (_COARSE * (count // 15 + 1))[: 2 * count] if plane == wire.MIDDLE else None
    try:
        decoded = wire.decode_segment(dtype, plane, count, coding, payload, coarse)
    except wire.RemoteProtocolError as error:
        return refused(error, "coding")
    if decoded.nbytes != wire.stored_bytes(dtype, plane, count):
        raise AssertionError(f"{decoded.nbytes} bytes")
    if len(payload) > wire.max_coded_bytes(dtype, plane, count, coding):
        raise AssertionError("longer than any coding")
    return "accepted"


# Tensors: dtype, coding, rank, dimensions, order, data.


def tensor_seeds() -> list[bytes]:
    rng = numpy.random.default_rng(0)
    relu = numpy.maximum(rng.normal(0, 1, (1, 3, 12, 10)), 0)
    arrays = [relu.astype("<f4"), relu.astype("<f2"), relu > 0, relu.astype("<i8")]
    arrays += [array.transpose(0, 2, 3, 1) for array in arrays]
    arrays += [relu[0, 0].astype("<f4"), relu[0].astype("<f4"), relu[0, 0, 0].astype("<f8")]
    raw = [wire.tensor_from_numpy(array) for array in arrays]
    coded = [wire.encode_tensor(tensor, way) for tensor in raw for way in wire.TENSOR_CODINGS]
    return [_tensor_input(tensor) for tensor in coded if tensor.coding != "raw"]


def _tensor_input(tensor: wire.Tensor) -> bytes:
    pad = bytes(_MOST_DIMENSIONS - len(tensor.shape))
    head = [DTYPES.index(tensor.dtype), wire.TENSOR_CODINGS.index(tensor.coding)]
    head += [len(tensor.shape), *tensor.shape, *pad, *tensor.order, *pad]
    return bytes(head) + bytes(tensor.data)


def mutated_tensor(rng: random.Random, data: bytes) -> bytes:
    head = _TENSOR_HEAD
    if rng.random() < 0.3:
        return mutated(rng, data[:head]) + data[head:]
    return data[:head] + damaged(rng, data[head:])


def check_tensor(data: bytes) -> str:
    reader = Reader(data)
    dtype, coding = reader.of(DTYPES), reader.of(wire.TENSOR_CODINGS)
    rank = reader.below(_MOST_DIMENSIONS + 1)
    shape = tuple([reader.byte() for _ in range(_MOST_DIMENSIONS)][:rank])
    order = tuple([reader.below(_MOST_DIMENSIONS) for _ in range(_MOST_DIMENSIONS)][:rank])
    if math.prod(shape) > 1 << 20:
        # Nothing that a limit does not bound; but a fuzzer would spend its time on these.
        return "not tried"
    tensor = wire.Tensor(dtype, shape, order, memoryview(reader.rest()), coding)
    if coding == "raw":
        return "not tried"
    try:
        decoded = wire.decode_tensor(tensor)
    except wire.RemoteProtocolError as error:
        return refused(error, "input")
    wire.check_tensor(decoded)
    if decoded.coding != "raw" or memoryview(decoded.data).readonly:
        raise AssertionError(f"{decoded.coding}, or not writable")
    if decoded.dtype == "bool" and max(decoded.data, default=0) > 1:
        raise AssertionError("a bool beyond 1")
    return "accepted"


# PNG: height, width, whether checksums are made right, whether pixels are compressed here; bytes.


def image_seeds() -> list[bytes]:
    rng = numpy.random.default_rng(0)
    files = []
    for height, width in ((1, 1), (4, 5), (16, 16), (40, 3)):
        image = rng.integers(0, 9, (height, width)).astype(numpy.uint8)
        file = encode_png(image)
        rows = numpy.hstack([numpy.zeros((height, 1), numpy.uint8), image])
        files += [bytes([height, width, fix, 0]) + file for fix in (0, 1)]
        files.append(bytes([height, width, 1, 1]) + rows.tobytes())
    return files


def check_image(data: bytes) -> str:
    reader = Reader(data)
    height, width, fix, compress = reader.byte(), reader.byte(), reader.below(2), reader.below(2)
    file = reader.rest()
    if compress:
        file = _file(height, width, file)
    elif fix:
        file = _with_checksums(file)
    try:
        image = decode_png(file, height, width)
    except wire.RemoteProtocolError as error:
        return refused(error, "coding")
    if image.shape != (height, width) or image.dtype != numpy.uint8:
        raise AssertionError(f"{image.shape} of {image.dtype}")
    return "accepted"


def _file(height: int, width: int, rows: bytes) -> bytes:
    """A sound file around rows of pixels, each with its filter before it."""
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, body) for kind, body in chunks)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _with_checksums(file: bytes) -> bytes:
    """Every chunk's checksum made to fit, as a fuzzer would never find it."""
    fixed, at = [file[:8]], 8
    while at + 12 <= len(file):
        body = file[at + 8 : at + 8 + int.from_bytes(file[at : at + 4], "big")]
        fixed.append(_chunk(file[at + 4 : at + 8], body))
        at += 12 + len(body)
    return b"".join([*fixed, file[at:]])


SEGMENT = Target(check_segment, segment_seeds, mutated)
TENSOR = Target(check_tensor, tensor_seeds, mutated_tensor)
IMAGE = Target(check_image, image_seeds, mutated)
