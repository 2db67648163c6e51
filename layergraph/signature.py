"""Between the caller's structures and flat tensors: any nesting that torch's pytree knows.

Stays on the device: only the flat tensors cross the network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils import _pytree as pytree

from layergraph.buffers import tensor_from_buffer
from layergraph.errors import InvalidInput
from layergraph.graph import LayerGraph
from layergraph.nodes import Argument, ConstantRef, Ref, TensorSpec
from layergraph.symbols import DTYPES


@dataclass(frozen=True, slots=True)
class Signature:
    """How the model is called, and what it returns.

    `literals` holds the inputs that are no tensors, by leaf number: the graph was captured for
    exactly these values. `leaves` says what each leaf of the result is: the position of a
    tensor among those live at the last cut, a constant, or a plain value. `flat`: called with
    tensors only, by position.
    """

    in_spec: pytree.TreeSpec
    out_spec: pytree.TreeSpec
    keywords: tuple[str, ...]
    inputs: tuple[TensorSpec, ...]
    live_inputs: tuple[int, ...]
    literals: tuple[tuple[int, Any], ...]
    leaves: tuple[_Live | _Literal | torch.Tensor, ...]
    flat: bool = False

    def flatten(
        self, args: Sequence[Any], kwargs: Mapping[str, Any] | None = None
    ) -> tuple[torch.Tensor, ...]:
        """The tensors live at cut 0. Raises InvalidInput for a call unlike the captured one."""
        if self._is_flat(args) and not kwargs:
            given = [self._tensor(number, leaf) for number, leaf in enumerate(args)]
            return tuple(given[number] for number in self.live_inputs)
        kwargs = dict(kwargs or {})
        if set(kwargs) != set(self.keywords):
            raise InvalidInput(
                f"captured with keyword arguments {sorted(self.keywords)}; got {sorted(kwargs)}"
            )
        ordered = {name: kwargs[name] for name in self.keywords}
        leaves, spec = pytree.tree_flatten((tuple(args), ordered))
        if spec != self.in_spec:
            raise InvalidInput(
                f"captured for arguments of the structure {_structure(self.in_spec)};"
                f" got {_structure(spec)}"
            )
        literals = dict(self.literals)
        tensors: list[torch.Tensor] = []
        for number, leaf in enumerate(leaves):
            if number not in literals:
                tensors.append(self._tensor(len(tensors), leaf))
            elif type(leaf) is not type(literals[number]) or leaf != literals[number]:
                raise InvalidInput(
                    f"input {number} was {literals[number]!r} at capture; got {_brief(leaf)}."
                    " Capture the model again for another value"
                )
        return tuple(tensors[number] for number in self.live_inputs)

    def _is_flat(self, args: Sequence[Any]) -> bool:
        if not self.flat or len(args) != len(self.inputs):
            return False
        return all(isinstance(leaf, torch.Tensor) for leaf in args)

    def unflatten(self, live: Sequence[torch.Tensor]) -> Any:
        """The caller's structure from the tensors live at the last cut."""
        expected = 1 + max(
            (leaf.position for leaf in self.leaves if isinstance(leaf, _Live)), default=-1
        )
        if len(live) < expected:
            raise InvalidInput(f"the result has {expected} tensors; got {len(live)}")
        return pytree.tree_unflatten([_leaf(leaf, live) for leaf in self.leaves], self.out_spec)

    def _tensor(self, number: int, leaf: object) -> torch.Tensor:
        spec = self.inputs[number]
        if not isinstance(leaf, torch.Tensor):
            raise InvalidInput(f"input tensor {number} is {spec}; got {_brief(leaf)}")
        if leaf.dtype is not DTYPES[spec.dtype] or leaf.shape != spec.shape:
            raise InvalidInput(f"input tensor {number} is {spec}; got {_brief(leaf)}")
        return leaf


@dataclass(frozen=True, slots=True)
class _Live:
    position: int


@dataclass(frozen=True, slots=True)
class _Literal:
    value: Any


def sign(
    graph: LayerGraph,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    out_spec: pytree.TreeSpec,
) -> Signature:
    """The signature of a graph that was captured for the call `model(*args, **kwargs)`."""
    in_leaves, in_spec = pytree.tree_flatten((tuple(args), dict(kwargs)))
    last = {value: position for position, value in enumerate(graph.cuts[-1])}
    return Signature(
        in_spec=in_spec,
        out_spec=out_spec,
        keywords=tuple(kwargs),
        inputs=graph.inputs,
        live_inputs=graph.cuts[0],
        literals=tuple(
            (number, leaf)
            for number, leaf in enumerate(in_leaves)
            if not isinstance(leaf, torch.Tensor)
        ),
        leaves=tuple(_described(graph, argument, last) for argument in graph.outputs),
        flat=not kwargs and all(isinstance(leaf, torch.Tensor) for leaf in args),
    )


def flatten_inputs(
    graph: LayerGraph, args: Sequence[Any], kwargs: Mapping[str, Any] | None = None
) -> tuple[torch.Tensor, ...]:
    """The tensors live at cut 0 for a call `model(*args, **kwargs)`. Raises InvalidInput."""
    return _signature(graph).flatten(args, kwargs)


def unflatten_outputs(graph: LayerGraph, live: Sequence[torch.Tensor]) -> Any:
    """What `model(*args, **kwargs)` returns, from the tensors live at the last cut."""
    return _signature(graph).unflatten(live)


def _signature(graph: LayerGraph) -> Signature:
    if not isinstance(graph.signature, Signature):
        raise InvalidInput("this graph came without its signature; only the capturing side has it")
    return graph.signature


def _described(
    graph: LayerGraph, argument: Argument, last: Mapping[int, int]
) -> _Live | _Literal | torch.Tensor:
    if isinstance(argument, Ref):
        return _Live(last[argument.value])
    if isinstance(argument, ConstantRef):
        constant = graph.constants[argument.index]
        shape = constant.spec.shape
        return tensor_from_buffer(constant.spec.dtype, shape, range(len(shape)), constant.data)
    return _Literal(argument)


def _leaf(leaf: _Live | _Literal | torch.Tensor, live: Sequence[torch.Tensor]) -> Any:
    if isinstance(leaf, _Live):
        return live[leaf.position]
    # A copy, as the model itself would make a new one at every call.
    return leaf.value if isinstance(leaf, _Literal) else leaf.clone()


def _brief(leaf: object) -> str:
    if isinstance(leaf, torch.Tensor):
        return f"{str(leaf.dtype).removeprefix('torch.')}{list(leaf.shape)}"
    return f"{type(leaf).__name__} {str(leaf)[:40]!r}"


class _Blank:
    def __repr__(self) -> str:
        return "_"


def _structure(spec: pytree.TreeSpec) -> str:
    """Arguments as they are written in Python, a "_" for each that is no container."""
    args, kwargs = pytree.tree_unflatten([_Blank()] * spec.num_leaves, spec)
    written = [repr(each) for each in args] + [f"{name}={each!r}" for name, each in kwargs.items()]
    return f"({', '.join(written)})"[:200]
