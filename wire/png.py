"""Grey 8-bit images as PNG: only the least that PNG can be, so that nothing can hide in it.

A header, pixel data, an end, and nothing else: no text, palette or profile that would inflate.
"""

from __future__ import annotations

import io
import struct
import zlib

import numpy
from PIL import Image

from wire.byteplanes import Bytes, undecodable
from wire.messages import Buffer

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHUNK = struct.Struct(">I4s")
_CHECKSUM = struct.Struct(">I")
_HEADER = struct.Struct(">IIBBBBB")
_GREY8 = (8, 0, 0, 0, 0)  # bits, colour type, compression, filter, interlace
_FILTERS = 5


def encode_png(image: Bytes) -> bytes:
    """An image [height, width] as the bytes of a PNG file."""
    target = io.BytesIO()
    Image.fromarray(image).save(target, "PNG")
    return target.getvalue()


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
