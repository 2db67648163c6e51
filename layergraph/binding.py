"""A node's arguments by the names of its operator's schema, each of the type that it asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from layergraph.graph import LayerGraph
from layergraph.nodes import Argument, ConstantRef, Node, Ref, Symbol, TensorSpec, WeightRef
from layergraph.ops import ARITHMETIC, Operator, Parameter
from layergraph.symbols import DTYPES, LAYOUTS, MEMORY_FORMATS


def bind(operator: Operator, node: Node) -> dict[str, Argument]:
    """The node's arguments by schema name, defaults filled in. Raises ValueError if any is bad."""
    positional = [p for p in operator.parameters if not p.keyword_only]
    if len(node.args) > len(positional):
        raise ValueError(f"{len(node.args)} arguments; it takes {len(positional)}")
    given = {p.name: value for p, value in zip(positional, node.args, strict=False)}
    known = {p.name for p in operator.parameters}
    for name, value in node.kwargs:
        if name not in known:
            raise ValueError(f"no argument is called {name!r}")
        if name in given:
            raise ValueError(f"argument {name!r} is given twice")
        given[name] = value
    for parameter in operator.parameters:
        if parameter.name in given:
            value = given[parameter.name]
            number = _is_number(value) and _takes_number(operator, parameter)
            if not number and not _fits(parameter.type, value):
                raise ValueError(
                    f"argument {parameter.name!r} is {_describe(value)}, not {parameter.type}"
                )
        elif parameter.required:
            raise ValueError(f"argument {parameter.name!r} is missing")
        else:
            default = parameter.default
            given[parameter.name] = tuple(default) if isinstance(default, list) else default
    if given.get("pin_memory"):
        raise ValueError("pinned memory is the executing side's own business")
    return given


def resolve(graph: LayerGraph, value: Argument) -> Any:
    """The argument with each reference replaced by the spec of the tensor that it means."""
    match value:
        case Ref(number):
            return graph.values[number]
        case WeightRef(index):
            return graph.weights[index].spec
        case ConstantRef(index):
            return graph.constants[index].spec
        case tuple():
            return tuple(resolve(graph, item) for item in value)
        case _:
            return value


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -(1 << 63) <= value < 1 << 63


def _is_float(value: object) -> bool:
    return isinstance(value, float) or _is_int(value)


def _is_number(value: object) -> bool:
    return isinstance(value, bool) or _is_float(value)


def _is_tensor(value: object) -> bool:
    return isinstance(value, Ref | WeightRef | ConstantRef)


def _is_symbol(kind: str, names: Mapping[str, Any]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, Symbol) and value.kind == kind and value.name in names


_SCALARS: dict[str, Callable[[object], bool]] = {
    "Tensor": _is_tensor,
    "int": _is_int,
    "float": _is_float,
    "number": _is_number,
    "bool": lambda value: isinstance(value, bool),
    "str": lambda value: isinstance(value, str),
    "ScalarType": _is_symbol("dtype", DTYPES),
    "MemoryFormat": _is_symbol("memory_format", MEMORY_FORMATS),
    "Layout": _is_symbol("layout", LAYOUTS),
    "Device": _is_symbol("device", {"": None}),
}


def _takes_number(operator: Operator, parameter: Parameter) -> bool:
    """In arithmetic a number may stand for the second tensor: x * 2 is mul.Tensor(x, 2)."""
    return operator.name in ARITHMETIC and parameter.name == "other"


def _fits(kind: str, value: object) -> bool:
    if kind.startswith("Optional["):
        return value is None or _fits(kind[9:-1], value)
    if kind.startswith("List["):
        # A single number stands for a list of equal ones in int[2] and the like.
        if kind == "List[int]" and _is_int(value):
            return True
        return isinstance(value, tuple) and all(_fits(kind[5:-1], item) for item in value)
    return kind in _SCALARS and _SCALARS[kind](value)


def _describe(value: object) -> str:
    return "a tensor" if _is_tensor(value) else f"{type(value).__name__} {str(value)[:40]!r}"


def specs_in(value: Any) -> Iterator[TensorSpec]:
    """The tensors of an argument, whose references are resolved, in order."""
    if isinstance(value, TensorSpec):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from specs_in(item)
