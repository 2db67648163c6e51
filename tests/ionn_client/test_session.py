"""The client's state machine, without I/O: every rule as events in, commands out."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from ionn_client import Options
from ionn_client.errors import DeadlineExceeded, EdgeRejected, VersionMismatch
from ionn_client.machine import events
from ionn_client.machine.dialogue import RETRY_REFUSED_S
from ionn_client.machine.forecast import Forecast
from ionn_client.machine.session import Session
from ionn_client.machine.tensors import live_to_wire
from layergraph import execute
from planner import Link
from tests.support import ELEMENTS, FAST_EDGE, WIDTH, blobs, chain
from wire import messages
from wire.planes import COARSE, FINE, MIDDLE, WHOLE

LAYERS = 3
# Runs of Have: lacking, held, lacking ...
NONE, ALL = (LAYERS,), (0, LAYERS)
SIZE = 4 * ELEMENTS
X = torch.ones(1, WIDTH)
WELCOME = messages.Welcome(
    version=2, agent="test", epoch="one", device="cpu", threads=1, memory_bytes=1 << 30,
    max_message_bytes=1 << 26, max_chunk_bytes=1 << 20, predictor=FAST_EDGE, lane="lane",
    clock_s=0.0,
)  # fmt: skip


@dataclass
class Bench:
    """A session with a slow client, a clock, and an edge played by the test."""

    options: Options = field(
        default_factory=lambda: Options(assumed_link=Link(1e6, 1e6, 0.01), replan=False)
    )
    now: float = 100.0

    def __post_init__(self) -> None:
        self.graph, self.weights = chain(LAYERS)
        forecast = Forecast(self.graph, [1.0] * LAYERS)
        views = blobs(self.graph, self.weights)
        self.session = Session(self.graph, b"graph", views, forecast, self.options)

    def step(self, event: events.Event, after_s: float = 0.0) -> list[events.Command]:
        self.now += after_s
        return self.session.handle(event, self.now)

    def hear(self, message: messages.Message, after_s: float = 0.0) -> list[events.Command]:
        return self.step(events.MessageReceived(message), after_s)

    def greet(self, welcome: messages.Welcome = WELCOME) -> list[events.Command]:
        """Up to the point where the edge has the offer."""
        self.step(events.Started())
        self.step(events.Connected())
        commands = self.hear(welcome, after_s=0.01)
        ping, _ = sent(commands)
        self.hear(messages.Pong(ping.token, 0.0), after_s=0.01)
        return commands

    def have(self, runs: tuple[int, ...], *partial: messages.Partial) -> list[events.Command]:
        return self.hear(messages.Have(self.graph.fingerprint, "one", runs, partial))

    def upload_all(self) -> list[events.Command]:
        self.greet()
        return self.have(ALL)

    def hold(self, segment: messages.Segment, after_s: float = 0.01) -> None:
        """Receive and store a segment that was sent in one chunk."""
        self.hear(messages.ChunkAck(self.now + after_s), after_s)
        stop = segment.start + segment.count
        complete = segment.plane in (WHOLE, FINE) and stop == ELEMENTS
        self.hear(messages.Held(segment.weight, segment.plane, stop, complete))

    def local(self, command: events.RunRange) -> list[events.Command]:
        live = execute(self.graph, self.weights, command.start, command.stop, command.live)
        return self.step(events.RangeRan(command.query, command.start, command.stop, live, 1.0))


def sent(commands: list[events.Command]) -> list[Any]:
    return [command.message for command in commands if isinstance(command, events.SendMessage)]


def segments(commands: list[events.Command]) -> list[messages.Segment]:
    return [message for message in sent(commands) if isinstance(message, messages.Segment)]


def only(commands: list[events.Command], kind: type) -> Any:
    (found,) = [command for command in commands if isinstance(command, kind)]
    return found


def kinds(commands: list[events.Command]) -> list[type]:
    return [type(command) for command in commands if not isinstance(command, events.Record)]


def wait(bench: Bench, for_kind: type, *, pongs: bool = True) -> list[events.Command]:
    """Time passes until something of that kind is to be done; what comes with it."""
    while True:
        assert bench.session.wake_at is not None
        bench.now = max(bench.now, bench.session.wake_at)
        commands = bench.step(events.TimePassed())
        if any(isinstance(command, for_kind) for command in commands):
            return commands
        for ping in sent(commands):
            if pongs and isinstance(ping, messages.Ping):
                bench.hear(messages.Pong(ping.token, 0.0), after_s=0.001)


def answer_on_edge(bench: Bench, execute_message: messages.Execute) -> messages.Result:
    live = execute(bench.graph, bench.weights, execute_message.start, execute_message.stop, (X,))
    return messages.Result(
        execute_message.query, execute_message.start, execute_message.stop, "exact", 0.0, 0.0,
        0.001, live_to_wire(live),
    )  # fmt: skip


def test_it_connects_greets_and_asks_whether_the_graph_is_known() -> None:
    bench = Bench()
    assert bench.step(events.Started()) == [events.OpenConnection(0.0)]
    assert sent(bench.step(events.Connected())) == [messages.Hello(2, 2, "ionn-client")]
    ping, offer = sent(bench.hear(WELCOME, after_s=0.03))
    assert offer == messages.Offer(bench.graph.fingerprint, b"")
    assert bench.session.link.rtt_s == pytest.approx(0.03)
    bench.hear(messages.Pong(ping.token, 0.0), after_s=0.02)
    assert bench.session.link.rtt_s == pytest.approx(0.02)
    (offer,) = sent(bench.hear(messages.Unknown(bench.graph.fingerprint)))
    assert offer == messages.Offer(bench.graph.fingerprint, b"graph")
    bench.have(NONE)
    assert bench.session.phase == "uploading"


def test_a_revisit_is_ready_after_two_round_trips() -> None:
    bench = Bench()
    bench.step(events.Started())
    bench.step(events.Connected())
    bench.hear(WELCOME, after_s=0.01)
    commands = bench.have(ALL)
    assert sent(commands) == []
    assert bench.session.phase == "ready"
    (message,) = sent(bench.step(events.QueryAsked(0, (X,), None)))
    assert (message.start, message.stop) == (0, LAYERS)


@pytest.mark.parametrize("whole", [False, True])
def test_an_edge_that_does_not_know_what_it_was_given_is_dropped(whole: bool) -> None:
    bench = Bench()
    bench.greet()
    if whole:
        bench.hear(messages.Unknown(bench.graph.fingerprint))
    unknown = messages.Unknown(bench.graph.fingerprint if whole else "another")
    assert events.AbortConnection in kinds(bench.hear(unknown))


def test_a_query_before_any_edge_runs_here() -> None:
    bench = Bench()
    bench.step(events.Started())
    run = only(bench.step(events.QueryAsked(0, (X,), None)), events.RunRange)
    assert (run.start, run.stop) == (0, LAYERS)
    answer = only(bench.local(run), events.FinishQuery).answer
    assert answer.served_by == "client"
    assert torch.equal(answer.live[0], execute(bench.graph, bench.weights, 0, LAYERS, (X,))[0])


def test_chunks_go_out_until_the_window_is_full_and_again_when_one_is_acknowledged() -> None:
    bench = Bench()
    bench.greet()
    commands = bench.have(NONE)
    assert [type(m) for m in sent(commands)] == [messages.Segment, messages.Chunk] * LAYERS
    assert bench.session.upload.sent_bytes == bench.session.upload.total_bytes
    assert bench.session.usable("exact") == frozenset()
    first = segments(commands)[0]
    bench.hold(first)
    assert bench.session.usable("exact") == {first.weight}
    assert bench.session.phase == "uploading"


def test_it_is_ready_when_the_last_weight_is_acknowledged() -> None:
    bench = Bench()
    bench.greet()
    for segment in segments(bench.have(NONE)):
        assert bench.session.phase == "uploading"
        bench.hold(segment)
    assert bench.session.phase == "ready"
    assert bench.session.usable("exact") == set(range(LAYERS))


def test_a_revisit_sends_nothing_that_is_held_and_resumes_within_a_weight() -> None:
    bench = Bench()
    bench.greet()
    segment, chunk = sent(bench.have((0, 1, 1, 1), messages.Partial(1, WHOLE, 25)))
    assert segment == messages.Segment(1, WHOLE, 25, ELEMENTS - 25, "raw", SIZE - 100)
    assert bytes(chunk.payload) == bytes(blobs(bench.graph, bench.weights)[1][100:])
    assert bench.session.upload.skipped_bytes == 2 * SIZE + 100
    assert bench.session.usable("exact") == {0, 2}


def test_whole_partitions_count_as_published() -> None:
    options = Options(
        algorithm="all-at-once", acknowledge="partition", assumed_link=Link(1e6, 1e6, 0.01)
    )
    bench = Bench(options)
    bench.greet()
    for segment in segments(bench.have(NONE)):
        assert bench.session.usable("exact") == frozenset()
        bench.hold(segment)
    assert bench.session.usable("exact") == set(range(LAYERS))


def test_a_query_runs_on_the_edge_once_it_pays() -> None:
    bench = Bench()
    bench.upload_all()
    (message,) = sent(bench.step(events.QueryAsked(7, (X,), None)))
    assert (message.query, message.start, message.stop) == (7, 0, LAYERS)
    commands = bench.hear(answer_on_edge(bench, message), after_s=0.02)
    answer = only(commands, events.FinishQuery).answer
    assert answer.served_by == "edge"
    assert answer.latency_s == pytest.approx(0.02)
    assert answer.fallback_reason is None
    assert torch.equal(answer.live[0], execute(bench.graph, bench.weights, 0, LAYERS, (X,))[0])


def test_a_lost_edge_leaves_the_query_to_the_client() -> None:
    bench = Bench()
    bench.upload_all()
    bench.step(events.QueryAsked(0, (X,), None))
    commands = bench.step(events.ConnectionLost("reset by peer"))
    run = only(commands, events.RunRange)
    assert (run.start, run.stop) == (0, LAYERS)
    assert only(commands, events.OpenConnection).delay_s == bench.options.backoff_s
    answer = only(bench.local(run), events.FinishQuery).answer
    assert answer.fallback_reason == "edge gone: reset by peer"
    assert answer.served_by == "client"


def test_backoff_grows_to_its_limit_and_starts_over_after_success() -> None:
    bench = Bench()
    bench.step(events.Started())
    delays = [
        only(bench.step(events.ConnectionLost("refused")), events.OpenConnection).delay_s
        for _ in range(8)
    ]
    assert delays == sorted(delays)
    assert delays[-1] == bench.options.max_backoff_s
    bench.upload_all()
    again = only(bench.step(events.ConnectionLost("gone")), events.OpenConnection)
    assert again.delay_s == bench.options.backoff_s


def test_without_hedging_a_slow_edge_is_given_up() -> None:
    link = Link(1e6, 1e6, 0.01)
    bench = Bench(Options(assumed_link=link, replan=False, hedging=False))
    bench.upload_all()
    bench.step(events.QueryAsked(0, (X,), None))
    commands = wait(bench, for_kind=events.RunRange)
    assert only(commands, events.RunRange).start == 0
    assert sent(commands) == [messages.Cancel(0)]
    late = messages.Result(0, 0, LAYERS, "exact", 0.0, 0.0, 0.0, live_to_wire((X,)))
    assert kinds(bench.hear(late)) == []


def test_what_the_edge_could_not_run_runs_here() -> None:
    bench = Bench()
    bench.upload_all()
    bench.step(events.QueryAsked(0, (X,), None))
    live = execute(bench.graph, bench.weights, 0, 1, (X,))
    short = messages.Result(0, 0, 1, "exact", 0.0, 0.0, 0.001, live_to_wire(live))
    run = only(bench.hear(short, after_s=0.01), events.RunRange)
    assert (run.start, run.stop) == (1, LAYERS)
    answer = only(bench.local(run), events.FinishQuery).answer
    assert [(part.where, part.start, part.stop) for part in answer.ranges] == [
        ("edge", 0, 1),
        ("client", 1, LAYERS),
    ]
    assert answer.served_by == "both"
    assert torch.equal(answer.live[0], execute(bench.graph, bench.weights, 0, LAYERS, (X,))[0])


def test_a_refused_query_runs_here_and_the_connection_stays() -> None:
    bench = Bench()
    bench.upload_all()
    bench.step(events.QueryAsked(0, (X,), None))
    commands = bench.hear(messages.Error("overloaded", "too many queries", 0))
    assert kinds(commands) == [events.RunRange]
    assert bench.session.phase == "ready"


def test_a_deadline_is_the_callers_error_and_cancels() -> None:
    bench = Bench()
    bench.upload_all()
    bench.step(events.QueryAsked(0, (X,), 0.05))
    commands = bench.step(events.TimePassed(), after_s=0.05)
    error = only(commands, events.FailQuery).error
    assert isinstance(error, DeadlineExceeded)
    assert str(error) == "no answer within 50.0 ms"
    assert sent(commands) == [messages.Cancel(0)]
    assert len(bench.session.queries) == 0


def test_an_abandoned_query_is_cancelled() -> None:
    bench = Bench()
    bench.upload_all()
    bench.step(events.QueryAsked(0, (X,), None))
    assert sent(bench.step(events.QueryAbandoned(0))) == [messages.Cancel(0)]


@pytest.mark.parametrize(("code", "kind"), [("version", VersionMismatch), ("graph", EdgeRejected)])
def test_a_final_refusal_ends_the_attempts(code: str, kind: type) -> None:
    bench = Bench()
    bench.greet()
    commands = bench.hear(messages.Error(code, "aten.x is not allowed"))
    assert kinds(commands) == [events.AbortConnection]
    assert type(bench.session.error) is kind
    assert bench.session.phase == "rejected"
    assert bench.session.wake_at is None
    assert kinds(bench.step(events.QueryAsked(0, (X,), None))) == [events.RunRange]


def test_a_full_edge_is_tried_again_later() -> None:
    bench = Bench()
    bench.greet()
    commands = bench.hear(messages.Error("memory", "245 MB do not fit 64 MB"))
    assert only(commands, events.OpenConnection).delay_s == RETRY_REFUSED_S
    assert bench.session.error is None
    assert bench.session.last_failure == "245 MB do not fit 64 MB"


@pytest.mark.parametrize(("quota_bytes", "phase"), [(767, "rejected"), (768, "connecting")])
def test_a_model_above_the_devices_quota_is_refused_in_its_words(
    quota_bytes: int, phase: str
) -> None:
    bench = Bench()
    assert sum(weight.spec.nbytes for weight in bench.graph.weights) == 768
    bench.greet(dataclasses.replace(WELCOME, memory_bytes=quota_bytes))
    bench.hear(messages.Error("memory", "768 bytes, and one device may have 767"))
    assert bench.session.phase == phase
    assert "one device may have 767" in str(bench.session.error or bench.session.last_failure)
    assert kinds(bench.step(events.QueryAsked(0, (X,), None)))[-1] is events.RunRange


def test_a_quota_that_is_raised_is_found_out() -> None:
    bench = Bench()
    bench.greet(dataclasses.replace(WELCOME, memory_bytes=767))
    commands = bench.hear(messages.Error("memory", "one device may have 767"))
    assert commands[-1] == events.OpenConnection(60.0)
    # Away meanwhile; still the reason is the quota.
    commands = bench.step(events.ConnectionLost("refused"), after_s=60.0)
    assert commands == [events.OpenConnection(60.0)]
    assert bench.session.phase == "rejected"
    bench.step(events.Connected(), after_s=60.0)
    bench.hear(WELCOME)
    assert bench.session.phase == "offering"
    assert bench.session.error is None


def test_who_stops_asks_no_edge_again() -> None:
    bench = Bench()
    bench.greet(dataclasses.replace(WELCOME, memory_bytes=767))
    bench.hear(messages.Error("memory", "one device may have 767"))
    bench.step(events.Stopped())
    assert kinds(bench.step(events.Connected(), after_s=60.0)) == [events.CloseConnection]
    assert bench.session.phase == "closed"


def test_after_eviction_queries_run_here_and_the_model_is_offered_again_later() -> None:
    bench = Bench()
    bench.upload_all()
    bench.hear(messages.Evicted(bench.graph.fingerprint, "two"))
    assert bench.session.usable("exact") == frozenset()
    assert kinds(bench.step(events.QueryAsked(0, (X,), None))) == [events.RunRange]
    bench.hear(messages.Ping(5))
    commands = bench.step(events.TimePassed(), after_s=RETRY_REFUSED_S)
    assert messages.Offer in [type(message) for message in sent(commands)]


def test_a_silent_edge_that_owes_an_acknowledgement_is_given_up() -> None:
    bench = Bench()
    bench.greet()
    bench.have(NONE)
    began = bench.now
    commands = wait(bench, for_kind=events.AbortConnection, pongs=False)
    assert kinds(commands) == [events.AbortConnection, events.OpenConnection]
    assert began + bench.options.silence_s <= bench.now < began + 2.0


def test_an_idle_edge_is_asked_whether_it_is_there() -> None:
    bench = Bench()
    bench.upload_all()
    bench.now = bench.session.wake_at or 0.0
    (ping,) = sent(bench.step(events.TimePassed()))
    assert isinstance(ping, messages.Ping)
    assert kinds(bench.hear(messages.Pong(ping.token, 0.0), after_s=0.01)) == []
    assert bench.session.phase == "ready"


@pytest.mark.parametrize(
    "lie",
    [
        messages.ChunkAck(1.0),
        messages.Held(0, WHOLE, ELEMENTS, True),
        messages.Pong(99, 0.0),
        messages.Have("f" * 64, "one", NONE, ()),
        messages.Unknown("f" * 64),
        messages.Hello(2, 2, "edge"),
        WELCOME,
    ],
    ids=lambda lie: type(lie).__name__,
)
def test_an_edge_that_says_what_it_must_not_is_dropped(lie: messages.Message) -> None:
    bench = Bench()
    bench.upload_all()
    commands = bench.hear(lie)
    assert kinds(commands) == [events.AbortConnection, events.OpenConnection]
    assert "broke the protocol" in (bench.session.last_failure or "")


@pytest.mark.parametrize("predictor", [{}, {"format": 1, "rows": 3}, {"format": "x"}])
def test_an_edge_whose_predictor_cannot_be_read_is_taken_to_be_as_fast_as_the_client(
    predictor: dict[str, Any],
) -> None:
    bench = Bench()
    bench.step(events.Started())
    bench.step(events.Connected())
    commands = bench.hear(dataclasses.replace(WELCOME, predictor=predictor))
    notes = [command for command in commands if isinstance(command, events.Record)]
    assert "unknown predictor" in [note.kind for note in notes]
    assert any(isinstance(message, messages.Offer) for message in sent(commands))
    assert bench.session.forecast.edge_s.tolist() == bench.session.forecast.client_s.tolist()


def test_a_bug_of_our_own_is_not_said_to_be_the_edges(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    bench.greet()

    def broken(_: object) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(bench.session.uploading.upload, "follow", broken)
    with pytest.raises(ValueError, match="a bug") as caught:
        bench.have(NONE)
    bench.session.failed(caught.value, bench.now)
    assert bench.session.last_failure == "internal error: ValueError('a bug')"


@pytest.mark.parametrize("runs", [(), (2,), (0, 2), (1, 3), (4,)])
def test_a_have_of_another_length_is_refused(runs: tuple[int, ...]) -> None:
    bench = Bench()
    bench.greet()
    assert events.AbortConnection in kinds(bench.have(runs))
    run = only(bench.step(events.QueryAsked(0, (X,), None)), events.RunRange)
    assert only(bench.local(run), events.FinishQuery).answer.served_by == "client"


def test_a_held_segment_that_was_not_sent_is_refused() -> None:
    bench = Bench()
    bench.greet()
    segment = segments(bench.have(NONE))[0]
    lie = messages.Held(segment.weight, WHOLE, ELEMENTS - 1, False)
    assert events.AbortConnection in kinds(bench.hear(lie))
    assert bench.session.usable("exact") == frozenset()


def test_a_result_that_does_not_fit_its_cut_is_not_used() -> None:
    bench = Bench()
    bench.upload_all()
    bench.step(events.QueryAsked(0, (X,), None))
    wrong = messages.Result(
        0, 0, LAYERS, "exact", 0.0, 0.0, 0.0, live_to_wire((torch.ones(2, WIDTH),))
    )
    commands = bench.hear(wrong)
    assert events.AbortConnection in kinds(commands)
    answer = only(bench.local(only(commands, events.RunRange)), events.FinishQuery).answer
    assert answer.served_by == "client"


def test_draining_edge_is_left() -> None:
    bench = Bench()
    bench.upload_all()
    commands = bench.hear(messages.Bye("draining"))
    assert kinds(commands) == [events.AbortConnection, events.OpenConnection]


def test_stopping_says_goodbye_and_fails_what_waits() -> None:
    bench = Bench()
    bench.upload_all()
    bench.step(events.QueryAsked(0, (X,), None))
    commands = bench.step(events.Stopped())
    assert sent(commands) == [messages.Cancel(0), messages.Bye("done")]
    assert kinds(commands)[-1] is events.CloseConnection
    assert events.FailQuery in kinds(commands)
    assert bench.session.wake_at is None


def test_a_connection_that_opens_after_the_end_is_not_used() -> None:
    bench = Bench()
    bench.step(events.Started())
    bench.step(events.Stopped())
    assert kinds(bench.step(events.Connected())) == [events.CloseConnection]


def asked_over_a_slow_link() -> Bench:
    """32 bytes at 10 B/s: the edge cannot answer anything for more than three seconds."""
    bench = Bench(Options(assumed_link=Link(10.0, 10.0, 0.01), replan=False))
    bench.session.context.forecast = Forecast(bench.graph, [100.0] * LAYERS)
    bench.upload_all()
    bench.step(events.QueryAsked(0, (X,), None))
    return bench


def test_a_tensor_longer_under_way_than_the_silence_limit_is_no_silence() -> None:
    bench = asked_over_a_slow_link()
    began = bench.now
    wait(bench, for_kind=events.AbortConnection, pongs=False)
    # Its way there and the answer's way back.
    assert bench.now >= began + 2 * 3.2 + bench.options.silence_s
    assert "said nothing" in (bench.session.last_failure or "")


def test_a_tensor_given_up_excuses_silence_no_longer_than_it_can_be_under_way() -> None:
    bench = asked_over_a_slow_link()
    bench.step(events.QueryAbandoned(0))
    began = bench.now
    bench.hear(messages.Load(1, 0, 0, 1.0, 0, 1, ()), after_s=0.5)
    wait(bench, for_kind=events.AbortConnection, pongs=False)
    assert bench.now == pytest.approx(began + 2 * 3.2 + bench.options.silence_s)


def test_an_error_of_our_own_costs_the_connection_and_no_query() -> None:
    bench = Bench()
    bench.upload_all()
    bench.step(events.QueryAsked(0, (X,), None))
    commands = bench.session.failed(RuntimeError("bug"), bench.now)
    assert events.AbortConnection in kinds(commands)
    runs = [command for command in commands if isinstance(command, events.RunRange)]
    answer = only(bench.local(runs[0]), events.FinishQuery).answer
    assert "internal error" in (answer.fallback_reason or "")


@pytest.mark.parametrize("fails", [False, True])
def test_an_error_of_our_own_after_an_answer_does_not_cost_the_answer(
    fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench()
    bench.upload_all()
    bench.step(events.QueryAsked(0, (X,), None))
    run = only(bench.hear(messages.Error("overloaded", "too many", 0)), events.RunRange)

    def broken(_: object) -> None:
        raise RuntimeError("bug")

    monkeypatch.setattr(bench.session.lane, "send_weights", broken)
    live = execute(bench.graph, bench.weights, 0, LAYERS, run.live)
    ran = events.RangeRan(0, 0, LAYERS, live, 1.0)
    with pytest.raises(RuntimeError) as caught:
        bench.step(events.RangeFailed(0, ZeroDivisionError()) if fails else ran)
    commands = bench.session.failed(caught.value, bench.now)
    assert only(commands, events.FailQuery if fails else events.FinishQuery).query == 0
    assert events.AbortConnection in kinds(commands)


def test_an_error_of_our_own_after_a_lost_connection_still_opens_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench()
    bench.upload_all()
    bench.step(events.QueryAsked(0, (X,), None))

    def broken(_: object) -> None:
        raise RuntimeError("bug")

    monkeypatch.setattr(bench.session.lane, "send_weights", broken)
    with pytest.raises(RuntimeError) as caught:
        bench.step(events.ConnectionLost("reset"))
    commands = bench.session.failed(caught.value, bench.now)
    assert len([c for c in commands if isinstance(c, events.OpenConnection)]) == 1
    assert len([c for c in commands if isinstance(c, events.RunRange)]) == 1


def test_queries_that_share_the_link_say_nothing_of_its_speed() -> None:
    bench = Bench()
    bench.upload_all()
    before = bench.session.link
    sent_now = [sent(bench.step(events.QueryAsked(n, (X,), None)))[0] for n in range(3)]
    for message in sent_now:
        bench.hear(answer_on_edge(bench, message), after_s=1.0)
    assert bench.session.link == before


def test_repeated_failures_after_an_offer_back_off() -> None:
    bench = Bench()
    bench.step(events.Started())
    delays = []
    for _ in range(4):
        bench.greet()
        bench.have(NONE)
        commands = bench.hear(messages.Error("digest", "the bytes do not match the digest"))
        delays.append(only(commands, events.OpenConnection).delay_s)
    assert delays == sorted(set(delays))


def test_progress_only_grows_when_plans_change() -> None:
    bench = Bench(Options(algorithm="front-to-back", assumed_link=Link(1e6, 1e6, 0.01)))
    bench.greet()
    bench.hold(segments(bench.have(NONE))[0])
    upload = bench.session.upload
    assert (upload.partitions_done, len(upload.partitions)) == (1, 3)
    bench.session.uploading.plan()
    assert (upload.partitions_done, len(upload.partitions)) == (1, 3)


def test_a_new_plan_that_wants_nothing_more_ends_the_upload() -> None:
    # Given a slow link, Algorithm 1 leaves the layers where they are: nothing is uploaded.
    options = Options(algorithm="ionn", assumed_link=Link(1e6, 1e6, 0.01))
    bench = Bench(options)
    bench.greet()
    first = segments(bench.have(NONE))[0]
    assert bench.session.phase == "uploading"
    bench.session.context.links.observe_upload(1.0)
    bench.hold(first, after_s=1.5)
    assert bench.session.upload.pending_bytes == 0
    assert bench.session.phase == "ready"


def test_acknowledgements_behind_a_large_reply_do_not_hold_up_the_upload() -> None:
    # A graph whose reply takes a second on this downlink, and weights that fill the window.
    bench = Bench(Options(assumed_link=Link(1e4, 32.0, 0.01), replan=False))
    bench.session.context.forecast = Forecast(bench.graph, [100.0] * LAYERS)
    bench.greet()
    for segment in segments(bench.have(NONE))[:2]:
        bench.hold(segment)
    assert bench.session.reply_credit_bytes() == 0
    bench.step(events.QueryAsked(0, (X,), None))
    bench.step(events.TimePassed(), after_s=0.5)
    credit = bench.session.reply_credit_bytes()
    assert 0 < credit <= bench.session.link.up_Bps
    assert bench.session.wake_at == pytest.approx(bench.session.context.now + 0.003)


PROGRESSIVE = Options(
    precision="progressive", assumed_link=Link(1e6, 1e6, 0.01), replan=False, patience=1e6
)


def test_coarse_planes_go_first_and_queries_use_them_at_once() -> None:
    bench = Bench(PROGRESSIVE)
    bench.greet()
    announced = segments(bench.have(NONE))
    assert [segment.plane for segment in announced] == [
        plane for plane in (COARSE, MIDDLE, FINE) for _ in range(LAYERS)
    ]
    for segment in announced[:LAYERS]:
        bench.hold(segment)
    assert bench.session.usable("float8") == set(range(LAYERS))
    assert bench.session.usable("bfloat16") == frozenset()
    (message,) = sent(bench.step(events.QueryAsked(0, (X,), None, "float8")))
    assert (message.start, message.stop, message.precision) == (0, LAYERS, "float8")
    for segment in announced[LAYERS : 2 * LAYERS]:
        bench.hold(segment)
    assert bench.session.usable("bfloat16") == set(range(LAYERS))
    answer = only(bench.hear(answer_on_edge(bench, message)), events.FinishQuery).answer
    # What the edge says, which was faster than the answer to this query.
    assert answer.precision == "exact"


def test_a_query_that_demands_exact_runs_here_until_all_is_there() -> None:
    bench = Bench(PROGRESSIVE)
    bench.greet()
    announced = segments(bench.have(NONE))
    for segment in announced[: 2 * LAYERS]:
        bench.hold(segment)
    run = only(bench.step(events.QueryAsked(0, (X,), None, "exact")), events.RunRange)
    assert only(bench.local(run), events.FinishQuery).answer.precision == "exact"
    for segment in announced[2 * LAYERS :]:
        bench.hold(segment)
    assert bench.session.phase == "ready"
    (message,) = sent(bench.step(events.QueryAsked(1, (X,), None, "exact")))
    assert message.precision == "exact"


def test_the_answer_says_the_least_precision_that_was_used() -> None:
    bench = Bench(PROGRESSIVE)
    bench.greet()
    for segment in segments(bench.have(NONE))[: 2 * LAYERS]:
        bench.hold(segment)
    (message,) = sent(bench.step(events.QueryAsked(0, (X,), None, "float8")))
    result = dataclasses.replace(answer_on_edge(bench, message), precision="bfloat16")
    answer = only(bench.hear(result), events.FinishQuery).answer
    assert (answer.precision, answer.served_by) == ("bfloat16", "edge")


def test_an_answer_that_is_not_used_says_nothing_of_the_precision() -> None:
    bench = Bench(PROGRESSIVE)
    bench.greet()
    for segment in segments(bench.have(NONE))[:LAYERS]:
        bench.hold(segment)
    commands = bench.step(events.QueryAsked(0, (X,), None, "float8"))
    (message,) = [m for m in sent(commands) if isinstance(m, messages.Execute)]
    junk = messages.Tensor("float32", (1, WIDTH), (0, 1), b"\2junk", "planes")
    result = dataclasses.replace(
        answer_on_edge(bench, message), precision="float8", tensors=(junk,)
    )
    run = only(bench.hear(result), events.RunRange)
    answer = only(bench.local(run), events.FinishQuery).answer
    assert (answer.precision, answer.served_by) == ("exact", "client")


def test_an_answer_less_precise_than_demanded_is_not_used() -> None:
    bench = Bench()
    bench.upload_all()
    (message,) = sent(bench.step(events.QueryAsked(0, (X,), None, "exact")))
    result = dataclasses.replace(answer_on_edge(bench, message), precision="bfloat16")
    commands = bench.hear(result)
    assert events.AbortConnection in kinds(commands)
    answer = only(bench.local(only(commands, events.RunRange)), events.FinishQuery).answer
    assert (answer.precision, answer.served_by) == ("exact", "client")
