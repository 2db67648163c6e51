"""What nobody waits for comes after queries left and answers were given, and is not lost."""

from __future__ import annotations

import math

import pytest
import torch

from ionn_client.machine import events
from ionn_client.machine.tensors import live_to_wire, surely_finite
from tests.ionn_client.test_session import LAYERS, Bench, X, answer_on_edge, kinds, only, sent
from wire import messages


def ready() -> Bench:
    bench = Bench()
    bench.upload_all()
    return bench


def asks(bench: Bench, number: int) -> messages.Execute:
    (execute,) = sent(bench.session.take(events.QueryAsked(number, (X,), None), bench.now))
    assert isinstance(execute, messages.Execute)
    return execute


def test_a_query_leaves_and_is_answered_before_anything_is_learnt_of_it() -> None:
    bench = ready()
    execute = asks(bench, 0)
    bench.session.catch_up(bench.now)
    learnt_s = bench.session.forecast.edge_s.copy()
    heard = events.MessageReceived(answer_on_edge(bench, execute))
    answered = bench.session.take(heard, bench.now + 1)
    assert kinds(answered) == [events.FinishQuery]
    assert (bench.session.forecast.edge_s == learnt_s).all()
    (hop,) = [
        command
        for command in bench.session.catch_up(bench.now + 1.5)
        if isinstance(command, events.Record) and command.kind == "hop"
    ]
    # Of when it came, not of when somebody had time to look.
    assert hop.fields["elapsed_s"] == pytest.approx(1)
    assert (bench.session.forecast.edge_s != learnt_s).any()


def test_what_was_put_off_of_several_events_is_caught_up_on_at_once() -> None:
    bench = ready()
    first = asks(bench, 0)
    bench.session.catch_up(bench.now)
    bench.session.take(events.MessageReceived(answer_on_edge(bench, first)), bench.now)
    # Who was answered asks again, before anything else is done.
    second = asks(bench, 1)
    assert bench.session.wake_at is not None
    records = [c.kind for c in bench.session.catch_up(bench.now) if isinstance(c, events.Record)]
    assert records == ["hop"]
    answer = only(bench.hear(answer_on_edge(bench, second)), events.FinishQuery).answer
    assert answer.served_by == "edge"


def test_a_reply_is_not_expected_of_an_edge_that_is_gone_meanwhile() -> None:
    bench = ready()
    asks(bench, 0)
    lost = bench.session.take(events.ConnectionLost("reset"), bench.now)
    run = only(lost, events.RunRange)
    bench.session.catch_up(bench.now)
    query = bench.session.queries._open[0]
    assert query.late_at is None
    assert query.expected_reply_s == 0
    assert only(bench.local(run), events.FinishQuery).answer.fallback_reason == "edge gone: reset"


def test_a_range_that_ran_is_remembered_until_it_is_caught_up_on() -> None:
    bench = Bench()
    bench.step(events.Started())
    run = only(bench.step(events.QueryAsked(0, (X,), None)), events.RunRange)
    ran = events.RangeRan(0, 0, LAYERS, run.live, 1.0)
    bench.session.take(ran, bench.now)
    bench.session.take(events.TimePassed(), bench.now)
    assert bench.session._range_ran
    bench.session.catch_up(bench.now)
    assert not bench.session._range_ran


@pytest.mark.parametrize(
    ("tensor", "finite"),
    [
        (torch.tensor([1.0, -2.0]), True),
        (torch.tensor([[3e38], [3e38]]), True),
        (torch.tensor([1.0, math.inf], dtype=torch.float64), False),
        (torch.tensor([math.inf, -math.inf]), False),
        (torch.tensor([math.nan]), False),
        # Not known without a longer look.
        (torch.zeros(1025), False),
        (torch.tensor([1], dtype=torch.int64), False),
    ],
)
def test_of_a_few_numbers_it_is_seen_at_once_whether_they_are_finite(
    tensor: torch.Tensor, finite: bool
) -> None:
    (sent_as,) = live_to_wire((tensor,))
    assert surely_finite((sent_as,)) is finite
    assert surely_finite((sent_as, sent_as)) is finite
    assert surely_finite(())


def test_of_what_is_coded_nothing_is_seen_at_once() -> None:
    zeros = messages.Tensor("float32", (2,), (0,), bytes(8), "planes")
    assert not surely_finite((zeros,))
