"""One operator call: checked as part of a graph, and where that is accepted run and judged."""

from __future__ import annotations

import ctypes
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from layergraph import Budget, GraphError, LayerGraph
from layergraph.budget import is_view
from layergraph.check import check_arguments
from layergraph.nodes import Layer, Node, Ref, Symbol, TensorSpec
from layergraph.ops import FIRST_RESULT_ONLY, Operator
from layergraph.shapes import made_by
from layergraph.symbols import DTYPES, symbol_value
from tests.guarded_memory import ROOM, Memory, base_shape
from tests.operator_seeds import Call, Given

BUDGET = Budget(live_bytes=32 << 20, tensor_bytes=ROOM, flops=10**8)
OUTCOMES = ("refused", "failed", "ran")
_SCALAR = TensorSpec("float32", ())
_M_PERTURB = -6
_libc = ctypes.CDLL(None)


class Finding(Exception):
    """An accepted call did what none may do."""


def tensors_in(value: Any) -> Iterator[Given]:
    if isinstance(value, Given):
        yield value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from tensors_in(item)


def replaced(value: Any, tensor: Callable[[Given], Any], symbol: Callable[[Symbol], Any]) -> Any:
    """The argument with each tensor and each symbol replaced, in order."""
    if isinstance(value, Given):
        return tensor(value)
    if isinstance(value, Symbol):
        return symbol(value)
    if isinstance(value, tuple):
        return tuple(replaced(item, tensor, symbol) for item in value)
    return value


def graph_of(operator: Operator, call: Call, outputs: Iterable[TensorSpec | None]) -> LayerGraph:
    """A graph of this one call, that declares these results."""
    given = list(tensors_in((*call.args, *call.kwargs.values())))
    numbers = iter(range(len(given)))

    def ref(_: Given) -> Ref:
        return Ref(next(numbers))

    args = replaced(call.args, ref, lambda symbol: symbol)
    kwargs = tuple(
        (name, replaced(value, ref, lambda symbol: symbol)) for name, value in call.kwargs.items()
    )
    made = tuple(outputs)
    return LayerGraph(
        inputs=tuple(TensorSpec(each.dtype, each.shape) for each in given),
        weights=(),
        constants=(),
        nodes=(Node(operator.name, args, kwargs, made, "fuzz"),),
        layers=(Layer("fuzz", 0, 1, ()),),
        outputs=tuple(
            Ref(len(given) + number)
            for number, spec in enumerate(made)
            if spec is not None and not (number and operator.name in FIRST_RESULT_ONLY)
        ),
    )


def accepted(operator: Operator, call: Call) -> LayerGraph | None:
    """The graph that declares what the call makes, where the check accepts it."""
    try:
        guess = graph_of(operator, call, [_SCALAR])
        check_arguments(guess, BUDGET)
        # What an honest client would declare; with that, `check_graph` has nothing left to ask.
        graph = graph_of(operator, call, next(iter(made_by(guess))))
        check_arguments(graph, BUDGET)
    except GraphError:
        return None
    return graph


def judge(operator: Operator, call: Call, memory: Memory, seed: int) -> str:
    """One of OUTCOMES. Raises Finding."""
    graph = accepted(operator, call)
    if graph is None:
        return "refused"
    given = list(tensors_in((*call.args, *call.kwargs.values())))
    if any(_size(each) > ROOM for each in given):
        return "refused"
    first = _run(operator, call, graph, memory, seed, given, 0x55)
    if first is None:
        return "failed"
    second = _run(operator, call, graph, memory, seed, given, 0xAA)
    if "LD_PRELOAD" not in os.environ and first != second:
        raise Finding("secret: the result depends on memory that nobody wrote")
    return "ran"


def _size(given: Given) -> int:
    return TensorSpec(given.dtype, base_shape(given)).nbytes


def _run(
    operator: Operator,
    call: Call,
    graph: LayerGraph,
    memory: Memory,
    seed: int,
    given: list[Given],
    fill: int,
) -> list[bytes] | None:
    """The results' bytes; None where torch raised. Fresh memory is filled with `fill`."""
    tensors = memory.tensors(given, seed)
    turn = iter(tensors)
    real = [
        replaced(value, lambda _: next(turn), lambda s: symbol_value(s, torch.device("cpu")))
        for value in (*call.args, *call.kwargs.values())
    ]
    args = real[: len(call.args)]
    kwargs = dict(zip(call.kwargs, real[len(call.args) :], strict=True))
    _libc.mallopt(_M_PERTURB, fill)
    try:
        with torch.inference_mode():
            made = operator.call(*args, **kwargs)
    except MemoryError as error:
        raise Finding(f"memory: {error!r}") from None
    # Whatever torch raises is an answer that the client gets.
    except Exception as error:
        if "allocate memory" in str(error) or "bad_alloc" in str(error):
            raise Finding(f"memory: {str(error)[:200]}") from None
        made = None
    finally:
        _libc.mallopt(_M_PERTURB, 0)
    for damage in memory.damages(len(given)):
        raise Finding(f"canary: {damage}")
    if made is None:
        return None
    outputs = list(made) if operator.returns_many else [made]
    _check_outputs(operator, graph, memory, outputs)
    if operator.name in FIRST_RESULT_ONLY:
        outputs = outputs[:1]
    return [bytes(_flat(output)) for output in outputs if output is not None]


def _flat(tensor: torch.Tensor) -> Any:
    dense = torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor).view(-1)
    return dense.view(torch.uint8).numpy().tobytes() if dense.numel() else b""


def _check_outputs(
    operator: Operator, graph: LayerGraph, memory: Memory, outputs: list[Any]
) -> None:
    declared = graph.nodes[0].outputs
    if not all(output is None or isinstance(output, torch.Tensor) for output in outputs):
        raise Finding(f"shape: it makes {outputs!r:.80}")
    if operator.name in FIRST_RESULT_ONLY:
        outputs, declared = outputs[:1], declared[:1]
    got = tuple(None if t is None else (t.dtype, tuple(t.shape)) for t in outputs)
    if got != tuple(None if s is None else (DTYPES[s.dtype], s.shape) for s in declared):
        raise Finding(f"shape: it declares {[*map(str, declared)]}, and makes {got}")
    present = [output for output in outputs if output is not None]
    own = [output for output in present if not memory.shares(output)]
    if len(own) < len(present) and not is_view(operator):
        raise Finding("alias: a result is a view of an argument")
    kept = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in own}
    if sum(kept.values()) > 2 * sum(output.nbytes for output in present) + 4096:
        raise Finding(f"holds: {sum(kept.values())} bytes for results of {present}"[:200])


def to_plain(value: Any) -> Any:
    """An argument as JSON."""
    if isinstance(value, Given):
        return {"tensor": [value.dtype, value.shape, value.below, value.layout, value.wild]}
    if isinstance(value, Symbol):
        return {"symbol": [value.kind, value.name]}
    return [to_plain(item) for item in value] if isinstance(value, tuple) else value


def from_plain(plain: Any) -> Any:
    """The argument that `to_plain` took apart."""
    if isinstance(plain, list):
        return tuple(map(from_plain, plain))
    if not isinstance(plain, dict):
        return plain
    if "symbol" in plain:
        return Symbol(*plain["symbol"])
    dtype, shape, below, layout, wild = plain["tensor"]
    return Given(dtype, tuple(shape), below, layout, wild)


def stored(path: Path) -> list[tuple[str, Call]]:
    """(operator, call) of each line of a file of regressions."""
    rows = [json.loads(line) for line in path.read_text().splitlines() if line]
    return [
        (row["operator"], Call(from_plain(row["args"]),
                               {name: from_plain(v) for name, v in row["kwargs"].items()}))
        for row in rows
    ]  # fmt: skip
