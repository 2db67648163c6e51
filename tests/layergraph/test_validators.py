"""Each operator's own check: what it refuses of calls that are valid but for one argument."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from layergraph import InvalidGraph
from layergraph.budget import Budget
from layergraph.check import check_arguments
from layergraph.nodes import TensorSpec
from layergraph.ops import OPERATORS
from tests.operator_seeds import Call, Given, b, f, i, seeds
from tests.operator_trial import graph_of


def refused(name: str, call: Call, message: str) -> None:
    graph = graph_of(OPERATORS[name], call, [TensorSpec("float32", ())])
    with pytest.raises(InvalidGraph, match=rf"node 0, {name} at fuzz: .*{message}"):
        check_arguments(graph, Budget())


def test_valid_calls_pass() -> None:
    for name, operator in OPERATORS.items():
        for call in seeds(name):
            check_arguments(graph_of(operator, call, [TensorSpec("float32", ())]), Budget())


def changed(call: Call, at: int | str, value: Any) -> Call:
    if isinstance(at, str):
        return dataclasses.replace(call, kwargs={**call.kwargs, at: value})
    return dataclasses.replace(call, args=(*call.args[:at], value, *call.args[at + 1 :]))


@pytest.mark.parametrize(
    ("name", "at", "value", "message"),
    [
        ("conv2d.default", 1, f(6, 2), "not a convolution's"),
        ("conv2d.default", 0, f(9, 8), "input is"),
        ("conv2d.default", 6, 0, "0 groups"),
        ("conv2d.default", 6, 4, "4 groups"),
        ("conv2d.default", 6, 1, "for 4 channels"),
        ("conv2d.default", 1, f(6, 2, 0, 3), "empty"),
        ("conv2d.default", 2, f(5), "bias"),
        ("conv2d.default", 3, 0, "stride"),
        ("conv2d.default", 5, (1, -1), "dilation"),
        ("conv2d.default", 4, (0, -1), "padding"),
        ("conv2d.padding", 3, (0, 1), "stride"),
        ("conv_transpose2d.input", 1, f(4), "not a convolution's"),
        ("conv_transpose2d.input", 0, f(5), "input is"),
        ("conv_transpose2d.input", 6, 3, "3 groups"),
        ("conv_transpose2d.input", 6, -2, "-2 groups"),
        ("conv_transpose2d.input", 1, f(2, 3, 3, 3), "for 4 channels"),
        ("conv_transpose2d.input", 1, f(4, 0, 3, 3), "empty"),
        ("conv_transpose2d.input", 2, f(3), "bias"),
        ("max_pool2d.default", 1, (2, 0), "kernel_size"),
        ("avg_pool2d.default", 3, -1, "padding"),
        ("arange.start_step", 2, (1 << 63) - 8, "a range"),
        ("batch_norm.default", 0, f(4), "without channels"),
        ("batch_norm.default", 5, True, "training"),
        ("batch_norm.default", 3, None, "running_mean is missing"),
        ("batch_norm.default", 4, None, "running_var is missing"),
        ("batch_norm.default", 4, f(1), "running_var is"),
        ("batch_norm.default", 1, f(3), "weight is"),
        ("instance_norm.default", 0, f(4), "without channels"),
        ("instance_norm.default", 5, False, "are missing"),
        ("instance_norm.default", 3, f(4), "eval mode"),
        ("instance_norm.default", 1, f(1), "weight is"),
        ("layer_norm.default", 1, (5,), "normalized_shape"),
        ("layer_norm.default", 1, (), "normalized_shape"),
        ("layer_norm.default", 1, (9, 2, 3, 4), "normalized_shape"),
        ("layer_norm.default", 3, f(3), "bias"),
        ("rms_norm.default", 2, f(3), "weight"),
        ("group_norm.default", 0, f(4), "without channels"),
        ("group_norm.default", 1, 3, "3 groups"),
        ("group_norm.default", 1, 0, "0 groups"),
        ("group_norm.default", 3, f(2), "bias"),
        ("linear.default", 1, f(4), "not a matrix"),
        ("linear.default", 0, f(), "input is"),
        ("linear.default", 0, f(2, 5), "input is"),
        ("linear.default", 2, f(4), "bias"),
        ("linear.default", 2, Given("float64", (5,)), "bias is float64"),
        ("embedding.default", 0, f(9), "not a matrix"),
        ("embedding.default", 1, f(2), "not integers"),
        ("embedding.default", "sparse", True, "sparse"),
        ("embedding_bag.padding_idx", 0, f(9), "not a matrix"),
        ("embedding_bag.padding_idx", 1, f(6), "indices are"),
        ("embedding_bag.padding_idx", 2, i(6, 3, 1), "offsets are"),
        ("embedding_bag.padding_idx", 4, 3, "mode 3"),
        ("embedding_bag.padding_idx", 5, True, "sparse"),
        ("embedding_bag.padding_idx", 6, f(5), "per_sample_weights"),
        ("index.Tensor", 1, (i(1, 1),) * 4, "4 indices"),
        ("index.Tensor", 1, (f(2),), "an index is"),
        ("index.Tensor", 1, (b(5),), "no fixed size"),
        ("index.Tensor", 1, (i(5, 3), None, i(7)), "a single number among"),
        ("gather.default", 2, Given("int32", (3, 2), 2), "not int64"),
        ("gather.default", "sparse_grad", True, "sparse"),
        ("grid_sampler.default", 2, 3, "mode 3"),
        ("grid_sampler.default", 3, -1, "padding mode -1"),
        ("scaled_dot_product_attention.default", "dropout_p", 0.5, "dropout"),
        ("scaled_dot_product_attention.default", 0, f(8), "query is"),
        ("scaled_dot_product_attention.default", 1, f(2, 4, 7, 9), "for key"),
        ("scaled_dot_product_attention.default", 2, f(2, 4, 6, 8), "for value|value is|key is"),
        ("unbind.int", 1, 3, "dim 3"),
        ("unbind.int", 0, f(1, 5000), "5000 pieces"),
        ("split.Tensor", 1, 0, "split size 0"),
        ("split.Tensor", 2, -4, "dim -4"),
        ("chunk.default", 1, 0, "0 pieces"),
        ("chunk.default", 1, 1 << 40, "pieces"),
        ("tensor_split.sections", 1, -1, "-1 pieces"),
        ("diff.default", 1, -1, "-1 differences"),
        ("diff.default", 1, 4097, "4097 differences"),
        ("slice.Tensor", 4, 0, "step 0"),
        ("slice_scatter.default", 5, 1 << 62, "step"),
        ("pow.Tensor_Scalar", 1, True, "a bool as exponent"),
        ("pixel_unshuffle.default", 1, 0, "factor 0"),
        ("pixel_unshuffle.default", 0, f(4, 6), "factor 2"),
        ("pixel_unshuffle.default", 0, f(2, 0, 4, 6), "is empty"),
        ("softmax.int", 1, 3, "dim 3"),
        ("unfold.default", 2, -1, "size -1"),
        ("unfold.default", 3, 0, "step 0"),
    ],
)  # fmt: skip
def test_one_argument_that_does_not_fit(name: str, at: int | str, value: Any, message: str) -> None:
    name = f"aten.{name}"
    refused(name, changed(seeds(name)[0], at, value), message)


@pytest.mark.parametrize("name", ["lstm.input", "gru.input", "rnn_tanh.input"])
@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (0, f(3, 5), "not sequence x batch x features"),
        (0, f(0, 2, 5), "empty"),
        (0, Given("float16", (3, 2, 5)), "a parameter is"),
        (3, False, "4 parameters"),
        (4, 0, "0 layers"),
        (4, 1025, "1025 layers"),
        (6, True, "training"),
        (7, True, "an initial state"),
    ],
)
def test_recurrent_layers(name: str, at: int, value: Any, message: str) -> None:
    name = f"aten.{name}"
    refused(name, changed(seeds(name)[0], at, value), message)


@pytest.mark.parametrize("number", [0, 1, -1])
def test_every_parameter_of_a_recurrent_layer_has_its_shape(number: int) -> None:
    good = seeds("aten.lstm.input")[number]
    params = good.args[2]
    for at in range(len(params)):
        wrong = (*params[:at], f(*(size + 1 for size in params[at].shape)), *params[at + 1 :])
        refused("aten.lstm.input", changed(good, 2, wrong), "weight|bias|projection")


def test_initial_states() -> None:
    good = seeds("aten.lstm.input")[0]
    for states in ((f(1, 2, 4),), (f(2, 4), f(2, 4)), (f(1, 3, 4), f(1, 2, 4))):
        refused("aten.lstm.input", changed(good, 1, states), "initial state")
    cell = seeds("aten.lstm_cell.default")[0]
    for states in ((f(2, 4),), (f(4), f(4)), (f(2, 4), f(3, 4))):
        refused("aten.lstm_cell.default", changed(cell, 1, states), "initial state")


@pytest.mark.parametrize("name", ["lstm_cell", "gru_cell", "rnn_relu_cell"])
@pytest.mark.parametrize(
    ("at", "message"), [(0, "input is"), (2, "w_ih"), (3, "w_hh"), (4, "b_ih"), (5, "b_hh")]
)
def test_cells(name: str, at: int, message: str) -> None:
    name = f"aten.{name}.default"
    refused(name, changed(seeds(name)[0], at, f(3)), message)


def test_by_products_of_an_embedding_bag_may_not_be_used() -> None:
    name = "aten.embedding_bag.padding_idx"
    made = [TensorSpec("float32", (3, 4)), *[TensorSpec("int64", (3,))] * 3]
    graph = graph_of(OPERATORS[name], seeds(name)[0], made)
    check_arguments(graph, Budget())
    used = dataclasses.replace(graph, outputs=(*graph.outputs, type(graph.outputs[0])(4)))
    with pytest.raises(InvalidGraph, match="the model uses a result whose shape cannot be known"):
        check_arguments(used, Budget())


def test_a_circular_padding_that_takes_away() -> None:
    refused("aten.pad.default", Call((f(2, 3, 4), (3, -2), "circular"), {}), "a circular padding")
    refused("aten.pad.default", Call((f(2, 3, 4), -1, "circular"), {}), "a circular padding of -1")


def test_softmax_of_a_single_number() -> None:
    name = "aten.softmax.int"
    graph = graph_of(OPERATORS[name], changed(seeds(name)[0], 0, f()), [TensorSpec("float32", ())])
    check_arguments(graph, Budget())
