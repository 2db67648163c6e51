"""The plain form of a graph: exact for what is good, InvalidGraph for everything else."""

from __future__ import annotations

import copy
import dataclasses
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from layergraph import GraphError, InvalidGraph, LayerGraph, capture, check_graph
from layergraph.nodes import Layer, Node, Ref, TensorSpec, Weight, WeightRef
from tests.support import chain


def small() -> LayerGraph:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
    return capture(model, (torch.zeros(1, 3, 6, 6),))[0]


GRAPH = small()
PLAIN = GRAPH.to_plain()


def replaced(path: tuple[Any, ...], value: Any) -> Any:
    plain = copy.deepcopy(PLAIN)
    place = plain
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return plain


def paths(plain: Any, prefix: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(plain, dict):
        items = list(plain.items())
    elif isinstance(plain, list):
        items = list(enumerate(plain))
    else:
        return [prefix]
    inner = [path for key, value in items for path in paths(value, (*prefix, key))]
    return [*([prefix] if prefix else []), *inner]


PATHS = paths(PLAIN)
JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=40)
    | st.sampled_from(["v", "w", "c", "s", "l", "dtype", "float32", "aten.relu.default"]),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=6,
)


def test_plain_form_and_back() -> None:
    back = LayerGraph.from_plain(PLAIN)
    assert back == GRAPH
    assert back.fingerprint == GRAPH.fingerprint


def test_names_are_no_part_of_the_fingerprint_and_content_is() -> None:
    graph, _ = chain()
    renamed = dataclasses.replace(
        graph, layers=tuple(dataclasses.replace(layer, name="x") for layer in graph.layers)
    )
    assert renamed.fingerprint == graph.fingerprint
    other, _ = chain(seed=1)
    assert other.fingerprint != graph.fingerprint


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(PATHS), JUNK)
def test_a_mutated_graph_is_refused_or_checked(path: tuple[Any, ...], junk: Any) -> None:
    try:
        graph = LayerGraph.from_plain(replaced(path, junk))
        assert len(graph.cuts) == len(graph.layers) + 1
        assert len(graph.fingerprint) == 64
        check_graph(graph)
    except GraphError:
        pass


@settings(max_examples=100, deadline=None)
@given(JUNK)
def test_junk_is_refused(junk: Any) -> None:
    with pytest.raises(InvalidGraph):
        LayerGraph.from_plain(junk)


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("format",), 99, "format 99"),
        (("inputs", 0), ["float32", [1, 3, 10**6, 10**6, 10**6]], "exceeds"),
        (("inputs", 0), ["float32", [0, 10**30]], "not a shape"),
        (("inputs", 0), ["float32", [0, 10**9, 10**9]], "exceeds"),
        (("inputs", 0), ["float32", [-1]], "not a shape"),
        (("inputs", 0), ["float33", [1]], "element type"),
        (("inputs", 0), ["float32", [1] * 17], "not a shape"),
        (("nodes", 0, 1, 0), ["v", 3], "dangling reference or a cycle"),
        (("nodes", 0, 1, 0), ["v", 1], "dangling reference or a cycle"),
        (("nodes", 0, 1, 0), ["w", 77], "weight 77"),
        (("nodes", 0, 1, 0), ["c", 0], "constant 0"),
        (("nodes", 0, 1, 0), nested(100_000), "argument"),
        (("nodes", 0, 1, 3), 1 << 64, "64 bits"),
        (("nodes", 0, 1, 3), ["l", *[["l"]] * 3, ["x"]], "argument"),
        (("nodes", 0, 0), "a" * 5000, "1024 characters"),
        (("weights", 0, 2), b"short", "32 bytes"),
        (("weights", 0, 3), 1, "yes or no"),
        (("weights", 1, 0), PLAIN["weights"][0][0], "same name"),
        (("layers", 0, 1), 1, "covers nodes"),
        (("layers", 0, 2), 99, "ends at node"),
        (("layers", 0, 3), [0], "declares weights"),
        (("layers", 0, 3), [0, 0, 1], "declares weights"),
        (("layers",), [], "at least one layer"),
        (("outputs", 0), ["v", 99], "dangling"),
    ],
)
def test_messages(path: tuple[Any, ...], value: Any, message: str) -> None:
    with pytest.raises(InvalidGraph, match=message):
        LayerGraph.from_plain(replaced(path, value))


def test_deep_nesting_ends_at_the_limit() -> None:
    value: Any = 1
    for _ in range(100_000):
        value = ["l", value]
    with pytest.raises(InvalidGraph, match="nest deeper"):
        LayerGraph.from_plain(replaced(("nodes", 0, 1, 3), value))


def test_an_absent_output_cannot_be_used() -> None:
    spec = TensorSpec("float32", (1,))
    with pytest.raises(InvalidGraph, match="absent"):
        LayerGraph(
            (spec,), (), (),
            (Node("aten.relu.default", (Ref(0),), (), (None,), ""),),
            (Layer("a", 0, 1, ()),), (Ref(1),),
        )  # fmt: skip


def test_a_graph_of_few_bytes_cannot_ask_for_endless_cuts() -> None:
    spec = TensorSpec("float32", (1,))
    count = 3000
    nodes = tuple(Node("aten.relu.default", (Ref(0),), (), (spec,), "") for _ in range(count))
    layers = tuple(Layer(str(n), n, n + 1, ()) for n in range(count))
    with pytest.raises(InvalidGraph, match="cross cuts"):
        LayerGraph((spec,), (), (), nodes, layers, tuple(Ref(n + 1) for n in range(count)))


def test_weight_bytes_count_shared_content_once() -> None:
    graph, _ = chain(2)
    first, second = graph.weights
    same = dataclasses.replace(
        graph, weights=(first, Weight(second.name, second.spec, first.digest))
    )
    assert graph.weight_bytes == (256, 256)
    assert same.weight_bytes == (256, 0)


def test_cuts_name_what_is_alive() -> None:
    spec = TensorSpec("float32", (2,))
    weight = Weight("w", spec, bytes(32))
    graph = LayerGraph(
        inputs=(spec, spec),
        weights=(weight,),
        constants=(),
        nodes=(
            Node("aten.add.Tensor", (Ref(0), Ref(0)), (), (spec,), ""),
            Node("aten.mul.Tensor", (Ref(2), WeightRef(0)), (), (spec,), ""),
            Node("aten.add.Tensor", (Ref(3), Ref(2)), (), (spec,), ""),
        ),
        layers=(Layer("a", 0, 1, ()), Layer("b", 1, 2, (0,)), Layer("c", 2, 3, ())),
        outputs=(Ref(4), Ref(0)),
    )
    assert graph.cuts == ((0,), (0, 2), (0, 2, 3), (0, 4))
    assert graph.cut_bytes == (8, 16, 24, 16)


def test_floats_that_json_lacks_have_a_fingerprint() -> None:
    spec = TensorSpec("float32", (2,))
    for value in (math.inf, -math.inf, math.nan):
        graph = LayerGraph(
            (spec,), (), (),
            (Node("aten.mul.Tensor", (Ref(0), value), (), (spec,), ""),),
            (Layer("a", 0, 1, ()),), (Ref(1),),
        )  # fmt: skip
        assert graph.fingerprint == LayerGraph.from_plain(graph.to_plain()).fingerprint
