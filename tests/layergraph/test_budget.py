"""What a graph would take, held against a budget before anything is allocated or run."""

from __future__ import annotations

import resource
import time
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from layergraph import Budget, InvalidGraph, LayerGraph, capture, check_graph
from layergraph.binding import bind, resolve
from layergraph.bounds import Cost, cost
from layergraph.networks import NETWORKS
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
)
from layergraph.ops import OPERATORS
from layergraph.shapes import made_by
from tests.operator_seeds import seeds
from tests.operator_trial import graph_of as graph_of_call


def spec(*shape: int, dtype: str = "float32") -> TensorSpec:
    return TensorSpec(dtype, shape)


def node(op: str, *args: Argument, makes: tuple[TensorSpec, ...]) -> Node:
    return Node(f"aten.{op}", args, (), makes, "layer4.0.attn")


def graph_of(inputs: tuple[TensorSpec, ...], *nodes: Node, outputs: tuple[int, ...]) -> LayerGraph:
    layers = tuple(Layer(str(n), n, n + 1, ()) for n in range(len(nodes)))
    return LayerGraph(inputs, (), (), nodes, layers, tuple(map(Ref, outputs)))


def costs(graph: LayerGraph) -> list[Cost]:
    found = []
    for call in graph.nodes:
        operator = OPERATORS[call.op]
        arguments = {name: resolve(graph, a) for name, a in bind(operator, call).items()}
        made = [each for each in call.outputs if each is not None]
        found.append(cost(operator, arguments, made))
    return found


def passes_only_from(graph: LayerGraph, field: str, least: int, message: str) -> None:
    """The budget's field is refused just below `least`, and enough at it."""
    check_graph(graph, Budget(**{field: least}))
    with pytest.raises(InvalidGraph, match=message):
        check_graph(graph, Budget(**{field: least - 1}))


X = spec(1024)
RELU = node("relu.default", Ref(0), makes=(X,))


def test_nodes_and_constants() -> None:
    graph = graph_of((X,), RELU, node("neg.default", Ref(1), makes=(X,)), outputs=(2,))
    passes_only_from(graph, "nodes", 2, "2 nodes, more than 1")
    constant = Constant(spec(2), bytes(8))
    small = LayerGraph(
        (spec(2),), (), (constant,),
        (node("add.Tensor", Ref(0), ConstantRef(0), makes=(spec(2),)),),
        (Layer("a", 0, 1, ()),), (Ref(1),),
    )  # fmt: skip
    passes_only_from(small, "constant_bytes", 8, "constants of 8 bytes, more than 7")


def test_the_largest_tensor_whichever_it_is() -> None:
    passes_only_from(
        graph_of((X,), RELU, outputs=(1,)), "tensor_bytes", 4096, "an input is float32"
    )
    narrow = node("slice.Tensor", Ref(0), 0, 0, 2, makes=(spec(2),))
    wide = node("expand.default", Ref(1), (600, 2), makes=(spec(600, 2),))
    made = graph_of((X,), narrow, wide, outputs=(2,))
    passes_only_from(made, "tensor_bytes", 4800, r"node 1, aten\.expand.*layer4\.0\.attn.*4,800")
    weight = LayerGraph(
        (spec(1),), (Weight("w", X, bytes(32)),), (),
        (node("mul.Tensor", Ref(0), WeightRef(0), makes=(X,)),),
        (Layer("a", 0, 1, (0,)),), (Ref(1),),
    )  # fmt: skip
    passes_only_from(weight, "tensor_bytes", 4096, "weight w is")


def test_bytes_alive_at_once_count_skips_and_workspace() -> None:
    # The input stays for the last node, two results and workspace of two copies beside it.
    graph = graph_of(
        (X,),
        RELU,
        node("neg.default", Ref(1), makes=(X,)),
        node("add.Tensor", Ref(2), Ref(0), makes=(X,)),
        outputs=(3,),
    )
    assert [each.workspace_bytes for each in costs(graph)] == [8192] * 3
    passes_only_from(
        graph, "live_bytes", 5 * 4096, r"node 1, aten\.neg.*20,480 bytes alive at once"
    )


def test_inputs_alone_may_be_too_much() -> None:
    graph = graph_of((X, X, X), RELU, outputs=(3,))
    with pytest.raises(InvalidGraph, match="the inputs: 12,288 bytes alive"):
        check_graph(graph, Budget(live_bytes=12_287))


def test_a_small_view_keeps_the_large_tensor_that_it_shows() -> None:
    count, large, row = 8, spec(64, 1024), spec(1, 1024)
    nodes, kept = [], []
    for _ in range(count):
        made = 1 + 2 * len(kept)
        nodes.append(node("expand.default", Ref(0), (64, 1024), makes=(large,)))
        nodes.append(node("select.int", Ref(made), 0, 0, makes=(X,)))
        kept.append(made + 1)
    held = graph_of((row,), *nodes, outputs=tuple(kept))
    with pytest.raises(InvalidGraph, match=r"node 14, aten\.expand.*alive at once"):
        check_graph(held, Budget(live_bytes=count * 64 * 4096))
    # Views of a view hold it as well, and one that is as large stands for it.
    same = graph_of(
        (row,),
        node("expand.default", Ref(0), (64, 1024), makes=(large,)),
        node("view.default", Ref(1), (64, 1024), makes=(large,)),
        node("select.int", Ref(2), 0, 0, makes=(X,)),
        node("relu.default", Ref(3), makes=(X,)),
        outputs=(4,),
    )
    passes_only_from(same, "live_bytes", 2 * 64 * 4096, "node 1, aten.view")


def test_results_of_meshgrid_are_views_of_one_argument_each() -> None:
    pair = (spec(3), spec(4))
    both = (spec(3, 4), spec(3, 4))
    graph = graph_of(
        pair,
        Node("aten.meshgrid.indexing", ((Ref(0), Ref(1)),), (("indexing", "ij"),), both, ""),
        outputs=(2, 3),
    )
    check_graph(graph, Budget(live_bytes=28 + 96 + 2 * 4 * 12))


@pytest.mark.parametrize(
    ("op", "inputs", "args", "makes", "flops"),
    [
        ("relu.default", (X,), (Ref(0),), X, 2048),
        ("matmul.default", (spec(3, 4, 5), spec(5, 6)), (Ref(0), Ref(1)), spec(3, 4, 6), 720),
        ("mv.default", (spec(4, 5), spec(5)), (Ref(0), Ref(1)), spec(4), 40),
        ("addmm.default", (spec(6), spec(4, 5), spec(5, 6)), (Ref(0), Ref(1), Ref(2)),
         spec(4, 6), 240),
        ("einsum.default", (spec(2, 3, 4), spec(2, 4, 5)), ("bij,bjk->bik", (Ref(0), Ref(1))),
         spec(2, 3, 5), 240),
        ("einsum.default", (spec(7, 3, 4), spec(4, 5)), ("...ij,jk->...ik", (Ref(0), Ref(1))),
         spec(7, 3, 5), 840),
        ("conv2d.default", (spec(1, 3, 9, 9), spec(4, 3, 3, 3)), (Ref(0), Ref(1)),
         spec(1, 4, 7, 7), 2 * 4 * 49 * 27),
        ("max_pool2d.default", (spec(1, 3, 8, 8),), (Ref(0), 2), spec(1, 3, 4, 4), 5 * 240),
        ("roll.default", (spec(2, 4),), (Ref(0), (1, 1), (0, 1)), spec(2, 4), 2 * 16),
        ("diff.default", (spec(8),), (Ref(0), 3), spec(5), 3 * 13),
        ("embedding.default", (spec(10**6, 8), spec(5, dtype="int64")), (Ref(0), Ref(1)),
         spec(5, 8), 4 * 45),
        ("view.default", (X,), (Ref(0), (2, 512)), spec(2, 512), 1024),
    ],
)  # fmt: skip
def test_operations_by_hand(
    op: str, inputs: tuple[TensorSpec, ...], args: Any, makes: TensorSpec, flops: int
) -> None:
    graph = graph_of(inputs, node(op, *args, makes=(makes,)), outputs=(len(inputs),))
    assert [each.flops for each in costs(graph)] == [flops]
    passes_only_from(graph, "flops", flops, f"node 0, aten.{op}.*{flops:,} operations")


@pytest.mark.parametrize("name", ["mobilenet", "googlenet", "pix2pix", "asr", "pos"])
def test_operations_are_never_less_than_torch_counts(name: str) -> None:
    info = NETWORKS[name]
    model, inputs = info.build(0), info.example()
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(*inputs)
    graph, _ = capture(model, inputs)
    total = sum(each.flops for each in costs(graph))
    assert counter.get_total_flops() <= total < 1.5 * counter.get_total_flops() + 10**8


def test_transformer_costs_are_never_less_than_torch_counts() -> None:
    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True).eval()
    source = torch.randn(2, 50, 32)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        layer.train()(source)
    graph, _ = capture(layer.eval(), (source,))
    assert sum(each.flops for each in costs(graph)) >= counter.get_total_flops() > 0


def test_a_declared_tensor_of_a_million_by_a_million_costs_nothing() -> None:
    before_kb, began_s = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    column, row = spec(10**6, 1), spec(1, 10**6)
    for makes in (spec(10**6, 10**6), spec(1)):
        outer = node("matmul.default", Ref(0), Ref(1), makes=(makes,))
        with pytest.raises(InvalidGraph, match=r"node 0, aten\.matmul"):
            check_graph(graph_of((column, row), outer, outputs=(2,)))
    # Nor does a product whose operations do not fit in 64 bits.
    wide, tall = spec(2, 1 << 30), spec(1 << 30, 2)
    nodes = [node("mm.default", Ref(0), Ref(1), makes=(spec(2, 2),)) for _ in range(2000)]
    with pytest.raises(InvalidGraph, match="operations up to here"):
        check_graph(graph_of((wide, tall), *nodes, outputs=(2,)), Budget(live_bytes=1 << 60))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb < 100_000
    assert time.process_time() - began_s < 60


def test_huge_arguments_do_not_overflow() -> None:
    attention = node("scaled_dot_product_attention.default", Ref(0), Ref(0), Ref(0),
                     makes=(spec(1 << 20, 1 << 20, 1),))  # fmt: skip
    graph = graph_of((spec(1 << 20, 1 << 20, 1),), attention, outputs=(1,))
    assert costs(graph)[0].flops == 4 * (1 << 60)
    with pytest.raises(InvalidGraph, match="4,611,686,018,427,387,904"):
        check_graph(graph, Budget(1 << 60, 1 << 60, 1 << 50))


def test_a_string_as_padding_may_copy_the_input() -> None:
    source, weight = spec(1, 4, 9, 9), spec(6, 4, 3, 3)
    made = spec(1, 6, 9, 9)
    same, plain = (
        costs(graph_of((source, weight), node(op, *args, makes=(made,)), outputs=(2,)))[0]
        for op, args in (
            ("conv2d.padding", (Ref(0), Ref(1), None, 1, "same")),
            ("conv2d.default", (Ref(0), Ref(1), None, 1, 1)),
        )
    )
    assert same.flops == plain.flops
    assert same.workspace_bytes == plain.workspace_bytes + 4 * 4 * 11 * 11


def test_costs_of_every_kind_grow_with_the_call() -> None:
    for name, at in (
        ("aten.conv_transpose2d.input", 0),
        ("aten.einsum.default", 3),
        ("aten.lstm.input", 0),
        ("aten.lstm_cell.default", 0),
        ("aten.upsample_nearest2d.vec", 0),
        ("aten.softmax.int", 0),
        ("aten.cat.default", 0),
        ("aten.zeros.default", 0),
    ):
        operator, call = OPERATORS[name], seeds(name)[at]
        honest = next(iter(made_by(graph_of_call(operator, call, [spec()]))))
        (found,) = costs(graph_of_call(operator, call, honest))
        assert found.flops > 0
        assert found.workspace_bytes > 0


def test_a_result_that_nobody_makes_costs_nothing() -> None:
    absent = Node("aten.topk.default", (Ref(0), 2), (), (spec(2), None), "")
    with pytest.raises(InvalidGraph, match="declares"):
        check_graph(graph_of((X,), absent, outputs=(1,)))


def test_results_that_are_plain_values_are_not_alive() -> None:
    graph = LayerGraph((X,), (), (), (RELU,), (Layer("a", 0, 1, ()),), (7, Ref(1), None))
    assert graph.cuts == ((0,), (1,))
    passes_only_from(graph, "live_bytes", 4 * 4096, "node 0")
