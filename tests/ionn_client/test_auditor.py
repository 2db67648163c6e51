"""Audits as they are computed: from what the edge was given, with whatever was lost on the way."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

import pytest
import torch

from ionn_client.auditor import Auditor
from ionn_client.machine.audit import TOLERANCE, Audits, Hop, Verdict
from ionn_client.machine.events import AuditRange, Command
from ionn_client.machine.hedging import Slices
from ionn_client.machine.rough import _rough, run_roughly
from ionn_client.machine.tensors import live_from_wire, live_to_wire
from layergraph import Executor, InvalidInput, LayerGraph, capture, execute
from layergraph.execute import Live
from tests.support import WIDTH, chain
from wire.activations import decode_tensor, encode_tensor

GRAPH, WEIGHTS = chain(3)
X = torch.linspace(0, 1, WIDTH).reshape(1, WIDTH)


@pytest.fixture
def auditor() -> Iterator[Auditor]:
    made = Auditor(GRAPH, WEIGHTS, threads=1)
    yield made
    made.close()


async def test_a_part_gives_the_live_tensors_and_the_last_the_difference(auditor: Auditor) -> None:
    half = await auditor.run(AuditRange(4, 0, 2, (X,)))
    assert (half.audit, half.stop, half.difference) == (4, 2, None)
    claimed = execute(GRAPH, WEIGHTS, 0, 3, (X,))
    whole = await auditor.run(AuditRange(4, 2, 3, half.live, claimed=claimed))
    assert whole.difference == 0.0
    lied = (claimed[0] + claimed[0].abs().max(),)
    again = await auditor.run(AuditRange(4, 2, 3, half.live, claimed=lied))
    assert again.difference == pytest.approx(1.0)


async def test_what_was_sent_with_loss_is_what_the_edge_had(auditor: Auditor) -> None:
    coded = tuple(encode_tensor(tensor, "affine8") for tensor in live_to_wire((X,)))
    assert coded[0].coding == "affine8"
    had = live_from_wire(tuple(map(decode_tensor, coded)), GRAPH, 0)
    assert not torch.equal(had[0], X)
    claimed = execute(GRAPH, WEIGHTS, 0, 3, had)
    audited = await auditor.run(AuditRange(1, 0, 3, (X,), coded=coded, claimed=claimed))
    assert audited.difference == 0.0


async def test_weights_that_the_program_has_changed_are_answered_for_by_nobody() -> None:
    weights = {name: tensor.clone() for name, tensor in WEIGHTS.items()}
    made = Auditor(GRAPH, weights, threads=1)
    try:
        claimed = execute(GRAPH, WEIGHTS, 0, 3, (X,))
        weights["fc1.weight"].mul_(2)
        with pytest.raises(ValueError, match=r"fc1.weight is not what it was"):
            await made.run(AuditRange(1, 0, 3, (X,), claimed=claimed, tolerance=1e-3))
    finally:
        made.close()


async def verdict(
    auditor: Auditor,
    claimed: torch.Tensor,
    precision: str,
    graph: LayerGraph = GRAPH,
    x: torch.Tensor = X,
) -> Verdict:
    """Of an answer to the whole model, computed in as many slices as there are layers."""
    one_by_one = Slices([1.0] * len(graph.layers))
    audits = Audits(graph, one_by_one, 1.0, random.Random(0))
    audits.begin(Hop(0, len(graph.layers), (x,), (), (claimed,), precision))
    commands: list[Command] = []
    while True:
        audits.proceed(commands.append)
        asked = commands.pop()
        assert isinstance(asked, AuditRange)
        told = audits.audited(await auditor.run(asked))
        if told is not None:
            return told


def by_weights(*precisions: str) -> torch.Tensor:
    """An honest answer, with each layer's weight as precise as it says."""
    live: Live = (X,)
    for layer, precision in enumerate(precisions):
        live = run_roughly(GRAPH, WEIGHTS, (layer, layer + 1), live, precision)
    return live[0]


EXACT = by_weights("exact", "exact", "exact")


@pytest.mark.parametrize("precision", ["float8", "bfloat16"])
async def test_what_the_claimed_precision_explains_is_no_lie(
    auditor: Auditor, precision: str
) -> None:
    for which in itertools.product((precision, "exact"), repeat=len(GRAPH.layers)):
        told = await verdict(auditor, by_weights(*which), precision)
        assert told.agrees, (which, told.difference, told.tolerance)
    assert 0 < told.tolerance < TOLERANCE[precision]


@pytest.mark.parametrize("precision", ["float8", "bfloat16"])
async def test_who_names_a_coarse_precision_is_allowed_no_more_than_that_explains(
    auditor: Auditor, precision: str
) -> None:
    # Within what was allowed by the precision's name alone.
    lie = EXACT + 0.9 * TOLERANCE[precision] * EXACT.abs().max()
    told = await verdict(auditor, lie, precision)
    assert told.difference == pytest.approx(0.9 * TOLERANCE[precision], rel=1e-3)
    assert not told.agrees


def with_one_output() -> torch.nn.Sequential:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        *(torch.nn.Linear(16, 64), torch.nn.ReLU(), torch.nn.Linear(64, 64), torch.nn.ReLU()),
        torch.nn.Linear(64, 1),
    ).eval()


@pytest.mark.parametrize("precision", ["float8", "bfloat16"])
async def test_an_honest_mix_of_weights_is_no_lie_though_errors_of_one_number_cancel(
    precision: str,
) -> None:
    graph, weights = capture(with_one_output(), (torch.zeros(1, 16),))
    auditor = Auditor(graph, weights, threads=1)
    chance, draws = random.Random(2), torch.Generator().manual_seed(2)
    rough = {
        weight.name: _rough(weight, weights[weight.name], precision) for weight in graph.weights
    }
    for _ in range(8):
        mixed = {name: chance.choice((weights, rough))[name] for name in weights}
        edge = Executor(graph, mixed)
        for _ in range(10):
            x = torch.randn(1, 16, generator=draws)
            (claimed,) = edge.run(0, len(graph.layers), (x,))
            told = await verdict(auditor, claimed, precision, graph, x)
            assert told.agrees, (told.difference, told.tolerance)
    auditor.close()


async def test_another_rounding_of_a_number_that_is_nearly_nothing_is_no_lie() -> None:
    model, x = with_one_output(), torch.ones(1, 16)
    with torch.no_grad():
        model[-1].bias -= model(x)[0] - 1e-5
    graph, weights = capture(model, (x,))
    (y,) = execute(graph, weights, 0, len(graph.layers), (x,))
    assert 0 < y.abs().item() < 2e-5
    auditor = Auditor(graph, weights, threads=1)
    told = await verdict(auditor, y + 1e-7, "exact", graph, x)
    assert told.agrees, (told.difference, told.tolerance)
    assert told.difference > TOLERANCE["exact"]
    told = await verdict(auditor, y + 1e-3, "exact", graph, x)
    assert not told.agrees, (told.difference, told.tolerance)
    auditor.close()


async def test_what_cannot_be_run_is_raised(auditor: Auditor) -> None:
    with pytest.raises(InvalidInput):
        await auditor.run(AuditRange(1, 0, 3, (X.double(),)))
