"""Which kind of work an operator call is: calls of one kind take times that one formula fits."""

from __future__ import annotations

import math
from typing import Any

from layergraph.flops import Computation, is_small_map
from layergraph.nodes import TensorSpec
from layergraph.ops import Operator

CONVERTS = ("aten.to.", "aten.type_as.")
_VECTOR = 16
# Torch multiplies batches of matrices with fewer multiplications in loops of its own
# (LinearAlgebra.cpp).
_TINY_PRODUCT = 400
# Torch makes a tensor of a number first.
_WITH_NUMBERS = frozenset({"add", "sub", "rsub", "mul", "div"})
_RESAMPLING = ("pool/resample", "pool/nearest")
# Shorter rows of a matrix are multiplied by a vector several at once.
_LONG_ROW = 128
# Smaller filters over inputs of at most so many elements are products.
_SMALL_SIDE, _SMALL_SOURCE = 3, 20480
# As many as an image has: such convolutions fill no vector with channels.
_FEW_CHANNELS = 4
_VARIANTS = {
    stem: variant
    for variant, stems in {
        "elementwise/power": "pow",
        "elementwise/exponential": (
            "exp exp2 expm1 erf log log1p log2 log10 log_sigmoid softplus mish glu"
            " sin cos tan sinh cosh asin acos atan atan2"
        ),
        "elementwise/elu": "elu selu celu",
        "elementwise/sigmoid": "sigmoid silu",
        "elementwise/tanh": "tanh",
        "elementwise/gelu": "gelu",
        "pool/max": "max_pool1d max_pool2d max_pool3d",
        "pool/average": "avg_pool1d avg_pool2d",
        "pool/average3d": "avg_pool3d",
        "pool/index": "argmax argmin topk sort argsort adaptive_max_pool1d adaptive_max_pool2d",
        "pool/resample": (
            "upsample_linear1d upsample_bilinear2d upsample_bicubic2d upsample_trilinear3d"
            " grid_sampler affine_grid_generator"
        ),
        "pool/nearest": "upsample_nearest1d upsample_nearest2d",
        "pool/reduce": (
            "mean sum prod var std amax amin max min any all logsumexp"
            " adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d"
        ),
        "norm/batch": "batch_norm instance_norm",
        "norm/layer": "layer_norm rms_norm group_norm",
        "recurrent/lstm": "lstm lstm_cell",
        "recurrent/gru": "gru gru_cell",
        "recurrent/plain": "rnn_tanh rnn_relu rnn_tanh_cell rnn_relu_cell",
        "move/pad": "pad constant_pad_nd",
        "move/window": "im2col col2im",
    }.items()
    for stem in stems.split()
}


def _aligned(*channels: float) -> bool:
    """Whether channels fill whole vectors: kernels pad the others, or are other kernels."""
    return not any(count % _VECTOR for count in channels)


def _broadcasts(read: list[TensorSpec], made: list[TensorSpec]) -> bool:
    """Whether a tensor is stretched to the shape of the other; single numbers cost nothing."""
    return any(1 < math.prod(spec.shape) < math.prod(made[0].shape) for spec in read)


def by_product(base: str, arguments: dict[str, Any]) -> bool:
    """Whether torch unfolds a convolution's input and multiplies, and leaves oneDNN out.

    `base` is "conv" or "transposed_conv", and nothing else is; `arguments` are the call's. As
    `use_mkldnn` decides for one thread (ATen/native/Convolution.cpp). oneDNN is the faster at
    multiplying, but brings all weights into an order of its own at each call.
    """
    if base not in ("conv", "transposed_conv") or arguments["groups"] > 1:
        return False
    source, sides = arguments["input"].shape, arguments["weight"].shape[2:]
    if source[0] > 1:
        return False
    if base == "conv" and math.prod(sides) == 1 and _plain(arguments):
        return True
    large = len(sides) > 1 and min(sides[-2:]) > _SMALL_SIDE
    return not large and math.prod(source) <= _SMALL_SOURCE


def _plain(arguments: dict[str, Any]) -> bool:
    """Neither strided nor dilated."""
    for name in ("stride", "dilation"):
        value = arguments.get(name, 1)
        if any(step != 1 for step in (value if isinstance(value, tuple) else (value,))):
            return False
    return True


def kind_of(
    base: str,
    operator: Operator,
    does: Computation,
    read: list[TensorSpec],
    made: list[TensorSpec],
    *,
    copies: bool,
    dense: bool,
    weights: bool,
    product: bool,
) -> str:
    """`base`, one of `ops.KINDS`, with the variant whose times follow other coefficients.

    `read` and `made` are the call's tensors, `does` its arithmetic. `copies`: it copies what others
    give a view of; `dense`: what it reads lies in memory as its dimensions do; `weights`: some of
    that are weights; `product`: see `by_product`.
    """
    if base == "conv":
        channels = does.inner / does.window
        if channels <= _FEW_CHANNELS:
            return "conv/shallow"
        if product:
            return "conv/1x1" if does.window == 1 else "conv/product"
        return base if _aligned(channels, does.columns) else "conv/ragged"
    if base == "transposed_conv":
        if product:
            return "transposed_conv/product"
        whole = _aligned(does.inner, does.columns / does.window)
        return base if whole else "transposed_conv/ragged"
    if base == "depthwise_conv":
        return base if _aligned(does.batch) else "depthwise_conv/ragged"
    if base == "linear":
        if not weights or does.batch > 1:
            return _batch_kind(does, dense)
        if does.rows > 1:
            return "linear"
        return "linear/vector" if does.inner >= _LONG_ROW else "linear/vector/short"
    if copies:
        converts = operator.name.startswith(CONVERTS)
        return "move/convert" if converts else "move/permute"
    if operator.is_view:
        return "move/view"
    if base == "elementwise" and _broadcasts(read, made):
        return "elementwise/broadcast"
    stem = operator.name.split(".")[1]
    if len(read) == 1 and stem in _WITH_NUMBERS:
        return "elementwise/number"
    variant = _VARIANTS.get(stem, base)
    if variant in _RESAMPLING and is_small_map(made[0]):
        return f"{variant}/small"
    return variant if variant.startswith(base) else base


def _batch_kind(does: Computation, dense: bool) -> str:
    kind = "linear/batch"
    if does.rows * does.inner * does.columns < _TINY_PRODUCT:
        kind += "/tiny"
    elif 1 in (does.rows, does.columns):
        kind += "-column" if does.columns == 1 else "-row"
    # A permuted operand is copied first, or read against the grain.
    return kind if dense else f"{kind}/permuted"
