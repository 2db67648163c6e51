"""Products by weights of which only a bfloat16 is known: which ones, and what comes of them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from layergraph import Executor, InvalidInput, LayerGraph, capture
from layergraph.bfloat16 import LEAST_ELEMENTS, roundable_weights

Weights = dict[str, torch.Tensor]


class Mixed(nn.Module):
    """Products of every kind, of which some are too small or used by something else, too."""

    def __init__(self) -> None:
        super().__init__()
        self.small = nn.Conv2d(3, 64, 3, padding=1)
        self.large = nn.Conv2d(64, 64, 3, padding="same")
        self.strided = nn.Conv2d(64, 64, 3, stride=2, bias=False)
        self.each = nn.Conv2d(64, 64, 23, padding=11, groups=64)
        self.head = nn.Linear(64, 1024)
        self.tied = nn.Linear(1024, 64)
        self.both = nn.Linear(64, 1024, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.each(self.strided(self.large(self.small(x).relu()).relu()))
        x = self.tied(self.head(x.mean((2, 3))))
        return self.both(x) @ self.both.weight


@pytest.fixture(scope="module")
def mixed() -> tuple[LayerGraph, Weights, torch.Tensor]:
    torch.manual_seed(0)
    example = torch.randn(2, 3, 16, 16)
    graph, weights = capture(Mixed().eval(), (example,))
    return graph, weights, example


def short(graph: LayerGraph, weights: Weights) -> Weights:
    roundable = roundable_weights(graph)
    return {
        weight.name: weights[weight.name].bfloat16() if index in roundable else weights[weight.name]
        for index, weight in enumerate(graph.weights)
    }


def test_weights_of_large_products_that_nothing_else_uses(
    mixed: tuple[LayerGraph, Weights, torch.Tensor],
) -> None:
    graph, weights, _ = mixed
    names = {graph.weights[index].name for index in roundable_weights(graph)}
    assert names == {f"{name}.weight" for name in ("large", "strided", "head", "tied")}
    # What was left out is not for its size.
    assert all(
        weights[f"{name}.weight"].numel() >= LEAST_ELEMENTS for name in (*names_of(names), "both")
    )
    assert weights["each.weight"].numel() >= LEAST_ELEMENTS


def names_of(weights: set[str]) -> set[str]:
    return {name.removesuffix(".weight") for name in weights}


def test_weights_that_are_short_already_are_not_rounded() -> None:
    model = nn.Linear(256, 256).bfloat16().eval()
    graph, _ = capture(model, (torch.randn(1, 256).bfloat16(),))
    assert roundable_weights(graph) == frozenset()


def test_maps_are_rounded_for_products_and_for_nothing_else(
    mixed: tuple[LayerGraph, Weights, torch.Tensor],
) -> None:
    graph, weights, example = mixed
    given = short(graph, weights)
    executor = Executor(graph, given, roundable=roundable_weights(graph))
    convolve, linear = torch.nn.functional.conv2d, torch.nn.functional.linear
    with torch.inference_mode():
        x = convolve(example, weights["small.weight"], weights["small.bias"], padding=1).relu()
        bias = weights["large.bias"].bfloat16()
        x = convolve(x.bfloat16(), given["large.weight"], bias, padding="same").float().relu()
        x = convolve(x.bfloat16(), given["strided.weight"], stride=2).float()
        x = convolve(x, weights["each.weight"], weights["each.bias"], padding=11, groups=64)
        x = x.mean((2, 3))
        for name in ("head", "tied"):
            bias = weights[f"{name}.bias"].bfloat16()
            x = linear(x.bfloat16(), given[f"{name}.weight"], bias).float()
        expected = linear(x, weights["both.weight"]) @ weights["both.weight"]
    (answer,) = executor.run(0, len(graph.layers), (example,))
    assert answer.dtype is torch.float32
    torch.testing.assert_close(answer, expected, rtol=1e-5, atol=1e-5)
    (exact,) = Executor(graph, weights).run(0, len(graph.layers), (example,))
    assert 0 < float((answer - exact).abs().max() / exact.abs().max()) < 0.05


def test_cuts_are_float32_wherever_they_are(
    mixed: tuple[LayerGraph, Weights, torch.Tensor],
) -> None:
    graph, weights, example = mixed
    executor = Executor(graph, short(graph, weights), roundable=roundable_weights(graph))
    layers = len(graph.layers)
    (whole,) = executor.run(0, layers, (example,))
    live: tuple[torch.Tensor, ...] = (example,)
    for layer in range(layers):
        live = executor.run(layer, layer + 1, live)
        assert {tensor.dtype for tensor in live} == {torch.float32}
    assert torch.equal(live[0], whole)


def test_an_exact_weight_takes_a_rounded_ones_place_and_the_answer_is_exact(
    mixed: tuple[LayerGraph, Weights, torch.Tensor],
) -> None:
    graph, weights, example = mixed
    given, layers = short(graph, weights), len(graph.layers)
    executor = Executor(graph, given, roundable=roundable_weights(graph))
    (exact,) = Executor(graph, weights).run(0, layers, (example,))
    executor.run(0, layers, (example,))
    for weight in graph.weights:
        assert not torch.equal(executor.run(0, layers, (example,))[0], exact) or all(
            tensor.dtype is torch.float32 for tensor in given.values()
        )
        given[weight.name] = weights[weight.name]
        executor.rebind(weight.name)
    assert torch.equal(executor.run(0, layers, (example,))[0], exact)


def test_a_short_weight_where_none_may_be(
    mixed: tuple[LayerGraph, Weights, torch.Tensor],
) -> None:
    graph, weights, example = mixed
    with pytest.raises(InvalidInput, match=r"weight large\.weight is float32.*got bfloat16"):
        Executor(graph, short(graph, weights)).run(0, len(graph.layers), (example,))
    roundable = roundable_weights(graph)
    for name in ("small.weight", "large.bias", "both.weight"):
        given = {**weights, name: weights[name].bfloat16()}
        with pytest.raises(InvalidInput, match=rf"weight {name} is float32.*got bfloat16"):
            Executor(graph, given, roundable=roundable).run(0, len(graph.layers), (example,))
    given = {**weights, "head.weight": weights["head.weight"].bfloat16()[:7]}
    with pytest.raises(InvalidInput, match=r"weight head\.weight is bfloat16\[1024, 64\]; got"):
        Executor(graph, given, roundable=roundable).run(0, len(graph.layers), (example,))
