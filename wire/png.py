"""Grey 8-bit images as PNG: only the least that PNG can be, so that nothing can hide in it.

A header, pixel data, an end, and nothing else: no text, palette or profile that would inflate.
"""

from __future__ import annotations

import io
import struct
import zlib

import numpy
from numpy.typing import NDArray
from PIL import Image

from wire.byteplanes import Bytes, undecodable
from wire.messages import Buffer

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHUNK = struct.Struct(">I4s")
_CHECKSUM = struct.Struct(">I")
_HEADER = struct.Struct(">IIBBBBB")
_GREY8 = (8, 0, 0, 0, 0)  # bits, colour type, compression, filter, interlace
_FILTERS = 5
_ROUNDS = 3  # of choosing filters by what the last choice makes frequent


def encode_png(image: Bytes) -> bytes:
    """An image [height, width] as the bytes of a PNG file.

    Each row takes the filter after which its bytes are the most frequent ones of all: of maps, many
    of whose rows are mostly zero, that is shorter by a few percent than the least sum of
    differences, which the specification advises. zlib looks for runs only (Z_RLE): other matches
    are chance, and cost codes.
    """
    height, width = image.shape
    filtered = _filtered(image)
    chosen = _chosen(filtered)
    rows = numpy.empty((height, 1 + width), numpy.uint8)
    rows[:, 0] = chosen
    rows[:, 1:] = filtered[chosen, numpy.arange(height)]
    deflate = zlib.compressobj(strategy=zlib.Z_RLE)
    pixels = deflate.compress(rows.data) + deflate.flush()
    header = _HEADER.pack(width, height, *_GREY8)
    chunks = ((b"IHDR", header), (b"IDAT", pixels), (b"IEND", b""))
    return _SIGNATURE + b"".join(
        _CHUNK.pack(len(body), kind) + body + _CHECKSUM.pack(zlib.crc32(kind + body))
        for kind, body in chunks
    )


def _filtered(image: Bytes) -> Bytes:
    """The image after each filter: none, and differences to what is left, above, the mean of both,
    and that of left, above and above left which is nearest to left + above - above left (Paeth)."""
    left, above, corner = numpy.zeros((3, *image.shape), numpy.int16)
    left[:, 1:], above[1:], corner[1:, 1:] = image[:, :-1], image[:-1], image[:-1, :-1]
    to_left, to_above = numpy.abs(above - corner), numpy.abs(left - corner)
    to_corner = numpy.abs(left + above - 2 * corner)
    either = numpy.where(to_above <= to_corner, above, corner)
    paeth = numpy.where(to_left <= numpy.minimum(to_above, to_corner), left, either)
    predicted = (left, above, (left + above) >> 1, paeth)
    return numpy.stack([image, *(image - each.astype(numpy.uint8) for each in predicted)])


def _chosen(filtered: Bytes) -> NDArray[numpy.intp]:
    """A filter for each row; the first is of the least sum of differences."""
    magnitudes = numpy.abs(filtered.view(numpy.int8)).view(numpy.uint8)
    chosen: NDArray[numpy.intp] = magnitudes.sum(axis=2, dtype=numpy.uint32).argmin(axis=0)
    every = numpy.arange(chosen.size)
    for _ in range(_ROUNDS):
        counts = numpy.bincount(filtered[chosen, every].reshape(-1), minlength=256) + 1
        bits = numpy.log2(counts.sum() / counts).astype(numpy.float32)
        chosen = numpy.stack([bits[each].sum(axis=1) for each in filtered]).argmin(axis=0)
    return chosen


def decode_png(data: Buffer, height: int, width: int) -> Bytes:
    """The image [height, width]; every byte is checked before Pillow sees any.

    Raises RemoteProtocolError ("coding") for another size or kind of image, one without pixels,
    other chunks, wrong checksums, pixel data that is not exactly as long as it must be, and bytes
    after the end.
    """
    pixels = _pixel_data(memoryview(data).cast("B"), height, width)
    row_bytes = 1 + width
    filters = numpy.frombuffer(_inflated(pixels, height * row_bytes), numpy.uint8)[::row_bytes]
    if filters.max(initial=0) >= _FILTERS:
        raise undecodable("a PNG with an unknown filter")
    with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
        return numpy.asarray(image)


def _pixel_data(view: memoryview, height: int, width: int) -> bytes:
    """The compressed pixel data of a file that consists of IHDR, IDAT, ... and IEND."""
    if view[: len(_SIGNATURE)] != _SIGNATURE:
        raise undecodable("not a PNG")
    kind, body, view = _chunk(view[len(_SIGNATURE) :])
    if kind != b"IHDR" or bytes(body) != _HEADER.pack(width, height, *_GREY8) or not height * width:
        raise undecodable(f"not a grey PNG of {width} x {height}")
    pixels = []
    while True:
        kind, body, view = _chunk(view)
        if kind != b"IDAT":
            break
        pixels.append(body)
    if kind != b"IEND" or body.nbytes or view.nbytes:
        raise undecodable("a PNG with more than pixels")
    return b"".join(pixels)


def _chunk(view: memoryview) -> tuple[bytes, memoryview, memoryview]:
    if view.nbytes < _CHUNK.size + _CHECKSUM.size:
        raise undecodable("a PNG that ends early")
    length, kind = _CHUNK.unpack_from(view)
    end = _CHUNK.size + length
    if view.nbytes < end + _CHECKSUM.size:
        raise undecodable("a PNG that ends early")
    if _CHECKSUM.unpack_from(view, end) != (zlib.crc32(view[4:end]),):
        raise undecodable("a PNG with a wrong checksum")
    return kind, view[_CHUNK.size : end], view[end + _CHECKSUM.size :]


def _inflated(pixels: bytes, size: int) -> bytes:
    stream = zlib.decompressobj()
    try:
        inflated = stream.decompress(pixels, size + 1)
    except zlib.error as error:
        raise undecodable(f"a PNG's pixels: {error}") from None
    if len(inflated) != size or not stream.eof or stream.unused_data:
        raise undecodable("a PNG with too few or too many pixels")
    return inflated
