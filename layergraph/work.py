"""How much work each layer is: operator kinds, operations, bytes moved, matrix products.

Estimates from shapes alone, for predictors to regress on; nothing is run.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from layergraph.binding import bind, resolve, specs_in
from layergraph.errors import InvalidGraph, UnsupportedOperator
from layergraph.flops import computation
from layergraph.graph import LayerGraph
from layergraph.kinds import CONVERTS, by_product, kind_of
from layergraph.nodes import Argument, Ref, TensorSpec, WeightRef
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
    arguments = {name: resolve(graph, value) for name, value in bound.items()}
    values = tuple(bound.values())
    made = [spec for spec in node.outputs if spec is not None]
    read = list(specs_in(tuple(arguments.values())))
    weights = list(specs_in(resolve(graph, tuple(_weights(values)))))
    dense = not any(number in scattered for number in _values(values))
    copies = _copies(operator, read, made, dense)
    if operator.name in _SCATTERING or (not dense and not copies and operator.kind in _KEEPS):
        first = graph.first_output[index]
        scattered.update(range(first, first + len(node.outputs)))
    base = operator.kind
    if base == "conv" and arguments["groups"] > 1 and arguments["weight"].shape[1] == 1:
        base = "depthwise_conv"
    computed = computation(base, arguments, read, made)
    kind = kind_of(
        base,
        operator,
        computed,
        read,
        made,
        copies=copies,
        dense=dense,
        weights=bool(weights),
        product=by_product(base, arguments),
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


def _copies(
    operator: Operator, read: list[TensorSpec], made: list[TensorSpec], dense: bool
) -> bool:
    """Whether an operator that may give a view of what it reads has to copy it here."""
    if operator.name.startswith(CONVERTS):
        return made[0].dtype != read[0].dtype
    return not dense and operator.name.startswith(_DENSE)


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
        table_bytes = read[0].nbytes
        return (
            sum(spec.nbytes for spec in read) - table_bytes,
            _drawn(table_bytes, made_bytes),
            made_bytes,
        )
    return read_bytes, weight_bytes, made_bytes


def _drawn(table_bytes: float, made_bytes: float) -> float:
    """Of a table, which is the first that a look-up reads, the rows that it is likely to ask for.

    Each once, however often, if they are asked for at random.
    """
    return table_bytes * -math.expm1(-made_bytes / table_bytes) if table_bytes else 0.0
