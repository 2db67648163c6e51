"""Every operator with arguments of fitting types and hostile values: an answer, never a crash."""

from __future__ import annotations

import random

import pytest

from layergraph import Budget, GraphError, LayerGraph, check_graph
from layergraph.nodes import Argument, Layer, Node, Ref, Symbol, TensorSpec, Weight, WeightRef
from layergraph.ops import OPERATORS, Operator
from layergraph.symbols import DTYPES, LAYOUTS, MEMORY_FORMATS

ROUNDS = 12
NUMBERS = (0, 1, 2, 3, 4, -1, -2, 7, 4097, 1 << 31, 1 << 40, (1 << 63) - 1, -(1 << 63))
SIZES = (0, 1, 2, 3, 4, 8, 1 << 20, 1 << 35)
STRINGS = ("mean", "same", "valid", "reflect", "floor", "none", "tanh", "ij", "ij,jk->ik", "é", "")


class Peer:
    """Makes one node at a time, of the right types and otherwise of any kind."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def spec(self) -> TensorSpec:
        dtype = self.random.choice([*DTYPES, *["float32"] * 12, *["int64"] * 4])
        rank = self.random.choice((0, 1, 2, 2, 3, 3, 4, 4, 5))
        wild = self.random.random() < 0.1
        sizes = [self.random.choice(SIZES if wild else SIZES[1:5]) for _ in range(rank)]
        return TensorSpec(dtype, tuple(sizes))

    def argument(self, kind: str) -> Argument:
        choose = self.random.choice
        if kind.startswith("Optional["):
            return None if self.random.random() < 0.4 else self.argument(kind[9:-1])
        if kind.startswith("List["):
            if kind == "List[int]" and self.random.random() < 0.2:
                return self.argument("int")
            return tuple(self.argument(kind[5:-1]) for _ in range(self.random.randrange(5)))
        return {
            "Tensor": lambda: choose((Ref(0), Ref(1), Ref(2), WeightRef(0), WeightRef(1))),
            "int": lambda: choose(NUMBERS[:6] if self.random.random() < 0.8 else NUMBERS),
            "float": lambda: choose((0.0, 0.5, 2.0, -1.0, float("nan"), float("inf"), 1e300)),
            "number": lambda: choose((0, 1, 0.5, True, 1 << 62, float("nan"))),
            "bool": lambda: choose((True, False)),
            "str": lambda: choose(STRINGS),
            "ScalarType": lambda: Symbol("dtype", choose([*DTYPES])),
            "MemoryFormat": lambda: Symbol("memory_format", choose([*MEMORY_FORMATS])),
            "Layout": lambda: Symbol("layout", choose([*LAYOUTS])),
            "Device": lambda: Symbol("device", ""),
        }[kind]()

    def graph(self, operator: Operator) -> LayerGraph:
        args: list[Argument] = []
        kwargs: list[tuple[str, Argument]] = []
        for parameter in operator.parameters:
            if parameter.keyword_only or not parameter.required:
                if self.random.random() < 0.5:
                    kwargs.append((parameter.name, self.argument(parameter.type)))
            else:
                args.append(self.argument(parameter.type))
        makes = (self.spec(), self.spec(), self.spec()) if operator.returns_many else (self.spec(),)
        node = Node(operator.name, tuple(args), tuple(kwargs), makes, "hostile")
        used = {a.index for a in node.arguments() if isinstance(a, WeightRef)}
        return LayerGraph(
            inputs=(self.spec(), self.spec(), self.spec()),
            weights=tuple(Weight(f"w{i}", self.spec(), bytes(32)) for i in range(2)),
            constants=(),
            nodes=(node,),
            layers=(Layer("a", 0, 1, tuple(used)),),
            outputs=(Ref(3),),
        )


@pytest.mark.parametrize("name", OPERATORS)
def test_any_arguments_of_fitting_types(name: str) -> None:
    peer = Peer(seed=len(name))
    for _ in range(ROUNDS):
        # A random shape is hardly ever the right one, so a graph that passes is as good.
        try:
            check_graph(peer.graph(OPERATORS[name]), Budget(tensor_bytes=1 << 30))
        except GraphError:
            continue
