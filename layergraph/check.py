"""Whether a graph may run here: known operators, fitting arguments, honest shapes.

The graph may come from a peer. Nothing is allocated for it: what it declares is held against a
budget in whole numbers; then every shape is recomputed with fake tensors, and compared.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from layergraph.bounds import Cost, cost
from layergraph.budget import Budget, check_costs, check_declared, place
from layergraph.errors import InvalidGraph, UnsupportedOperator
from layergraph.graph import LayerGraph
from layergraph.nodes import Argument, ConstantRef, Node, Ref, Symbol, TensorSpec, WeightRef
from layergraph.ops import (
    ARITHMETIC,
    DTYPE_NAMES,
    DTYPES,
    FIRST_RESULT_ONLY,
    LAYOUTS,
    MEMORY_FORMATS,
    OPERATORS,
    Operator,
    Parameter,
)
from layergraph.validators import recurrent_outputs

DEFAULT_BUDGET = Budget()


def check_graph(graph: LayerGraph, budget: Budget = DEFAULT_BUDGET) -> None:
    """Accepts a graph that this side can run within `budget`, and allocates nothing.

    Every operator is in the table, its arguments fit its schema and its validator, and the
    shapes that follow from the inputs are the declared ones. Raises UnsupportedOperator for an
    operator that is missing, InvalidGraph for everything else, with the node and the quantity.
    """
    check_arguments(graph, budget)
    _check_shapes(graph)


def check_arguments(graph: LayerGraph, budget: Budget) -> None:
    """The part of `check_graph` before torch sees anything: all of it but what the results are."""
    check_declared(graph, budget)
    operators = [_operator(index, node) for index, node in enumerate(graph.nodes)]
    nodes = enumerate(zip(graph.nodes, operators, strict=True))
    costs = [_check_node(graph, index, node, operator) for index, (node, operator) in nodes]
    check_costs(graph, operators, costs, budget)
    _check_by_products(graph)


def _check_by_products(graph: LayerGraph) -> None:
    unknown = {
        graph.first_output[index] + number
        for index, node in enumerate(graph.nodes)
        if node.op in FIRST_RESULT_ONLY
        for number in range(1, len(node.outputs))
    }
    used = {"the model": graph.outputs}
    used.update((place(i, node), tuple(node.arguments())) for i, node in enumerate(graph.nodes))
    for where, arguments in used.items():
        if any(isinstance(a, Ref) and a.value in unknown for a in arguments):
            raise InvalidGraph(f"{where} uses a result whose shape cannot be known beforehand")


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


def _operator(index: int, node: Node) -> Operator:
    operator = OPERATORS.get(node.op)
    if operator is None:
        raise UnsupportedOperator(
            f"{node.op} at {node.module or 'the model'} is not in the operator table"
        )
    if not operator.returns_many and (len(node.outputs) != 1 or node.outputs[0] is None):
        raise InvalidGraph(
            f"{place(index, node)}: {len(node.outputs)} outputs declared, it makes one"
        )
    return operator


def _check_node(graph: LayerGraph, index: int, node: Node, operator: Operator) -> Cost:
    try:
        arguments = bind(operator, node)
        resolved = {name: resolve(graph, value) for name, value in arguments.items()}
        if operator.check is not None:
            operator.check(resolved)
    except ValueError as error:
        raise InvalidGraph(f"{place(index, node)}: {error}") from None
    return cost(operator, resolved, [spec for spec in node.outputs if spec is not None])


def resolve(graph: LayerGraph, value: Argument) -> Any:
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


def _check_shapes(graph: LayerGraph) -> None:
    for index, got in enumerate(made_by(graph)):
        node = graph.nodes[index]
        if got != node.outputs:
            raise InvalidGraph(
                f"{place(index, node)}: declares {_specs(node.outputs)}, makes {_specs(got)}"
            )


def made_by(graph: LayerGraph) -> Iterator[tuple[TensorSpec | None, ...]]:
    """What each node makes, by torch's own shape functions; nothing is computed or allocated.

    Raises InvalidGraph where torch would not run it.
    """
    # A fallback kernel would run for real, with real memory.
    mode = FakeTensorMode(allow_fallback_kernels=False)
    values: list[Any] = []
    weights = [_fake(mode, weight.spec, f"weight {weight.name}") for weight in graph.weights]
    constants = [_fake(mode, constant.spec, "a constant") for constant in graph.constants]
    values.extend(_fake(mode, spec, "an input") for spec in graph.inputs)

    def real(argument: Argument) -> Any:
        match argument:
            case Ref(number):
                return values[number]
            case WeightRef(index):
                return weights[index]
            case ConstantRef(index):
                return constants[index]
            case Symbol():
                return symbol_value(argument, torch.device("cpu"))
            case tuple():
                return [real(item) for item in argument]
            case _:
                return argument

    last_use = _last_uses(graph)
    for index, node in enumerate(graph.nodes):
        with _quiet(), torch.no_grad(), mode:
            outputs, got = _run_fake(mode, graph, index, node, real)
        yield got
        values.extend(outputs)
        for number in last_use[index]:
            values[number] = None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's log of every shape that does not fit: the exception says it all."""
    token = _checking.set(True)
    try:
        yield
    finally:
        _checking.reset(token)


_checking: ContextVar[bool] = ContextVar("checking", default=False)
logging.getLogger("torch._subclasses.fake_tensor").addFilter(lambda _: not _checking.get())


def _last_uses(graph: LayerGraph) -> list[list[int]]:
    last: dict[int, int] = {}
    for index, node in enumerate(graph.nodes):
        for argument in node.arguments():
            if isinstance(argument, Ref):
                last[argument.value] = index
    uses: list[list[int]] = [[] for _ in graph.nodes]
    for value, index in last.items():
        uses[index].append(value)
    return uses


def _fake(mode: FakeTensorMode, spec: TensorSpec, what: str) -> torch.Tensor:
    try:
        meta = torch.empty(spec.shape, dtype=DTYPES[spec.dtype], device="meta")
        # In place of torch.empty under the mode, which takes twenty times as long.
        return FakeTensor(mode, meta, torch.device("cpu"))
    except (RuntimeError, ValueError, OverflowError, TypeError) as error:
        raise InvalidGraph(f"{what} cannot be {spec}: {_first_line(error)}") from None


def _run_fake(
    mode: FakeTensorMode,
    graph: LayerGraph,
    index: int,
    node: Node,
    real: Callable[[Argument], Any],
) -> tuple[list[Any], tuple[TensorSpec | None, ...]]:
    where = place(index, node)
    operator = OPERATORS[node.op]
    try:
        if any(parameter.name == "params" for parameter in operator.parameters):
            arguments = {k: resolve(graph, v) for k, v in bind(operator, node).items()}
            outputs = [_fake(mode, made, where) for made in recurrent_outputs(arguments)]
        else:
            made = operator.overload(
                *(real(a) for a in node.args), **{name: real(a) for name, a in node.kwargs}
            )
            outputs = list(made) if operator.returns_many else [made]
        got = tuple(None if t is None else spec_of(t) for t in outputs)
    # Shape functions are Python of many hands: any exception of theirs means bad arguments.
    except Exception as error:
        raise InvalidGraph(f"{where}: {_first_line(error)}") from error
    return outputs, got


def _specs(specs: tuple[TensorSpec | None, ...]) -> str:
    return ", ".join(map(str, specs))


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]


def spec_of(tensor: torch.Tensor) -> TensorSpec:
    """The tensor's element type and shape. Raises InvalidGraph for a type that has no name here."""
    name = DTYPE_NAMES.get(tensor.dtype)
    if name is None or tensor.layout is not torch.strided:
        raise InvalidGraph(f"a {tensor.layout} tensor of {tensor.dtype} cannot be described")
    if not all(type(n) is int for n in tensor.shape):
        raise InvalidGraph("the size of a result depends on a tensor's values")
    return TensorSpec(name, tuple(tensor.shape))


def symbol_value(symbol: Symbol, device: torch.device) -> Any:
    """The torch object that a symbol names; `device` for a device."""
    match symbol.kind:
        case "dtype":
            return DTYPES[symbol.name]
        case "memory_format":
            return MEMORY_FORMATS[symbol.name]
        case "layout":
            return LAYOUTS[symbol.name]
        case _:
            return device
