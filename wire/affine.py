"""float32 tensors in 8 bits per element: value = offset + step x byte, both per channel.

The channel is dimension 1 of tensors of rank 4 and more, the last one of rank 3; below that, the
whole tensor is one channel. The bytes travel channel by channel, whatever the tensor's order in
memory, because neighbours in a channel resemble each other: compressed by zstd, or as the tiles
of a grey image by PNG (JointDNN, TMC'19, section 4.2 and Figure 13).

The bytes: a part (see wire.byteplanes) of the channels' float32 offsets, a part of their steps,
then what wire.sparse makes of the bytes, or the PNG file. Its tiles are the last two dimensions
of what has at least four, in rows of 112 pixels or the least more, empty ones zero; what has fewer
is one tile, as wide as its last dimension. Before a file of tiles comes the order of the channels
in it, as two parts, of its numbers' low and high bytes: like go together, from those with the most
zeros to those with none, 2% shorter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy
from numpy.typing import NDArray

from wire.byteplanes import Bytes, compress_part, take_part, undecodable
from wire.messages import Buffer, Tensor
from wire.png import decode_png, encode_png
from wire.sparse import decode_sparse, encode_sparse
from wire.tensors import tensor_to_numpy

_STEPS = 255
_LEAST_STEP = numpy.finfo(numpy.float32).tiny
_LOW_BITS = numpy.uint32(0xFFFF)
_TILED = 4  # the rank from which an image is tiles
_ROW_PIXELS = 112
_MOST_CHANNELS = 1 << 16  # in an order


def encode_affine(tensor: Tensor, png: bool) -> bytes | None:
    """A float32 tensor's offsets, steps and bytes; None where a value or range is not finite, or an
    image would have more than 65,536 channels.

    Errors: at most half a step of the channel, which is 1/506 of its range, and the rounding of
    float32. A step has 8 significant bits, rounded up, and so half the bytes: small channels, of
    7 x 7, have few others.
    """
    values = tensor_to_numpy(tensor)
    axis = channel_axis(values.ndim)
    others = tuple(dim for dim in range(values.ndim) if dim != axis)
    offset = values.min(axis=others, keepdims=True)
    with numpy.errstate(over="ignore", invalid="ignore"):
        span = values.max(axis=others, keepdims=True) - offset
        # Below the least normal number, steps would round too much themselves.
        exact = numpy.where(span > 0, numpy.maximum(span / _STEPS, _LEAST_STEP), 0).astype("<f4")
        step = ((exact.view("<u4") + _LOW_BITS) & ~_LOW_BITS).view("<f4")
        if not numpy.isfinite(offset + step * _STEPS).all():
            return None
    levels = numpy.subtract(values, offset, out=numpy.empty_like(values))
    levels /= numpy.where(step > 0, step, 1)
    numpy.rint(levels, out=levels)
    planar = _channels_first(levels.astype(numpy.uint8), axis)
    header = [*compress_part(_bytes_of(offset)), *compress_part(_bytes_of(step))]
    if png and planar.ndim >= _TILED:
        if len(planar) > _MOST_CHANNELS:
            return None
        order = numpy.count_nonzero(planar.reshape(len(planar), -1), axis=1).argsort(kind="stable")
        header += [*_coded_order(order)]
        planar = planar[order]
    if png:
        return b"".join([*header, encode_png(_tiled(planar))])
    return b"".join([*header, encode_sparse("uint8", planar.shape, planar.reshape(-1))])


def decode_affine(tensor: Tensor, png: bool) -> Bytes:
    """The bytes of the float32 elements, in the tensor's order.

    Raises RemoteProtocolError ("coding") for data that is not exactly a coding of this shape.
    """
    shape = tensor.shape
    axis = channel_axis(len(shape))
    channels = 1 if axis is None else shape[axis]
    view = memoryview(tensor.data).cast("B")
    offset_bytes, view = take_part(view, 4 * channels)
    step_bytes, view = take_part(view, 4 * channels)
    offset, step = _along(axis, shape, offset_bytes), _along(axis, shape, step_bytes)
    with numpy.errstate(over="ignore", invalid="ignore"):
        if not (numpy.isfinite(offset + step * _STEPS).all() and (step >= 0).all()):
            raise undecodable("an offset or step out of range")
    planar_shape = shape if axis is None else (channels, *shape[:axis], *shape[axis + 1 :])
    if png:
        order, view = _take_order(view, planar_shape)
        tiled = _untiled(decode_png(view, *_image_shape(planar_shape)), planar_shape)
        planar = numpy.empty_like(tiled)
        planar[order] = tiled
    else:
        planar = decode_sparse("uint8", math.prod(shape), view).reshape(planar_shape)
    levels = planar if axis is None else numpy.moveaxis(planar, 0, axis)
    stored = numpy.empty([shape[dim] for dim in tensor.order], "<f4")
    values = stored.transpose(numpy.argsort(numpy.array(tensor.order, dtype=numpy.intp)))
    numpy.multiply(levels, step, out=values, dtype=numpy.float32)
    values += offset
    return stored.reshape(-1).view(numpy.uint8)


def channel_axis(rank: int) -> int | None:
    """The dimension that has an offset and a step for each index; None for one of each in all."""
    if rank >= 4:
        return 1
    return 2 if rank == 3 else None


def _channels_first(levels: Bytes, axis: int | None) -> Bytes:
    return numpy.ascontiguousarray(levels if axis is None else numpy.moveaxis(levels, axis, 0))


def _bytes_of(numbers: NDArray[Any]) -> Bytes:
    return numpy.ascontiguousarray(numbers, "<f4").reshape(-1).view(numpy.uint8)


def _along(axis: int | None, shape: Sequence[int], data: Bytes) -> NDArray[numpy.float32]:
    numbers = data.view("<f4")
    return numbers.reshape([len(numbers) if dim == axis else 1 for dim in range(len(shape))])


# Tiles: the last two dimensions of each channel, side by side up to a width.


def _grid(planar_shape: Sequence[int]) -> tuple[int, int, int, int]:
    """Rows and columns of tiles, height and width of each."""
    if len(planar_shape) < _TILED:
        height = math.prod(planar_shape[:-1])
        return 1, 1, height, math.prod(planar_shape[-1:])
    *outer, height, width = planar_shape
    tiles = math.prod(outer)
    columns = min(-(-_ROW_PIXELS // width), tiles)
    return -(-tiles // columns), columns, height, width


def _image_shape(planar_shape: Sequence[int]) -> tuple[int, int]:
    rows, columns, height, width = _grid(planar_shape)
    return rows * height, columns * width


def _coded_order(order: NDArray[numpy.intp]) -> list[Buffer]:
    low, high = (order & 255).astype(numpy.uint8), (order >> 8).astype(numpy.uint8)
    return [*compress_part(low), *compress_part(high)]


def _take_order(
    view: memoryview, planar_shape: Sequence[int]
) -> tuple[NDArray[numpy.intp] | slice, memoryview]:
    """Which channel each one in the image is, and the rest of `view`."""
    if len(planar_shape) < _TILED:
        return slice(None), view
    channels = planar_shape[0]
    low, view = take_part(view, channels)
    high, view = take_part(view, channels)
    order = high.astype(numpy.intp) << 8 | low
    if (numpy.sort(order) != numpy.arange(channels)).any():
        raise undecodable("an order that is not one of all channels")
    return order, view


def _tiled(planar: Bytes) -> Bytes:
    rows, columns, height, width = _grid(planar.shape)
    tiles = numpy.zeros((rows * columns, height * width), numpy.uint8)
    tiles.reshape(-1)[: planar.size] = planar.reshape(-1)
    grid = tiles.reshape(rows, columns, height, width)
    return numpy.ascontiguousarray(grid.transpose(0, 2, 1, 3)).reshape(
        rows * height, columns * width
    )


def _untiled(image: Bytes, planar_shape: Sequence[int]) -> Bytes:
    rows, columns, height, width = _grid(planar_shape)
    grid = image.reshape(rows, height, columns, width).transpose(0, 2, 1, 3)
    flat = numpy.ascontiguousarray(grid).reshape(-1)
    size = math.prod(planar_shape)
    if flat[size:].any():
        raise undecodable("the image goes on after its last tile")
    return flat[:size].reshape(planar_shape)
