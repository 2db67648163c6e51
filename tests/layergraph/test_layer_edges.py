"""Which layer feeds which, and which layers share weights: what the planner asks the graph."""

from __future__ import annotations

import torch
from torch import nn

from layergraph import capture
from tests.support import chain


class Skip(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 4)
        self.third = nn.Linear(4, 4)
        self.third.weight = self.first.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.first(x)
        return self.third(self.second(hidden).relu() + hidden)


def test_a_chain_is_a_chain() -> None:
    graph, _ = chain(3)
    assert graph.edges == ((-1, 0), (0, 1), (1, 2), (2, 3))
    assert graph.shared == ()


def test_a_skip_connection_is_an_edge_and_tied_weights_have_one_owner() -> None:
    graph, _ = capture(Skip().eval(), (torch.ones(1, 4),))
    assert [layer.name for layer in graph.layers] == ["first", "second", "third"]
    # The addition follows `second` in its layer, so that is where the skip ends.
    assert graph.edges == ((-1, 0), (0, 1), (1, 2), (2, 3))
    assert graph.shared == ((2, 0),)
    assert graph.weight_bytes == (80, 80, 16)


class Around(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second, third = self.layers
        hidden: torch.Tensor = first(x)
        return third(second(hidden)) + hidden


def test_a_skip_over_a_layer_is_an_edge_over_it() -> None:
    graph, _ = capture(Around().eval(), (torch.ones(1, 4),))
    assert graph.edges == ((-1, 0), (0, 1), (0, 2), (1, 2), (2, 3))
