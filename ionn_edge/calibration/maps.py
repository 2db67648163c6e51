"""Layers of the spread that pass over maps: norms, pooling, element by element, moves."""

from __future__ import annotations

from collections.abc import Callable

from ionn_edge.calibration.probes import Call, Point, Probe, Shape, between, one_of, size, weighted
from layergraph.nodes import Argument, Ref, Symbol, WeightRef


def _map(u: Point, least: int = 1, most: int = 256, paged: float = 0.0) -> Shape:
    """A share `paged` has sides of powers of two, as what makes images has: whole pages."""
    side = between(u[1], least, most)
    if u[3] < paged:
        side = 1 << (side.bit_length() - 1)
    return (1, between(u[0], 4, 2048), side, side)


def batch_norm(u: Point) -> Probe:
    shape = _map(u)
    args: tuple[Argument, ...] = (Ref(0), *weighted(4), False, 0.1, 1e-5, False)
    call = Call("aten.batch_norm.default", args, (shape,))
    return Probe("batch norm", (shape,), ((shape[1],),) * 4, (call,), 0.0)


def layer_norm(u: Point) -> Probe:
    shape = (between(u[0], 1, 1024), between(u[1], 16, 4096))
    width = shape[1:]
    args: tuple[Argument, ...] = (Ref(0), width, *weighted(2), 1e-5, False)
    call = Call("aten.layer_norm.default", args, (shape,))
    return Probe("layer norm", (shape,), (width, width), (call,), 0.0)


def response_norm(u: Point) -> Probe:
    """As torch composes it: squares, averaged over neighbouring channels, to a power."""
    shape = _map(u, 4, 128)
    _, channels, side, _ = shape
    size = one_of(u[2], 3, 5, 7)
    flat, padded = (1, 1, channels, side, side), (1, 1, channels + size - 1, side, side)
    around = (*(0,) * 4, size // 2, (size - 1) // 2)
    calls = (
        Call("aten.mul.Tensor", (Ref(0), Ref(0)), (shape,)),
        Call("aten.view.default", (Ref(1), flat), (flat,)),
        Call("aten.pad.default", (Ref(2), around), (padded,)),
        Call("aten.avg_pool3d.default", (Ref(3), (size, 1, 1), (1, 1, 1)), (flat,)),
        Call("aten.view.default", (Ref(4), shape), (shape,)),
        Call("aten.mul.Tensor", (Ref(5), 1e-4), (shape,)),
        Call("aten.add.Tensor", (Ref(6), 1.0), (shape,)),
        Call("aten.pow.Tensor_Scalar", (Ref(7), 0.75), (shape,)),
        Call("aten.div.Tensor", (Ref(0), Ref(8)), (shape,)),
    )
    return Probe("response norm", (shape,), (), calls, 0.0)


def channel_average(u: Point) -> Probe:
    _, channels, side, _ = _map(u, 4, 128)
    size = one_of(u[2], 3, 5, 7)
    source, made = (1, 1, channels + size - 1, side, side), (1, 1, channels, side, side)
    call = Call("aten.avg_pool3d.default", (Ref(0), (size, 1, 1), (1, 1, 1)), (made,))
    return Probe("channel average", (source,), (), (call,), 0.0)


def pool(op: str, type: str) -> Callable[[Point], Probe]:
    def make(u: Point) -> Probe:
        kernel, stride = one_of(u[2], 2, 3, 3, 5), one_of(u[3], 1, 2, 2)
        shape, padding = _map(u, kernel), one_of(u[4], 0, kernel // 2)
        out = (shape[2] + 2 * padding - kernel) // stride + 1
        made = (1, shape[1], out, out)
        call = Call(op, (Ref(0), (kernel,) * 2, (stride,) * 2, (padding,) * 2), (made,))
        # Which branches it takes depends on what it reads. Of noise, maxima are so hard to foresee
        # that a pool takes a fifth longer than where neighbours are alike; behind convolutions
        # there is either, by how far apart and how large their windows are.
        return Probe(type, (shape,), (), (call,), 0.0, rectified=True, smooth=u[5] < 0.5)

    return make


def global_average(u: Point) -> Probe:
    shape = _map(u, 2, 64)
    call = Call("aten.mean.dim", (Ref(0), (2, 3)), (shape[:2],))
    return Probe("global average", (shape,), (), (call,), 0.0)


def argmax(u: Point) -> Probe:
    shape = (between(u[0], 1, 64), between(u[1], 8, 32768))
    call = Call("aten.argmax.default", (Ref(0), 1), (shape[:1],), "int64")
    return Probe("argmax", (shape,), (), (call,), 0.0)


def nearest(u: Point) -> Probe:
    return _resampled("nearest", u, "aten.upsample_nearest2d.vec")


def bilinear(u: Point) -> Probe:
    return _resampled("bilinear", u, "aten.upsample_bilinear2d.vec", False)


def _resampled(type: str, u: Point, op: str, *aligned: bool) -> Probe:
    shape, factor = _map(u, 2, 96, paged=0.5), one_of(u[2], 2, 2, 3, 4)
    made = (*shape[:2], factor * shape[2], factor * shape[3])
    call = Call(op, (Ref(0), made[2:], *aligned, None), (made,))
    return Probe(type, (shape,), (), (call,), 0.0)


def softmax(u: Point) -> Probe:
    shape = (between(u[0], 1, 2048), between(u[1], 8, 32768))
    return Probe("softmax", (shape,), (), (Call("aten.softmax.int", (Ref(0), -1), (shape,)),), 0.0)


def unary(type: str, *ops: tuple[str, tuple[Argument, ...]]) -> Callable[[Point], Probe]:
    def make(u: Point) -> Probe:
        op, rest = ops[int(u[4] * len(ops))]
        shape = _map(u)
        return Probe(type, (shape,), (), (Call(op, (Ref(0), *rest), (shape,)),), 0.0)

    return make


def addition(u: Point) -> Probe:
    shape = _map(u)
    op = ("aten.add.Tensor", "aten.mul.Tensor", "aten.div.Tensor")[int(u[4] * 3)]
    return Probe("element-wise", (shape, shape), (), (Call(op, (Ref(0), Ref(1)), (shape,)),), 0.0)


def scale(u: Point) -> Probe:
    shape = _map(u)
    call = Call("aten.mul.Tensor", (Ref(0), WeightRef(0)), (shape,))
    return Probe("scale", (shape,), ((1, shape[1], 1, 1),), (call,), 0.0)


def concat(u: Point) -> Probe:
    count, shape = one_of(u[2], 2, 3, 4), _map(u)
    dim = one_of(u[3], 1, 1, 3)
    made = (*shape[:dim], count * shape[dim], *shape[dim + 1 :])
    call = Call("aten.cat.default", (tuple(Ref(i) for i in range(count)), dim), (made,))
    return Probe("concat", (shape,) * count, (), (call,), 0.0)


def pad(u: Point) -> Probe:
    shape, width = _map(u), one_of(u[2], 1, 1, 2, 3)
    made = (*shape[:2], shape[2] + 2 * width, shape[3] + 2 * width)
    return Probe(
        "pad", (shape,), (), (Call("aten.pad.default", (Ref(0), (width,) * 4), (made,)),), 0.0
    )


def permuted(u: Point) -> Probe:
    shape = _map(u, paged=0.3)
    turned = (1, *shape[2:], shape[1])
    calls = (
        Call("aten.permute.default", (Ref(0), (0, 2, 3, 1)), (turned,)),
        Call("aten.contiguous.default", (Ref(1),), (turned,)),
    )
    return Probe("permute", (shape,), (), calls, 0.0)


def flatten(u: Point) -> Probe:
    shape = _map(u, 1, 64, paged=0.3)
    made = (1, size(shape))
    if u[4] < 0.5:
        return Probe(
            "flatten", (shape,), (), (Call("aten.flatten.using_ints", (Ref(0), 1), (made,)),), 0.0
        )
    # Only where dimensions were exchanged it is more than a view.
    turned = (1, *shape[2:], shape[1])
    calls = (
        Call("aten.permute.default", (Ref(0), (0, 2, 3, 1)), (turned,)),
        Call("aten.flatten.using_ints", (Ref(1), 1), (made,)),
    )
    return Probe("flatten", (shape,), (), calls, 0.0)


def windows(u: Point) -> Probe:
    kernel, shape = one_of(u[2], 3, 5, 7), _map(u, 8, 64)
    out = shape[2] - kernel + 1
    made = (1, shape[1] * kernel * kernel, out * out)
    args: tuple[Argument, ...] = (Ref(0), (kernel,) * 2, (1, 1), (0, 0), (1, 1))
    return Probe("windows", (shape,), (), (Call("aten.im2col.default", args, (made,)),), 0.0)


def converted(u: Point) -> Probe:
    shape = _map(u)
    call = Call("aten.to.dtype", (Ref(0), Symbol("dtype", "float32")), (shape,))
    return Probe("convert", (shape,), (), (call,), 0.0, dtype="uint8")
