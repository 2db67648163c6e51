"""nn.Module -> LayerGraph and weights: export, rewrite, fold, translate."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind, OutputKind
from torch.fx import Node as FxNode

from layergraph.budget import UNBOUNDED
from layergraph.buffers import dense_bytes, stride_order
from layergraph.check import check_graph
from layergraph.errors import InvalidGraph, UnsupportedOperator
from layergraph.export import decompose, export_program
from layergraph.fold import INLINE_BYTES, fold_constants
from layergraph.graph import LayerGraph
from layergraph.layers import group_layers
from layergraph.nodes import (
    Argument,
    Constant,
    ConstantRef,
    Node,
    Ref,
    Symbol,
    TensorSpec,
    Weight,
    WeightRef,
)
from layergraph.ops import OPERATORS
from layergraph.rewrite import LiveAlias, functionalise, module_path, place, simplify, unwrap
from layergraph.signature import sign
from layergraph.symbols import DTYPE_NAMES, MEMORY_FORMAT_NAMES, spec_of
from layergraph.weights import weight_digest


def capture(
    model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any] | None = None
) -> tuple[LayerGraph, dict[str, torch.Tensor]]:
    """The model in evaluation mode as (graph, weights by name), for inputs like these.

    Sets `model.eval()`. Running all layers computes bitwise what `model(*args, **kwargs)`
    does (with `slow_attention()` for modules that have a fused path). Weights share memory
    with the model's. Raises UnsupportedOperator, naming what, where and what to do, for a
    model that cannot become data.
    """
    kwargs = dict(kwargs or {})
    program = export_program(model, args, kwargs)
    try:
        states = _rewrite(program)
    except LiveAlias:
        program = decompose(program)
        try:
            states = _rewrite(program)
        except LiveAlias as error:
            raise UnsupportedOperator(
                f"in-place write that another view of the tensor sees: {error}."
                " Write it with torch.where or torch.cat instead"
            ) from None
    translator = _Translator(program, states)
    graph = translator.translate()
    check_graph(graph, UNBOUNDED)
    out_spec = program.call_spec.out_spec
    signed = dataclasses.replace(graph, signature=sign(graph, args, kwargs, out_spec))
    return signed, translator.tensors


@dataclasses.dataclass(frozen=True)
class _States:
    """The placeholders whose values are known, and those values' names."""

    tensors: dict[FxNode, torch.Tensor]
    names: dict[FxNode, str]
    lifted: frozenset[FxNode]
    trainable: frozenset[FxNode]


def _rewrite(program: ExportedProgram) -> _States:
    module = program.graph_module
    unwrap(module)
    states = _states(program)
    functionalise(module.graph, states.names)
    simplify(module.graph)
    fold_constants(module, states.tensors)
    return states


def _states(program: ExportedProgram) -> _States:
    nodes = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    tensors, names, lifted, trainable = {}, {}, set(), set()
    for spec in program.graph_signature.input_specs:
        if spec.kind in (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR):
            node, name = nodes[spec.arg.name], str(spec.target)
            stored = program.state_dict.get(name)
            value = program.constants[name] if stored is None else stored
            tensors[node], names[node] = value.detach(), name
            if value.requires_grad:
                trainable.add(node)
            if spec.kind is InputKind.CONSTANT_TENSOR:
                lifted.add(node)
        elif spec.kind is not InputKind.USER_INPUT:
            raise UnsupportedOperator(
                f"the model holds {spec.target}, a {spec.kind.name.lower()}, which is no tensor"
            )
    return _States(tensors, names, frozenset(lifted), frozenset(trainable))


class _Translator:
    """From the rewritten fx graph to ours: numbers values, collects weights and constants."""

    def __init__(self, program: ExportedProgram, states: _States) -> None:
        self._program = program
        self._states = states
        self._values: dict[FxNode, Any] = {}
        self._count = 0
        self._nodes: list[Node] = []
        self._weights: list[Weight] = []
        self._constants: list[Constant] = []
        self._known: dict[tuple[Any, ...], WeightRef | ConstantRef] = {}
        self.tensors: dict[str, torch.Tensor] = {}

    def translate(self) -> LayerGraph:
        inputs = self._inputs()
        outputs: tuple[Argument, ...] = ()
        for node in self._program.graph.nodes:
            if node.op == "call_function":
                self._call(node)
            elif node.op == "output":
                outputs = self._outputs(node)
            elif node.op == "get_attr":
                raise UnsupportedOperator(f"an attribute that is no tensor: {place(node)}")
        return LayerGraph(
            inputs=inputs,
            weights=tuple(self._weights),
            constants=tuple(self._constants),
            nodes=tuple(self._nodes),
            layers=group_layers(self._nodes, self._weights),
            outputs=outputs,
        )

    def _inputs(self) -> tuple[TensorSpec, ...]:
        nodes = {n.name: n for n in self._program.graph.nodes if n.op == "placeholder"}
        specs: list[TensorSpec] = []
        for spec in self._program.graph_signature.input_specs:
            if spec.kind is InputKind.USER_INPUT and not isinstance(spec.arg, ConstantArgument):
                node = nodes[spec.arg.name]
                self._values[node] = Ref(len(specs))
                specs.append(spec_of(node.meta["val"]))
        self._count = len(specs)
        return tuple(specs)

    def _outputs(self, node: FxNode) -> tuple[Argument, ...]:
        results = []
        kinds = self._program.graph_signature.output_specs
        for spec, value in zip(kinds, node.args[0], strict=True):  # type: ignore[arg-type]
            if spec.kind is OutputKind.BUFFER_MUTATION:
                raise UnsupportedOperator(
                    f"buffer mutation: the model writes to {spec.target}. Make the state an"
                    " input and an output of the model"
                )
            if spec.kind is not OutputKind.USER_OUTPUT:
                continue
            argument = self._argument(value, node)
            if isinstance(argument, WeightRef):
                # Results are values; a weight becomes one through a node of its own.
                argument = self._add("aten.clone.default", (argument,), value, "")
            results.append(argument)
        return tuple(results)

    def _call(self, node: FxNode) -> None:
        if node.target is operator.getitem:
            source, index = node.args
            self._values[node] = self._values[source][index]  # type: ignore[index]
            return
        name = str(node.target)
        if name not in OPERATORS:
            raise UnsupportedOperator(_unsupported(node))
        args = tuple(self._argument(value, node) for value in node.args)
        kwargs = tuple(
            (key, self._argument(value, node))
            for key, value in node.kwargs.items()
            # Memory is the executing side's own business.
            if key not in ("pin_memory", "layout")
        )
        made = node.meta["val"]
        many = OPERATORS[name].returns_many
        outputs = tuple(made) if many else (made,)
        try:
            specs = tuple(None if t is None else spec_of(t) for t in outputs)
        except InvalidGraph as error:
            raise UnsupportedOperator(
                f"{place(node)}: {error}. Offload the part of the model before it"
            ) from None
        self._nodes.append(Node(name, args, kwargs, specs, module_path(node)))
        refs = tuple(Ref(self._count + number) for number in range(len(specs)))
        self._count += len(specs)
        self._values[node] = refs if many else refs[0]

    def _add(self, name: str, args: tuple[Argument, ...], node: FxNode, module: str) -> Ref:
        spec = spec_of(node.meta["val"])
        self._nodes.append(Node(name, args, (), (spec,), module))
        self._count += 1
        return Ref(self._count - 1)

    def _argument(self, value: Any, user: FxNode) -> Argument:
        match value:
            case FxNode():
                if value in self._values:
                    return self._values[value]  # type: ignore[no-any-return]
                return self._tensor(value, user)
            case None | bool() | int() | float() | str():
                return value
            case list() | tuple():
                return tuple(self._argument(item, user) for item in value)
            case torch.dtype() if value in DTYPE_NAMES:
                return Symbol("dtype", DTYPE_NAMES[value])
            case torch.memory_format():
                return Symbol("memory_format", MEMORY_FORMAT_NAMES[value])
            case torch.layout():
                return Symbol("layout", "strided")
            case torch.device():
                return Symbol("device", "")
        raise UnsupportedOperator(
            f"{place(user)} takes {type(value).__name__} {str(value)[:60]!r}, which depends on"
            " the data or has no plain form"
        )

    def _tensor(self, source: FxNode, user: FxNode) -> Argument:
        """A weight or constant; one that is not stored row by row comes through a permutation."""
        tensor = self._states.tensors[source]
        order = stride_order(tensor)
        stored = tensor.permute(order)
        if tensor.is_contiguous() or not stored.is_contiguous():
            return self._leaf(source, tensor.contiguous(), tensor)
        leaf = self._leaf(source, stored, tensor)
        back = tuple(order.index(dim) for dim in range(tensor.dim()))
        # Beside every user: one shared view would have to cross the cuts between them.
        return self._add("aten.permute.default", (leaf, back), source, module_path(user))

    def _leaf(
        self, source: FxNode, stored: torch.Tensor, original: torch.Tensor
    ) -> WeightRef | ConstantRef:
        key = (
            original.untyped_storage().data_ptr() or source.name,
            original.storage_offset(),
            tuple(original.shape),
            original.stride(),
            original.dtype,
        )
        if key not in self._known:
            nameless = source not in self._states.names or source in self._states.lifted
            if nameless and stored.nbytes <= INLINE_BYTES:
                self._constants.append(Constant(spec_of(stored), bytes(dense_bytes(stored))))
                self._known[key] = ConstantRef(len(self._constants) - 1)
            else:
                self._known[key] = self._weight(source, stored)
        return self._known[key]

    def _weight(self, source: FxNode, stored: torch.Tensor) -> WeightRef:
        name = self._states.names.get(source)
        if name is None:
            name = f"_folded.{sum(w.name.startswith('_folded.') for w in self._weights)}"
        self.tensors[name] = stored
        trainable = source in self._states.trainable
        self._weights.append(Weight(name, spec_of(stored), weight_digest(stored), trainable))
        return WeightRef(len(self._weights) - 1)


_REMEDIES: dict[str, str] = {
    "aten.item": "the shape or the path depends on a tensor's values",
    "aten._local_scalar_dense": "the shape or the path depends on a tensor's values",
    "aten.nonzero": "the number of results depends on a tensor's values",
    "aten.masked_select": "the number of results depends on a tensor's values",
}


def _unsupported(node: FxNode) -> str:
    name = str(node.target)
    reason = _REMEDIES.get(name.rpartition(".")[0], "it is not in the operator table")
    return (
        f"{place(node)}: {reason}. Offload the part of the model before it, or rewrite it with"
        " operators of the table (layergraph/ops.py)"
    )
