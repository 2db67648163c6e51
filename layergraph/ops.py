"""The operator table: every operator that a graph may name, as literal objects.

A name from a graph is looked up here and nowhere else. What is missing on purpose: operators
that alias storage at will or reach the host (`as_strided`, `set_`, `resize_`, `from_file`),
read uninitialised memory (`empty*`), draw random numbers, write in place, or skip the checks
of their composite form (`_native_*`). `call` is a Python binding where it is faster than the
overload and dispatches to the same kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch

from layergraph import recurrent
from layergraph import validators as check
from layergraph.demands import Arguments

aten: Any = torch.ops.aten
_nn: Any = torch._C._nn
_VF: Any = torch._C._VariableFunctions
T: Any = torch.Tensor
t: Any = torch

KINDS = (
    "conv", "depthwise_conv", "transposed_conv", "linear", "attention", "recurrent", "norm",
    "pool", "softmax", "embedding", "elementwise", "move",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Parameter:
    """One argument of an operator, from its schema."""

    name: str
    type: str
    required: bool
    default: Any
    keyword_only: bool


@dataclass(frozen=True, slots=True)
class Operator:
    """One row: the overload, the fastest callable with its meaning, its kind of work."""

    name: str
    overload: Any
    call: Callable[..., Any]
    kind: str
    check: Callable[[Arguments], None] | None
    parameters: tuple[Parameter, ...]
    returns_many: bool
    is_view: bool


Row = tuple[Any, ...]


def _operator(kind: str, row: Row) -> Operator:
    overload, call, validate = (*row, None, None)[:3]
    schema = overload._schema
    parameters = tuple(
        Parameter(
            a.name,
            str(a.real_type).replace("SymInt", "int"),
            not a.has_default_value(),
            a.default_value if a.has_default_value() else None,
            a.kwarg_only,
        )
        for a in schema.arguments
    )
    returns = schema.returns
    return Operator(
        str(overload),
        overload,
        overload if call is None else call,
        kind,
        validate,
        parameters,
        len(returns) != 1 or str(returns[0].type) != "Tensor",
        any(r.alias_info is not None for r in returns),
    )


def _rows(kind: str, rows: Iterable[Row]) -> dict[str, Operator]:
    return {operator.name: operator for row in rows for operator in [_operator(kind, row)]}


def _compact(overload: Any) -> Callable[..., Any]:
    """Torch makes some results in memory as large as the argument, which would live on."""
    return lambda *args, **kwargs: overload(*args, **kwargs).clone()


_CONV = [
    (aten.conv1d.default, t.conv1d, check.check_conv),
    (aten.conv2d.default, t.conv2d, check.check_conv),
    (aten.conv3d.default, t.conv3d, check.check_conv),
    (aten.conv1d.padding, t.conv1d, check.check_conv),
    (aten.conv2d.padding, t.conv2d, check.check_conv),
    (aten.conv3d.padding, t.conv3d, check.check_conv),
]
_TRANSPOSED_CONV = [
    (aten.conv_transpose1d.default, t.conv_transpose1d, check.check_conv_transpose),
    (aten.conv_transpose2d.input, t.conv_transpose2d, check.check_conv_transpose),
    (aten.conv_transpose3d.input, t.conv_transpose3d, check.check_conv_transpose),
]
_LINEAR = [
    (aten.linear.default, _nn.linear, check.check_linear),
    (aten.matmul.default, t.matmul),
    (aten.mm.default, t.mm),
    (aten.bmm.default, t.bmm),
    (aten.addmm.default, t.addmm),
    (aten.baddbmm.default, t.baddbmm),
    (aten.mv.default, t.mv),
    (aten.einsum.default,),
]
_ATTENTION = [
    (
        aten.scaled_dot_product_attention.default,
        _nn.scaled_dot_product_attention,
        check.check_attention,
    ),
]
_RECURRENT = [
    (aten.lstm.input, _VF.lstm, recurrent.check_lstm),
    (aten.gru.input, _VF.gru, recurrent.check_gru),
    (aten.rnn_tanh.input, _VF.rnn_tanh, recurrent.check_rnn),
    (aten.rnn_relu.input, _VF.rnn_relu, recurrent.check_rnn),
    (aten.lstm_cell.default, None, recurrent.check_lstm_cell),
    (aten.gru_cell.default, None, recurrent.check_gru_cell),
    (aten.rnn_tanh_cell.default, None, recurrent.check_rnn_cell),
    (aten.rnn_relu_cell.default, None, recurrent.check_rnn_cell),
]
_NORM = [
    (aten.batch_norm.default, t.batch_norm, check.check_batch_norm),
    (aten.layer_norm.default, t.layer_norm, check.check_layer_norm),
    (aten.group_norm.default, t.group_norm, check.check_group_norm),
    (aten.instance_norm.default, t.instance_norm, check.check_instance_norm),
    (aten.rms_norm.default, None, check.check_layer_norm),
    (aten.linalg_vector_norm.default,),
]
_POOL = [
    (aten.max_pool1d.default, t.max_pool1d, check.check_pool),
    (aten.max_pool2d.default, t.max_pool2d, check.check_pool),
    (aten.max_pool3d.default, t.max_pool3d, check.check_pool),
    (aten.avg_pool1d.default, t.avg_pool1d, check.check_pool),
    (aten.avg_pool2d.default, _nn.avg_pool2d, check.check_pool),
    (aten.avg_pool3d.default, _nn.avg_pool3d, check.check_pool),
    (aten.adaptive_avg_pool1d.default, t.adaptive_avg_pool1d),
    (aten.adaptive_avg_pool2d.default, _nn.adaptive_avg_pool2d),
    (aten.adaptive_avg_pool3d.default, _nn.adaptive_avg_pool3d),
    (aten.adaptive_max_pool1d.default,),
    (aten.adaptive_max_pool2d.default,),
    (aten.mean.default, t.mean),
    (aten.mean.dim, t.mean),
    (aten.sum.default, t.sum),
    (aten.sum.dim_IntList, t.sum),
    (aten.prod.default,),
    (aten.prod.dim_int,),
    (aten.var.correction,),
    (aten.var.dim,),
    (aten.std.correction,),
    (aten.std.dim,),
    (aten.amax.default, t.amax),
    (aten.amin.default, t.amin),
    (aten.max.default, t.max),
    (aten.max.dim, t.max),
    (aten.min.default, t.min),
    (aten.min.dim, t.min),
    (aten.argmax.default, t.argmax),
    (aten.argmin.default, t.argmin),
    (aten.any.default,),
    (aten.any.dim,),
    (aten.all.default,),
    (aten.all.dim,),
    (aten.cumsum.default,),
    (aten.cumprod.default,),
    (aten.logsumexp.default,),
    (aten.topk.default, t.topk),
    (aten.sort.default,),
    (aten.argsort.default,),
    (aten.upsample_nearest1d.vec,),
    (aten.upsample_nearest2d.vec,),
    (aten.upsample_linear1d.vec,),
    (aten.upsample_bilinear2d.vec,),
    (aten.upsample_bicubic2d.vec,),
    (aten.upsample_trilinear3d.vec,),
    (aten.grid_sampler.default, None, check.check_grid_sampler),
    (aten.affine_grid_generator.default,),
    (aten.fft_rfft.default,),
    (aten.fft_irfft.default,),
    (aten.fft_fft.default,),
    (aten.fft_ifft.default,),
    (aten.stft.default,),
]
_SOFTMAX = [
    (aten.softmax.int, t.softmax, check.check_softmax),
    (aten.log_softmax.int, t.log_softmax, check.check_softmax),
]
_EMBEDDING = [
    (aten.embedding.default, t.embedding, check.check_embedding),
    (aten.embedding_bag.padding_idx, None, check.check_embedding_bag),
    (aten.index.Tensor, None, check.check_index),
    (aten.index_select.default,),
    (aten.gather.default, t.gather, check.check_gather),
    (aten.bucketize.Tensor,),
]
_UNARY = [
    (op,)
    for op in (
        aten.bitwise_not.default, aten.logical_not.default, aten.ceil.default,
        aten.floor.default, aten.round.default, aten.trunc.default, aten.sign.default,
        aten.isnan.default, aten.isinf.default, aten.isfinite.default, aten.nan_to_num.default,
        aten.log1p.default, aten.log2.default, aten.log10.default, aten.expm1.default,
        aten.reciprocal.default, aten.square.default, aten.tan.default, aten.sinh.default,
        aten.cosh.default, aten.asin.default, aten.acos.default, aten.atan.default,
        aten.real.default, aten.imag.default, aten.angle.default,
        aten.elu.default, aten.selu.default, aten.celu.default, aten.softplus.default,
        aten.mish.default, aten.log_sigmoid.default, aten.threshold.default,
        aten.glu.default, aten.hardshrink.default, aten.softshrink.default,
    )
]  # fmt: skip
_UNARY_FAST = [
    (aten.abs.default, t.abs),
    (aten.cos.default, t.cos),
    (aten.sin.default, t.sin),
    (aten.exp.default, t.exp),
    (aten.exp2.default, t.exp2),
    (aten.erf.default, t.erf),
    (aten.log.default, t.log),
    (aten.neg.default, t.neg),
    (aten.sqrt.default, t.sqrt),
    (aten.rsqrt.default, t.rsqrt),
    (aten.relu.default, t.relu),
    (aten.relu6.default, _nn.relu6),
    (aten.sigmoid.default, t.sigmoid),
    (aten.tanh.default, t.tanh),
    (aten.gelu.default, _nn.gelu),
    (aten.silu.default, _nn.silu),
    (aten.hardsigmoid.default, _nn.hardsigmoid),
    (aten.hardswish.default, _nn.hardswish),
    (aten.hardtanh.default, _nn.hardtanh),
    (aten.leaky_relu.default, _nn.leaky_relu),
    (aten.prelu.default, t.prelu),
    (aten.clamp.default, t.clamp),
    (aten.clamp.Tensor, t.clamp),
    (aten.clamp_min.default, t.clamp_min),
    (aten.clamp_max.default, t.clamp_max),
    (aten.pow.Tensor_Scalar, t.pow, check.check_pow),
    (aten.pow.Tensor_Tensor, t.pow),
    (aten.pow.Scalar,),
]
_BINARY = [
    (aten.add.Tensor, t.add),
    (aten.sub.Tensor, t.sub),
    (aten.mul.Tensor, t.mul),
    (aten.div.Tensor, t.div),
    (aten.add.Scalar,),
    (aten.sub.Scalar,),
    (aten.mul.Scalar,),
    (aten.div.Scalar,),
    (aten.div.Tensor_mode, t.div),
    (aten.div.Scalar_mode,),
    (aten.rsub.Scalar,),
    (aten.rsub.Tensor,),
    (aten.floor_divide.default,),
    (aten.floor_divide.Scalar,),
    (aten.remainder.Scalar,),
    (aten.remainder.Tensor,),
    (aten.fmod.Scalar,),
    (aten.fmod.Tensor,),
    (aten.atan2.default,),
    (aten.maximum.default, t.maximum),
    (aten.minimum.default, t.minimum),
    (aten.max.other, t.max),
    (aten.min.other, t.min),
    (aten.addcmul.default, t.addcmul),
    (aten.addcdiv.default, t.addcdiv),
    (aten.lerp.Scalar,),
    (aten.lerp.Tensor,),
    (aten.diff.default, None, check.check_diff),
    (aten.eq.Scalar,),
    (aten.eq.Tensor, t.eq),
    (aten.ne.Scalar,),
    (aten.ne.Tensor, t.ne),
    (aten.lt.Scalar,),
    (aten.lt.Tensor, t.lt),
    (aten.le.Scalar,),
    (aten.le.Tensor, t.le),
    (aten.gt.Scalar,),
    (aten.gt.Tensor, t.gt),
    (aten.ge.Scalar,),
    (aten.ge.Tensor, t.ge),
    (aten.logical_and.default,),
    (aten.logical_or.default,),
    (aten.logical_xor.default,),
    (aten.__and__.Tensor,),
    (aten.__and__.Scalar,),
    (aten.__or__.Tensor,),
    (aten.__or__.Scalar,),
    (aten.bitwise_and.Tensor,),
    (aten.bitwise_and.Scalar,),
    (aten.bitwise_or.Tensor,),
    (aten.bitwise_or.Scalar,),
    (aten.bitwise_xor.Tensor,),
    (aten.masked_fill.Scalar, T.masked_fill),
    (aten.masked_fill.Tensor, T.masked_fill),
    (aten.where.self, t.where),
    (aten.where.ScalarOther,),
    (aten.where.ScalarSelf,),
    (aten.where.Scalar,),
    (aten.complex.default,),
    (aten.fill.Scalar,),
    (aten.fill.Tensor,),
    (aten.copy.default,),
]
_MOVE = [
    (aten.cat.default, t.cat),
    (aten.stack.default, t.stack),
    (aten.view.default, T.view),
    (aten.reshape.default, T.reshape),
    (aten.view_as.default,),
    (aten.reshape_as.default,),
    (aten.flatten.using_ints, t.flatten),
    (aten.unflatten.int,),
    (aten.permute.default, t.permute),
    (aten.transpose.int, t.transpose),
    (aten.swapaxes.default,),
    (aten.movedim.int,),
    (aten.movedim.intlist,),
    (aten.t.default, t.t),
    (aten.numpy_T.default,),
    (aten.mT.default,),
    (aten.squeeze.default,),
    (aten.squeeze.dim, t.squeeze),
    (aten.squeeze.dims,),
    (aten.unsqueeze.default, t.unsqueeze),
    (aten.select.int, t.select),
    (aten.slice.Tensor, None, check.check_slice),
    (aten.narrow.default,),
    (aten.split.Tensor, _VF.split, check.check_split),
    (aten.split_with_sizes.default, t.split_with_sizes),
    (aten.split.sizes,),
    (aten.chunk.default, t.chunk, check.check_chunk),
    (aten.unbind.int, t.unbind, check.check_unbind),
    (aten.tensor_split.sections, None, check.check_chunk),
    (aten.expand.default, T.expand),
    (aten.expand_as.default,),
    (aten.broadcast_to.default,),
    (aten.broadcast_tensors.default,),
    (aten.repeat.default, T.repeat),
    (aten.repeat_interleave.self_int,),
    (aten.contiguous.default, T.contiguous),
    (aten.clone.default, t.clone),
    (aten.to.dtype, T.to),
    (aten.to.dtype_layout,),
    (aten.to.device,),
    (aten.to.other,),
    (aten.type_as.default,),
    (aten.pad.default, _nn.pad, check.check_pad),
    (aten.constant_pad_nd.default, t.constant_pad_nd),
    (aten.roll.default, t.roll),
    (aten.flip.default,),
    (aten.tril.default,),
    (aten.triu.default,),
    (aten.pixel_shuffle.default, t.pixel_shuffle),
    (aten.pixel_unshuffle.default, t.pixel_unshuffle, check.check_pixel_unshuffle),
    (aten.channel_shuffle.default,),
    (aten.unfold.default, None, check.check_unfold),
    (aten.im2col.default, _compact(aten.im2col.default), check.check_pool),
    (aten.col2im.default, _compact(aten.col2im.default), check.check_pool),
    (aten.diagonal.default,),
    (aten.select_scatter.default,),
    (aten.slice_scatter.default, None, check.check_slice),
    (aten.meshgrid.default,),
    (aten.meshgrid.indexing,),
    (aten.view_as_real.default,),
    (aten.view_as_complex.default,),
    (aten.arange.default, None, check.check_arange),
    (aten.arange.start, None, check.check_arange),
    (aten.arange.start_step, None, check.check_arange),
    (aten.linspace.default,),
    (aten.eye.default,),
    (aten.eye.m,),
    (aten.full.default,),
    (aten.ones.default,),
    (aten.zeros.default,),
    (aten.full_like.default,),
    (aten.ones_like.default,),
    (aten.zeros_like.default,),
    (aten.new_full.default,),
    (aten.new_ones.default,),
    (aten.new_zeros.default,),
    (aten.scalar_tensor.default,),
    (aten.tril_indices.default,),
    (aten.triu_indices.default,),
]

OPERATORS: dict[str, Operator] = {
    **_rows("conv", _CONV),
    **_rows("transposed_conv", _TRANSPOSED_CONV),
    **_rows("linear", _LINEAR),
    **_rows("attention", _ATTENTION),
    **_rows("recurrent", _RECURRENT),
    **_rows("norm", _NORM),
    **_rows("pool", _POOL),
    **_rows("softmax", _SOFTMAX),
    **_rows("embedding", _EMBEDDING),
    **_rows("elementwise", [*_UNARY, *_UNARY_FAST, *_BINARY]),
    **_rows("move", _MOVE),
}

# Where a number may stand for the second tensor.
ARITHMETIC = frozenset(
    f"aten.{name}.Tensor"
    for name in (
        "add", "sub", "rsub", "mul", "div", "remainder", "fmod", "eq", "ne", "lt", "le", "gt", "ge"
    )
) | {"aten.div.Tensor_mode", "aten.floor_divide.default"}  # fmt: skip

# Of their results only the first has a shape that follows from the arguments' shapes: the others
# depend on how those lie in memory.
FIRST_RESULT_ONLY = frozenset({"aten.embedding_bag.padding_idx"})
