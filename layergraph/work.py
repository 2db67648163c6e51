"""How much work each layer is: operator kinds, operations, bytes moved, matrix products.

Estimates from shapes alone, for predictors to regress on; nothing is run.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

from layergraph.binding import bind
from layergraph.errors import InvalidGraph, UnsupportedOperator
from layergraph.flops import Computation, computation
from layergraph.graph import LayerGraph
from layergraph.nodes import Argument, ConstantRef, Ref, TensorSpec, WeightRef
from layergraph.ops import OPERATORS, Operator


@dataclass(frozen=True, slots=True)
class NodeWork:
    """One operator call.

    `kind` is one of `ops.KINDS`, followed by a slash and a variant where operators of a kind
    run different algorithms ("conv/1x1"). Bytes are those of the activations it reads, of its
    weights, and of what it makes. For `batch` to `stride` see `flops.Computation`.
    """

    kind: str
    flops: float
    read_bytes: float = 0.0
    weight_bytes: float = 0.0
    made_bytes: float = 0.0
    batch: float = 0.0
    rows: float = 0.0
    inner: float = 0.0
    columns: float = 0.0
    steps: float = 1.0
    window: float = 1.0
    stride: float = 1.0

    @property
    def bytes(self) -> float:
        """All bytes moved."""
        return self.read_bytes + self.weight_bytes + self.made_bytes


LayerWork: TypeAlias = tuple[NodeWork, ...]


def work(graph: LayerGraph) -> tuple[LayerWork, ...]:
    """The work of each node of each layer.

    A multiplication and an addition count as two operations. Views move nothing, look-ups only
    the rows that they read, and what needs a permuted tensor dense copies it.
    """
    scattered: set[int] = set()
    return tuple(
        tuple(_node_work(graph, index, scattered) for index in range(layer.start, layer.stop))
        for layer in graph.layers
    )


def _node_work(graph: LayerGraph, index: int, scattered: set[int]) -> NodeWork:
    node = graph.nodes[index]
    operator = OPERATORS.get(node.op)
    if operator is None:
        raise UnsupportedOperator(f"{node.op} at {node.module or 'the model'}")
    try:
        bound = bind(operator, node)
    except ValueError as error:
        raise InvalidGraph(f"{node.op} at {node.module or 'the model'}: {error}") from None
    arguments = {name: _resolve(graph, value) for name, value in bound.items()}
    values = tuple(bound.values())
    made = [spec for spec in node.outputs if spec is not None]
    read = list(_specs(tuple(arguments.values())))
    weights = list(_specs(_resolve(graph, tuple(_weights(values)))))
    dense = not any(number in scattered for number in _values(values))
    copies = _copies(operator, read, made, dense)
    if operator.name in _SCATTERING or (not dense and not copies and operator.kind in _KEEPS):
        first = graph.first_output[index]
        scattered.update(range(first, first + len(node.outputs)))
    base = operator.kind
    if base == "conv" and arguments["groups"] > 1 and arguments["weight"].shape[1] == 1:
        base = "depthwise_conv"
    computed = computation(base, arguments, read, made)
    kind = _kind(
        base,
        operator,
        computed,
        copies=copies,
        dense=dense,
        weights=bool(weights),
        broadcasts=_broadcasts(read, made),
        alone=len(read) == 1,
        made=made,
    )
    if kind == "move/view":
        return NodeWork(kind, 0.0)
    return NodeWork(
        kind,
        float(computed.flops),
        *_moved(kind, read, weights, made),
        *map(float, (computed.batch, computed.rows, computed.inner, computed.columns)),
        *map(float, (computed.steps, computed.window, computed.stride)),
    )


def _resolve(graph: LayerGraph, value: Argument) -> Any:
    match value:
        case Ref(number):
            return graph.values[number]
        case WeightRef(index):
            return graph.weights[index].spec
        case ConstantRef(index):
            return graph.constants[index].spec
        case tuple():
            return tuple(_resolve(graph, item) for item in value)
    return value


def _specs(value: Any) -> Iterator[TensorSpec]:
    if isinstance(value, TensorSpec):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from _specs(item)


def _weights(value: Argument) -> Iterator[WeightRef]:
    if isinstance(value, WeightRef):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from _weights(item)


def _values(value: Argument) -> Iterator[int]:
    if isinstance(value, Ref):
        yield value.value
    elif isinstance(value, tuple):
        for item in value:
            yield from _values(item)


# Their results lie in memory in another order than their dimensions, and those of these kinds
# follow the order of what they read.
_SCATTERING = frozenset(
    f"aten.{name}"
    for name in (
        "permute.default", "transpose.int", "swapaxes.default", "movedim.int", "movedim.intlist",
        "t.default", "numpy_T.default", "mT.default", "expand.default", "expand_as.default",
        "broadcast_to.default", "unfold.default", "broadcast_tensors.default",
    )
)  # fmt: skip
_KEEPS = frozenset({"elementwise", "move"})
_DENSE = ("aten.contiguous.", "aten.reshape", "aten.flatten.", "aten.clone.")
_CONVERTS = ("aten.to.", "aten.type_as.")


def _copies(
    operator: Operator, read: list[TensorSpec], made: list[TensorSpec], dense: bool
) -> bool:
    """Whether an operator that may give a view of what it reads has to copy it here."""
    if operator.name.startswith(_CONVERTS):
        return made[0].dtype != read[0].dtype
    return not dense and operator.name.startswith(_DENSE)


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


def _kind(
    base: str,
    operator: Operator,
    does: Computation,
    *,
    copies: bool,
    dense: bool,
    weights: bool,
    broadcasts: bool,
    alone: bool,
    made: list[TensorSpec],
) -> str:
    """The kind, with the variant whose times follow other coefficients."""
    if base == "conv":
        channels = does.inner / does.window
        if channels <= _FEW_CHANNELS:
            return "conv/shallow"
        kind = "conv/1x1" if does.window == 1 else "conv"
        return kind if _aligned(channels, does.columns) else f"{kind.rstrip('/')}/ragged"
    if base == "transposed_conv":
        whole = _aligned(does.inner, does.columns / does.window)
        return base if whole else "transposed_conv/ragged"
    if base == "linear":
        if not weights or does.batch > 1:
            return _batch_kind(does, dense)
        if does.rows > 1:
            return "linear"
        return "linear/vector" if does.inner >= _LONG_ROW else "linear/vector/short"
    if copies:
        converts = operator.name.startswith(_CONVERTS)
        return "move/convert" if converts else "move/permute"
    if operator.is_view:
        return "move/view"
    if base == "elementwise" and broadcasts:
        return "elementwise/broadcast"
    stem = operator.name.split(".")[1]
    if alone and stem in _WITH_NUMBERS:
        return "elementwise/number"
    variant = _VARIANTS.get(stem, base)
    if variant in _RESAMPLING and sum(made[0].shape[-2:]) <= _SMALL_MAP:
        return f"{variant}/small"
    return variant if variant.startswith(base) else base


def _batch_kind(does: Computation, dense: bool) -> str:
    if does.rows * does.inner * does.columns < _TINY_PRODUCT:
        return "linear/batch/tiny"
    kind = "linear/batch"
    if 1 in (does.rows, does.columns):
        kind += "-column" if does.columns == 1 else "-row"
    # A permuted operand is copied first, or read against the grain.
    return kind if dense else f"{kind}/permuted"


_VECTOR = 16
# Torch multiplies batches of matrices with fewer multiplications in loops of its own, and resamples
# to maps of at most this height and width together with other kernels (LinearAlgebra.cpp,
# UpSampleKernel.cpp).
_TINY_PRODUCT = 400
_SMALL_MAP = 128
# Torch makes a tensor of a number first.
_WITH_NUMBERS = frozenset({"add", "sub", "rsub", "mul", "div"})
_RESAMPLING = ("pool/resample", "pool/nearest")
# Shorter rows of a matrix are multiplied by a vector several at once.
_LONG_ROW = 128
# As many as an image has: such convolutions fill no vector with channels.
_FEW_CHANNELS = 4


def _moved(
    kind: str,
    read: list[TensorSpec],
    weights: list[TensorSpec],
    made: list[TensorSpec],
) -> tuple[float, float, float]:
    """Bytes of activations read, of weights read, and of what is made."""
    made_bytes = float(sum(spec.nbytes for spec in made))
    weight_bytes = float(sum(spec.nbytes for spec in weights))
    read_bytes = sum(spec.nbytes for spec in read) - weight_bytes
    if kind == "embedding":
        # Of the table, which is the first that it reads, only as many rows as it makes.
        table_bytes = read[0].nbytes
        return sum(spec.nbytes for spec in read) - table_bytes, made_bytes, made_bytes
    return read_bytes, weight_bytes, made_bytes
