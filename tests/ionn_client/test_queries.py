"""Queries whose live tensors are coded on the way: in a thread, in time, and never in doubt."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from ionn_client import Options
from ionn_client.activations import Activations
from ionn_client.machine import events
from ionn_client.machine.forecast import Forecast
from layergraph import execute
from planner import CutCoding, Link
from tests.ionn_client.test_session import (
    ALL,
    LAYERS,
    NONE,
    Bench,
    X,
    answer_on_edge,
    kinds,
    only,
    sent,
)
from wire import messages
from wire.activations import encode_tensor

RAW = CutCoding("raw", 32, 0.0, 0.0)
ROUGH = CutCoding("affine8", 4, 0.0, 0.0)
CODED = tuple((RAW, CutCoding("planes", 8, 0.0, 0.0)) for _ in range(LAYERS + 1))
ZEROS = torch.zeros_like(X)


def bench(activations: Activations, tolerance: float | None = None) -> Bench:
    # So slow a link that every byte saved pays, and a device so slow that the edge does.
    made = Bench(Options(assumed_link=Link(1e4, 1e4, 0.01), replan=False, patience=1e6))
    made.session.context.forecast = Forecast(made.graph, [100.0] * LAYERS, activations, tolerance)
    made.greet()
    return made


@pytest.fixture
def threaded(monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr("ionn_client.machine.queries.INLINE_BYTES", 0)
    made = bench(Activations(CODED))
    made.have(ALL)
    return made


def encoded(command: events.EncodeTensors) -> events.TensorsEncoded:
    tensors = tuple(encode_tensor(tensor, command.coding) for tensor in command.tensors)
    return events.TensorsEncoded(command.query, tensors, 0.001)


def coded_answer(made: Bench, message: messages.Execute) -> messages.Result:
    """An answer of zeros, which become shorter."""
    result = answer_on_edge(made, message)
    (tensor,) = result.tensors
    zeros = dataclasses.replace(tensor, data=bytes(memoryview(tensor.data).nbytes))
    coded = encode_tensor(zeros, "planes")
    assert coded.coding == "planes"
    return dataclasses.replace(result, tensors=(coded,), coding_s=0.002)


def test_small_tensors_are_coded_at_once_and_the_answer_is_wanted_coded() -> None:
    made = bench(Activations(CODED))
    made.have(ALL)
    (message,) = sent(made.step(events.QueryAsked(0, (ZEROS,), None)))
    assert [tensor.coding for tensor in message.tensors] == ["planes"]
    assert message.reply_coding == "planes"
    commands = made.hear(coded_answer(made, message), after_s=0.01)
    answer = only(commands, events.FinishQuery).answer
    assert torch.equal(answer.live[0], ZEROS)
    (hop,) = [c for c in commands if isinstance(c, events.Record) and c.kind == "hop"]
    assert hop.fields["up_coding"] == "planes"
    assert hop.fields["coding_s"] == 0.002
    assert hop.fields["up_bytes"] < 32


def test_large_tensors_are_coded_and_decoded_outside(threaded: Bench) -> None:
    commands = threaded.step(events.QueryAsked(0, (ZEROS,), None))
    assert kinds(commands) == [events.EncodeTensors]
    (message,) = sent(threaded.step(encoded(only(commands, events.EncodeTensors)), 0.001))
    result = coded_answer(threaded, message)
    commands = threaded.hear(result, after_s=0.01)
    assert kinds(commands) == [events.DecodeTensors]
    raw = messages.Tensor("float32", (1, 8), (0, 1), bytes(32))
    done = threaded.step(events.TensorsDecoded(0, (raw,), 0.001), after_s=0.001)
    answer = only(done, events.FinishQuery).answer
    assert (answer.served_by, answer.fallback_reason) == ("edge", None)
    assert answer.latency_s == pytest.approx(0.012)
    assert kinds(threaded.step(events.TensorsDecoded(0, (raw,), 0.001))) == []


def test_the_edge_may_go_while_tensors_are_coded(threaded: Bench) -> None:
    coding = only(threaded.step(events.QueryAsked(0, (X,), None)), events.EncodeTensors)
    assert events.RunRange not in kinds(threaded.step(events.ConnectionLost("reset")))
    run = only(threaded.step(encoded(coding)), events.RunRange)
    answer = only(threaded.local(run), events.FinishQuery).answer
    assert answer.fallback_reason == "reset"


def test_weights_that_the_next_edge_has_not_are_not_asked_for(threaded: Bench) -> None:
    coding = only(threaded.step(events.QueryAsked(0, (X,), None)), events.EncodeTensors)
    # While a thread codes its tensors, the edge comes again, with an empty store.
    threaded.step(events.ConnectionLost("reset by peer"))
    threaded.greet()
    threaded.have(NONE)
    run = only(threaded.step(encoded(coding)), events.RunRange)
    assert (run.start, run.stop) == (0, LAYERS)
    answer = only(threaded.local(run), events.FinishQuery).answer
    assert answer.fallback_reason == "the edge has not all of the range's weights any more"


def test_an_edge_that_is_back_with_all_weights_is_asked(threaded: Bench) -> None:
    coding = only(threaded.step(events.QueryAsked(0, (X,), None)), events.EncodeTensors)
    threaded.step(events.ConnectionLost("reset by peer"))
    threaded.greet()
    threaded.have(ALL)
    (message,) = sent(threaded.step(encoded(coding)))
    assert (message.start, message.stop) == (0, LAYERS)


def test_the_edge_may_go_while_its_answer_is_decoded(threaded: Bench) -> None:
    coding = only(threaded.step(events.QueryAsked(0, (ZEROS,), None)), events.EncodeTensors)
    (message,) = sent(threaded.step(encoded(coding)))
    threaded.hear(coded_answer(threaded, message))
    assert events.RunRange not in kinds(threaded.step(events.ConnectionLost("reset")))
    raw = messages.Tensor("float32", (1, 8), (0, 1), bytes(32))
    assert only(threaded.step(events.TensorsDecoded(0, (raw,), 0.001)), events.FinishQuery)


def test_an_abandoned_query_wants_no_coded_tensors(threaded: Bench) -> None:
    coding = only(threaded.step(events.QueryAsked(0, (X,), None)), events.EncodeTensors)
    assert kinds(threaded.step(events.QueryAbandoned(0))) == []
    assert kinds(threaded.step(encoded(coding))) == []


def test_an_answer_that_does_not_decode_costs_the_connection_and_no_query(
    threaded: Bench,
) -> None:
    coding = only(threaded.step(events.QueryAsked(0, (ZEROS,), None)), events.EncodeTensors)
    (message,) = sent(threaded.step(encoded(coding)))
    threaded.hear(coded_answer(threaded, message))
    commands = threaded.step(events.TensorsUndecodable(0, "the edge broke it"))
    assert events.AbortConnection in kinds(commands)
    answer = only(threaded.local(only(commands, events.RunRange)), events.FinishQuery).answer
    assert answer.served_by == "client"
    assert answer.fallback_reason == "the edge broke it"


def test_an_answer_that_decodes_to_something_else_says_what_is_wrong(threaded: Bench) -> None:
    coding = only(threaded.step(events.QueryAsked(0, (ZEROS,), None)), events.EncodeTensors)
    (message,) = sent(threaded.step(encoded(coding)))
    threaded.hear(coded_answer(threaded, message))
    short = messages.Tensor("float32", (1, 8), (0, 1), bytes(28))
    commands = threaded.step(events.TensorsDecoded(0, (short,), 0.001))
    assert events.AbortConnection in kinds(commands)
    answer = only(threaded.local(only(commands, events.RunRange)), events.FinishQuery).answer
    assert answer.served_by == "client"
    assert answer.fallback_reason == (
        "the edge broke the protocol: float32[1, 8] needs 32 bytes; there are 28"
    )


def test_a_small_answer_that_does_not_decode_costs_no_query_either() -> None:
    made = bench(Activations(CODED))
    made.have(ALL)
    (message,) = sent(made.step(events.QueryAsked(0, (ZEROS,), None)))
    result = coded_answer(made, message)
    junk = dataclasses.replace(result.tensors[0], data=b"\x07junk")
    commands = made.hear(dataclasses.replace(result, tensors=(junk,)))
    assert events.AbortConnection in kinds(commands)
    answer = only(made.local(only(commands, events.RunRange)), events.FinishQuery).answer
    assert answer.served_by == "client"


def test_a_lossy_answer_was_never_asked_for() -> None:
    made = bench(Activations(CODED))
    made.have(ALL)
    (message,) = sent(made.step(events.QueryAsked(0, (X,), None)))
    result = answer_on_edge(made, message)
    rough = dataclasses.replace(result.tensors[0], coding="affine8", data=b"12345678")
    commands = made.hear(dataclasses.replace(result, tensors=(rough,)))
    assert events.AbortConnection in kinds(commands)
    assert "not asked for" in (made.session.last_failure or "")


def test_a_query_has_one_lossy_crossing_at_most() -> None:
    every = tuple((*cut, ROUGH) for cut in CODED)
    errors = {(cut, "affine8"): 0.01 for cut in range(LAYERS + 1)}
    made = bench(Activations(every, errors), tolerance=0.02)
    # The edge has the first layer and the last: the data cross four times.
    made.have((0, 1, 1, 1))
    (first,) = sent(made.step(events.QueryAsked(0, (X,), None)))[:1]
    assert (first.start, first.stop, first.reply_coding) == (0, 1, "planes")
    assert made.session.queries._open[0].up_coding == "affine8"
    run = only(made.hear(answer_on_edge(made, first), after_s=0.01), events.RunRange)
    live = execute(made.graph, made.weights, 1, 2, run.live)
    made.step(events.RangeRan(0, 1, 2, live, 1.0))
    assert made.session.queries._open[0].up_coding == "planes"


def lossy_bench() -> tuple[Bench, events.QueryAsked]:
    """A bench that codes with loss, and a query that tolerates it."""
    every = tuple((*cut, ROUGH) for cut in CODED)
    errors = {(cut, "affine8"): 0.01 for cut in range(LAYERS + 1)}
    made = bench(Activations(every, errors), tolerance=0.02)
    made.have(ALL)
    return made, events.QueryAsked(0, (torch.linspace(0, 1, 8).reshape(1, 8),), None)


@pytest.mark.parametrize("lossless", [False, True])
def test_a_query_that_demands_exact_crosses_without_loss_and_the_answer_says(
    lossless: bool,
) -> None:
    made, asked = lossy_bench()
    (message,) = sent(made.step(dataclasses.replace(asked, lossless=lossless)))
    codings = {tensor.coding for tensor in message.tensors}
    predicted_s = made.session.queries._open[0].predicted_s
    # By the bytes of "planes", 8, and of "affine8", 4, at 10 KB/s.
    assert predicted_s == pytest.approx(0.0116 - 4e-4 * (not lossless), rel=0.01)
    assert codings <= {"raw", "planes"} if lossless else codings == {"affine8"}
    answer = only(made.hear(answer_on_edge(made, message)), events.FinishQuery).answer
    assert (answer.served_by, answer.lossy) == ("edge", not lossless)


def test_what_was_sent_with_loss_and_not_used_is_no_loss() -> None:
    made, asked = lossy_bench()
    made.step(asked)
    run = only(made.step(events.ConnectionLost("reset")), events.RunRange)
    answer = only(made.local(run), events.FinishQuery).answer
    assert (answer.served_by, answer.lossy) == ("client", False)


def test_no_tolerance_no_loss() -> None:
    every = tuple((*cut, ROUGH) for cut in CODED)
    errors = {(cut, "affine8"): 0.01 for cut in range(LAYERS + 1)}
    made = bench(Activations(every, errors))
    made.have(ALL)
    made.step(events.QueryAsked(0, (X,), None))
    assert made.session.queries._open[0].up_coding == "planes"
    assert "as planes up, " in made.session.explanation()
