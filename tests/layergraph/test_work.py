"""Work counted by hand for one operator of each kind."""

from __future__ import annotations

import math
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
        (nn.Conv2d(8, 4, 3), (X,), ("conv/product", 2 * 4 * 16 * 72, 4 * (288 + 64 + 288 + 4))),
        (
            nn.Conv2d(8, 8, 3, groups=8, bias=False), (X,),
            ("depthwise_conv/ragged", 2 * 8 * 16 * 9, 4 * (288 + 128 + 72)),
        ),
        (
            nn.ConvTranspose2d(8, 4, 2, stride=2, bias=False), (X,),
            ("transposed_conv/product", 2 * 288 * 16, 4 * (288 + 128 + 576)),
        ),
        (nn.Linear(6, 5, bias=False), (X,), ("linear", 2 * 48 * 6 * 5, 4 * (288 + 30 + 240))),
        (Call(torch.matmul), (X, X), ("linear/batch/tiny", 2 * 8 * 6 * 6 * 6, 4 * 3 * 288)),
        (
            Call(lambda a, b: torch.addmm(a, b, b)), (torch.zeros(3, 3), torch.zeros(3, 3)),
            ("linear/batch/tiny", 2 * 27, 4 * 36),
        ),
        (
            Call(lambda a, b: torch.einsum("bij,bjk->bik", a, b)),
            (torch.zeros(2, 3, 4), torch.zeros(2, 4, 5)),
            ("linear/batch/tiny", 2 * 2 * 3 * 4 * 5, 4 * (24 + 40 + 30)),
        ),
        (
            Call(F.scaled_dot_product_attention), (torch.zeros(1, 2, 5, 4),) * 3,
            ("attention", 2 * 2 * 2 * 5 * 5 * 4, 4 * 4 * 40),
        ),
        (
            Call(lambda x: F.max_pool2d(x, 2)), (X,),
            ("pool/max", 8 * 9 * 4, 4 * (288 + 72)),
        ),
        (Call(lambda x: x.mean((2, 3))), (X,), ("pool/reduce", 288, 4 * (288 + 8))),
        (Call(lambda x: x.softmax(1)), (X,), ("softmax", 5 * 288, 8 * 288)),
        (nn.LayerNorm(6), (X,), ("norm/layer", 5 * 288, 4 * (576 + 12))),
        (Call(torch.relu), (X,), ("elementwise", 288, 8 * 288)),
        (Call(torch.add), (X, X), ("elementwise", 288, 12 * 288)),
        (Call(lambda x: x.permute(0, 2, 3, 1)), (X,), ("move/view", 0, 0)),
        (Call(lambda x: torch.cat([x, x])), (X,), ("move", 0, 4 * 4 * 288)),
        (Call(lambda x: x.to(torch.float16)), (X,), ("move/convert", 0, 6 * 288)),
    ],
)  # fmt: skip
def test_counts(model: nn.Module, args: Any, expected: tuple[str, float, float]) -> None:
    got = only(model, *args)
    assert (got.kind, got.flops, got.bytes) == expected
    assert got.kind.partition("/")[0] in KINDS


def test_recurrent_networks_multiply_their_matrices_at_every_step() -> None:
    got = only(nn.LSTM(5, 4, bidirectional=True), torch.zeros(7, 2, 5))
    assert got.kind == "recurrent/lstm"
    assert got.flops == 2 * 14 * 2 * (16 * 5 + 16 * 4)


def test_one_entry_per_node_of_each_layer() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    graph, _ = capture(model, (torch.zeros(1, 2, 2),))
    assert [[node.kind for node in layer] for layer in work(graph)] == [
        ["move/view"], ["linear/vector/short", "elementwise"], ["linear/vector/short"],
    ]  # fmt: skip


def test_bytes_of_weights_are_told_from_those_of_activations() -> None:
    got = only(nn.Linear(6, 5), X)
    assert (got.read_bytes, got.weight_bytes, got.made_bytes) == (4 * 288, 4 * 35, 4 * 240)


def test_rows_of_a_table_are_read_once_however_often_they_are_looked_up() -> None:
    def table(words: int, looked_up: int) -> NodeWork:
        return only(nn.Embedding(words, 4), torch.zeros(looked_up, dtype=torch.int64))

    few, many = table(1000, 3), table(10, 1000)
    assert (few.kind, few.flops, few.read_bytes, few.made_bytes) == ("embedding", 0, 24, 48)
    assert few.weight_bytes == pytest.approx(48, rel=0.01)
    assert (many.weight_bytes, many.made_bytes) == (pytest.approx(160), 16000)
    # At random, 10 of 10 ask for some of them twice.
    assert table(10, 10).weight_bytes == pytest.approx(16 * 10 * (1 - math.exp(-1)))


@pytest.mark.parametrize(
    ("model", "args", "kind", "product"),
    [
        (nn.Conv2d(8, 4, 3), (X,), "conv/product", (1, 16, 72, 4)),
        (nn.Conv2d(8, 4, 4), (X,), "conv/ragged", (1, 9, 128, 4)),
        (nn.Conv2d(8, 4, 1, stride=2), (X,), "conv/1x1", (1, 9, 8, 4)),
        (nn.Conv2d(8, 4, 3, groups=2), (X,), "conv/shallow", (2, 16, 36, 2)),
        (nn.Conv2d(8, 8, 3, groups=8), (X,), "depthwise_conv/ragged", (8, 16, 9, 1)),
        (nn.Conv2d(32, 32, 3, groups=32), (torch.zeros(1, 32, 6, 6),), "depthwise_conv",
         (32, 16, 9, 1)),
        (nn.ConvTranspose2d(8, 4, 2), (X,), "transposed_conv/product", (1, 36, 8, 16)),
        (nn.ConvTranspose2d(8, 4, 4), (X,), "transposed_conv/ragged", (1, 36, 8, 64)),
        (nn.Linear(6, 5), (X,), "linear", (1, 48, 6, 5)),
        (nn.Linear(6, 5), (torch.zeros(1, 6),), "linear/vector/short", (1, 1, 6, 5)),
        (nn.Linear(128, 5), (torch.zeros(1, 128),), "linear/vector", (1, 1, 128, 5)),
        (nn.Conv2d(32, 16, 4), (torch.zeros(1, 32, 6, 6),), "conv", (1, 9, 512, 16)),
        (nn.Conv2d(32, 16, 1), (torch.zeros(1, 32, 6, 6),), "conv/1x1", (1, 36, 32, 16)),
        (nn.ConvTranspose2d(32, 16, 4), (torch.zeros(1, 32, 6, 6),), "transposed_conv",
         (1, 36, 32, 256)),
        # Torch takes oneDNN for over 20480 elements, for batches, and where a 1x1 filter skips.
        (nn.Conv2d(32, 16, 3), (torch.zeros(1, 32, 20, 32),), "conv/product", (1, 540, 288, 16)),
        (nn.Conv2d(32, 16, 3), (torch.zeros(1, 32, 20, 33),), "conv", (1, 558, 288, 16)),
        (nn.Conv2d(32, 16, 3), (torch.zeros(2, 32, 6, 6),), "conv", (1, 32, 288, 16)),
        (nn.Conv2d(32, 16, 1), (torch.zeros(1, 32, 20, 33),), "conv/1x1", (1, 660, 32, 16)),
        (nn.Conv2d(32, 16, 1, stride=2), (torch.zeros(1, 32, 20, 33),), "conv", (1, 170, 32, 16)),
        (nn.Conv1d(32, 16, 5), (torch.zeros(1, 32, 99),), "conv/product", (1, 95, 160, 16)),
        (Call(torch.bmm), (torch.zeros(7, 1, 100), torch.zeros(7, 100, 4)), "linear/batch-row",
         (7, 1, 100, 4)),
        (Call(torch.bmm), (torch.zeros(7, 2, 50), torch.zeros(7, 50, 4)), "linear/batch",
         (7, 2, 50, 4)),
        (Call(torch.bmm), (torch.zeros(7, 3, 133), torch.zeros(7, 133, 1)), "linear/batch/tiny",
         (7, 3, 133, 1)),
        (Call(torch.bmm), (torch.zeros(7, 4, 100), torch.zeros(7, 100, 1)), "linear/batch-column",
         (7, 4, 100, 1)),
        (Call(F.scaled_dot_product_attention), (torch.zeros(1, 2, 5, 4),) * 3, "attention",
         (2, 5, 4, 5)),
        (nn.GRU(5, 4, batch_first=True), (torch.zeros(1, 7, 5),), "recurrent/gru", (1, 1, 4, 12)),
    ],
)  # fmt: skip
def test_matrix_products(model: nn.Module, args: Any, kind: str, product: tuple[int, ...]) -> None:
    got = only(model, *args)
    assert got.kind == kind
    assert (got.batch, got.rows, got.inner, got.columns) == product


@pytest.mark.parametrize(
    ("function", "rows", "columns"),
    [
        (torch.relu, 1, 288),
        (lambda x: x * x[:, :, :1, :1], 8, 36),
        (lambda x: x + x[0, 0, 0], 48, 6),
        (lambda x: x + x[0, :, :1], 48, 6),
        (lambda x: torch.cat([x, x], 1), 2, 288),
        (lambda x: torch.cat([x, x, x], -1), 144, 6),
        (lambda x: F.pad(x, (1, 1)), 48, 8),
        (lambda x: F.max_pool2d(x, 2), 24, 3),
        (lambda x: F.interpolate(x, scale_factor=2), 144, 8),
        (lambda x: x.mean((2, 3)), 8, 36),
        (lambda x: x.argmax(-1), 48, 6),
        (lambda x: x.softmax(-1), 48, 6),
        (lambda x: F.layer_norm(x, (6, 6)), 8, 36),
        (lambda x: F.batch_norm(x, x[0, :, 0, 0], x[0, :, 0, 0]), 8, 36),
        (lambda x: F.embedding(x[0, 0].long(), x[0, 0]), 36, 6),
        (lambda x: x.permute(0, 2, 3, 1).contiguous(), 36, 8),
    ],
)
def test_passes_over_memory_are_in_lines(function: Any, rows: int, columns: int) -> None:
    got = only(Call(function), X)
    assert (got.batch, got.rows, got.inner, got.columns) == (1, rows, 1, columns)


def test_views_pass_over_nothing() -> None:
    assert only(Call(lambda x: x.permute(0, 2, 3, 1)), X) == NodeWork("move/view", 0.0)


def test_steps_follow_one_after_the_other() -> None:
    assert only(nn.GRU(5, 4), torch.zeros(7, 2, 5)).steps == 7
    assert only(nn.GRU(5, 4, bidirectional=True), torch.zeros(7, 2, 5)).steps == 14
    assert only(nn.GRUCell(5, 4), torch.zeros(2, 5)).steps == 1


def test_windows_and_strides_count_elements() -> None:
    conv = only(nn.Conv2d(8, 4, (3, 5), stride=2), X)
    assert (conv.window, conv.stride) == (15, 4)
    pool = only(Call(lambda x: F.max_pool2d(x, 3, 1)), X)
    assert (pool.window, pool.stride) == (9, 1)
    assert only(Call(torch.relu), X).window == 1


@pytest.mark.parametrize(
    ("function", "kinds"),
    [
        # Dense already: a view. Permuted: a copy, and dense from there on.
        (lambda x: x.flatten(1), ["move/view"]),
        (lambda x: x.permute(0, 2, 3, 1).flatten(1), ["move/view", "move/permute"]),
        (
            lambda x: x.permute(0, 2, 3, 1).relu().reshape(-1).reshape(2, -1),
            ["move/view", "elementwise", "move/permute", "move/view"],
        ),
        (lambda x: x.permute(0, 2, 3, 1).contiguous(), ["move/view", "move/permute"]),
        (
            lambda x: x[0].transpose(1, 2) @ x[0],
            ["move/view", "move/view", "move/view", "linear/batch/tiny/permuted"],
        ),
    ],
)
def test_what_needs_a_permuted_tensor_dense_copies_it(function: Any, kinds: list[str]) -> None:
    (layer,) = work(capture(Call(function), (X,))[0])
    assert [node.kind for node in layer] == kinds
    copies = [node for node in layer if node.kind == "move/permute"]
    assert all((node.read_bytes, node.made_bytes) == (1152, 1152) for node in copies)


def test_products_of_permuted_tensors_are_told_apart() -> None:
    permuted = Call(lambda x: x.transpose(1, 2) @ x)
    assert only(permuted, torch.zeros(7, 8, 8)).kind == "linear/batch/permuted"
    assert only(permuted, torch.zeros(7, 7, 7)).kind == "linear/batch/tiny/permuted"


def test_small_maps_are_resampled_by_pixels_and_larger_ones_by_lines() -> None:
    x = torch.zeros(1, 5, 8, 6)
    small = only(Call(lambda x: F.interpolate(x, scale_factor=2)), x)
    assert (small.rows, small.columns) == (16 * 12, 5)
    large = only(Call(lambda x: F.interpolate(x, size=(120, 12))), x)
    assert (large.rows, large.columns) == (5 * 120, 12)


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (torch.sigmoid, "elementwise/sigmoid"),
        (torch.exp, "elementwise/exponential"),
        (lambda x: x * x[:, :, :1], "elementwise/broadcast"),
        (lambda x: x * 2.0, "elementwise/number"),
        (lambda x: x * x, "elementwise"),
        (lambda x: x**0.75, "elementwise/power"),
        (lambda x: F.avg_pool2d(x, 2), "pool/average"),
        (lambda x: x.argmax(1), "pool/index"),
        (lambda x: F.interpolate(x, scale_factor=2), "pool/nearest/small"),
        (lambda x: F.interpolate(x, size=(64, 65)), "pool/nearest"),
        (lambda x: F.interpolate(x, size=(64, 65), mode="bilinear"), "pool/resample"),
        (F.elu, "elementwise/elu"),
        (lambda x: F.pad(x, (1, 1)), "move/pad"),
        (lambda x: F.unfold(x, 3), "move/window"),
        (lambda x: torch.logical_not(x), "elementwise"),
    ],
)
def test_variants_that_run_other_algorithms_are_told_apart(function: Any, kind: str) -> None:
    assert only(Call(function), X).kind == kind
