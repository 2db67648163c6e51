"""First and last layers that stay on the device: which they are, and what the edge gets."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import nn

from ionn_client import Options
from ionn_client.machine import events
from ionn_client.machine.context import Context
from ionn_client.machine.forecast import Forecast
from ionn_client.machine.kept import kept_layers, parse_keep_local, shown_graph
from ionn_client.machine.upload import Upload
from layergraph import LayerGraph, capture
from layergraph.nodes import Constant, ConstantRef, Layer, Node, Ref, TensorSpec
from planner import Link
from tests.ionn_client.test_session import LAYERS, Bench, X, only, segments, sent
from tests.support import ELEMENTS, chain
from wire import messages
from wire.planes import FINE, WHOLE

LINK = Link(1e6, 1e6, 0.01)


@pytest.mark.parametrize(
    "given",
    [(-1, 0), (0, -1), (1,), (1, 2, 3), (1.0, 0), (True, 0), ("1", 0), [1, 0], None, 2, "2,1",
     (0, None), (float("nan"), 0)],
)  # fmt: skip
def test_hostile_options_are_refused_by_name(given: Any) -> None:
    with pytest.raises(ValueError, match="keep_local"):
        Options(keep_local=given)


def test_more_layers_than_there_are() -> None:
    graph, _ = chain(LAYERS)
    for given in ((LAYERS + 1, 0), (0, LAYERS + 1), (1 << 70, 0)):
        with pytest.raises(ValueError, match=r"keep_local.*3 layers"):
            Context(graph, Forecast(graph, [1.0] * LAYERS), Options(keep_local=given))
    assert kept_layers(graph, (2, 2)) == {0, 1, 2}


@pytest.mark.parametrize(("text", "given"), [("2,1", (2, 1)), ("2", (2, 0)), ("0, 3", (0, 3))])
def test_option_text(text: str, given: tuple[int, int]) -> None:
    assert parse_keep_local(text) == given


@pytest.mark.parametrize("text", ["", "x", "1,2,3", "-1", "1,-1", "1.5", "9" * 5000])
def test_bad_option_text(text: str) -> None:
    with pytest.raises(ValueError, match="--keep-local"):
        parse_keep_local(text)


class Skipping(nn.Module):
    """Its third layer reads the raw input again."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third, self.fourth = (nn.Linear(8, 8) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        deep = self.second(self.first(x.flip(1)).relu())
        return self.fourth(self.third(deep + x).relu())


@pytest.fixture(scope="module")
def skipping() -> LayerGraph:
    return capture(Skipping().eval(), (torch.randn(1, 8),))[0]


def test_first_layers_reach_until_nothing_reads_the_raw_input(skipping: LayerGraph) -> None:
    names = [layer.name for layer in skipping.layers]
    assert names == ["input", "first", "second", "third", "fourth"]
    # The addition of the input belongs to "second": one layer would show a flipped input, two
    # would send the input along.
    for first in (1, 2, 3):
        kept = kept_layers(skipping, (first, 0))
        assert kept == {0, 1, 2}
        assert all(value > 0 for value in skipping.cuts[max(kept) + 1])
    assert kept_layers(skipping, (4, 0)) == {0, 1, 2, 3}
    assert kept_layers(skipping, (0, 2)) == {3, 4}
    assert kept_layers(skipping, (0, 0)) == frozenset()


def test_layers_that_share_a_weight_with_a_kept_one_stay() -> None:
    graph, _ = chain(4)
    weights = list(graph.weights)
    weights[2] = dataclasses.replace(weights[2], digest=weights[0].digest)
    tied = dataclasses.replace(graph, weights=tuple(weights))
    assert kept_layers(tied, (1, 0)) == {0, 2}
    upload = Upload(tied, kept=kept_layers(tied, (1, 0)))
    assert upload.missing_bytes() == (0, 256, 0, 256)
    assert upload.total_bytes == 512
    upload.follow([[(layer, WHOLE) for layer in range(4)]])
    assert {piece.weight for piece in upload.pieces()} == {1, 3}


def test_constants_of_kept_layers_are_not_shown() -> None:
    row = TensorSpec("float32", (2,))
    graph = LayerGraph(
        (row,), (), tuple(Constant(row, bytes([n] * 8)) for n in (1, 2)),
        (
            Node("aten.add.Tensor", (Ref(0), ConstantRef(0)), (), (row,), ""),
            Node("aten.add.Tensor", (Ref(1), ConstantRef(1)), (), (row,), ""),
            Node("aten.add.Tensor", (Ref(2), ConstantRef(1)), (), (row,), ""),
        ),
        tuple(Layer(str(n), n, n + 1, ()) for n in range(3)),
        (Ref(3),),
    )  # fmt: skip
    shown = shown_graph(graph, frozenset({0, 1}))
    assert [constant.data for constant in shown.constants] == [bytes(8), bytes([2] * 8)]
    assert dataclasses.replace(shown, constants=graph.constants) == graph
    assert shown_graph(graph, frozenset({1})) is graph


def bench(keep_local: tuple[int, int], **options: Any) -> Bench:
    return Bench(Options(assumed_link=LINK, replan=False, keep_local=keep_local, **options))


@pytest.mark.parametrize("precision", ["exact", "progressive"])
@pytest.mark.parametrize(
    ("keep_local", "weights"),
    [((0, 0), {0, 1, 2}), ((1, 0), {1, 2}), ((1, 1), {1}), ((3, 0), set())],
)
def test_a_session_uploads_only_the_rest(
    keep_local: tuple[int, int], weights: set[int], precision: str
) -> None:
    made = bench(keep_local, precision=precision)
    made.greet()
    pending = segments(made.have((LAYERS,)))
    announced: list[messages.Segment] = []
    while pending:
        piece = pending.pop(0)
        announced.append(piece)
        pending += segments(made.hear(messages.ChunkAck(made.now + 0.01), 0.01))
        complete = piece.plane in (WHOLE, FINE)
        held = messages.Held(piece.weight, piece.plane, ELEMENTS, complete)
        pending += segments(made.hear(held))
    assert {piece.weight for piece in announced} == weights
    assert made.session.context.phase == "ready"


@pytest.mark.parametrize("had", [(0, LAYERS), (1, 1, 1)])
def test_a_session_asks_the_edge_for_none_of_the_kept_layers(had: tuple[int, ...]) -> None:
    made = bench((1, 1))
    made.greet()
    # Even where the edge has their weights from an earlier visit, which is told.
    made.have(had)
    upload, size = made.session.upload, ELEMENTS * 4
    assert (upload.exposed_bytes, upload.held_bytes) == ((2 if had[0] == 0 else 0) * size, size)
    commands = made.step(events.QueryAsked(0, (X,), None))
    here = only(commands, events.RunRange)
    assert (here.start, here.stop) == (0, 1)
    commands = made.local(here)
    (asked,) = [message for message in sent(commands) if isinstance(message, messages.Execute)]
    assert (asked.start, asked.stop) == (1, 2)
    (tensor,) = asked.tensors
    assert bytes(tensor.data) != X.numpy().tobytes()


def test_with_all_kept_nothing_leaves() -> None:
    made = bench((2, 1))
    made.greet()
    commands = made.have((0, LAYERS))
    commands += made.step(events.QueryAsked(0, (X,), None))
    here = only(commands, events.RunRange)
    assert (here.start, here.stop) == (0, LAYERS)
    kinds = {type(message) for message in sent(commands)}
    assert not kinds & {messages.Execute, messages.Segment, messages.Chunk}
