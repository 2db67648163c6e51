"""Layers of the spread that multiply: convolutions, matrix products, attention, recurrence."""

from __future__ import annotations

from collections.abc import Callable

from ionn_edge.calibration.probes import (
    Call,
    Point,
    Probe,
    Shape,
    between,
    channels,
    one_of,
    size,
    weighted,
)
from layergraph.nodes import Argument, ConstantRef, Ref, WeightRef

# Networks' maps are square: none of their layers can be in the spread.
WIDER = 1


def _convolved(
    type: str, cin: int, cout: int, kernel: int, stride: int, side: int, groups: int = 1
) -> Probe:
    padding = kernel // 2
    source = (1, cin, side, side + WIDER)
    out = tuple((each + 2 * padding - kernel) // stride + 1 for each in source[2:])
    made, weight = (1, cout, *out), (cout, cin // groups, kernel, kernel)
    args: tuple[Argument, ...] = (
        Ref(0),
        *weighted(2),
        (stride,) * 2,
        (padding,) * 2,
        (1, 1),
        groups,
    )
    call = Call("aten.conv2d.default", args, (made,))
    flops = 2.0 * size(made) * size(weight[1:])
    return Probe(type, (source,), (weight, (cout,)), (call,), flops)


def conv(u: Point) -> Probe:
    cin, cout = channels(u[0], 5, 1024, u[5]), channels(u[1], 8, 1024, u[5])
    kernel, stride = one_of(u[3], 2, 3, 3, 3, 4, 4, 5, 7), one_of(u[4], 1, 1, 1, 2, 2)
    return _convolved("convolution", cin, cout, kernel, stride, between(u[2], 2, 160))


def pointwise_conv(u: Point) -> Probe:
    cin, cout = channels(u[0], 8, 2048, u[5]), channels(u[1], 8, 2048, u[5])
    stride = one_of(u[4], 1, 1, 1, 1, 2)
    return _convolved("convolution", cin, cout, 1, stride, between(u[2], 2, 160))


def shallow_conv(u: Point) -> Probe:
    cin, cout = one_of(u[0], 1, 2, 3, 3, 4), channels(u[1], 8, 128, u[5])
    kernel, stride = one_of(u[3], 3, 5, 7, 9, 11), one_of(u[4], 1, 2, 4)
    return _convolved("convolution", cin, cout, kernel, stride, between(u[2], 16, 320))


def depthwise_conv(u: Point) -> Probe:
    width, kernel = channels(u[0], 8, 1280, u[5]), one_of(u[3], 3, 3, 3, 5, 7)
    side, stride = between(u[2], 4, 160), one_of(u[4], 1, 1, 2)
    return _convolved("depthwise conv.", width, width, kernel, stride, side, width)


def transposed_conv(u: Point) -> Probe:
    # Each for itself: from whole vectors of channels to an image's few.
    cin, cout = channels(u[0], 8, 1024, u[5]), channels(u[1], 2, 1024, u[6])
    side, stride = between(u[2], 1, 100), one_of(u[4], 1, 2, 2)
    kernel = one_of(u[3], 2, 3, 4, 4, 5)
    source = (1, cin, side, side + WIDER)
    out = tuple((each - 1) * stride + kernel - 2 * (kernel > 2) for each in source[2:])
    weight, made = (cin, cout, kernel, kernel), (1, cout, *out)
    args: tuple[Argument, ...] = (Ref(0), *weighted(2), (stride,) * 2, (int(kernel > 2),) * 2)
    call = Call("aten.conv_transpose2d.input", args, (made,))
    flops = 2.0 * size(source[2:]) * size(weight)
    return Probe("transposed conv.", (source,), (weight, (cout,)), (call,), flops)


def _multiplied(rows: int, inner: int, columns: int) -> Probe:
    call = Call("aten.linear.default", (Ref(0), *weighted(2)), ((rows, columns),))
    weights = ((columns, inner), (columns,))
    flops = 2.0 * rows * inner * columns
    return Probe("fully connected", ((rows, inner),), weights, (call,), flops)


def vector_linear(u: Point) -> Probe:
    # Rows that fill whole pages are read faster. With round columns it might be a network's layer.
    return _multiplied(1, channels(u[0], 16, 16384, u[5]), between(u[1], 8, 8192))


def linear(u: Point) -> Probe:
    inner, columns = channels(u[0], 16, 8192, u[5]), channels(u[1], 8, 8192, u[6])
    return _multiplied(between(u[2], 2, 768), inner, columns)


def batch_product(u: Point) -> Probe:
    batch, inner = between(u[0], 2, 2048), between(u[2], 8, 2048)
    rows, columns = between(u[1], 2, 256), between(u[3], 2, 256)
    return _batch_multiplied(batch, rows, inner, columns, int(u[4] * 3))


def batch_vector_product(u: Point) -> Probe:
    batch, inner, other = between(u[0], 2, 4096), between(u[1], 8, 2048), between(u[2], 2, 256)
    rows, columns = (1, other) if u[3] < 0.5 else (other, 1)
    return _batch_multiplied(batch, rows, inner, columns, int(u[4] * 3))


def permuted_product(u: Point) -> Probe:
    """Weights by a permuted tensor, as layers do that have other weights at every place."""
    batch, inner, rows = between(u[0], 2, 4096), between(u[1], 8, 2048), between(u[2], 2, 256)
    columns = 1 if u[3] < 0.5 else between(2 * u[3] - 1, 2, 64)
    source, right = (columns, inner, batch), (batch, inner, columns)
    made = (batch, rows, columns)
    calls = (
        Call("aten.permute.default", (Ref(0), (2, 1, 0)), (right,)),
        Call("aten.bmm.default", (WeightRef(0), Ref(1)), (made,)),
    )
    flops = 2.0 * size(made) * inner
    return Probe("permuted product", (source,), ((batch, rows, inner),), calls, flops)


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
    flops = 2.0 * size(made) * inner
    return Probe(
        "batched product", inputs, weights, (Call("aten.bmm.default", args, (made,)),), flops
    )


def attention(u: Point) -> Probe:
    heads, length, width = between(u[0], 1, 16), between(u[1], 8, 640), between(u[2], 16, 128)
    shape = (1, heads, length, width)
    op = "aten.scaled_dot_product_attention.default"
    call = Call(op, (Ref(0), Ref(1), Ref(2)), (shape,))
    flops = 4.0 * size(shape) * length
    return Probe("attention", (shape,) * 3, (), (call,), flops)


def recurrent(op: str, type: str, gates: int) -> Callable[[Point], Probe]:
    def make(u: Point) -> Probe:
        most = 2560 if gates == 1 else 1536
        # A GRU's steps are the slowest.
        length, cin = between(u[0], 2, 48 if gates == 3 else 128), between(u[1], 16, most)
        hidden = between(u[2], 16, most)
        state, made = (1, 1, hidden), (1, length, hidden)
        weights: tuple[Shape, ...] = (
            *((gates * hidden, cin), (gates * hidden, hidden)),
            *((gates * hidden,), (gates * hidden,)),
        )
        states = (ConstantRef(0), ConstantRef(0)) if gates == 4 else ConstantRef(0)
        args: tuple[Argument, ...] = (
            Ref(0),
            states,
            weighted(4),
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


def embedding(u: Point) -> Probe:
    words, width = between(u[0], 50, 60_000), between(u[1], 4, 1024)
    made = (1, between(u[2], 1, 640), width)
    call = Call("aten.embedding.default", (WeightRef(0), Ref(0)), (made,))
    return Probe("embedding", (made[:2],), ((words, width),), (call,), 0.0, dtype="int64")
