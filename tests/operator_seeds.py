"""A valid call of every operator in the table, from which the fuzzer starts (fuzz_operators.py)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from layergraph.nodes import Symbol
from layergraph.ops import OPERATORS


@dataclass(frozen=True, slots=True)
class Given:
    """A tensor argument: element type, shape, and for indices the number that they stay below.

    `layout` is how it lies in memory: "dense", "permuted" (dimensions reversed in memory),
    "gaps" (every other element of the last dimension) or "stretched" (its first dimension is
    one row again and again). `wild` values are any that the type holds: indices beyond the end.
    """

    dtype: str
    shape: tuple[int, ...]
    below: int | None = None
    layout: str = "dense"
    wild: bool = False


@dataclass(frozen=True, slots=True)
class Call:
    """Arguments of one operator, tensors as `Given`."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)


def f(*shape: int) -> Given:
    return Given("float32", shape)


def i(below: int, *shape: int) -> Given:
    return Given("int64", shape, below)


def b(*shape: int) -> Given:
    return Given("bool", shape, 2)


def z(*shape: int) -> Given:
    return Given("complex64", shape)


def call(*args: Any, **kwargs: Any) -> Call:
    return Call(args, kwargs)


FLOAT32, INT64 = Symbol("dtype", "float32"), Symbol("dtype", "int64")
X, Y = f(2, 3, 4), f(1, 3, 4)
IMAGE = f(2, 4, 9, 8)


def _recurrent(gates: int, layers: int, directions: int, biases: bool) -> list[Given]:
    params = []
    for index in range(layers * directions):
        features = 5 if index < directions else 4 * directions
        params += [f(gates * 4, features), f(gates * 4, 4)]
        params += [f(gates * 4), f(gates * 4)] if biases else []
    return params


def _recurrent_calls(gates: int, states: int) -> list[Call]:
    calls = []
    for layers, directions, biases, first in ((1, 1, True, False), (2, 2, False, True)):
        source = f(2, 3, 5) if first else f(3, 2, 5)
        state = f(layers * directions, 2, 4)
        hx = (state, state) if states == 2 else state
        params = tuple(_recurrent(gates, layers, directions, biases))
        calls.append(call(source, hx, params, biases, layers, 0.0, False, directions == 2, first))
    return calls


def _cell(gates: int, states: int) -> list[Call]:
    hx: Any = (f(2, 4), f(2, 4)) if states == 2 else f(2, 4)
    weights = (f(gates * 4, 5), f(gates * 4, 4))
    return [call(f(2, 5), hx, *weights, f(gates * 4), f(gates * 4)), call(f(2, 5), hx, *weights)]


_PROJECTED = call(
    f(3, 2, 5), (f(1, 2, 3), f(1, 2, 4)), (f(16, 5), f(16, 3), f(16), f(16), f(3, 4)),
    True, 1, 0.0, False, False, False,
)  # fmt: skip
_NORM = (f(4), f(4), f(4), f(4))


def _conv(dimensions: int, *, padding: bool) -> list[Call]:
    sides = (9, 8, 7)[:dimensions]
    ones = (1,) * dimensions
    kernel = (3,) * dimensions
    if padding:
        last: tuple[Any, ...] = (ones, "same", ones, 1)
    else:
        last = ((2,) * dimensions, ones, ones, 2)
    weight = f(6, 2, *kernel) if not padding else f(6, 4, *kernel)
    return [
        call(f(2, 4, *sides), weight, f(6), *last),
        call(f(2, 4, *sides), f(4, 1, *kernel), None, ones, "valid" if padding else ones, ones, 4),
        call(f(1, 4, *sides), f(5, 4, *ones)),
    ]


def _conv_transpose(dimensions: int) -> list[Call]:
    sides, ones, two = (5, 4, 3)[:dimensions], (1,) * dimensions, (2,) * dimensions
    return [
        call(f(2, 4, *sides), f(4, 3, *(3,) * dimensions), f(6), two, ones, ones, 2, ones),
        call(f(1, 4, *sides), f(4, 3, *two)),
    ]


SEEDS: dict[str, list[Call]] = {
    **{f"conv{n}d.default": _conv(n, padding=False) for n in (1, 2, 3)},
    **{f"conv{n}d.padding": _conv(n, padding=True) for n in (1, 2, 3)},
    "conv_transpose1d.default": _conv_transpose(1),
    "conv_transpose2d.input": _conv_transpose(2),
    "conv_transpose3d.input": _conv_transpose(3),
    "linear.default": [call(f(2, 3, 4), f(5, 4), f(5)), call(f(2, 4), f(5, 4))],
    "matmul.default": [call(f(2, 3, 4), f(4, 5)), call(f(1, 2, 3, 4), f(5, 1, 4, 3)),
                       call(f(4), f(4)), call(f(3, 4), f(4))],
    "mm.default": [call(f(3, 4), f(4, 5))],
    "bmm.default": [call(f(2, 3, 4), f(2, 4, 5))],
    "addmm.default": [call(f(5), f(3, 4), f(4, 5)), call(f(3, 1), f(3, 4), f(4, 5), beta=2)],
    "baddbmm.default": [call(f(2, 3, 5), f(2, 3, 4), f(2, 4, 5), alpha=0.5)],
    "mv.default": [call(f(3, 4), f(4))],
    "einsum.default": [call("bij,bjk->bik", (f(2, 3, 4), f(2, 4, 5))), call("ii->i", (f(3, 3),)),
                       call("...ij,...kj->...ik", (f(2, 3, 4), f(2, 5, 4))),
                       call("ij,jk,kl->il", (f(2, 3), f(3, 4), f(4, 5)))],
    "scaled_dot_product_attention.default": [
        call(f(2, 4, 6, 8), f(2, 4, 7, 8), f(2, 4, 7, 8)),
        call(f(2, 4, 6, 8), f(2, 4, 6, 8), f(2, 4, 6, 8), None, 0.0, True, scale=0.5),
        call(f(2, 4, 6, 8), f(2, 4, 7, 8), f(2, 4, 7, 5), f(2, 1, 6, 7)),
        call(f(2, 4, 6, 8), f(2, 4, 7, 8), f(2, 4, 7, 8), b(6, 7)),
        call(f(2, 4, 6, 8), f(2, 2, 7, 8), f(2, 2, 7, 8), None, 0.0, False, enable_gqa=True),
        call(f(4, 6, 8), f(4, 7, 8), f(4, 7, 8)),
    ],
    "lstm.input": [*_recurrent_calls(4, 2), _PROJECTED],
    "gru.input": _recurrent_calls(3, 1),
    "rnn_tanh.input": _recurrent_calls(1, 1),
    "rnn_relu.input": _recurrent_calls(1, 1),
    "lstm_cell.default": _cell(4, 2),
    "gru_cell.default": _cell(3, 1),
    "rnn_tanh_cell.default": _cell(1, 1),
    "rnn_relu_cell.default": _cell(1, 1),
    "batch_norm.default": [call(IMAGE, *_NORM, False, 0.1, 1e-5, False),
                           call(f(3, 4), None, None, f(4), f(4), False, 0.1, 1e-5, False)],
    "layer_norm.default": [call(X, (4,), f(4), f(4), 1e-5), call(X, (3, 4), f(3, 4), f(3, 4))],
    "group_norm.default": [call(IMAGE, 2, f(4), f(4), 1e-5), call(IMAGE, 4)],
    "instance_norm.default": [call(IMAGE, f(4), f(4), None, None, True, 0.1, 1e-5, False),
                              call(IMAGE, *_NORM, False, 0.1, 1e-5, False)],
    "rms_norm.default": [call(X, (4,), f(4)), call(X, (3, 4), f(3, 4), 1e-6)],
    "linalg_vector_norm.default": [call(X, 2, (1,), True), call(X, 1, dtype=FLOAT32)],
    "max_pool1d.default": [call(f(2, 4, 9), (3,), (2,), (1,), (1,), True)],
    "max_pool2d.default": [call(IMAGE, (3, 2), (2, 2), (1, 1), (1, 1), True), call(IMAGE, 2)],
    "max_pool3d.default": [call(f(1, 2, 5, 6, 7), (2, 2, 2), (1, 2, 2), (1, 1, 1), (1, 1, 1))],
    "avg_pool1d.default": [call(f(2, 4, 9), (3,), (2,), (1,), True, False)],
    "avg_pool2d.default": [call(IMAGE, (3, 2), (2, 2), (1, 1), True, True, 3), call(IMAGE, 2)],
    "avg_pool3d.default": [call(f(1, 2, 5, 6, 7), (2, 2, 2), (1, 2, 2), (1, 1, 1), True, False)],
    "adaptive_avg_pool1d.default": [call(f(2, 4, 9), (3,))],
    "adaptive_avg_pool2d.default": [call(IMAGE, (3, 2)), call(IMAGE, (1, 1))],
    "adaptive_avg_pool3d.default": [call(f(1, 2, 5, 6, 7), (2, 3, 1))],
    "adaptive_max_pool1d.default": [call(f(2, 4, 9), (3,))],
    "adaptive_max_pool2d.default": [call(IMAGE, (3, 2))],
    "upsample_nearest1d.vec": [call(f(2, 3, 5), (9,), None), call(f(2, 3, 5), None, (1.7,))],
    "upsample_nearest2d.vec": [call(f(2, 3, 5, 4), (9, 3), None),
                               call(f(2, 3, 5, 4), None, (2.0, 1.5))],
    "upsample_linear1d.vec": [call(f(2, 3, 5), (9,), True, None),
                              call(f(2, 3, 5), None, False, (1.7,))],
    "upsample_bilinear2d.vec": [call(f(2, 3, 5, 4), (9, 3), True, None),
                                call(f(2, 3, 5, 4), None, False, (2.0, 1.5))],
    "upsample_bicubic2d.vec": [call(f(2, 3, 5, 4), (9, 3), True, None),
                               call(f(2, 3, 5, 4), None, False, (2.0, 1.5))],
    "upsample_trilinear3d.vec": [call(f(1, 2, 3, 5, 4), (2, 9, 3), True, None),
                                 call(f(1, 2, 3, 5, 4), None, False, (2.0, 1.5, 1.0))],
    "grid_sampler.default": [call(f(2, 3, 5, 4), f(2, 6, 7, 2), 0, 0, False),
                             call(f(2, 3, 5, 4), f(2, 6, 7, 2), 2, 1, True),
                             call(f(1, 2, 3, 5, 4), f(1, 2, 6, 7, 3), 1, 2, False)],
    "affine_grid_generator.default": [call(f(2, 2, 3), (2, 3, 5, 4), True),
                                      call(f(1, 3, 4), (1, 3, 2, 5, 4), False)],
    "fft_rfft.default": [call(f(2, 8), 6, -1, "ortho"), call(f(2, 7))],
    "fft_irfft.default": [call(z(2, 5), 8, -1), call(z(2, 5))],
    "fft_fft.default": [call(z(2, 7), None, 1), call(f(3, 8), 12, 0, "forward")],
    "fft_ifft.default": [call(z(2, 7), None, 1), call(f(3, 8), 12, 0)],
    "stft.default": [call(f(2, 32), 8, 4, 8, f(8), False, True, True),
                     call(f(32), 8, 3, return_complex=True)],
    "cumsum.default": [call(X, 1), call(X, -1, dtype=FLOAT32)],
    "cumprod.default": [call(X, 1), call(X, -1, dtype=FLOAT32)],
    "logsumexp.default": [call(X, (1,), True), call(X, (0, 2))],
    "topk.default": [call(X, 2, -1, True, True), call(X, 3, 1)],
    "sort.default": [call(X, 1, True), call(i(9, 3, 4))],
    "argsort.default": [call(X, 1, True), call(i(9, 3, 4))],
    "softmax.int": [call(X, -1), call(X, 1, FLOAT32)],
    "log_softmax.int": [call(X, -1), call(X, 1, FLOAT32)],
    "embedding.default": [call(f(9, 4), i(9, 2, 3)), call(f(9, 4), i(9, 5), 1)],
    "embedding_bag.padding_idx": [
        call(f(9, 4), i(9, 6), i(1, 3), False, mode, False, None, False, None) for mode in (0, 1, 2)
    ] + [call(f(9, 4), i(9, 6), i(1, 3), False, 0, False, f(6), True, 2)],
    "index.Tensor": [call(f(5, 6, 7), (i(5, 3), None, i(7, 3))), call(f(5, 6), (None, i(6, 2, 2))),
                     call(f(5, 6, 7), (i(5, 3, 1), i(6, 4)))],
    "index_select.default": [call(f(5, 6), 1, i(6, 4)), call(f(5), 0, i(5, 3))],
    "gather.default": [call(f(3, 4), 1, i(4, 3, 2)), call(f(3, 4), 0, i(3, 2, 4))],
    "bucketize.Tensor": [call(X, f(5)), call(X, f(5), out_int32=True, right=True)],
    "elu.default": [call(X, 1.5, 1, 0.5)],
    "threshold.default": [call(X, 0.1, 20.0)],
    "glu.default": [call(X, -1), call(f(4, 3), 0)],
    "prelu.default": [call(IMAGE, f(4)), call(X, f(1))],
    "clamp.default": [call(X, -1.0, 1.0), call(X, None, 2)],
    "clamp.Tensor": [call(X, Y, f(4)), call(X, None, Y)],
    "clamp_min.default": [call(X, 0.5)],
    "clamp_max.default": [call(X, 0.5)],
    "pow.Tensor_Scalar": [call(X, 2), call(X, 0.5), call(i(9, 3), 3)],
    "pow.Scalar": [call(2, X)],
    "addcmul.default": [call(X, Y, f(4), value=2)],
    "addcdiv.default": [call(X, Y, f(4), value=2)],
    "lerp.Scalar": [call(X, Y, 0.5)],
    "lerp.Tensor": [call(X, Y, f(4))],
    "diff.default": [call(X, 1, 1), call(X, 2, -1, f(2, 3, 1), f(2, 3, 2))],
    "masked_fill.Scalar": [call(X, b(3, 4), 1.5)],
    "masked_fill.Tensor": [call(X, b(3, 4), f())],
    "where.self": [call(b(3, 4), X, Y), call(b(2, 3, 4), f(), X)],
    "where.ScalarOther": [call(b(3, 4), X, 0.5)],
    "where.ScalarSelf": [call(b(3, 4), 0.5, X)],
    "where.Scalar": [call(b(3, 4), 0.5, 1)],
    "complex.default": [call(X, Y)],
    "fill.Scalar": [call(X, 1.5)],
    "fill.Tensor": [call(X, f())],
    "copy.default": [call(X, Y)],
    "cat.default": [call((X, X, f(2, 3, 1)), -1), call((f(3), i(5, 2)))],
    "stack.default": [call((X, X), 1), call((f(), f()), 0)],
    "view.default": [call(X, (6, -1)), call(X, (24,))],
    "reshape.default": [call(X, (6, -1)), call(X, (2, 12))],
    "view_as.default": [call(X, f(6, 4))],
    "reshape_as.default": [call(X, f(6, 4))],
    "flatten.using_ints": [call(X, 1, -1), call(X)],
    "unflatten.int": [call(X, -1, (2, 2)), call(X, 1, (-1, 1))],
    "permute.default": [call(X, (2, 0, 1))],
    "transpose.int": [call(X, 0, -1)],
    "swapaxes.default": [call(X, 0, -1)],
    "movedim.int": [call(X, 0, 2)],
    "movedim.intlist": [call(X, (0, 1), (2, 0))],
    "t.default": [call(f(3, 4))],
    "mT.default": [call(X)],
    "squeeze.dim": [call(Y, 0)],
    "squeeze.dims": [call(f(1, 3, 1), (0, 2))],
    "squeeze.default": [call(f(1, 3, 1))],
    "unsqueeze.default": [call(X, 1)],
    "select.int": [call(X, 1, -1)],
    "slice.Tensor": [call(X, 1, 1, 3, 1), call(X, 2, None, -1, 2)],
    "narrow.default": [call(X, 2, 1, 2)],
    "split.Tensor": [call(X, 2, 2)],
    "split_with_sizes.default": [call(X, (1, 3), 2)],
    "split.sizes": [call(X, (1, 3), 2)],
    "chunk.default": [call(X, 2, 2)],
    "unbind.int": [call(X, 1)],
    "tensor_split.sections": [call(X, 3, 2)],
    "expand.default": [call(Y, (2, -1, 4)), call(f(4), (2, 3, 4))],
    "expand_as.default": [call(Y, X)],
    "broadcast_to.default": [call(Y, (2, 3, 4))],
    "broadcast_tensors.default": [call((X, Y, f(4)))],
    "repeat.default": [call(X, (2, 1, 3)), call(f(4), (2, 2))],
    "repeat_interleave.self_int": [call(X, 3, 1), call(X, 2)],
    "contiguous.default": [call(IMAGE, memory_format=Symbol("memory_format", "channels_last"))],
    "clone.default": [call(IMAGE, memory_format=Symbol("memory_format", "contiguous_format"))],
    "to.dtype": [call(X, Symbol("dtype", "int64"))],
    "to.dtype_layout": [call(X, dtype=Symbol("dtype", "float16"))],
    "to.device": [call(X, Symbol("device", ""), FLOAT32)],
    "to.other": [call(X, i(5, 2))],
    "type_as.default": [call(X, i(5, 2))],
    "pad.default": [call(X, (1, 2)), call(IMAGE, (1, 2, 2, 1), "reflect"),
                    call(IMAGE, (1, 2, 2, 1), "replicate"), call(f(2, 3, 4), (1, 2), "circular")],
    "constant_pad_nd.default": [call(X, (1, 2, -1, 0), 1.5)],
    "roll.default": [call(X, (1, -2), (0, 2)), call(X, (3,))],
    "flip.default": [call(X, (0, 2))],
    "tril.default": [call(X, 1)],
    "triu.default": [call(X, -1)],
    "pixel_shuffle.default": [call(f(2, 8, 3, 4), 2)],
    "pixel_unshuffle.default": [call(f(2, 3, 4, 6), 2)],
    "channel_shuffle.default": [call(IMAGE, 2)],
    "unfold.default": [call(X, 2, 2, 1), call(f(9), 0, 3, 2)],
    "im2col.default": [call(IMAGE, (3, 2), (1, 2), (1, 0), (2, 1)), call(IMAGE, 2, 1, 0, 1)],
    "col2im.default": [call(f(2, 12, 12), (5, 4), (2, 2), (1, 1), (0, 0), (1, 1))],
    "diagonal.default": [call(X, 1, 1, 2)],
    "select_scatter.default": [call(X, f(2, 4), 1, 2)],
    "slice_scatter.default": [call(X, f(2, 3, 2), 2, 1, 3, 1)],
    "meshgrid.default": [call((f(3), f(4), f()))],
    "meshgrid.indexing": [call((f(3), f(4)), indexing="xy")],
    "view_as_real.default": [call(z(2, 3))],
    "view_as_complex.default": [call(f(2, 3, 2))],
    "arange.default": [call(7), call(7.5, dtype=INT64)],
    "arange.start": [call(2, 7)],
    "arange.start_step": [call(2, 9, 3), call(1.0, 0.0, -0.25)],
    "linspace.default": [call(0.0, 1.0, 7)],
    "eye.default": [call(5, dtype=FLOAT32)],
    "eye.m": [call(5, 3)],
    "full.default": [call((2, 3), 1.5)],
    "full_like.default": [call(X, 1.5)],
    "new_full.default": [call(X, (2, 3), 1.5)],
    "new_ones.default": [call(X, (2, 3))],
    "new_zeros.default": [call(X, (2, 3))],
    "ones.default": [call((2, 3), dtype=FLOAT32)],
    "zeros.default": [call((2, 3), dtype=FLOAT32)],
    "ones_like.default": [call(X)],
    "zeros_like.default": [call(X, dtype=INT64)],
    "scalar_tensor.default": [call(1.5)],
    "tril_indices.default": [call(4, 5, 1)],
    "triu_indices.default": [call(4, 5, -1)],
}  # fmt: skip

_REDUCTIONS = {
    "default": [call(X), call(Y, dtype=FLOAT32)],
    "dim": [call(X, (1,), True), call(X, (0, 2))],
    "dim_IntList": [call(X, (1,), True), call(X, (0, 2))],
    "dim_int": [call(X, 1, True)],
    "correction": [call(X, (1,), correction=0), call(X, None, keepdim=True)],
}


def _seeds(name: str) -> list[Call]:
    """By hand above, or by the shape of the operator's schema."""
    short = name.removeprefix("aten.")
    if short in SEEDS:
        return SEEDS[short]
    operator = OPERATORS[name]
    stem, overload = short.split(".")
    if operator.kind == "pool":
        if stem in ("max", "min", "any", "all") and overload == "dim":
            return [call(X, 1, True), call(X, -1)]
        if stem in ("max", "min", "any", "all") and overload == "default":
            return [call(X)]
        if stem in ("amax", "amin"):
            return [call(X, (1,), True), call(X)]
        if stem in ("argmax", "argmin"):
            return [call(X, 1, True), call(X)]
        return _REDUCTIONS[overload]
    whole = "bitwise" in stem or stem.startswith("__")
    left = i(9, 2, 3, 4) if whole else X
    if short in ("real.default", "imag.default", "angle.default"):
        left = z(2, 3)
    second = {"Tensor": i(9, 3, 4) if whole else Y, "number": 3 if whole else 1.5}
    required = [parameter for parameter in operator.parameters if parameter.required]
    rest = [second[parameter.type] for parameter in required[1:] if not parameter.keyword_only]
    named = {parameter.name: None for parameter in required if parameter.keyword_only}
    return [call(left, *rest, **named)]


def seeds(name: str) -> list[Call]:
    """Valid calls of an operator of the table."""
    return _seeds(name)
