"""Codings of a model's own live tensors: measured per cut, and lossy only within a tolerance."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ionn_client import Options, Profiled, prepare
from ionn_client.activations import LOSSLESS, Activations, raw_only
from ionn_client.machine.tensors import live_from_wire, live_to_wire
from layergraph import execute, flatten_inputs
from planner import CutCoding
from tests.support import chain
from wire import TENSOR_CODINGS
from wire.activations import LOSSY, decode_tensor, encode_tensor


class Skip(nn.Module):
    """Halves of zeros behind each ReLU, a skip connection, and a small end."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.second = nn.Conv2d(16, 16, 3, padding=1)
        self.third = nn.Conv2d(16, 4, 3, stride=4)
        self.last = nn.Linear(4 * 64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.first(x).relu()
        deeper = self.second(hidden).relu() + hidden
        return self.last(self.third(deeper).relu().flatten(1))


X = torch.linspace(-1, 1, 3 * 32 * 32).reshape(1, 3, 32, 32).sin()


@pytest.fixture(scope="module")
def profiled() -> Profiled:
    torch.manual_seed(0)
    return prepare(Skip().eval(), (X,), options=Options(profile_runs=1, activation_tolerance=0.1))


def test_every_cut_offers_raw_first_and_what_coding_made_of_its_tensors(
    profiled: Profiled,
) -> None:
    measured = profiled.activations
    assert measured is not None
    assert len(measured.codings) == len(profiled.graph.cuts)
    for cut, offered in enumerate(measured.codings):
        assert [option.coding for option in offered] == list(TENSOR_CODINGS)
        assert offered[0] == CutCoding("raw", profiled.graph.cut_bytes[cut], 0.0, 0.0)
        assert all(option.bytes <= offered[0].bytes for option in offered)
        assert all(option.encode_s > 0 for option in offered[1:])
    planes = [offered[1].bytes / offered[0].bytes for offered in measured.codings]
    # Behind the first ReLU half of the elements are zero.
    assert min(planes[1:4]) < 0.75


def test_a_lossy_coding_is_measured_where_nothing_exact_is_as_short(profiled: Profiled) -> None:
    measured = profiled.activations
    assert measured is not None
    assert measured.errors
    for cut, coding in measured.errors:
        earlier = [o for c in measured.codings[: cut + 1] for o in c if o.coding in LOSSLESS]
        (option,) = [o for o in measured.codings[cut] if o.coding == coding]
        assert option.bytes < min(o.bytes for o in earlier)
    assert all(0 <= error < 0.1 for error in measured.errors.values())
    assert max(measured.errors.values()) > 0


def test_the_error_is_that_of_the_answer(profiled: Profiled) -> None:
    measured, graph = profiled.activations, profiled.graph
    assert measured is not None
    (cut, coding), error = max(measured.errors.items(), key=lambda item: item[1])
    live = execute(graph, profiled.weights, 0, cut, flatten_inputs(graph, (X,), {}))
    coded = tuple(decode_tensor(encode_tensor(t, coding)) for t in live_to_wire(live))
    layers = len(graph.layers)
    (rough,) = execute(graph, profiled.weights, cut, layers, live_from_wire(coded, graph, cut))
    (answer,) = execute(graph, profiled.weights, cut, layers, live)
    assert error == pytest.approx(float((rough - answer).abs().max() / answer.abs().max()))


def test_without_a_tolerance_nothing_lossy_is_offered_or_even_measured() -> None:
    plain = prepare(Skip().eval(), (X,), options=Options(profile_runs=1)).activations
    assert plain is not None
    assert {option.coding for cut in plain.codings for option in cut} == set(LOSSLESS)
    assert plain.errors == {}


def test_only_what_is_within_the_tolerance_is_offered_and_only_upwards(
    profiled: Profiled,
) -> None:
    measured = profiled.activations
    assert measured is not None
    assert measured.up(None) == measured.down()
    for tolerance in (1e-9, 1e-3, 0.1):
        offered = {
            (cut, option.coding)
            for cut, options in enumerate(measured.up(tolerance))
            for option in options
            if option.coding in LOSSY
        }
        assert offered == {key for key, error in measured.errors.items() if error <= tolerance}
    assert not any(o.coding in LOSSY for cut in measured.down() for o in cut)


def test_a_lossy_coding_of_unknown_error_is_never_offered() -> None:
    cut = (CutCoding("raw", 100, 0, 0), CutCoding("affine8", 10, 0, 0))
    assert Activations((cut,)).up(tolerance=1e9) == ((cut[0],),)


def test_a_model_that_was_not_measured_crosses_as_it_is() -> None:
    graph, _ = chain(2)
    assert [[o.bytes for o in cut] for cut in raw_only(graph).codings] == [[32], [32], [32]]
