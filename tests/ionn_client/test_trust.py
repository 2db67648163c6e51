"""An edge that lies, fails or answers nonsense: never believed for long, and never fatal."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable

import pytest
import torch

from ionn_client import Options
from ionn_client.errors import EdgeQuarantined
from ionn_client.machine import events
from ionn_client.machine.audit import TOLERANCE, difference, not_finite
from ionn_client.machine.battery import Battery
from ionn_client.machine.query import Answer
from ionn_client.machine.tensors import live_to_wire
from layergraph import execute
from layergraph.execute import Live
from planner import CutCoding, Link, Objective
from planner.power import RADIOS, Power
from tests.ionn_client.test_session import LAYERS, Bench, X, answer_on_edge, kinds, only, sent
from wire import messages

LINK = Link(1e6, 1e6, 0.01)
Alter = Callable[[torch.Tensor], torch.Tensor]


class Audited(Bench):
    """Asks the edge, whose answers may be altered, and computes audits as the driver does."""

    audits = 0
    number = 0

    def ask(self, alter: Alter | None = None, after_s: float = 0.01) -> Answer:
        commands = self.step(events.QueryAsked(self.number, (X,), None))
        self.number += 1
        answer: Answer | None = None
        while True:
            for message in sent(commands):
                if isinstance(message, messages.Execute):
                    result = answer_on_edge(self, message)
                    if alter is not None:
                        live = (alter(execute(self.graph, self.weights, 0, LAYERS, (X,))[0]),)
                        result = dataclasses.replace(result, tensors=live_to_wire(live))
                    commands = commands + self.hear(result, after_s)
            for command in commands:
                if isinstance(command, events.FinishQuery):
                    answer = command.answer
            following = [c for c in commands if isinstance(c, (events.RunRange, events.AuditRange))]
            commands = [more for command in following for more in self.run(command)]
            if not commands and not following:
                assert answer is not None
                return answer

    def run(self, command: events.RunRange | events.AuditRange) -> list[events.Command]:
        if isinstance(command, events.RunRange):
            wanted = self.session.queries.wants(command.query, command.start)
            return self.local(command) if wanted else []
        live = execute(self.graph, self.weights, command.start, command.stop, command.live)
        apart = None if command.claimed is None else difference(live, command.claimed)
        self.audits += apart is not None
        return self.step(events.RangeAudited(command.audit, command.stop, live, apart, 0.001))


def bench(audit_share: float = 1.0) -> Audited:
    made = Audited(Options(assumed_link=LINK, replan=False, audit_share=audit_share))
    made.upload_all()
    return made


def wrong(live: torch.Tensor) -> torch.Tensor:
    return live * 1.5


def endless(live: torch.Tensor) -> torch.Tensor:
    return torch.full_like(live, torch.nan)


def true(made: Bench) -> torch.Tensor:
    return execute(made.graph, made.weights, 0, LAYERS, (X,))[0]


def test_an_honest_edge_is_audited_and_stays() -> None:
    made = bench()
    for _ in range(20):
        assert made.ask().served_by == "edge"
    audits = made.session.queries.trust.audits
    assert (audits.done, audits.failed, made.audits) == (20, 0, 20)
    assert made.session.phase == "ready"


def test_one_lie_is_enough_for_doubt_and_two_for_the_verdict() -> None:
    made = bench()
    # The caller has had this one before it was found out.
    assert made.ask(wrong).served_by == "edge"
    assert made.session.phase == "ready"
    # No answer is believed any more, and the next lie is the last.
    answer = made.ask(wrong)
    assert answer.served_by == "client"
    assert "in doubt" in (answer.fallback_reason or "")
    assert torch.equal(answer.live[0], true(made))
    assert made.session.phase == "rejected"
    assert isinstance(made.session.error, EdgeQuarantined)
    assert "layers [0, 3) differ" in str(made.session.error)
    assert made.session.health(made.now)["quarantine"] == str(made.session.error)
    answer = made.ask()
    assert (answer.served_by, answer.fallback_reason) == ("client", None)


def test_the_verdict_is_to_be_remembered_and_ends_the_connection() -> None:
    made = bench()
    made.ask(wrong)
    done: list[events.Command] = []
    step = made.step
    made.step = lambda *args, **more: done.extend(got := step(*args, **more)) or got  # type: ignore
    made.ask(wrong)
    (quarantine,) = [c for c in done if isinstance(c, events.Quarantine)]
    assert "wrong answers" in quarantine.reason
    assert events.AbortConnection in kinds(done)
    assert events.OpenConnection not in kinds(done)


def test_an_honest_answer_after_a_lie_ends_the_doubt_but_not_the_memory() -> None:
    made = bench()
    made.ask(wrong)
    assert made.ask().served_by == "client"
    assert made.ask().served_by == "edge"
    made.ask(wrong)
    assert made.session.phase == "rejected"


def test_an_edge_that_lies_rarely_is_found_out_in_the_end() -> None:
    made = bench()
    for number in range(3 * 60):
        made.ask(wrong if number % 60 == 0 else None)
    assert made.session.phase == "rejected"
    assert made.session.queries.trust.audits.failed == 2


def test_an_answer_that_is_not_finite_is_never_used() -> None:
    made = bench(audit_share=0.0)
    for _ in range(2):
        answer = made.ask(endless)
        assert answer.served_by == "client"
        assert torch.equal(answer.live[0], true(made))
    assert made.session.phase == "rejected"


def test_what_the_model_itself_makes_infinite_is_believed_from_then_on() -> None:
    made = bench(audit_share=0.0)
    made.weights["fc2.weight"] = torch.full_like(made.weights["fc2.weight"], torch.inf)
    answer = made.ask()
    assert (answer.served_by, answer.fallback_reason) == (
        "client",
        "the edge's answer is not finite",
    )
    for _ in range(3):
        assert made.ask().served_by == "edge"
    assert made.audits == 1
    assert made.session.phase == "ready"


def test_one_in_a_hundred_is_audited_by_default() -> None:
    options = Options(assumed_link=LINK, replan=False)
    made = Audited(options)
    made.session.queries.trust.audits._chance = random.Random(7)
    made.upload_all()
    for _ in range(1000):
        made.ask()
    assert 3 <= made.audits <= 20


def test_no_audit_runs_while_a_query_runs_here_nor_changes_its_answer() -> None:
    made = bench()
    (message,) = sent(made.step(events.QueryAsked(0, (X,), None)))
    made.step(events.QueryAsked(1, (X,), None))
    run = only(made.hear(messages.Error("overloaded", "busy", 1)), events.RunRange)
    commands = made.hear(answer_on_edge(made, message), after_s=0.01)
    assert events.FinishQuery in kinds(commands)
    assert events.AuditRange not in kinds(commands)
    assert events.AuditRange in kinds(made.local(run))


def test_an_audit_that_cannot_be_computed_says_nothing() -> None:
    made = bench()
    (message,) = sent(made.step(events.QueryAsked(0, (X,), None)))
    audit = only(made.hear(answer_on_edge(made, message), after_s=0.01), events.AuditRange)
    made.step(events.RangeNotAudited(audit.audit, "MemoryError()"))
    # What still comes of it is no verdict.
    made.step(events.RangeAudited(audit.audit, LAYERS, (X,), 9.0, 0.0))
    assert made.session.queries.trust.audits.done == 0
    assert made.session.phase == "ready"


def test_an_audit_in_doubt_is_waited_for_before_the_edge_is_asked_again() -> None:
    made = bench(audit_share=0.0)
    (message,) = sent(made.step(events.QueryAsked(0, (X,), None)))
    nan = live_to_wire((torch.full_like(X, torch.nan),))
    commands = made.hear(dataclasses.replace(answer_on_edge(made, message), tensors=nan), 0.01)
    run = only(commands, events.RunRange)
    assert "in doubt" in made.session.explanation()
    commands = made.step(events.QueryAsked(1, (X,), None))
    assert sent(commands) == []
    other = only(commands, events.RunRange)
    made.step(events.RangeNotAudited(99, "of another audit"))
    # Begins between what runs here, which may never end.
    audit = only(made.local(run), events.AuditRange)
    commands = made.local(other)
    assert "in doubt" in only(commands, events.FinishQuery).answer.fallback_reason
    # Nothing came of it: the edge is asked again.
    made.step(events.RangeNotAudited(audit.audit, "MemoryError()"))
    assert len(sent(made.step(events.QueryAsked(2, (X,), None)))) == 1


def test_a_breaker_that_opens_while_tensors_are_coded_keeps_them_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ionn_client.machine.queries.INLINE_BYTES", 0)
    made = bench(audit_share=0.0)
    monkeypatch.setattr(
        made.session.forecast, "up_coding", lambda *_, **__: CutCoding("planes", 8, 0.0, 0.0)
    )
    coding = only(made.step(events.QueryAsked(0, (X,), None)), events.EncodeTensors)
    for _ in range(3):
        made.session.queries.trust.failed("slow")
    commands = made.step(events.TensorsEncoded(0, coding.tensors, 0.001))
    answer = only(made.local(only(commands, events.RunRange)), events.FinishQuery).answer
    assert "keeps failing (slow)" in (answer.fallback_reason or "")


def test_a_refusal_of_no_query_of_ours_means_nothing() -> None:
    made = bench(audit_share=0.0)
    for _ in range(5):
        assert kinds(made.hear(messages.Error("execution", "what?", 77))) == []
    assert made.ask().served_by == "edge"


def test_audits_are_paid_for_by_the_battery() -> None:
    power = Power(compute_W=2.0, idle_W=1.0, radio=RADIOS["wifi"])
    options = Options(assumed_link=LINK, replan=False, audit_share=1.0, device_slowdown=100.0,
                      objective=Objective(power=power), battery=Battery(50.0, 10))  # fmt: skip
    made = Audited(options)
    made.upload_all()
    answer = made.ask()
    # Three slices of 0.1 s on the slow device, at 2 W.
    spent_J = (answer.energy_J or 0.0) + 3 * 0.1 * 2.0
    assert made.session.queries.rations.left_J == pytest.approx(50.0 - spent_J)


def test_callers_may_write_over_their_tensors_once_they_have_the_answer() -> None:
    made = bench()
    given = X.clone()
    (message,) = sent(made.step(events.QueryAsked(0, (given,), None)))
    commands = made.hear(answer_on_edge(made, message), after_s=0.01)
    audit, answer = only(commands, events.AuditRange), only(commands, events.FinishQuery).answer
    given.zero_()
    answer.live[0].zero_()
    assert torch.equal(audit.live[0], X)
    assert made.run(audit) is not None
    made.ask()
    assert made.session.queries.trust.audits.failed == 0


def test_callers_that_write_over_their_tensors_before_convict_nobody() -> None:
    made = bench()
    for number in range(3):
        given = X.clone()
        (message,) = sent(made.step(events.QueryAsked(number, (given,), None)))
        given.zero_()
        # What was under way when they did.
        zeros = live_to_wire(execute(made.graph, made.weights, 0, LAYERS, (given,)))
        reply = dataclasses.replace(answer_on_edge(made, message), tensors=zeros)
        commands = made.hear(reply, after_s=0.01)
        while audits := [c for c in commands if isinstance(c, events.AuditRange)]:
            commands = made.run(audits[0])
    assert made.session.phase == "ready"
    assert made.session.queries.trust.audits.failed == 0
    assert made.ask().served_by == "edge"


def test_a_suspicion_ends_though_queries_never_leave_the_processor_alone() -> None:
    made = bench(audit_share=0.0)
    (message,) = sent(made.step(events.QueryAsked(0, (X,), None)))
    nan = live_to_wire((torch.full_like(X, torch.nan),))
    commands = made.hear(dataclasses.replace(answer_on_edge(made, message), tensors=nan), 0.01)
    for number in range(1, 1 + 4 * LAYERS):
        running = only(commands, events.RunRange)
        # The next one waits already when this one is through.
        commands = made.step(events.QueryAsked(number, (X,), None))
        if any(isinstance(m, messages.Execute) for m in sent(commands)):
            break
        for audit in [c for c in made.local(running) if isinstance(c, events.AuditRange)]:
            made.run(audit)
    else:
        raise AssertionError("the edge is never asked again")
    assert made.session.queries.trust.audits.failed == 1


def test_nothing_is_audited_once_it_is_closed() -> None:
    made = bench()
    made.ask(wrong)
    (message, *_) = sent(made.step(events.QueryAsked(50, (X,), None)))
    lie = live_to_wire((wrong(true(made)),))
    made.hear(dataclasses.replace(answer_on_edge(made, message), tensors=lie), after_s=0.01)
    commands = made.step(events.QueryAbandoned(50))
    audit = only(commands, events.AuditRange)
    made.step(events.Stopped())
    assert made.run(audit) == []
    assert made.session.phase == "closed"


def test_an_edge_that_keeps_failing_is_left_and_tried_again() -> None:
    made = bench(audit_share=0.0)
    for number in range(3):
        made.step(events.QueryAsked(100 + number, (X,), None))
        commands = made.hear(messages.Error("execution", "the worker died", 100 + number))
        made.local(only(commands, events.RunRange))
    answer = made.ask()
    assert answer.served_by == "client"
    assert "keeps failing (the worker died); it is tried again in" in (answer.fallback_reason or "")
    assert made.session.health(made.now)["breaker"] == "open"
    assert "keeps failing" in made.session.explanation()
    assert {part.where for part in made.session.route("exact").ranges} == {"client"}
    made.now += 1.0
    # The probe runs on both sides.
    commands = made.step(events.QueryAsked(200, (X,), None))
    assert {events.SendMessage, events.RunRange} <= set(kinds(commands))
    (message,) = [m for m in sent(commands) if isinstance(m, messages.Execute)]
    only(made.hear(answer_on_edge(made, message), after_s=0.01), events.FinishQuery)
    assert made.session.health(made.now)["breaker"] == "closed"
    assert made.ask().served_by == "edge"


@pytest.mark.parametrize("code", ["not-uploaded", "deadline"])
def test_ordinary_refusals_are_no_failures(code: str) -> None:
    made = bench(audit_share=0.0)
    for number in range(5):
        made.step(events.QueryAsked(100 + number, (X,), None))
        commands = made.hear(messages.Error(code, "not now", 100 + number))
        made.local(only(commands, events.RunRange))
    assert made.ask().served_by == "edge"


def test_connections_that_break_under_queries_open_the_breaker() -> None:
    made = Bench(Options(assumed_link=LINK, replan=False))
    for number in range(3):
        made.upload_all()
        made.step(events.QueryAsked(number, (X,), None))
        made.local(only(made.step(events.ConnectionLost("reset")), events.RunRange))
    made.upload_all()
    assert messages.Execute not in map(type, sent(made.step(events.QueryAsked(9, (X,), None))))


def live(*values: float, dtype: torch.dtype = torch.float32) -> Live:
    return (torch.tensor(values, dtype=dtype),)


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        (live(1, 2), live(1, 2), 0.0),
        (live(0, 4), live(1, 4), 0.25),
        (live(0, 0), live(0, 0), 0.0),
        (live(1, torch.inf), live(1, torch.inf), 0.0),
        (live(1, torch.nan), live(1, torch.nan), 0.0),
        (live(1, torch.inf), live(1, -torch.inf), torch.inf),
        (live(1, 2), live(1, torch.nan), torch.inf),
        (live(1, torch.nan), live(1, 2), torch.inf),
        (live(1, 2, dtype=torch.int64), live(1, 3, dtype=torch.int64), 0.5),
        (live(1, 0, dtype=torch.bool), live(0, 1, dtype=torch.bool), 1.0),
        (live(1, 2, dtype=torch.complex64), live(1, 1, dtype=torch.complex64), 0.5),
        ((), (), 0.0),
        (live(), live(), 0.0),
    ],
)
def test_differences(ours: Live, theirs: Live, expected: float) -> None:
    assert difference(ours, theirs) == pytest.approx(expected)


def test_which_is_the_larger_is_not_held_against_coarse_numbers() -> None:
    ours, theirs = live(3, dtype=torch.int64), live(4, dtype=torch.int64)
    assert difference(ours, theirs, TOLERANCE["exact"]) == 1.0
    for precision in ("bfloat16", "float8"):
        assert difference(ours, theirs, TOLERANCE[precision]) == 0.0
    # One pixel of a map of classes in ten thousand.
    pixels = torch.zeros(100, 100, dtype=torch.int64)
    nearly = pixels.clone()
    nearly[3, 4] = 1
    assert difference((pixels,), (nearly,)) < TOLERANCE["exact"]


def test_infinities_and_nans_are_found_and_large_numbers_are_none() -> None:
    assert not_finite(live(3e38, 3e38)) == frozenset()
    assert not_finite((*live(1, 2), *live(1, torch.nan), *live(torch.inf, -torch.inf))) == {1, 2}
    assert not_finite((*live(1, dtype=torch.int64), *live(), *live(1, dtype=torch.bool))) == set()
    assert not_finite(live(6e4, 6e4, dtype=torch.float16)) == frozenset()
    assert not_finite((torch.tensor([complex("nan")]),)) == {0}
