"""Graphs from a peer that means harm: refused before anything runs or is allocated."""

from __future__ import annotations

import dataclasses
import resource
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from layergraph import (
    Budget,
    Executor,
    InvalidGraph,
    LayerGraph,
    UnsupportedOperator,
    capture,
    check_graph,
)
from layergraph.nodes import (
    Argument,
    Constant,
    ConstantRef,
    Layer,
    Node,
    Ref,
    Symbol,
    TensorSpec,
    Weight,
    WeightRef,
)
from layergraph.symbols import spec_of


def spec(*shape: int, dtype: str = "float32") -> TensorSpec:
    return TensorSpec(dtype, shape)


def graph(
    op: str,
    args: tuple[Argument, ...],
    *,
    inputs: tuple[TensorSpec, ...] = (),
    weights: tuple[TensorSpec, ...] = (),
    constants: tuple[Constant, ...] = (),
    kwargs: tuple[tuple[str, Argument], ...] = (),
    makes: tuple[TensorSpec | None, ...] = (),
) -> LayerGraph:
    """One node, through the plain form as it would arrive."""
    built = LayerGraph(
        inputs=inputs,
        weights=tuple(Weight(f"w{i}", s, bytes(32)) for i, s in enumerate(weights)),
        constants=constants,
        nodes=(Node(op, args, kwargs, makes, "layer4.0.attn"),),
        layers=(Layer("a", 0, 1, tuple(range(len(weights)))),),
        outputs=(),
    )
    return LayerGraph.from_plain(built.to_plain())


def refused(hostile: LayerGraph, message: str) -> None:
    with pytest.raises(InvalidGraph, match=message):
        check_graph(hostile)


X = spec(1, 4)


def test_a_good_node_passes() -> None:
    check_graph(graph("aten.relu.default", (Ref(0),), inputs=(X,), makes=(X,)))


@pytest.mark.parametrize(
    "name",
    [
        "aten.relu_.default",
        "aten.empty.memory_format",
        "aten.as_strided.default",
        "aten.set_.source_Tensor",
        "aten.resize_.default",
        "aten.from_file.default",
        "aten._native_batch_norm_legit_no_training.default",
        "aten.rand.default",
        "aten.item.default",
        "aten.nonzero.default",
        "os.system",
        "__import__",
        "relu",
        "",
    ],
)
def test_an_operator_that_is_not_in_the_table(name: str) -> None:
    with pytest.raises(UnsupportedOperator, match=r"layer4\.0\.attn.*operator table"):
        check_graph(graph(name, (Ref(0),), inputs=(X,), makes=(X,)))


@pytest.mark.parametrize(
    ("op", "args", "kwargs", "message"),
    [
        ("aten.relu.default", (), (), "missing"),
        ("aten.relu.default", (Ref(0), Ref(0)), (), "2 arguments; it takes 1"),
        ("aten.relu.default", (3,), (), "not Tensor"),
        ("aten.relu.default", ("x",), (), "not Tensor"),
        ("aten.relu.default", ((Ref(0),),), (), "not Tensor"),
        ("aten.relu.default", (Ref(0),), (("out", Ref(0)),), "no argument is called 'out'"),
        ("aten.relu.default", (Ref(0),), (("self", Ref(0)),), "given twice"),
        ("aten.add.Tensor", (Ref(0), Ref(0)), (("alpha", "1"),), "not number"),
        ("aten.view.default", (Ref(0), (4, "1")), (), r"not List\[int\]"),
        ("aten.view.default", (Ref(0), (4, Ref(0))), (), r"not List\[int\]"),
        ("aten.view.default", (Ref(0), (True,)), (), r"not List\[int\]"),
        ("aten.view.default", (Ref(0), (-5,)), (), "invalid shape|shape"),
        ("aten.view.default", (Ref(0), (1 << 62, 1 << 62)), (), "node 0"),
        ("aten.cat.default", ((Ref(0), None),), (), r"not List\[Tensor\]"),
        ("aten.to.dtype", (Ref(0), "float32"), (), "not ScalarType"),
        ("aten.to.dtype", (Ref(0), Symbol("dtype", "qint8")), (), "not ScalarType"),
        ("aten.to.dtype", (Ref(0), Symbol("layout", "strided")), (), "not ScalarType"),
        ("aten.to.dtype_layout", (Ref(0),), (("layout", Symbol("layout", "sparse")),), "Layout"),
        ("aten.zeros.default", ((2,),), (("device", "cuda:7"),), "Device"),
        ("aten.zeros.default", ((2,),), (("pin_memory", True),), "pinned"),
        ("aten.softmax.int", (Ref(0), 7), (), "node 0"),
        ("aten.transpose.int", (Ref(0), 0, 9), (), "node 0"),
        ("aten.gelu.default", (Ref(0),), (("approximate", "evil"),), "node 0"),
        ("aten.matmul.default", (Ref(0), Ref(0)), (), "node 0"),
    ],
)
def test_arguments_that_do_not_fit(
    op: str, args: tuple[Argument, ...], kwargs: tuple[tuple[str, Argument], ...], message: str
) -> None:
    refused(graph(op, args, inputs=(X,), kwargs=kwargs, makes=(X,)), message)


def test_wrong_shapes_and_counts_of_outputs() -> None:
    relu = ("aten.relu.default", (Ref(0),))
    refused(graph(*relu, inputs=(X,), makes=(spec(1, 5),)), r"declares .*5\], makes .*4\]")
    refused(graph(*relu, inputs=(X,), makes=(spec(1, 4, dtype="float16"),)), "float16")
    refused(graph(*relu, inputs=(X,), makes=(X, X)), "2 outputs declared")
    refused(graph(*relu, inputs=(X,), makes=(None,)), "makes")
    refused(graph("aten.chunk.default", (Ref(0), 2), inputs=(X,), makes=(spec(1, 2),)), "declares")


def batch_norm(channels: int, training: bool = False, **short: TensorSpec) -> LayerGraph:
    names = ("weight", "bias", "running_mean", "running_var")
    return graph(
        "aten.batch_norm.default",
        (Ref(0), *(WeightRef(i) for i in range(4)), training, 0.1, 1e-5, False),
        inputs=(spec(1, 64, 2, 2),),
        weights=tuple(short.get(name, spec(channels)) for name in names),
        makes=(spec(1, 64, 2, 2),),
    )


def test_batch_norm_with_short_statistics() -> None:
    check_graph(batch_norm(64))
    for name in ("weight", "bias", "running_mean", "running_var"):
        refused(batch_norm(64, **{name: spec(1)}), f"{name} is float32")
    refused(batch_norm(64, training=True), "training mode")


def recurrent(kind: type[nn.RNNBase], **options: Any) -> LayerGraph:
    return capture(kind(5, 4, **options), (torch.randn(3, 2, 5),))[0]


def reshaped(source: LayerGraph, number: int, shape: TensorSpec) -> LayerGraph:
    weights = list(source.weights)
    weights[number] = dataclasses.replace(weights[number], spec=shape)
    return LayerGraph.from_plain(dataclasses.replace(source, weights=tuple(weights)).to_plain())


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_weights_of_wrong_shapes(kind: type[nn.RNNBase]) -> None:
    good = recurrent(kind, num_layers=2, bidirectional=True)
    check_graph(good)
    for number, weight in enumerate(good.weights):
        for wrong in (spec(1), spec(1, 1), TensorSpec("float16", weight.spec.shape)):
            refused(reshaped(good, number, wrong), r"lstm|gru|rnn")


def test_a_cell_with_weights_of_wrong_shapes() -> None:
    good, _ = capture(nn.LSTMCell(5, 4), (torch.randn(2, 5),))
    check_graph(good)
    for number in range(4):
        refused(reshaped(good, number, spec(1)), r"aten\.lstm_cell.*[wb]_[ih]h")


def rearranged(source: LayerGraph, change: Callable[[list[Argument]], None]) -> LayerGraph:
    args = list(source.nodes[0].args)
    change(args)
    node = dataclasses.replace(source.nodes[0], args=tuple(args))
    layer = dataclasses.replace(
        source.layers[0],
        weights=tuple(dict.fromkeys(a.index for a in node.arguments() if isinstance(a, WeightRef))),
    )
    return dataclasses.replace(source, nodes=(node, *source.nodes[1:]), layers=(layer,))


@pytest.mark.parametrize(
    ("position", "value"),
    [(3, False), (4, 3), (4, -1), (4, 1 << 40), (6, True), (7, True), (8, True), (2, ()), (1, ())],
)
def test_lstm_with_other_options_than_its_weights_have(position: int, value: Argument) -> None:
    refused(
        rearranged(recurrent(nn.LSTM), lambda args: args.__setitem__(position, value)),
        r"aten\.lstm",
    )


@pytest.mark.parametrize(
    ("op", "args", "inputs", "weights", "makes", "message"),
    [
        (
            "aten.conv2d.default", (Ref(0), WeightRef(0), WeightRef(1)),
            (spec(1, 3, 8, 8),), (spec(4, 3, 3, 3), spec(1)), spec(1, 4, 6, 6), "bias",
        ),
        (
            "aten.conv2d.default", (Ref(0), WeightRef(0), None, (0, 1)),
            (spec(1, 3, 8, 8),), (spec(4, 3, 3, 3),), spec(1, 4, 6, 6), "stride",
        ),
        (
            "aten.conv2d.default", (Ref(0), WeightRef(0), None, (1, 1), (-1, 0)),
            (spec(1, 3, 8, 8),), (spec(4, 3, 3, 3),), spec(1, 4, 6, 6), "padding",
        ),
        (
            "aten.conv2d.default", (Ref(0), WeightRef(0)),
            (spec(1, 9, 8, 8),), (spec(4, 3, 3, 3),), spec(1, 4, 6, 6), "9 channels",
        ),
        (
            "aten.layer_norm.default", (Ref(0), (4,), WeightRef(0)),
            (X,), (spec(2),), X, "weight",
        ),
        (
            "aten.group_norm.default", (Ref(0), 2, WeightRef(0)),
            (X,), (spec(1),), X, "weight",
        ),
        (
            "aten.embedding.default", (WeightRef(0), Ref(0)),
            (X,), (spec(9, 2),), spec(1, 4, 2), "indices",
        ),
        (
            "aten.linear.default", (Ref(0), WeightRef(0), WeightRef(1)),
            (X,), (spec(2, 4), spec(1)), spec(1, 2), "bias",
        ),
        (
            "aten.max_pool2d.default", (Ref(0), (0, 0)),
            (spec(1, 3, 8, 8),), (), spec(1, 3, 8, 8), "kernel_size",
        ),
        (
            "aten.scaled_dot_product_attention.default", (Ref(0), Ref(0), Ref(0), None, 0.5),
            (spec(1, 2, 4, 4),), (), spec(1, 2, 4, 4), "dropout",
        ),
        (
            "aten.grid_sampler.default", (Ref(0), Ref(1), 17, 0, False),
            (spec(1, 3, 4, 4), spec(1, 2, 2, 2)), (), spec(1, 3, 2, 2), "mode 17",
        ),
        (
            "aten.index.Tensor", (Ref(0), (Ref(1),)),
            (X, TensorSpec("bool", (1,))), (), X, "mask",
        ),
        (
            "aten.gather.default", (Ref(0), 1, Ref(0)), (X,), (), X, "int64",
        ),
    ],
)  # fmt: skip
def test_validators(
    op: str,
    args: tuple[Argument, ...],
    inputs: tuple[TensorSpec, ...],
    weights: tuple[TensorSpec, ...],
    makes: TensorSpec,
    message: str,
) -> None:
    refused(graph(op, args, inputs=inputs, weights=weights, makes=(makes,)), message)


def test_huge_tensors_are_refused_and_not_allocated() -> None:
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    huge = spec(10**6, 10**6, dtype="uint8")
    refused(graph("aten.neg.default", (Ref(0),), inputs=(huge,), makes=(huge,)), "more than")
    refused(
        graph("aten.neg.default", (WeightRef(0),), weights=(huge,), makes=(spec(1),)), "more than"
    )
    big = spec(500_000, 500_000)
    column, row = spec(500_000, 1), spec(1, 500_000)
    product = ("aten.matmul.default", (Ref(0), Ref(1)))
    refused(graph(*product, inputs=(column, row), makes=(big,)), "more than")
    # Nor where the declared shape is small: the shape that follows is compared, not made.
    refused(graph(*product, inputs=(column, row), makes=(X,)), "makes")
    refused(graph("aten.ones.default", ((1 << 33,),), makes=(X,)), "makes")
    refused(graph("aten.eye.default", (1 << 40,), makes=(X,)), "node 0")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb < 200_000


def test_lists_of_endless_pieces_are_refused() -> None:
    wide = spec(1 << 24, dtype="uint8")
    for op, args in (
        ("aten.unbind.int", (Ref(0),)),
        ("aten.split.Tensor", (Ref(0), 1)),
        ("aten.chunk.default", (Ref(0), 1 << 24)),
        ("aten.tensor_split.sections", (Ref(0), 1 << 24)),
    ):
        refused(graph(op, args, inputs=(wide,), makes=(spec(1, dtype="uint8"),)), "pieces")
    refused(graph("aten.diff.default", (Ref(0), 1 << 40), inputs=(X,), makes=(X,)), "differences")


def test_endless_sequences_are_checked_at_once() -> None:
    good = recurrent(nn.GRU)
    long = TensorSpec("float32", (1 << 24, 2, 5))
    node = dataclasses.replace(good.nodes[-1], outputs=(spec(1 << 24, 2, 4), spec(1, 2, 4)))
    check_graph(dataclasses.replace(good, inputs=(long,), nodes=(*good.nodes[:-1], node)))


def test_torch_does_not_log_what_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG", logger="torch._subclasses.fake_tensor"):
        refused(
            graph("aten.add.Tensor", (Ref(0), Ref(1)), inputs=(X, spec(1, 5)), makes=(X,)),
            "broadcast",
        )
    assert "failed" not in caplog.text


def test_a_device_of_the_peers_choice_is_ours() -> None:
    zeros = graph(
        "aten.zeros.default", ((2,),), kwargs=(("device", Symbol("device", "")),), makes=(spec(2),)
    )
    check_graph(zeros)
    assert Executor(zeros, {}).run(0, 1, ()) == ()


def test_the_generated_source_holds_no_text_from_the_graph() -> None:
    evil = "'); __import__('os').abort(); ('"
    hostile = graph("aten.pad.default", (Ref(0), (1, 1), evil), inputs=(X,), makes=(spec(1, 6),))
    refused(hostile, "node 0")
    with pytest.raises(Exception, match=r"padding mode|Unrecognised"):
        Executor(hostile, {}).run(0, 1, (torch.zeros(1, 4),))
    named = graph("aten.relu.default", (Ref(0),), inputs=(X,), kwargs=((evil, 1),), makes=(X,))
    with pytest.raises(InvalidGraph, match="no argument is called"):
        Executor(named, {}).run(0, 1, (torch.zeros(1, 4),))


def test_a_constant_of_wrong_size_is_refused() -> None:
    constant = Constant(spec(2), b"1234")
    with pytest.raises(InvalidGraph, match="needs 8 bytes"):
        graph("aten.relu.default", (ConstantRef(0),), constants=(constant,), makes=(spec(2),))


def test_symbols_of_every_kind_are_objects_of_this_side() -> None:
    image = spec(1, 2, 3, 3)
    last = (("memory_format", Symbol("memory_format", "channels_last")),)
    check_graph(
        graph("aten.contiguous.default", (Ref(0),), inputs=(image,), kwargs=last, makes=(image,))
    )
    strided = (
        ("layout", Symbol("layout", "strided")),
        ("dtype", Symbol("dtype", "float16")),
        ("device", Symbol("device", "")),
    )
    half = spec(1, 4, dtype="float16")
    check_graph(
        graph("aten.to.dtype_layout", (Ref(0),), inputs=(X,), kwargs=strided, makes=(half,))
    )


def test_a_tensor_that_torch_cannot_count() -> None:
    huge = LayerGraph((spec(1 << 62),), (), (), (), (Layer("a", 0, 0, ()),), (Ref(0),))
    with pytest.raises(InvalidGraph, match="an input cannot be float32"):
        check_graph(huge, Budget(live_bytes=1 << 80, tensor_bytes=1 << 80))


def test_tensors_that_cannot_be_described() -> None:
    with pytest.raises(InvalidGraph, match="sparse"):
        spec_of(torch.eye(2).to_sparse())
    with pytest.raises(InvalidGraph, match="float8"):
        spec_of(torch.zeros(2, dtype=torch.float8_e4m3fn))
    with FakeTensorMode(shape_env=ShapeEnv()):
        found = torch.nonzero(torch.ones(3))
    with pytest.raises(InvalidGraph, match="depends on a tensor's values"):
        spec_of(found)


def test_a_keyword_only_argument_by_position() -> None:
    refused(graph("aten.add.Tensor", (Ref(0), Ref(0), 2), inputs=(X,), makes=(X,)), "it takes 2")
