"""Run a range of layers on the tensors that are live where it starts.

Every range becomes one generated Python function, which is kept (see layergraph.source).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch

from layergraph.buffers import tensor_from_buffer
from layergraph.errors import InvalidInput
from layergraph.graph import LayerGraph
from layergraph.nodes import TensorSpec
from layergraph.source import RangeFunction, Source
from layergraph.symbols import DTYPES

Live: TypeAlias = tuple[torch.Tensor, ...]
Weights: TypeAlias = Mapping[str, torch.Tensor]

# Compiled ranges are kept up to so many times the graph's nodes in all, but at least so many
# nodes: each layer on its own, and 15 times the whole graph in ranges that routes really took.
KEPT_GRAPHS = 16
KEPT_NODES = 1 << 12


def execute(
    graph: LayerGraph, weights: Weights, start: int, stop: int, live: Sequence[torch.Tensor]
) -> Live:
    """Runs layers [start, stop) once: from the tensors live at cut `start` to those at `stop`.

    `live` is in the order of `graph.cuts[start]`, the result in that of `graph.cuts[stop]`.
    Raises InvalidInput for a range, tensors or weights that don't fit. Use an `Executor` to run
    a graph more than once.
    """
    return Executor(graph, weights).run(start, stop, live)


def check_live(graph: LayerGraph, cut: int, live: Sequence[torch.Tensor]) -> None:
    """Raises InvalidInput unless `live` are the tensors that cut `cut` takes, in order."""
    specs = graph.cut_specs(cut)
    if len(live) != len(specs):
        raise InvalidInput(f"cut {cut} takes {len(specs)} tensors; got {len(live)}")
    for number, (spec, tensor) in enumerate(zip(specs, live, strict=True)):
        if not isinstance(tensor, torch.Tensor):
            raise InvalidInput(
                f"tensor {number} of cut {cut} is {spec}; got {type(tensor).__name__}"
            )
        if tensor.dtype is not DTYPES[spec.dtype] or tensor.shape != spec.shape:
            raise InvalidInput(
                f"tensor {number} of cut {cut} is {spec};"
                f" got {str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"
            )


class Executor:
    """One graph bound to its weights; the function of each range is built at its first run.

    `weights` may fill up over time: a range needs only its own layers' weights, and takes
    them at its first run. Those in `roundable` may be bfloat16 (see layergraph.bfloat16). The
    ranges that ran longest ago are forgotten, and built again when they run again. The graph must
    be one that `capture` made or `check_graph` accepted. Runs in inference mode, in one thread at
    a time.
    """

    def __init__(
        self,
        graph: LayerGraph,
        weights: Weights,
        device: str | torch.device = "cpu",
        roundable: frozenset[int] = frozenset(),
    ) -> None:
        self.graph = graph
        self._weights = weights
        self._roundable = roundable
        self._device = torch.device(device)
        self._constants = [
            tensor_from_buffer(c.spec.dtype, c.spec.shape, range(len(c.spec.shape)), c.data).to(
                self._device
            )
            for c in graph.constants
        ]
        self._ranges: OrderedDict[tuple[int, int], _Range] = OrderedDict()
        self._kept_nodes = 0
        self._most_nodes = max(KEPT_NODES, KEPT_GRAPHS * len(graph.nodes))
        # Where each weight is bound: ranges, and the place in each.
        self._bound: dict[str, dict[tuple[int, int], int]] = {}

    def run(self, start: int, stop: int, live: Sequence[torch.Tensor]) -> Live:
        """Layers [start, stop) on the tensors of `graph.cuts[start]`; gives those of cut `stop`.

        Raises InvalidInput for a bad range, live tensors that don't fit, or missing weights.
        """
        compiled = self._ranges.get((start, stop))
        if compiled is None:
            compiled = self._compile(start, stop)
        else:
            self._ranges.move_to_end((start, stop))
        try:
            fits = len(live) == len(compiled.takes)
            for tensor, (dtype, shape) in zip(live, compiled.takes, strict=False):
                if tensor.dtype is not dtype or tensor.shape != shape:
                    fits = False
        except AttributeError:
            fits = False
        if not fits:
            check_live(self.graph, start, live)
        if torch.is_inference_mode_enabled():
            return compiled.function(live, compiled.weights)
        with torch.inference_mode():
            return compiled.function(live, compiled.weights)

    def rebind(self, name: str) -> None:
        """The weight of this name is another tensor now: ranges that ran with the old one take it.

        Raises InvalidInput where it does not fit.
        """
        for key, place in self._bound.get(name, {}).items():
            compiled = self._ranges[key]
            compiled.weights[place] = self._weight(compiled.indices[place])

    def _compile(self, start: int, stop: int) -> _Range:
        count = len(self.graph.layers)
        if not 0 <= start <= stop <= count:
            raise InvalidInput(f"layers [{start}, {stop}) of a model with {count}")
        source = Source(self.graph, self._constants, self._device, self._roundable)
        function = source.build(start, stop)
        compiled = _Range(
            function,
            tuple(source.weights),
            [self._weight(index) for index in source.weights],
            tuple(
                (DTYPES[spec.dtype], torch.Size(spec.shape)) for spec in self.graph.cut_specs(start)
            ),
            source.nodes,
        )
        self._keep((start, stop), compiled)
        return compiled

    def _keep(self, key: tuple[int, int], compiled: _Range) -> None:
        self._ranges[key] = compiled
        self._kept_nodes += compiled.nodes
        for place, index in enumerate(compiled.indices):
            self._bound.setdefault(self.graph.weights[index].name, {})[key] = place
        while self._kept_nodes > self._most_nodes and len(self._ranges) > 1:
            oldest, forgotten = self._ranges.popitem(last=False)
            self._kept_nodes -= forgotten.nodes
            for index in forgotten.indices:
                del self._bound[self.graph.weights[index].name][oldest]

    def _weight(self, index: int) -> torch.Tensor:
        weight = self.graph.weights[index]
        try:
            tensor = self._weights[weight.name]
        except KeyError:
            raise InvalidInput(f"weight {weight.name} is not here yet") from None
        rounded = index in self._roundable and tensor.dtype is torch.bfloat16
        spec = replace(weight.spec, dtype="bfloat16") if rounded else weight.spec
        _check_weight(weight.name, spec, tensor)
        if tensor.requires_grad == weight.trainable:
            return tensor
        # A view with the flag that torch's choice of algorithm looks at, and the same memory.
        with torch.inference_mode(False):
            tensor = tensor.clone() if tensor.is_inference() else tensor
            return tensor.detach().requires_grad_(weight.trainable)


def _check_weight(name: str, spec: TensorSpec, tensor: torch.Tensor) -> None:
    # A short weight is read past its end by some kernels, so this is not only politeness.
    if tensor.dtype is not DTYPES[spec.dtype] or tensor.shape != spec.shape:
        raise InvalidInput(
            f"weight {name} is {spec};"
            f" got {str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"
        )


@dataclass(frozen=True, slots=True)
class _Range:
    function: RangeFunction
    indices: tuple[int, ...]
    weights: list[torch.Tensor]
    takes: tuple[tuple[torch.dtype, torch.Size], ...]
    nodes: int
