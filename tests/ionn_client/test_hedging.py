"""A query whose reply is late runs here too, and the first valid answer wins."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from ionn_client import Options
from ionn_client.machine import events
from ionn_client.machine.battery import Battery
from ionn_client.machine.estimate import LinkEstimator
from ionn_client.machine.forecast import Forecast
from ionn_client.machine.hedging import SHORTEST_SLICE_S, SLICES, Slices
from ionn_client.machine.query import Answer, Query
from ionn_client.machine.replies import expect_reply, longest_wait_s, send_off
from ionn_client.machine.tensors import live_to_wire
from ionn_client.machine.watch import HEAR_S
from layergraph import execute
from planner import Link, Objective
from planner.power import RADIOS, Power
from tests.ionn_client.test_session import (
    LAYERS,
    Bench,
    X,
    answer_on_edge,
    kinds,
    only,
    sent,
    wait,
)
from wire import messages
from wire.activations import encode_tensor

LINK = Link(1e6, 1e6, 0.01)


def late(options: Options | None = None) -> tuple[Bench, messages.Execute, events.RunRange]:
    """A query whose reply is late, and the first slice that runs here."""
    bench = Bench(options or Options(assumed_link=LINK, replan=False))
    bench.upload_all()
    (message,) = sent(bench.step(events.QueryAsked(0, (X,), None)))
    commands = wait(bench, for_kind=events.RunRange)
    assert messages.Cancel(0) not in sent(commands)
    return bench, message, only(commands, events.RunRange)


def to_the_end(bench: Bench, slice_: events.RunRange) -> list[events.Command]:
    commands = bench.local(slice_)
    while events.RunRange in kinds(commands):
        commands = bench.local(only(commands, events.RunRange))
    return commands


def whole(bench: Bench) -> torch.Tensor:
    return execute(bench.graph, bench.weights, 0, LAYERS, (X,))[0]


def finished(commands: list[events.Command]) -> Answer:
    answer: Answer = only(commands, events.FinishQuery).answer
    return answer


def test_it_runs_in_slices_from_where_it_was_and_this_side_may_win() -> None:
    bench, _, slice_ = late()
    assert (slice_.start, slice_.stop) == (0, 1)
    assert not bench.session.queries.idle_here
    commands = to_the_end(bench, slice_)
    answer = finished(commands)
    assert (answer.served_by, sent(commands)) == ("client", [messages.Cancel(0)])
    assert "edge slow: no answer in" in (answer.fallback_reason or "")
    assert torch.equal(answer.live[0], whole(bench))
    assert (bench.session.queries.racing.hedges, bench.session.queries.racing.hedges_won) == (1, 1)


def test_a_late_reply_is_still_taken_and_the_rest_of_the_slices_is_not_wanted() -> None:
    bench, message, slice_ = late()
    (second,) = [c for c in bench.local(slice_) if isinstance(c, events.RunRange)]
    assert second.start == 1
    answer = finished(bench.hear(answer_on_edge(bench, message), after_s=0.01))
    assert (answer.served_by, answer.fallback_reason) == ("edge", None)
    assert torch.equal(answer.live[0], whole(bench))
    assert not bench.session.queries.wants(0, 1)
    assert kinds(bench.local(second)) == []
    assert (bench.session.queries.racing.hedges, bench.session.queries.racing.hedges_won) == (1, 0)


def test_a_link_that_turned_slow_after_the_route_was_chosen_is_not_waited_for_without_end() -> None:
    bench, stalled = (
        Bench(Options(assumed_link=LINK)),
        Bench(Options(assumed_link=Link(1, 1, 0.01))),
    )
    bench.upload_all()
    chosen = bench.session.route("exact")
    assert "edge" in chosen.placement
    query = Query.start(0, (X,), chosen, 0.0, None, "exact", False)
    send_off(stalled.session.context, query, live_to_wire((X,)))
    expect_reply(stalled.session.context, query, ())
    most_s = max(stalled.session.forecast.local_s(), stalled.session.options.silence_s)
    assert query.expected_reply_s == query.transfer_s == most_s < query.up_bytes


def test_nor_are_several_queries_on_such_a_link_one_after_the_other() -> None:
    bench = Bench(Options(assumed_link=LINK, replan=False, hedging=False))
    bench.upload_all()
    asked_at, given_up = bench.now, set[int]()
    for number in range(5):
        assert sent(bench.session.take(events.QueryAsked(number, (X,), None), bench.now))
    bench.session.context.links = LinkEstimator(Link(1, 1, 0.01))
    bench.session.catch_up(bench.now)
    options = bench.session.options
    most_s = max(bench.session.forecast.local_s(), options.silence_s)
    while len(given_up) < 5:
        commands = wait(bench, for_kind=events.RunRange)
        given_up |= {each.query for each in commands if isinstance(each, events.RunRange)}
    assert bench.now <= asked_at + longest_wait_s(options, most_s) + 0.001


def test_what_comes_after_the_answer_means_nothing() -> None:
    bench, message, slice_ = late()
    to_the_end(bench, slice_)
    reply = answer_on_edge(bench, message)
    for _ in range(2):
        assert kinds(bench.hear(reply, after_s=0.01)) == []
    assert bench.session.phase == "ready"
    assert bench.session.wake_at is not None


def test_a_reply_that_comes_twice_is_one_answer() -> None:
    bench = Bench()
    bench.upload_all()
    (message,) = sent(bench.step(events.QueryAsked(0, (X,), None)))
    reply = answer_on_edge(bench, message)
    assert events.FinishQuery in kinds(bench.hear(reply, after_s=0.01))
    assert kinds(bench.hear(reply)) == []


def test_an_edge_that_goes_leaves_what_ran_here_in_use() -> None:
    bench, _, slice_ = late()
    (second,) = [c for c in bench.local(slice_) if isinstance(c, events.RunRange)]
    commands = bench.step(events.ConnectionLost("reset"))
    assert events.RunRange not in kinds(commands)
    assert bench.session.queries.wants(0, 1)
    rest = only(bench.local(second), events.RunRange)
    assert (rest.start, rest.stop) == (2, LAYERS)
    answer = finished(bench.local(rest))
    assert answer.fallback_reason == "edge gone: reset"
    assert torch.equal(answer.live[0], whole(bench))


def test_a_refusal_while_it_runs_here_changes_only_the_reason() -> None:
    bench, _, slice_ = late()
    assert kinds(bench.hear(messages.Error("overloaded", "too many", 0))) == []
    answer = finished(to_the_end(bench, slice_))
    assert answer.fallback_reason == "the edge refused: too many"


def test_a_reply_to_less_than_what_is_here_already_is_left() -> None:
    bench, message, slice_ = late()
    bench.local(slice_)
    live = execute(bench.graph, bench.weights, 0, 1, (X,))
    short = dataclasses.replace(answer_on_edge(bench, message), stop=1)
    commands = bench.hear(dataclasses.replace(short, tensors=live_to_wire(live)), after_s=0.01)
    assert kinds(commands) == []
    run = events.RunRange(0, 1, 2, live)
    answer = finished(to_the_end(bench, run))
    assert answer.served_by == "client"
    assert "further" in (answer.fallback_reason or "")


def test_a_model_that_fails_here_leaves_the_query_to_the_edge() -> None:
    bench, message, _ = late()
    assert kinds(bench.step(events.RangeFailed(0, MemoryError(), 0))) == []
    answer = finished(bench.hear(answer_on_edge(bench, message), after_s=0.01))
    assert answer.served_by == "edge"


def test_an_edge_that_never_answers_what_fails_here_is_not_waited_for_without_end() -> None:
    bench, _, _ = late()
    error = MemoryError()
    assert kinds(bench.step(events.RangeFailed(0, error, 0))) == []
    commands = wait(bench, for_kind=events.RunRange)
    assert sent(commands) == [messages.Cancel(0)]
    again = only(commands, events.RunRange)
    assert only(bench.step(events.RangeFailed(0, error, again.start)), events.FailQuery) == (
        events.FailQuery(0, error)
    )


def test_what_failed_here_is_given_up_in_time_though_another_runs_here_by_then() -> None:
    bench = Bench()
    bench.upload_all()
    for number in range(2):
        bench.step(events.QueryAsked(number, (X,), None))
    slice_ = only(wait(bench, for_kind=events.RunRange), events.RunRange)
    assert slice_.query == 0
    other = only(
        bench.step(events.RangeFailed(0, RuntimeError("no memory"), slice_.start), after_s=0.1),
        events.RunRange,
    )
    assert other.query == 1
    given_up_at = bench.session.queries._open[0].late_at
    assert given_up_at is not None
    commands = bench.step(events.TimePassed(), given_up_at - 0.001 - bench.now)
    assert events.RunRange not in kinds(commands)
    assert bench.session.wake_at == given_up_at
    commands = wait(bench, for_kind=events.RunRange)
    assert messages.Cancel(0) in sent(commands)
    assert only(commands, events.RunRange).query == 0


def test_an_edge_that_answers_pings_alone_is_left_by_the_breaker() -> None:
    bench = Bench()
    bench.upload_all()
    for number in range(20):
        commands = bench.step(events.QueryAsked(number, (X,), None))
        if not sent(commands):
            break
        commands = wait(bench, for_kind=events.RunRange)
        # Nearly as fast as the edge is said to be, so it never wins by far.
        while events.RunRange in kinds(commands):
            bench.now += 0.02
            commands = bench.local(only(commands, events.RunRange))
    else:
        raise AssertionError("it is asked for ever")
    assert bench.session.health(bench.now)["breaker"] == "open"


def test_what_a_deadline_gave_up_early_makes_no_later_reply_late() -> None:
    options = Options(assumed_link=LINK, replan=False, patience=100.0)
    bench = Bench(options)
    bench.upload_all()
    before = bench.session.queries._lateness.ratio
    for number in range(25):
        bench.step(events.QueryAsked(number, (X,), 4.0))
        to_the_end(bench, only(wait(bench, for_kind=events.RunRange), events.RunRange))
    assert bench.session.queries._lateness.ratio == before
    assert bench.session.health(bench.now)["breaker"] == "closed"


@pytest.mark.parametrize("abandoned", [False, True])
def test_an_answer_that_nobody_wants_any_more_still_holds_up_the_pongs(abandoned: bool) -> None:
    bench = Bench()
    bench.upload_all()
    bench.step(events.QueryAsked(0, (X,), None))
    # Large tensors on a thin link.
    bench.session.queries._open[0].transfer_s = 8.0
    if abandoned:
        bench.step(events.QueryAbandoned(0))
    asked_at = bench.now
    wait(bench, for_kind=events.AbortConnection, pongs=False)
    assert bench.now - asked_at >= 8.0


def test_a_slice_that_fails_after_the_edge_has_answered_is_no_failure() -> None:
    bench, message, slice_ = late()
    live = execute(bench.graph, bench.weights, 0, 2, (X,))
    short = dataclasses.replace(answer_on_edge(bench, message), stop=2, tensors=live_to_wire(live))
    rest = only(bench.hear(short, after_s=0.01), events.RunRange)
    assert rest.start == 2
    assert kinds(bench.step(events.RangeFailed(0, MemoryError(), slice_.start))) == []
    assert torch.equal(finished(bench.local(rest)).live[0], whole(bench))


def test_one_query_is_hedged_at_a_time_the_oldest_first() -> None:
    bench = Bench()
    bench.upload_all()
    for number in range(3):
        bench.step(events.QueryAsked(number, (X,), None))
    commands = wait(bench, for_kind=events.RunRange)
    slice_ = only(commands, events.RunRange)
    assert slice_.query == 0
    for _ in range(4):
        assert events.RunRange not in kinds(bench.step(events.TimePassed(), after_s=0.05))
    commands = bench.local(slice_)
    while events.FinishQuery not in kinds(commands):
        commands = bench.local(only(commands, events.RunRange))
    assert only(commands, events.FinishQuery).query == 0
    assert only(commands, events.RunRange).query == 1
    assert bench.session.queries.racing.hedges == 2


def test_a_deadline_starts_it_in_time() -> None:
    options = Options(assumed_link=LINK, replan=False, patience=1e6)
    bench = Bench(options)
    bench.upload_all()
    asked_at = bench.now
    bench.step(events.QueryAsked(0, (X,), 10.0))
    wait(bench, for_kind=events.RunRange)
    # Three seconds here, and a tenth more to be sure.
    assert bench.now == pytest.approx(asked_at + 10.0 - 3.3)


def test_a_deadline_ends_both() -> None:
    bench = Bench()
    bench.upload_all()
    bench.step(events.QueryAsked(0, (X,), 1.0))
    wait(bench, for_kind=events.RunRange)
    commands = wait(bench, for_kind=events.FailQuery)
    assert sent(commands) == [messages.Cancel(0)]
    assert not bench.session.queries.wants(0, 0)
    assert bench.session.queries.idle_here


def test_a_program_that_was_busy_hears_first_what_has_come() -> None:
    bench = Bench()
    bench.upload_all()
    (message,) = sent(bench.step(events.QueryAsked(0, (X,), None)))
    commands = bench.step(events.TimePassed(), after_s=30.0)
    assert events.RunRange not in kinds(commands)
    assert events.AbortConnection not in kinds(commands)
    answer = finished(bench.hear(answer_on_edge(bench, message), after_s=HEAR_S / 2))
    assert answer.served_by == "edge"


def test_a_program_that_is_always_late_still_misses_an_edge_that_is_gone() -> None:
    bench = Bench()
    bench.upload_all()
    bench.step(events.QueryAsked(0, (X,), None))
    done: list[type] = []
    for _ in range(30):
        done += kinds(bench.step(events.TimePassed(), after_s=0.3))
    assert events.RunRange in done
    assert events.AbortConnection in done


@pytest.mark.parametrize("edge_wins", [False, True])
def test_what_is_done_twice_is_counted_in_joules(edge_wins: bool) -> None:
    power = Power(compute_W=2.0, idle_W=1.0, radio=RADIOS["wifi"])
    options = Options(assumed_link=LINK, replan=False, objective=Objective(power=power),
                      battery=Battery(1000.0, 10))  # fmt: skip
    bench = Bench(options)
    bench.session.context.forecast = Forecast(
        bench.graph, [1.0] * LAYERS, objective=options.objective
    )
    bench.upload_all()
    (message,) = sent(bench.step(events.QueryAsked(0, (X,), None)))
    expected_J = bench.session.queries._open[0].expected_J
    slice_ = only(wait(bench, for_kind=events.RunRange), events.RunRange)
    if edge_wins:
        bench.local(slice_)
        answer = finished(bench.hear(answer_on_edge(bench, message), after_s=0.01))
        # One second of a slice that ran, and one of the slice that still runs.
        assert answer.energy_J == pytest.approx((expected_J or 0.0) + 2 * 2.0, rel=0.05)
    else:
        answer = finished(to_the_end(bench, slice_))
        assert (answer.energy_J or 0.0) > 3 * 2.0
    assert bench.session.queries.rations.left_J == pytest.approx(1000 - (answer.energy_J or 0.0))


@pytest.fixture
def decoding(monkeypatch: pytest.MonkeyPatch) -> tuple[Bench, events.RunRange]:
    """A late query whose reply has come, and is being decoded while it runs here."""
    monkeypatch.setattr("ionn_client.machine.queries.INLINE_BYTES", 0)
    bench, message, slice_ = late()
    zeros = live_to_wire((torch.zeros_like(X),))
    coded = tuple(encode_tensor(tensor, "planes") for tensor in zeros)
    reply = dataclasses.replace(answer_on_edge(bench, message), tensors=coded)
    assert kinds(bench.hear(reply, after_s=0.01)) == [events.DecodeTensors]
    return bench, slice_


def test_this_side_may_win_while_the_reply_is_decoded(
    decoding: tuple[Bench, events.RunRange],
) -> None:
    bench, slice_ = decoding
    answer = finished(to_the_end(bench, slice_))
    assert (answer.served_by, answer.fallback_reason) == (
        "client",
        "edge slow: this side was first",
    )
    raw = live_to_wire((torch.zeros_like(X),))
    assert kinds(bench.step(events.TensorsDecoded(0, raw, 0.001))) == []


def test_a_reply_that_does_not_decode_leaves_what_ran_here_in_use(
    decoding: tuple[Bench, events.RunRange],
) -> None:
    bench, slice_ = decoding
    (second,) = [c for c in bench.local(slice_) if isinstance(c, events.RunRange)]
    commands = bench.step(events.TensorsUndecodable(0, "the edge broke it"))
    assert events.RunRange not in kinds(commands)
    assert kinds(bench.step(events.TensorsUndecodable(0, "again"))) == []
    answer = finished(to_the_end(bench, second))
    assert answer.fallback_reason == "the edge broke it"


def test_what_fails_here_while_the_reply_is_decoded_is_answered_by_it(
    decoding: tuple[Bench, events.RunRange],
) -> None:
    bench, slice_ = decoding
    failed = events.RangeFailed(0, RuntimeError("no memory"), slice_.start)
    assert kinds(bench.step(failed)) == []
    raw = live_to_wire((torch.zeros_like(X),))
    answer = finished(bench.step(events.TensorsDecoded(0, raw, 0.001)))
    assert (answer.served_by, answer.fallback_reason) == ("edge", None)


def test_a_bug_of_our_own_starts_over_here_whatever_runs() -> None:
    bench, _, slice_ = late()
    commands = bench.session.failed(RuntimeError("bug"), bench.now)
    run = only(commands, events.RunRange)
    assert (run.start, run.stop) == (0, LAYERS)
    # Whichever of the two comes first goes on; the other is of no use then.
    rest = only(bench.local(slice_), events.RunRange)
    assert not bench.session.queries.wants(0, 0)
    assert finished(bench.local(rest)).served_by == "client"


def test_an_edge_that_goes_during_a_range_here_is_not_sent_the_next() -> None:
    bench = Bench()
    bench.greet()
    bench.have((0, 1, 1, 1))
    (first, *_) = sent(bench.step(events.QueryAsked(0, (X,), None)))
    run = only(bench.hear(answer_on_edge(bench, first), after_s=0.01), events.RunRange)
    assert (run.start, run.stop) == (1, 2)
    bench.step(events.ConnectionLost("reset"))
    rest = only(bench.local(run), events.RunRange)
    answer = finished(bench.local(rest))
    assert (answer.served_by, answer.fallback_reason) == ("both", "reset")


@pytest.mark.parametrize("stop", [0, LAYERS + 1])
def test_a_reply_to_other_layers_costs_the_connection_and_no_query(stop: int) -> None:
    bench, message, slice_ = late()
    reply = dataclasses.replace(answer_on_edge(bench, message), stop=stop)
    assert events.AbortConnection in kinds(bench.hear(reply))
    answer = finished(to_the_end(bench, slice_))
    assert "were not asked for" in (answer.fallback_reason or "")


def test_slices_are_fixed_cover_everything_and_are_not_too_short() -> None:
    layer_s = [0.001 * (k % 7) for k in range(500)]
    slices, position, stops = Slices(layer_s), 0, []
    while position < len(layer_s):
        stops.append(slices.stop(position))
        assert stops[-1] > position
        position = stops[-1]
    assert position == len(layer_s)
    assert len(stops) <= SLICES + 1
    for start in range(len(layer_s)):
        assert slices.stop(start) in stops
    assert Slices([SHORTEST_SLICE_S / 10] * 5).stop(0) == 5
    assert Slices([0.0] * 3).stop(2) == 3
