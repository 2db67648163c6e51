"""How much work each layer is: operator kinds, floating point operations, bytes moved.

Estimates from shapes alone, for predictors to regress on; nothing is run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

from layergraph.check import bind
from layergraph.errors import InvalidGraph, UnsupportedOperator
from layergraph.graph import (
    Argument,
    ConstantRef,
    LayerGraph,
    Node,
    Ref,
    TensorSpec,
    WeightRef,
)
from layergraph.ops import OPERATORS, Operator


@dataclass(frozen=True, slots=True)
class NodeWork:
    """One operator call: its kind (see `ops.KINDS`), floating point operations, bytes moved."""

    kind: str
    flops: float
    bytes: float


LayerWork: TypeAlias = tuple[NodeWork, ...]


def work(graph: LayerGraph) -> tuple[LayerWork, ...]:
    """The work of each node of each layer.

    A multiplication and an addition count as two operations. Bytes are inputs, weights and
    outputs; a view moves none, and a look-up moves only the rows it reads.
    """
    return tuple(
        tuple(_node_work(graph, node) for node in graph.nodes[layer.start : layer.stop])
        for layer in graph.layers
    )


def _node_work(graph: LayerGraph, node: Node) -> NodeWork:
    operator = OPERATORS.get(node.op)
    if operator is None:
        raise UnsupportedOperator(f"{node.op} at {node.module or 'the model'}")
    try:
        bound = bind(operator, node)
    except ValueError as error:
        raise InvalidGraph(f"{node.op} at {node.module or 'the model'}: {error}") from None
    arguments = {name: _resolve(graph, value) for name, value in bound.items()}
    made = [spec for spec in node.outputs if spec is not None]
    read = list(_specs(tuple(arguments.values())))
    kind = operator.kind
    if kind == "conv" and _is_depthwise(arguments):
        kind = "depthwise_conv"
    flops = _FLOPS[kind](arguments, read, made)
    return NodeWork(kind, float(flops), float(_moved(operator, read, made)))


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


def _size(spec: TensorSpec) -> int:
    return math.prod(spec.shape)


def _is_depthwise(a: dict[str, Any]) -> bool:
    return bool(a["groups"] > 1 and a["weight"].shape[1] == 1)


_MAY_COPY = ("aten.to.", "aten.contiguous.", "aten.type_as.")


def _moved(operator: Operator, read: list[TensorSpec], made: list[TensorSpec]) -> int:
    out_bytes = sum(spec.nbytes for spec in made)
    if operator.is_view:
        converts = operator.name.startswith(_MAY_COPY) and made[0].dtype != read[0].dtype
        return out_bytes + read[0].nbytes if converts else 0
    if operator.kind == "embedding":
        return 2 * out_bytes + sum(spec.nbytes for spec in read[1:])
    return out_bytes + sum(spec.nbytes for spec in read)


Flops: TypeAlias = Callable[[dict[str, Any], list[TensorSpec], list[TensorSpec]], float]


def _conv(a: dict[str, Any], _read: list[TensorSpec], made: list[TensorSpec]) -> float:
    weight: TensorSpec = a["weight"]
    return 2.0 * _size(made[0]) * math.prod(weight.shape[1:])


def _transposed_conv(a: dict[str, Any], _read: list[TensorSpec], _made: list[TensorSpec]) -> float:
    source: TensorSpec = a["input"]
    weight: TensorSpec = a["weight"]
    return 2.0 * _size(source) * math.prod(weight.shape[1:])


def _linear(a: dict[str, Any], read: list[TensorSpec], made: list[TensorSpec]) -> float:
    if "equation" in a:
        return _einsum(str(a["equation"]), read, made)
    # The matrices are the last two of addmm(bias, a, b), the first two of matmul(a, b).
    left: TensorSpec = a.get("mat1") or a.get("batch1") or read[0]
    return 2.0 * _size(made[0]) * (left.shape[-1] if left.shape else 1)


def _einsum(equation: str, read: list[TensorSpec], made: list[TensorSpec]) -> float:
    sizes: dict[str, int] = {}
    terms = equation.replace(" ", "").split("->")[0].split(",")
    for term, spec in zip(terms, read, strict=False):
        # An ellipsis stands for batch dimensions, which the result has as well.
        letters, dims = term.replace("...", ""), spec.shape
        sizes.update(zip(reversed(letters), reversed(dims), strict=False))
    result = equation.partition("->")[2]
    summed = math.prod(size for letter, size in sizes.items() if letter not in result)
    return 2.0 * _size(made[0]) * summed


def _attention(a: dict[str, Any], _read: list[TensorSpec], made: list[TensorSpec]) -> float:
    keys: int = a["key"].shape[-2]
    return 2.0 * keys * (_size(a["query"]) + _size(made[0]))


def _recurrent(a: dict[str, Any], _read: list[TensorSpec], _made: list[TensorSpec]) -> float:
    source: TensorSpec = a["input"]
    # A cell takes one step, for a batch; the others take a sequence of them.
    steps = math.prod(source.shape[:-1])
    params: tuple[TensorSpec, ...] = a.get("params") or (a["w_ih"], a["w_hh"])
    return 2.0 * steps * sum(_size(spec) for spec in params if len(spec.shape) == 2)


def _pool(a: dict[str, Any], read: list[TensorSpec], made: list[TensorSpec]) -> float:
    window = a.get("kernel_size")
    if window is None:
        return float(max(_size(read[0]), _size(made[0])))
    # A single number stands for the same extent in every dimension.
    sides = (window,) if isinstance(window, int) else tuple(window)
    if len(sides) == 1:
        sides *= max(len(read[0].shape) - 2, 1)
    return float(_size(made[0]) * math.prod(sides))


def _per_element(cost: float) -> Flops:
    return lambda _a, _read, made: cost * sum(map(_size, made))


_FLOPS: dict[str, Flops] = {
    "conv": _conv,
    "depthwise_conv": _conv,
    "transposed_conv": _transposed_conv,
    "linear": _linear,
    "attention": _attention,
    "recurrent": _recurrent,
    "norm": _per_element(5),
    "pool": _pool,
    "softmax": _per_element(5),
    "embedding": _per_element(0),
    "elementwise": _per_element(1),
    "move": _per_element(0),
}
