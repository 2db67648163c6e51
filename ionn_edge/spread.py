"""The layers that are measured: a designed spread over every type, from a few bytes to many MB.

Each type draws its shapes from a low-discrepancy sequence over the logarithms of its dimensions,
so that any beginning of the spread covers the whole range evenly, and more time only makes it
denser. No shape is any network's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from layergraph.graph import Argument, ConstantRef, Ref, Symbol, WeightRef

MOST_FLOPS = 2e9
MOST_ELEMENTS = 1 << 22
MOST_WEIGHTS = 24 << 20
_DIMENSIONS = 6

Shape = tuple[int, ...]
Point = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Call:
    """One operator call; Ref counts the probe's inputs, then what its calls before this made."""

    op: str
    args: tuple[Argument, ...]
    outputs: tuple[Shape, ...]
    dtype: str = "float32"


@dataclass(frozen=True, slots=True)
class Probe:
    """One layer to measure: shapes of its inputs, weights and constants, and its calls.

    `type` is the layer's type by its usual name, as in a table of layers; `flops` a rough size.
    """

    type: str
    inputs: tuple[Shape, ...]
    weights: tuple[Shape, ...]
    calls: tuple[Call, ...]
    flops: float
    dtype: str = "float32"
    constants: tuple[Shape, ...] = field(default=())


def spread(seed: int = 0) -> Iterator[tuple[Probe, ...]]:
    """Endless rounds of probes: every type in each of them, more often the more it depends on.

    Other seeds give other shapes of the same types.
    """
    sequence: Any = torch.quasirandom.SobolEngine
    draws = {
        make: sequence(_DIMENSIONS, scramble=True, seed=seed * 1000 + number)
        for number, (make, _) in enumerate(_TYPES)
    }
    while True:
        yield tuple(_drawn(make, draws[make]) for make, times in _TYPES for _ in range(times))


def _drawn(make: Callable[[Point], Probe], draw: Any) -> Probe:
    while True:
        probe = make(tuple(draw.draw(1)[0].tolist()))
        if _fits(probe):
            return probe


def _fits(probe: Probe) -> bool:
    """Not too large for a short calibration; the coefficients carry further than the sizes."""
    made = [shape for call in probe.calls for shape in call.outputs]
    return (
        probe.flops <= MOST_FLOPS
        and all(_size(shape) <= MOST_ELEMENTS for shape in (*probe.inputs, *made))
        and sum(map(_size, probe.weights)) <= MOST_WEIGHTS
    )


def _size(shape: Shape) -> int:
    return torch.Size(shape).numel()


def _between(u: float, least: int, most: int) -> int:
    """Where `u` in [0, 1) lies between the two, in logarithms."""
    return min(most, int(least * ((most + 1) / least) ** u))


def _one_of(u: float, *choices: int) -> int:
    return choices[int(u * len(choices))]


def _channels(u: float, least: int, most: int, aligned: float) -> int:
    """Three times in four whole vectors, as designers choose them and kernels want them."""
    count = _between(u, least, most)
    return count if aligned > 0.75 else max(16, count // 16 * 16)


def _weighted(count: int) -> tuple[WeightRef, ...]:
    return tuple(WeightRef(index) for index in range(count))


def _convolved(
    type: str, cin: int, cout: int, kernel: int, stride: int, side: int, groups: int = 1
) -> Probe:
    padding = kernel // 2
    out = (side + 2 * padding - kernel) // stride + 1
    made, weight = (1, cout, out, out), (cout, cin // groups, kernel, kernel)
    args: tuple[Argument, ...] = (
        Ref(0),
        *_weighted(2),
        (stride,) * 2,
        (padding,) * 2,
        (1, 1),
        groups,
    )
    call = Call("aten.conv2d.default", args, (made,))
    flops = 2.0 * _size(made) * _size(weight[1:])
    return Probe(type, ((1, cin, side, side),), (weight, (cout,)), (call,), flops)


def _conv(u: Point) -> Probe:
    cin, cout = _channels(u[0], 5, 1024, u[5]), _channels(u[1], 8, 1024, u[5])
    kernel, stride = _one_of(u[3], 2, 3, 3, 3, 4, 5, 5, 7), _one_of(u[4], 1, 1, 1, 2)
    return _convolved("convolution", cin, cout, kernel, stride, _between(u[2], 4, 160))


def _pointwise_conv(u: Point) -> Probe:
    cin, cout = _channels(u[0], 8, 2048, u[5]), _channels(u[1], 8, 2048, u[5])
    stride = _one_of(u[4], 1, 1, 1, 1, 2)
    return _convolved("convolution", cin, cout, 1, stride, _between(u[2], 2, 160))


def _shallow_conv(u: Point) -> Probe:
    cin, cout = _one_of(u[0], 1, 2, 3, 3, 4), _channels(u[1], 8, 128, u[5])
    kernel, stride = _one_of(u[3], 3, 5, 7, 9, 11), _one_of(u[4], 1, 2, 4)
    return _convolved("convolution", cin, cout, kernel, stride, _between(u[2], 16, 320))


def _depthwise_conv(u: Point) -> Probe:
    channels, kernel = _channels(u[0], 8, 1280, u[5]), _one_of(u[3], 3, 3, 3, 5, 7)
    side, stride = _between(u[2], 4, 160), _one_of(u[4], 1, 1, 2)
    return _convolved("depthwise conv.", channels, channels, kernel, stride, side, channels)


def _transposed_conv(u: Point) -> Probe:
    cin, cout = _channels(u[0], 8, 1024, u[5]), _channels(u[1], 2, 1024, u[5])
    side, stride = _between(u[2], 2, 100), _one_of(u[4], 1, 2, 2)
    kernel = _one_of(u[3], 2, 3, 4, 5)
    out = (side - 1) * stride + kernel - 2 * (kernel > 2)
    weight, made = (cin, cout, kernel, kernel), (1, cout, out, out)
    args: tuple[Argument, ...] = (Ref(0), *_weighted(2), (stride,) * 2, (int(kernel > 2),) * 2)
    call = Call("aten.conv_transpose2d.input", args, (made,))
    flops = 2.0 * side * side * _size(weight)
    return Probe("transposed conv.", ((1, cin, side, side),), (weight, (cout,)), (call,), flops)


def _multiplied(rows: int, inner: int, columns: int) -> Probe:
    call = Call("aten.linear.default", (Ref(0), *_weighted(2)), ((rows, columns),))
    weights = ((columns, inner), (columns,))
    flops = 2.0 * rows * inner * columns
    return Probe("fully connected", ((rows, inner),), weights, (call,), flops)


def _vector_linear(u: Point) -> Probe:
    return _multiplied(1, _between(u[0], 16, 16384), _between(u[1], 8, 8192))


def _linear(u: Point) -> Probe:
    return _multiplied(_between(u[2], 2, 768), _between(u[0], 16, 8192), _between(u[1], 8, 8192))


def _batch_product(u: Point) -> Probe:
    batch, inner = _between(u[0], 2, 2048), _between(u[2], 8, 2048)
    rows, columns = _between(u[1], 2, 256), _between(u[3], 2, 256)
    return _batch_multiplied(batch, rows, inner, columns, int(u[4] * 3))


def _batch_vector_product(u: Point) -> Probe:
    batch, inner, other = _between(u[0], 2, 4096), _between(u[1], 8, 2048), _between(u[2], 2, 256)
    rows, columns = (1, other) if u[3] < 0.5 else (other, 1)
    return _batch_multiplied(batch, rows, inner, columns, int(u[4] * 3))


def _batch_multiplied(batch: int, rows: int, inner: int, columns: int, weight: int) -> Probe:
    """`weight`: whether the left matrices are weights (0), the right ones (1), or none."""
    left, right = (batch, rows, inner), (batch, inner, columns)
    made = (batch, rows, columns)
    choices: tuple[tuple[tuple[Shape, ...], tuple[Shape, ...], tuple[Argument, ...]], ...] = (
        ((right,), (left,), (WeightRef(0), Ref(0))),
        ((left,), (right,), (Ref(0), WeightRef(0))),
        ((left, right), (), (Ref(0), Ref(1))),
    )
    inputs, weights, args = choices[weight]
    flops = 2.0 * _size(made) * inner
    return Probe(
        "batched product", inputs, weights, (Call("aten.bmm.default", args, (made,)),), flops
    )


def _attention(u: Point) -> Probe:
    heads, length, width = _between(u[0], 1, 16), _between(u[1], 8, 640), _between(u[2], 16, 128)
    shape = (1, heads, length, width)
    op = "aten.scaled_dot_product_attention.default"
    call = Call(op, (Ref(0), Ref(1), Ref(2)), (shape,))
    flops = 4.0 * _size(shape) * length
    return Probe("attention", (shape,) * 3, (), (call,), flops)


def _recurrent(op: str, type: str, gates: int) -> Callable[[Point], Probe]:
    def make(u: Point) -> Probe:
        length, cin = _between(u[0], 2, 128), _between(u[1], 16, 2560)
        hidden = _between(u[2], 16, 2560)
        state, made = (1, 1, hidden), (1, length, hidden)
        weights: tuple[Shape, ...] = (
            *((gates * hidden, cin), (gates * hidden, hidden)),
            *((gates * hidden,), (gates * hidden,)),
        )
        states = (ConstantRef(0), ConstantRef(0)) if gates == 4 else ConstantRef(0)
        args: tuple[Argument, ...] = (
            Ref(0),
            states,
            _weighted(4),
            True,
            1,
            0.0,
            False,
            False,
            True,
        )
        outputs = (made, state, state) if gates == 4 else (made, state)
        flops = 2.0 * length * gates * hidden * (cin + hidden)
        source = ((1, length, cin),)
        return Probe(type, source, weights, (Call(op, args, outputs),), flops, constants=(state,))

    return make


def _embedding(u: Point) -> Probe:
    words, width = _between(u[0], 50, 60_000), _between(u[1], 8, 1024)
    made = (1, _between(u[2], 1, 640), width)
    call = Call("aten.embedding.default", (WeightRef(0), Ref(0)), (made,))
    return Probe("embedding", (made[:2],), ((words, width),), (call,), 0.0, dtype="int64")


def _map(u: Point, least: int = 1, most: int = 256) -> Shape:
    side = _between(u[1], least, most)
    return (1, _between(u[0], 4, 2048), side, side)


def _batch_norm(u: Point) -> Probe:
    shape = _map(u)
    args: tuple[Argument, ...] = (Ref(0), *_weighted(4), False, 0.1, 1e-5, False)
    call = Call("aten.batch_norm.default", args, (shape,))
    return Probe("batch norm", (shape,), ((shape[1],),) * 4, (call,), 0.0)


def _layer_norm(u: Point) -> Probe:
    shape = (_between(u[0], 1, 1024), _between(u[1], 16, 4096))
    width = shape[1:]
    args: tuple[Argument, ...] = (Ref(0), width, *_weighted(2), 1e-5, False)
    call = Call("aten.layer_norm.default", args, (shape,))
    return Probe("layer norm", (shape,), (width, width), (call,), 0.0)


def _response_norm(u: Point) -> Probe:
    """As torch composes it: squares, averaged over neighbouring channels, to a power."""
    shape = _map(u, 4, 128)
    _, channels, side, _ = shape
    size = _one_of(u[2], 3, 5, 7)
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


def _channel_average(u: Point) -> Probe:
    _, channels, side, _ = _map(u, 4, 128)
    size = _one_of(u[2], 3, 5, 7)
    source, made = (1, 1, channels + size - 1, side, side), (1, 1, channels, side, side)
    call = Call("aten.avg_pool3d.default", (Ref(0), (size, 1, 1), (1, 1, 1)), (made,))
    return Probe("channel average", (source,), (), (call,), 0.0)


def _pool(op: str, type: str) -> Callable[[Point], Probe]:
    def make(u: Point) -> Probe:
        kernel, stride = _one_of(u[2], 2, 3, 3, 5), _one_of(u[3], 1, 2, 2)
        shape, padding = _map(u, kernel), _one_of(u[4], 0, kernel // 2)
        out = (shape[2] + 2 * padding - kernel) // stride + 1
        made = (1, shape[1], out, out)
        call = Call(op, (Ref(0), (kernel,) * 2, (stride,) * 2, (padding,) * 2), (made,))
        return Probe(type, (shape,), (), (call,), 0.0)

    return make


def _global_average(u: Point) -> Probe:
    shape = _map(u, 2, 64)
    call = Call("aten.mean.dim", (Ref(0), (2, 3)), (shape[:2],))
    return Probe("global average", (shape,), (), (call,), 0.0)


def _argmax(u: Point) -> Probe:
    shape = (_between(u[0], 1, 64), _between(u[1], 8, 32768))
    call = Call("aten.argmax.default", (Ref(0), 1), (shape[:1],), "int64")
    return Probe("argmax", (shape,), (), (call,), 0.0)


def _resample(u: Point) -> Probe:
    shape = _map(u, 2, 96)
    made = (*shape[:2], 2 * shape[2], 2 * shape[3])
    call = Call("aten.upsample_nearest2d.vec", (Ref(0), made[2:], None), (made,))
    return Probe("resample", (shape,), (), (call,), 0.0)


def _softmax(u: Point) -> Probe:
    shape = (_between(u[0], 1, 2048), _between(u[1], 8, 32768))
    return Probe("softmax", (shape,), (), (Call("aten.softmax.int", (Ref(0), -1), (shape,)),), 0.0)


def _unary(type: str, *ops: tuple[str, tuple[Argument, ...]]) -> Callable[[Point], Probe]:
    def make(u: Point) -> Probe:
        op, rest = ops[int(u[4] * len(ops))]
        shape = _map(u)
        return Probe(type, (shape,), (), (Call(op, (Ref(0), *rest), (shape,)),), 0.0)

    return make


def _addition(u: Point) -> Probe:
    shape = _map(u)
    op = ("aten.add.Tensor", "aten.mul.Tensor", "aten.div.Tensor")[int(u[4] * 3)]
    return Probe("element-wise", (shape, shape), (), (Call(op, (Ref(0), Ref(1)), (shape,)),), 0.0)


def _scale(u: Point) -> Probe:
    shape = _map(u)
    call = Call("aten.mul.Tensor", (Ref(0), WeightRef(0)), (shape,))
    return Probe("scale", (shape,), ((1, shape[1], 1, 1),), (call,), 0.0)


def _concat(u: Point) -> Probe:
    count, shape = _one_of(u[2], 2, 3, 4), _map(u)
    made = (1, count * shape[1], *shape[2:])
    call = Call("aten.cat.default", (tuple(Ref(i) for i in range(count)), 1), (made,))
    return Probe("concat", (shape,) * count, (), (call,), 0.0)


def _pad(u: Point) -> Probe:
    shape, width = _map(u), _one_of(u[2], 1, 1, 2, 3)
    made = (*shape[:2], shape[2] + 2 * width, shape[3] + 2 * width)
    return Probe(
        "pad", (shape,), (), (Call("aten.pad.default", (Ref(0), (width,) * 4), (made,)),), 0.0
    )


def _permuted(u: Point) -> Probe:
    shape = _map(u)
    turned = (1, *shape[2:], shape[1])
    calls = (
        Call("aten.permute.default", (Ref(0), (0, 2, 3, 1)), (turned,)),
        Call("aten.contiguous.default", (Ref(1),), (turned,)),
    )
    return Probe("permute", (shape,), (), calls, 0.0)


def _flatten(u: Point) -> Probe:
    shape = _map(u, 1, 64)
    made = (1, _size(shape))
    call = Call("aten.flatten.using_ints", (Ref(0), 1), (made,))
    return Probe("flatten", (shape,), (), (call,), 0.0)


def _windows(u: Point) -> Probe:
    kernel, shape = _one_of(u[2], 3, 5, 7), _map(u, 8, 64)
    out = shape[2] - kernel + 1
    made = (1, shape[1] * kernel * kernel, out * out)
    args: tuple[Argument, ...] = (Ref(0), (kernel,) * 2, (1, 1), (0, 0), (1, 1))
    return Probe("windows", (shape,), (), (Call("aten.im2col.default", args, (made,)),), 0.0)


def _converted(u: Point) -> Probe:
    shape = _map(u)
    call = Call("aten.to.dtype", (Ref(0), Symbol("dtype", "float32")), (shape,))
    return Probe("convert", (shape,), (), (call,), 0.0, dtype="uint8")


_TYPES: tuple[tuple[Callable[[Point], Probe], int], ...] = (
    (_conv, 4),
    (_pointwise_conv, 3),
    (_shallow_conv, 2),
    (_depthwise_conv, 2),
    (_transposed_conv, 2),
    (_vector_linear, 2),
    (_linear, 3),
    (_batch_product, 2),
    (_batch_vector_product, 2),
    (_attention, 2),
    (_recurrent("aten.lstm.input", "LSTM", 4), 1),
    (_recurrent("aten.gru.input", "GRU", 3), 1),
    (_recurrent("aten.rnn_relu.input", "plain RNN", 1), 1),
    (_embedding, 1),
    (_batch_norm, 2),
    (_layer_norm, 1),
    (_response_norm, 1),
    (_channel_average, 1),
    (_pool("aten.max_pool2d.default", "max pooling"), 2),
    (_pool("aten.avg_pool2d.default", "average pooling"), 1),
    (_global_average, 1),
    (_argmax, 1),
    (_resample, 1),
    (_softmax, 1),
    (_unary("ReLU", ("aten.relu.default", ()), ("aten.leaky_relu.default", ())), 2),
    (_addition, 2),
    (_scale, 1),
    (_unary("exponential", ("aten.exp.default", ()), ("aten.elu.default", ())), 1),
    (_unary("sigmoid", ("aten.sigmoid.default", ())), 1),
    (_unary("tanh", ("aten.tanh.default", ())), 1),
    (_unary("GELU", ("aten.gelu.default", ())), 1),
    (_unary("power", ("aten.pow.Tensor_Scalar", (0.7,))), 1),
    (_concat, 2),
    (_pad, 1),
    (_permuted, 1),
    (_flatten, 1),
    (_windows, 1),
    (_converted, 1),
)
