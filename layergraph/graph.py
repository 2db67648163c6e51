"""What a model is: plain data, its validation, its fingerprint, its form as plain dicts.

Knows nothing of torch, files or sockets. Everything here may come from a peer, so
`LayerGraph.from_plain` accepts any nested plain data and raises InvalidGraph for all of it
that is not a well-formed graph. Whether the operators exist and their arguments fit is
checked in `ops` and `check`, which know torch.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias

from layergraph.errors import InvalidGraph

FORMAT = 1
MAX_NODES = 100_000
MAX_RANK = 16
MAX_TENSOR_BYTES = 1 << 40
MAX_CONSTANT_BYTES = 1 << 20
MAX_NESTING = 8
MAX_ARGUMENTS = 4096
MAX_CUT_ENTRIES = 1 << 22
_INT64 = 1 << 63
DTYPE_BYTES: Mapping[str, int] = {
    "bool": 1, "uint8": 1, "int8": 1, "int16": 2, "int32": 4, "int64": 8,
    "float16": 2, "bfloat16": 2, "float32": 4, "float64": 8,
    "complex64": 8, "complex128": 16,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Element type and shape of a dense tensor."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return DTYPE_BYTES[self.dtype] * math.prod(self.shape)

    @property
    def reach_bytes(self) -> int:
        """`nbytes` with empty dimensions taken as 1: some kernels loop over the others anyway."""
        return DTYPE_BYTES[self.dtype] * math.prod(max(size, 1) for size in self.shape)

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True, slots=True)
class Ref:
    """An argument that is the value with this number: an input, or a node's output."""

    value: int


@dataclass(frozen=True, slots=True)
class WeightRef:
    """An argument that is `graph.weights[index]`."""

    index: int


@dataclass(frozen=True, slots=True)
class ConstantRef:
    """An argument that is `graph.constants[index]`."""

    index: int


@dataclass(frozen=True, slots=True)
class Symbol:
    """A torch enumeration: kind is "dtype", "memory_format", "layout" or "device".

    The device is always the one that executes, so its name is empty.
    """

    kind: str
    name: str


Argument: TypeAlias = (
    Ref
    | WeightRef
    | ConstantRef
    | Symbol
    | bool
    | int
    | float
    | str
    | tuple["Argument", ...]
    | None
)


@dataclass(frozen=True, slots=True)
class Weight:
    """A parameter or buffer: its name in the model, and the SHA-256 of its contiguous bytes.

    `trainable` is whether it requires a gradient. Nothing is trained here, but torch multiplies
    matrices in another order, and rounds otherwise, where a weight does.
    """

    name: str
    spec: TensorSpec
    digest: bytes
    trainable: bool = False


@dataclass(frozen=True, slots=True)
class Constant:
    """A small input-independent tensor that travels inside the graph."""

    spec: TensorSpec
    data: bytes


@dataclass(frozen=True, slots=True)
class Node:
    """One operator call. Its outputs take the next value numbers; None marks an absent one."""

    op: str
    args: tuple[Argument, ...]
    kwargs: tuple[tuple[str, Argument], ...]
    outputs: tuple[TensorSpec | None, ...]
    module: str

    def arguments(self) -> Iterator[Argument]:
        """Every leaf argument, depth first."""
        yield from _leaves((*self.args, *(value for _, value in self.kwargs)))


@dataclass(frozen=True, slots=True)
class Layer:
    """The unit of planning: nodes [start, stop), and the weights that they use."""

    name: str
    start: int
    stop: int
    weights: tuple[int, ...]


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
        for argument in _leaves(self.outputs):
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
        found.update((layer_of[a.value], n) for a in _leaves(self.outputs) if isinstance(a, Ref))
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
            "inputs": [_spec_to_plain(spec) for spec in self.inputs],
            "weights": [
                [w.name, _spec_to_plain(w.spec), w.digest, w.trainable] for w in self.weights
            ],
            "constants": [[_spec_to_plain(c.spec), c.data] for c in self.constants],
            "nodes": [
                [
                    node.op,
                    [_argument_to_plain(a) for a in node.args],
                    [[name, _argument_to_plain(a)] for name, a in node.kwargs],
                    [None if spec is None else _spec_to_plain(spec) for spec in node.outputs],
                    node.module,
                ]
                for node in self.nodes
            ],
            "layers": [[la.name, la.start, la.stop, list(la.weights)] for la in self.layers],
            "outputs": [_argument_to_plain(a) for a in self.outputs],
        }

    @classmethod
    def from_plain(cls, plain: object) -> LayerGraph:
        """The graph from what `to_plain` gave. Raises InvalidGraph for anything else."""
        if not isinstance(plain, Mapping):
            raise InvalidGraph(f"a graph is a map, not {type(plain).__name__}")
        if plain.get("format") != FORMAT:
            raise InvalidGraph(
                f"graph format {_brief(plain.get('format'))}; this side reads {FORMAT}"
            )
        return cls(
            inputs=tuple(_spec_from_plain(s) for s in _rows(plain, "inputs")),
            weights=tuple(_weight_from_plain(w) for w in _rows(plain, "weights")),
            constants=tuple(_constant_from_plain(c) for c in _rows(plain, "constants")),
            nodes=tuple(_node_from_plain(n) for n in _rows(plain, "nodes")),
            layers=tuple(_layer_from_plain(la) for la in _rows(plain, "layers")),
            outputs=tuple(_argument_from_plain(a) for a in _rows(plain, "outputs")),
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
        self._references(_leaves(graph.outputs), defined, "the model's outputs")
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


def _leaves(arguments: Sequence[Argument]) -> Iterator[Argument]:
    for argument in arguments:
        if isinstance(argument, tuple):
            yield from _leaves(argument)
        else:
            yield argument


def _spec_to_plain(spec: TensorSpec) -> list[Any]:
    return [spec.dtype, list(spec.shape)]


_TAGS = {Ref: "v", WeightRef: "w", ConstantRef: "c"}


def _argument_to_plain(argument: Argument) -> Any:
    # Plain scalars stand for themselves; everything else is a list led by a tag, so that
    # "v" the string and v the reference cannot be mistaken for each other.
    match argument:
        case Ref(number) | WeightRef(number) | ConstantRef(number):
            return [_TAGS[type(argument)], number]
        case Symbol(kind, name):
            return ["s", kind, name]
        case tuple():
            return ["l", *map(_argument_to_plain, argument)]
        case _:
            return argument


def _rows(plain: Mapping[Any, Any], name: str) -> Sequence[Any]:
    rows = plain.get(name)
    if not isinstance(rows, list | tuple):
        raise InvalidGraph(f"'{name}' is a list, not {type(rows).__name__}")
    if len(rows) > MAX_NODES:
        raise InvalidGraph(f"{len(rows)} {name}; the limit is {MAX_NODES}")
    return rows


def _fields(row: object, count: int, what: str) -> Sequence[Any]:
    if not isinstance(row, list | tuple) or len(row) != count:
        raise InvalidGraph(f"a {what} is a list of {count} fields")
    return row


def _brief(value: object) -> str:
    # Never the text of a container: it may nest deeper than Python's stack.
    if isinstance(value, str):
        return repr(value[:40])
    if (
        value is None
        or isinstance(value, float)
        or (isinstance(value, int) and value.bit_length() < 64)
    ):
        return repr(value)
    return f"a {type(value).__name__}"


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _INT64


def _text(value: object, what: str) -> str:
    if not isinstance(value, str) or len(value) > 1024:
        raise InvalidGraph(f"{what} is a string of at most 1024 characters")
    return value


def _spec_from_plain(row: object) -> TensorSpec:
    dtype, shape = _fields(row, 2, "tensor spec")
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        raise InvalidGraph(f"unknown element type {_brief(dtype)}")
    if (
        not isinstance(shape, list | tuple)
        or len(shape) > MAX_RANK
        or not all(map(_is_count, shape))
    ):
        raise InvalidGraph(f"{_brief(shape)} is not a shape of at most {MAX_RANK} dimensions")
    spec = TensorSpec(dtype, tuple(shape))
    if spec.reach_bytes > MAX_TENSOR_BYTES:
        raise InvalidGraph(f"a tensor {spec} exceeds {MAX_TENSOR_BYTES} bytes")
    return spec


def _weight_from_plain(row: object) -> Weight:
    name, spec, digest, trainable = _fields(row, 4, "weight")
    if not isinstance(digest, bytes) or len(digest) != hashlib.sha256().digest_size:
        raise InvalidGraph("a weight's digest is 32 bytes")
    if not isinstance(trainable, bool):
        raise InvalidGraph("whether a weight is trainable is yes or no")
    return Weight(_text(name, "a weight's name"), _spec_from_plain(spec), digest, trainable)


def _constant_from_plain(row: object) -> Constant:
    plain_spec, data = _fields(row, 2, "constant")
    spec = _spec_from_plain(plain_spec)
    if not isinstance(data, bytes) or len(data) != spec.nbytes:
        raise InvalidGraph(f"a constant {spec} needs {spec.nbytes} bytes of data")
    return Constant(spec, data)


def _node_from_plain(row: object) -> Node:
    op, args, kwargs, outputs, module = _fields(row, 5, "node")
    for part in (args, kwargs, outputs):
        if not isinstance(part, list | tuple) or len(part) > MAX_ARGUMENTS:
            raise InvalidGraph("a node's arguments and outputs are lists of at most 4096")
    pairs = [_fields(pair, 2, "keyword argument") for pair in kwargs]
    return Node(
        _text(op, "an operator's name"),
        tuple(_argument_from_plain(a) for a in args),
        tuple((_text(name, "an argument's name"), _argument_from_plain(a)) for name, a in pairs),
        tuple(None if spec is None else _spec_from_plain(spec) for spec in outputs),
        _text(module, "a module path"),
    )


def _layer_from_plain(row: object) -> Layer:
    name, start, stop, weights = _fields(row, 4, "layer")
    if not (_is_count(start) and _is_count(stop)):
        raise InvalidGraph("a layer's start and stop are node numbers")
    if not isinstance(weights, list | tuple) or not all(map(_is_count, weights)):
        raise InvalidGraph("a layer's weights are weight numbers")
    return Layer(_text(name, "a layer's name"), start, stop, tuple(weights))


_REFERENCES: Mapping[str, type[Ref] | type[WeightRef] | type[ConstantRef]] = {
    "v": Ref,
    "w": WeightRef,
    "c": ConstantRef,
}
_SYMBOLS = {"dtype", "memory_format", "layout", "device"}


def _argument_from_plain(plain: object, depth: int = 0) -> Argument:
    if plain is None or isinstance(plain, bool | float):
        return plain
    if isinstance(plain, int):
        if not -_INT64 <= plain < _INT64:
            raise InvalidGraph("a number needs more than 64 bits")
        return plain
    if isinstance(plain, str):
        return _text(plain, "a string argument")
    if depth >= MAX_NESTING:
        raise InvalidGraph(f"arguments nest deeper than {MAX_NESTING}")
    match plain:
        case ["v" | "w" | "c" as tag, int(number)] if _is_count(number):
            return _REFERENCES[tag](number)
        case ["s", str(kind), str(name)] if kind in _SYMBOLS and len(name) <= 64:
            return Symbol(kind, name)
        case ["l", *items]:
            if len(items) > MAX_ARGUMENTS:
                raise InvalidGraph(f"a list of {len(items)} items; it may have at most 4096")
            return tuple(_argument_from_plain(item, depth + 1) for item in items)
    raise InvalidGraph(f"an argument cannot be {_brief(plain)}")
