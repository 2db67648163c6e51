"""What capture understands: every construct here must survive every cut, bit by bit."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from layergraph import InvalidInput, LayerGraph, UnsupportedOperator, capture, flatten_inputs
from layergraph.ops import OPERATORS
from tests.layergraph.splitting import assert_splits_equal_eager


@pytest.fixture(autouse=True)
def seeded() -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        yield


def operators(graph: LayerGraph) -> list[str]:
    return [node.op for node in graph.nodes]


class Residual(nn.Module):
    """Skip connections across several layers, an in-place ReLU, a pooling head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)
        self.body = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.down = nn.Conv2d(8, 16, 1, stride=2)
        self.side = nn.Conv2d(8, 16, 3, stride=2, padding=1, groups=8)
        self.head = nn.Linear(16, 5)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.norm(self.stem(x)))
        x = x + self.body(x)
        x = F.relu_(self.down(x) + self.side(x))
        return self.head(self.dropout(F.adaptive_avg_pool2d(x, 1).flatten(1)))


def randomised(model: nn.Module) -> nn.Module:
    """With batch statistics that are not the identity."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return model


class TestLayers:
    def test_a_layer_is_what_owns_weights_and_what_follows(self) -> None:
        graph, weights = assert_splits_equal_eager(
            randomised(Residual()), (torch.randn(2, 3, 8, 8),)
        )
        assert [layer.name for layer in graph.layers] == [
            "stem", "norm", "body.0", "body.1", "down", "side", "head",
        ]  # fmt: skip
        assert [weights[graph.weights[i].name].shape for i in graph.layers[0].weights] == [
            (8, 3, 3, 3)
        ]
        assert len(graph.cuts[2]) == 1
        assert len(graph.cuts[3]) == 2
        assert graph.weight_bytes[0] == 8 * 3 * 9 * 4

    def test_in_place_and_dropout_are_gone(self) -> None:
        graph, _ = capture(Residual(), (torch.randn(2, 3, 8, 8),))
        assert "aten.relu.default" in operators(graph)
        assert not [op for op in operators(graph) if "dropout" in op or op.split(".")[1][-1] == "_"]

    def test_leading_weightless_nodes_form_a_layer(self) -> None:
        class Preprocessed(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.conv = nn.Conv2d(3, 4, 3)

            def forward(self, image: torch.Tensor) -> torch.Tensor:
                x = image.permute(0, 3, 1, 2).to(torch.float32) / 255 - 0.5
                return self.conv(F.interpolate(x, size=(12, 12), mode="bilinear"))

        image = torch.randint(0, 255, (1, 16, 16, 3), dtype=torch.uint8)
        graph, _ = assert_splits_equal_eager(Preprocessed(), (image,))
        assert [layer.name for layer in graph.layers] == ["input", "conv"]
        assert graph.cut_bytes[0] == 16 * 16 * 3
        assert graph.weight_bytes[0] == 0

    def test_a_module_called_twice_gets_two_names_and_one_copy_of_its_weights(self) -> None:
        class Twice(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.a(self.b(self.a(x)))

        graph, _ = assert_splits_equal_eager(Twice(), (torch.randn(1, 4),))
        names = [layer.name for layer in graph.layers]
        assert names[:2] == ["a", "b"]
        assert len(set(names)) == 3
        assert graph.weight_bytes == (80, 80, 0)

    def test_parameters_of_a_block_are_known_by_their_own_names(self) -> None:
        class Scaled(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.fc = nn.Linear(4, 4)
                self.gamma = nn.Parameter(torch.rand(4))

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.fc(x) * self.gamma

        graph, _ = assert_splits_equal_eager(
            nn.Sequential(OrderedDict(block=Scaled(), more=Scaled())), (torch.randn(1, 4),)
        )
        assert [layer.name for layer in graph.layers] == [
            "block.fc", "block", "more.fc", "more",
        ]  # fmt: skip

    def test_a_model_without_nodes_is_one_empty_layer(self) -> None:
        graph, _ = assert_splits_equal_eager(nn.Identity(), (torch.randn(2, 2),))
        assert len(graph.layers) == 1
        assert graph.nodes == ()


class TestWeights:
    def test_tied_weights_are_one(self) -> None:
        class Tied(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.encode, self.decode = nn.Embedding(9, 4), nn.Linear(4, 9, bias=False)
                self.decode.weight = self.encode.weight
                self.norm = nn.LayerNorm(4)

            def forward(self, ids: torch.Tensor) -> torch.Tensor:
                return self.decode(self.norm(self.encode(ids)))

        graph, weights = assert_splits_equal_eager(Tied(), (torch.tensor([[1, 2, 8]]),))
        assert len(weights) == len(graph.weights) == 3
        assert graph.weight_bytes == (9 * 4 * 4, 2 * 4 * 4, 0)

    def test_weights_share_memory_with_the_model(self) -> None:
        model = nn.Linear(3, 3)
        _, weights = capture(model, (torch.randn(1, 3),))
        assert weights["weight"].data_ptr() == model.weight.data_ptr()

    def test_a_channels_last_model_keeps_its_layout(self) -> None:
        model = randomised(Residual()).to(memory_format=torch.channels_last)
        x = torch.randn(2, 3, 8, 8).to(memory_format=torch.channels_last)
        _, weights = assert_splits_equal_eager(model, (x,))
        assert all(tensor.is_contiguous() for tensor in weights.values())

    def test_weight_norm_is_folded(self) -> None:
        graph, weights = assert_splits_equal_eager(
            nn.Sequential(weight_norm(nn.Conv1d(3, 40, 9)), nn.ReLU()), (torch.randn(1, 3, 20),)
        )
        assert operators(graph) == ["aten.conv1d.default", "aten.relu.default"]
        assert "_folded.0" in weights
        assert graph.layers[0].name == "0"
        graph, _ = capture(weight_norm(nn.Conv1d(3, 40, 9)), (torch.randn(1, 3, 20),))
        assert graph.layers[0].name == "model"

    def test_buffers_and_constants(self) -> None:
        class Constants(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.register_buffer("mean", torch.rand(3, 1, 1))
                self.register_buffer("scale", torch.rand(3, 1, 1), persistent=False)
                self.table = torch.rand(2000)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                x = (x - self.mean) * self.scale + torch.tensor([1.0, 2.0])
                return x.flatten(1) @ torch.eye(12) + self.table[:12]

        graph, weights = assert_splits_equal_eager(Constants(), (torch.randn(1, 3, 2, 2),))
        assert {"mean", "scale"} <= set(weights)
        assert sum(len(c.data) for c in graph.constants) < 4096

    def test_input_independent_nodes_are_computed_once(self) -> None:
        class Masked(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.positions = nn.Embedding(64, 8)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                size = x.shape[1]
                steps = torch.arange(size)
                mask = (steps[:, None] >= steps[None, :]).float().log()
                return (x + self.positions(steps)) @ x.transpose(1, 2) + mask

        graph, weights = assert_splits_equal_eager(Masked(), (torch.randn(1, 40, 8),))
        assert "aten.arange.start" not in operators(graph)
        assert "aten.embedding.default" not in operators(graph)
        # The mask has 6,400 bytes: too much to travel inside the graph.
        assert any(name.startswith("_folded.") for name in weights)

    def test_large_generated_tensors_stay_nodes(self) -> None:
        class Large(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return x + torch.ones(600, 600).cumsum(0)

        graph, weights = assert_splits_equal_eager(Large(), (torch.randn(600, 600),))
        assert weights == {}
        assert "aten.cumsum.default" in operators(graph)


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], **options: Any) -> None:
        super().__init__()
        self.front = nn.Linear(6, 5)
        self.rnn = kind(5, 4, **options)
        self.tail = nn.LazyLinear(3)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, Any]:
        sequence, state = self.rnn(self.front(x))
        return self.tail(sequence), state


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize(
    "options",
    [{}, {"num_layers": 2, "bidirectional": True, "batch_first": True}, {"bias": False}],
    ids=["plain", "deep", "biasless"],
)
def test_recurrent_networks(kind: type[nn.RNNBase], options: dict[str, Any]) -> None:
    model, x = Recurrent(kind, **options), torch.randn(7, 2, 6)
    model(x)
    graph, _ = assert_splits_equal_eager(model, (x,))
    assert [layer.name for layer in graph.layers] == ["front", "rnn", "tail"]


def test_frozen_weights_multiply_as_the_eager_model_does() -> None:
    # Torch folds a batched product into one matrix product if the weight requires a gradient.
    model = Recurrent(nn.GRU, bidirectional=True, batch_first=True)
    x = torch.randn(7, 2, 6)
    model(x)
    trainable, _ = assert_splits_equal_eager(model, (x,))
    frozen, _ = assert_splits_equal_eager(model.requires_grad_(False), (x,))
    assert all(weight.trainable for weight in trainable.weights)
    assert not any(weight.trainable for weight in frozen.weights)


@pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
def test_cells(kind: type[nn.RNNCellBase]) -> None:
    assert_splits_equal_eager(kind(5, 4), (torch.randn(2, 5),))


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_bags_of_embeddings(mode: str) -> None:
    model = nn.Sequential(nn.EmbeddingBag(9, 4, mode=mode), nn.Linear(4, 2))
    assert_splits_equal_eager(model, (torch.tensor([[1, 2, 8], [0, 0, 3]]),))


@pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")
def test_projected_lstm() -> None:
    assert_splits_equal_eager(nn.LSTM(5, 6, proj_size=3, num_layers=2), (torch.randn(7, 2, 5),))


class TestStructures:
    def test_dicts_tuples_none_and_numbers(self) -> None:
        class Structured(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.fc = nn.Linear(4, 4)

            def forward(self, x: Any, *, scale: float, extra: Any = None) -> dict[str, Any]:
                left, right = x["pair"]
                y = self.fc(left) * scale
                constant = torch.arange(3)
                return {
                    "sum": y + right, "input": left, "none": extra, "seven": 7,
                    "nested": [y, (constant, self.fc.bias)], "again": y,
                }  # fmt: skip

        pair = (torch.randn(1, 4), torch.randn(1, 4))
        graph, _ = assert_splits_equal_eager(
            Structured(), ({"pair": pair},), {"scale": 2.0, "extra": None}
        )
        assert len(graph.inputs) == 2

    def test_keywords_in_another_order(self) -> None:
        class Two(nn.Module):
            def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
                return first - second

        a, b = torch.randn(2), torch.randn(2)
        graph, _ = assert_splits_equal_eager(Two(), (), {"second": b, "first": a})
        live = flatten_inputs(graph, (), {"first": a, "second": b})
        assert all(torch.equal(x, y) for x, y in zip(live, flatten_inputs(
            graph, (), {"second": b, "first": a}), strict=True))  # fmt: skip

    def test_an_unused_input_does_not_cross(self) -> None:
        class Ignores(nn.Module):
            def forward(self, x: torch.Tensor, _y: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
                return x + z

        args = tuple(torch.randn(2) for _ in range(3))
        graph, _ = assert_splits_equal_eager(Ignores(), args)
        assert graph.cuts[0] == (0, 2)

    def test_several_outputs_of_one_node(self) -> None:
        class Many(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.fc = nn.Linear(6, 6)

            def forward(self, x: torch.Tensor) -> tuple[Any, ...]:
                a, b, c = self.fc(x).chunk(3, dim=1)
                d, _ = self.fc(torch.cat([c, b, a], 1)).split([2, 4], dim=1)
                values, indices = d.max(dim=1)
                top = torch.topk(x, 2)
                return (*x.unbind(0), values, indices, top.values, top.indices.to(torch.int32))

        graph, _ = assert_splits_equal_eager(Many(), (torch.randn(3, 6),))
        assert max(len(node.outputs) for node in graph.nodes) == 3

    def test_half_precision_and_bfloat16(self) -> None:
        for dtype in (torch.bfloat16, torch.float16):
            model = nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.LayerNorm(8)).to(dtype)
            assert_splits_equal_eager(model, (torch.randn(2, 8, dtype=dtype),))

    def test_a_transformer_layer_without_its_fused_path(self) -> None:
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        assert_splits_equal_eager(nn.TransformerEncoder(layer, 2), (torch.randn(1, 5, 8),))

    @pytest.mark.parametrize(
        ("args", "kwargs", "message"),
        [
            ((torch.zeros(2, 3),), {}, r"float32\[1, 3\]; got float32\[2, 3\]"),
            ((torch.zeros(1, 3, dtype=torch.int64),), {}, r"got int64\[1, 3\]"),
            (([1.0, 2.0],), {}, r"of the structure \(_\); got \(\[_, _\]\)"),
            ((), {"input": torch.zeros(1, 3)}, "keyword"),
            ((None,), {}, "got NoneType"),
        ],
    )
    def test_other_inputs_are_refused(self, args: Any, kwargs: Any, message: str) -> None:
        graph, _ = capture(nn.Linear(3, 2), (torch.zeros(1, 3),))
        with pytest.raises(InvalidInput, match=message):
            flatten_inputs(graph, args, kwargs)

    def test_another_literal_is_refused(self) -> None:
        class Times(nn.Module):
            def forward(self, x: torch.Tensor, times: int) -> torch.Tensor:
                return x * times

        graph, _ = capture(Times(), (torch.ones(1), 3))
        assert len(flatten_inputs(graph, (torch.ones(1), 3))) == 1
        for other in (4, 3.0, True, None):
            with pytest.raises(InvalidInput, match="3 at capture"):
                flatten_inputs(graph, (torch.ones(1), other))


class InPlace(nn.Module):
    """Writes that other views of the same memory see."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y = x * 2
        y[:, 0] = 0
        z = y.view(-1)
        z.add_(1)
        w = y.clone()
        w += torch.ones(1, dtype=torch.float64)
        w.clamp_(max=2).mul_(3)
        return y, z, w


class TestInPlace:
    def test_writes_through_views(self) -> None:
        assert_splits_equal_eager(InPlace(), (torch.randn(2, 3),))

    def test_writes_through_views_beside_batch_norm(self) -> None:
        class Both(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                y = self.norm(self.conv(x))
                y[:, 1:3] += 1
                return y

        graph, _ = assert_splits_equal_eager(randomised(Both()), (torch.randn(1, 3, 6, 6),))
        assert "aten.batch_norm.default" in operators(graph)
        assert set(operators(graph)) <= set(OPERATORS)

    def test_in_place_keeps_the_element_type(self) -> None:
        class Keeps(nn.Module):
            def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
                return (x + 1).add_(y)

        args = (torch.randn(3, dtype=torch.float16), torch.randn(3))
        assert_splits_equal_eager(Keeps(), args)

    def test_a_value_read_before_and_after_a_write(self) -> None:
        class ReadsTwice(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                y = x + 1
                before = y * 10
                y.relu_()
                return before + y

        assert_splits_equal_eager(ReadsTwice(), (torch.randn(5),))


class TestRefusals:
    def test_unknown_operator_with_its_place(self) -> None:
        class Attention(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return torch.special.bessel_j0(x)

        model = nn.Sequential(OrderedDict(layer4=nn.Sequential(OrderedDict(attn=Attention()))))
        with pytest.raises(
            UnsupportedOperator, match=r"aten\.special_bessel_j0\.default at model\.layer4\.attn"
        ):
            capture(model, (torch.randn(2),))

    def test_data_dependent_control_flow(self) -> None:
        class Branches(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return x * 2 if x.sum() > 0 else x

        model = nn.Sequential(nn.Linear(2, 2), Branches())
        with pytest.raises(UnsupportedOperator, match=r"data-dependent.*model\.1 \(Branches"):
            capture(model, (torch.randn(2),))

    def test_explicit_branch(self) -> None:
        class Cond(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return torch.cond(x.sum() > 0, lambda t: t * 2, lambda t: t - 1, (x,))

        with pytest.raises(UnsupportedOperator, match="data-dependent"):
            capture(Cond(), (torch.randn(2),))

    @pytest.mark.parametrize("through_view", [False, True])
    def test_state(self, through_view: bool) -> None:
        class Counts(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.register_buffer("seen", torch.zeros(2))

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                (self.seen[0] if through_view else self.seen).add_(1)
                return x + self.seen

        with pytest.raises(UnsupportedOperator, match=r"buffer mutation.*seen.*input"):
            capture(Counts(), (torch.randn(2),))

    def test_randomness(self) -> None:
        class Noisy(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return x + torch.randn(3)

        with pytest.raises(UnsupportedOperator, match="random"):
            capture(Noisy(), (torch.randn(3),))

    def test_a_size_that_depends_on_values(self) -> None:
        class Selects(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return x[x > 0]

        with pytest.raises(UnsupportedOperator):
            capture(Selects(), (torch.randn(3),))

    def test_a_model_that_fails_by_itself(self) -> None:
        with pytest.raises(UnsupportedOperator, match=r"model\.1 \(Linear"):
            capture(nn.Sequential(nn.ReLU(), nn.Linear(3, 3)), (torch.randn(2, 4),))

    def test_a_dataclass_that_torch_does_not_know(self) -> None:
        @dataclasses.dataclass
        class Result:
            logits: torch.Tensor

        class Returns(nn.Module):
            def forward(self, x: torch.Tensor) -> Result:
                return Result(x + 1)

        with pytest.raises(UnsupportedOperator, match="register_dataclass"):
            capture(Returns(), (torch.randn(2),))

    def test_an_output_without_a_structure(self) -> None:
        class Opaque(nn.Module):
            def forward(self, _x: torch.Tensor) -> object:
                return object()

        with pytest.raises(UnsupportedOperator):
            capture(Opaque(), (torch.randn(2),))
