"""What each node of a graph would make, by torch's own shape functions on fake tensors."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from layergraph.binding import bind, resolve
from layergraph.budget import place
from layergraph.errors import InvalidGraph
from layergraph.graph import LayerGraph
from layergraph.nodes import Argument, ConstantRef, Node, Ref, Symbol, TensorSpec, WeightRef
from layergraph.ops import OPERATORS
from layergraph.recurrent import recurrent_outputs
from layergraph.symbols import DTYPES, spec_of, symbol_value


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


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]
