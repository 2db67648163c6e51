"""What a model is: layers over nodes, what crosses between them, its validation and fingerprint.

Knows nothing of torch, files or sockets. Everything here may come from a peer, so
`LayerGraph.from_plain` accepts any nested plain data and raises InvalidGraph for all of it
that is not a well-formed graph. Whether the operators exist and their arguments fit is
checked in `ops` and `check`, which know torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from layergraph.errors import InvalidGraph
from layergraph.nodes import (
    Argument,
    Constant,
    ConstantRef,
    Layer,
    Node,
    Ref,
    TensorSpec,
    Weight,
    WeightRef,
    leaves,
)
from layergraph.plain import (
    argument_from_plain,
    argument_to_plain,
    brief,
    constant_from_plain,
    layer_from_plain,
    node_from_plain,
    spec_from_plain,
    spec_to_plain,
    weight_from_plain,
)

FORMAT = 1
MAX_NODES = 100_000
MAX_CONSTANT_BYTES = 1 << 20
MAX_CUT_ENTRIES = 1 << 22


@dataclass(frozen=True)
class LayerGraph:
    """A model as a list of layers over a list of nodes in execution order.

    Values are numbered: the inputs first, then each node's outputs in turn. `outputs` are the
    model's results, flattened. `signature` rebuilds the caller's own structures; it stays on
    the device and is not part of the graph's identity.
    """

    inputs: tuple[TensorSpec, ...]
    weights: tuple[Weight, ...]
    constants: tuple[Constant, ...]
    nodes: tuple[Node, ...]
    layers: tuple[Layer, ...]
    outputs: tuple[Argument, ...]
    signature: Any = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        _Validator(self).run()

    @cached_property
    def values(self) -> tuple[TensorSpec | None, ...]:
        """Spec of every value, by number."""
        return (*self.inputs, *(spec for node in self.nodes for spec in node.outputs))

    @cached_property
    def first_output(self) -> tuple[int, ...]:
        """Number of each node's first output value."""
        numbers, number = [], len(self.inputs)
        for node in self.nodes:
            numbers.append(number)
            number += len(node.outputs)
        return tuple(numbers)

    @cached_property
    def cuts(self) -> tuple[tuple[int, ...], ...]:
        """Values alive before layer i, for i in 0..n: what crosses when the graph is cut there."""
        cuts: list[list[int]] = [[] for _ in range(len(self.layers) + 1)]
        for value, (first, last) in enumerate(self._spans()):
            for cut in range(first, last + 1):
                cuts[cut].append(value)
        return tuple(map(tuple, cuts))

    def _spans(self) -> list[tuple[int, int]]:
        """First and last cut that each value crosses; last < first where it crosses none."""
        last_use = [-1] * len(self.values)
        layer_of = [
            index for index, layer in enumerate(self.layers) for _ in range(layer.start, layer.stop)
        ]
        for node_index, node in enumerate(self.nodes):
            for argument in node.arguments():
                if isinstance(argument, Ref):
                    last_use[argument.value] = layer_of[node_index]
        for argument in leaves(self.outputs):
            if isinstance(argument, Ref):
                last_use[argument.value] = len(self.layers)
        born = [0] * len(self.inputs)
        for node_index, node in enumerate(self.nodes):
            born.extend([layer_of[node_index] + 1] * len(node.outputs))
        return list(zip(born, last_use, strict=True))

    @cached_property
    def cut_bytes(self) -> tuple[int, ...]:
        """Bytes alive at each cut, for i in 0..n."""
        return tuple(
            sum(spec.nbytes for spec in self.cut_specs(cut)) for cut in range(len(self.cuts))
        )

    def cut_specs(self, cut: int) -> tuple[TensorSpec, ...]:
        """Specs of the live tensors at `cut`, in the order in which `execute` takes them."""
        return tuple(spec for value in self.cuts[cut] if (spec := self.values[value]) is not None)

    @cached_property
    def weight_bytes(self) -> tuple[int, ...]:
        """Bytes of weights that each layer is the first to use; shared weights count once."""
        seen: set[bytes] = set()
        sizes = []
        for layer in self.layers:
            size = 0
            for index in layer.weights:
                weight = self.weights[index]
                if weight.digest not in seen:
                    seen.add(weight.digest)
                    size += weight.spec.nbytes
            sizes.append(size)
        return tuple(sizes)

    @cached_property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """Which layer's outputs which later layer takes; -1 is the input, n the output."""
        layer_of: list[int] = [-1] * len(self.inputs)
        found: set[tuple[int, int]] = set()
        for index, layer in enumerate(self.layers):
            for node in self.nodes[layer.start : layer.stop]:
                found.update(
                    (layer_of[a.value], index) for a in node.arguments() if isinstance(a, Ref)
                )
                layer_of.extend([index] * len(node.outputs))
        n = len(self.layers)
        found.update((layer_of[a.value], n) for a in leaves(self.outputs) if isinstance(a, Ref))
        return tuple(sorted((source, target) for source, target in found if source != target))

    @cached_property
    def shared(self) -> tuple[tuple[int, int], ...]:
        """(layer, owner): the layer uses weights that `weight_bytes` counts in the owner."""
        owner_of: dict[bytes, int] = {}
        pairs = set()
        for index, layer in enumerate(self.layers):
            for weight in layer.weights:
                owner = owner_of.setdefault(self.weights[weight].digest, index)
                if owner != index:
                    pairs.add((index, owner))
        return tuple(sorted(pairs))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the graph's content, weights' digests included: equal models are equal."""
        content = self.to_plain()
        content["weights"] = [
            [spec, digest.hex(), trainable] for _, spec, digest, trainable in content["weights"]
        ]
        content["constants"] = [[spec, data.hex()] for spec, data in content["constants"]]
        # Names are for people; two copies of a model under other names are one model.
        content["nodes"] = [node[:4] for node in content["nodes"]]
        content["layers"] = [layer[1:] for layer in content["layers"]]
        text = json.dumps(content, separators=(",", ":"), sort_keys=True, allow_nan=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def to_plain(self) -> dict[str, Any]:
        """The graph as dicts, lists, strings, numbers and bytes; `from_plain` is its inverse."""
        return {
            "format": FORMAT,
            "inputs": [spec_to_plain(spec) for spec in self.inputs],
            "weights": [
                [w.name, spec_to_plain(w.spec), w.digest, w.trainable] for w in self.weights
            ],
            "constants": [[spec_to_plain(c.spec), c.data] for c in self.constants],
            "nodes": [
                [
                    node.op,
                    [argument_to_plain(a) for a in node.args],
                    [[name, argument_to_plain(a)] for name, a in node.kwargs],
                    [None if spec is None else spec_to_plain(spec) for spec in node.outputs],
                    node.module,
                ]
                for node in self.nodes
            ],
            "layers": [[la.name, la.start, la.stop, list(la.weights)] for la in self.layers],
            "outputs": [argument_to_plain(a) for a in self.outputs],
        }

    @classmethod
    def from_plain(cls, plain: object) -> LayerGraph:
        """The graph from what `to_plain` gave. Raises InvalidGraph for anything else."""
        if not isinstance(plain, Mapping):
            raise InvalidGraph(f"a graph is a map, not {type(plain).__name__}")
        if plain.get("format") != FORMAT:
            raise InvalidGraph(
                f"graph format {brief(plain.get('format'))}; this side reads {FORMAT}"
            )
        return cls(
            inputs=tuple(spec_from_plain(s) for s in _rows(plain, "inputs")),
            weights=tuple(weight_from_plain(w) for w in _rows(plain, "weights")),
            constants=tuple(constant_from_plain(c) for c in _rows(plain, "constants")),
            nodes=tuple(node_from_plain(n) for n in _rows(plain, "nodes")),
            layers=tuple(layer_from_plain(la) for la in _rows(plain, "layers")),
            outputs=tuple(argument_from_plain(a) for a in _rows(plain, "outputs")),
        )


class _Validator:
    """Checks references, ranges and coverage. Because a node may only use values numbered
    below its own outputs, a cycle shows as a reference forward."""

    def __init__(self, graph: LayerGraph) -> None:
        self.graph = graph

    def run(self) -> None:
        graph = self.graph
        if len(graph.nodes) > MAX_NODES:
            raise InvalidGraph(f"{len(graph.nodes)} nodes; the limit is {MAX_NODES}")
        if sum(len(c.data) for c in graph.constants) > MAX_CONSTANT_BYTES:
            raise InvalidGraph(f"inline constants exceed {MAX_CONSTANT_BYTES} bytes")
        if len({weight.name for weight in graph.weights}) != len(graph.weights):
            raise InvalidGraph("two weights have the same name")
        defined: list[bool] = [True] * len(graph.inputs)
        for index, node in enumerate(graph.nodes):
            self._references(node.arguments(), defined, f"node {index} ({node.op})")
            defined.extend(spec is not None for spec in node.outputs)
        self._references(leaves(graph.outputs), defined, "the model's outputs")
        self._layers()
        # Layers times values may be far more than the graph's own size.
        entries = sum(max(0, last - first + 1) for first, last in graph._spans())
        if entries > MAX_CUT_ENTRIES:
            raise InvalidGraph(f"{entries} tensors cross cuts; the limit is {MAX_CUT_ENTRIES}")

    def _references(self, arguments: Iterator[Argument], defined: list[bool], where: str) -> None:
        for argument in arguments:
            match argument:
                case Ref(value):
                    if not 0 <= value < len(defined):
                        raise InvalidGraph(
                            f"{where} uses value {value}, which nothing before it makes"
                            " (a dangling reference or a cycle)"
                        )
                    if not defined[value]:
                        raise InvalidGraph(f"{where} uses value {value}, an absent output")
                case WeightRef(index):
                    if not 0 <= index < len(self.graph.weights):
                        raise InvalidGraph(f"{where} uses weight {index}, which does not exist")
                case ConstantRef(index):
                    if not 0 <= index < len(self.graph.constants):
                        raise InvalidGraph(f"{where} uses constant {index}, which does not exist")

    def _layers(self) -> None:
        graph, position = self.graph, 0
        if not graph.layers:
            raise InvalidGraph("a graph needs at least one layer")
        for number, layer in enumerate(graph.layers):
            if layer.start != position or layer.stop < layer.start:
                raise InvalidGraph(
                    f"layer {number} covers nodes [{layer.start}, {layer.stop}) after {position}"
                )
            position = layer.stop
            if position > len(graph.nodes):
                raise InvalidGraph(f"layer {number} ends at node {position} of {len(graph.nodes)}")
            used = {
                argument.index
                for node in graph.nodes[layer.start : layer.stop]
                for argument in node.arguments()
                if isinstance(argument, WeightRef)
            }
            if used != set(layer.weights) or len(used) != len(layer.weights):
                raise InvalidGraph(
                    f"layer {number} declares weights {layer.weights} and uses {sorted(used)}"
                )
        if position != len(graph.nodes):
            raise InvalidGraph(f"the layers cover {position} of {len(graph.nodes)} nodes")


def _rows(plain: Mapping[Any, Any], name: str) -> Sequence[Any]:
    rows = plain.get(name)
    if not isinstance(rows, list | tuple):
        raise InvalidGraph(f"'{name}' is a list, not {type(rows).__name__}")
    if len(rows) > MAX_NODES:
        raise InvalidGraph(f"{len(rows)} {name}; the limit is {MAX_NODES}")
    return rows
