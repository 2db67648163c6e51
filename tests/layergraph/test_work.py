"""Work counted by hand for one operator of each kind."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from layergraph import NodeWork, capture, work
from layergraph.ops import KINDS


class Call(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: torch.Tensor) -> Any:
        return self.function(*args)


def only(model: nn.Module, *args: torch.Tensor) -> NodeWork:
    (layer,) = work(capture(model, args)[0])
    return layer[-1]


X = torch.zeros(1, 8, 6, 6)


@pytest.mark.parametrize(
    ("model", "args", "expected"),
    [
        (nn.Conv2d(8, 4, 3), (X,), ("conv", 2 * 4 * 16 * 72, 4 * (288 + 64 + 288 + 4))),
        (
            nn.Conv2d(8, 8, 3, groups=8, bias=False), (X,),
            ("depthwise_conv", 2 * 8 * 16 * 9, 4 * (288 + 128 + 72)),
        ),
        (
            nn.ConvTranspose2d(8, 4, 2, stride=2, bias=False), (X,),
            ("transposed_conv", 2 * 288 * 16, 4 * (288 + 128 + 576)),
        ),
        (nn.Linear(6, 5, bias=False), (X,), ("linear", 2 * 48 * 6 * 5, 4 * (288 + 30 + 240))),
        (Call(torch.matmul), (X, X), ("linear", 2 * 8 * 6 * 6 * 6, 4 * 3 * 288)),
        (
            Call(lambda a, b: torch.addmm(a, b, b)), (torch.zeros(3, 3), torch.zeros(3, 3)),
            ("linear", 2 * 27, 4 * 36),
        ),
        (
            Call(lambda a, b: torch.einsum("bij,bjk->bik", a, b)),
            (torch.zeros(2, 3, 4), torch.zeros(2, 4, 5)),
            ("linear", 2 * 2 * 3 * 4 * 5, 4 * (24 + 40 + 30)),
        ),
        (
            Call(F.scaled_dot_product_attention), (torch.zeros(1, 2, 5, 4),) * 3,
            ("attention", 2 * 2 * 2 * 5 * 5 * 4, 4 * 4 * 40),
        ),
        (
            Call(lambda x: F.max_pool2d(x, 2)), (X,),
            ("pool", 8 * 9 * 4, 4 * (288 + 72)),
        ),
        (Call(lambda x: x.mean((2, 3))), (X,), ("pool", 288, 4 * (288 + 8))),
        (Call(lambda x: x.softmax(1)), (X,), ("softmax", 5 * 288, 8 * 288)),
        (nn.LayerNorm(6), (X,), ("norm", 5 * 288, 4 * (576 + 12))),
        (Call(torch.relu), (X,), ("elementwise", 288, 8 * 288)),
        (Call(torch.add), (X, X), ("elementwise", 288, 12 * 288)),
        (Call(lambda x: x.permute(0, 2, 3, 1)), (X,), ("move", 0, 0)),
        (Call(lambda x: torch.cat([x, x])), (X,), ("move", 0, 4 * 4 * 288)),
        (Call(lambda x: x.to(torch.float16)), (X,), ("move", 0, 6 * 288)),
        (
            nn.Embedding(1000, 4), (torch.zeros(3, dtype=torch.int64),),
            ("embedding", 0, 2 * 48 + 24),
        ),
    ],
)  # fmt: skip
def test_counts(model: nn.Module, args: Any, expected: tuple[str, float, float]) -> None:
    got = only(model, *args)
    assert (got.kind, got.flops, got.bytes) == expected
    assert got.kind in KINDS


def test_recurrent_networks_multiply_their_matrices_at_every_step() -> None:
    got = only(nn.LSTM(5, 4, bidirectional=True), torch.zeros(7, 2, 5))
    assert got.kind == "recurrent"
    assert got.flops == 2 * 14 * 2 * (16 * 5 + 16 * 4)


def test_one_entry_per_node_of_each_layer() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    graph, _ = capture(model, (torch.zeros(1, 2, 2),))
    assert [[node.kind for node in layer] for layer in work(graph)] == [
        ["move"], ["linear", "elementwise"], ["linear"],
    ]  # fmt: skip
