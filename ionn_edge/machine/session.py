"""One client's state machine: what to answer, store, run and give up next.

No I/O, no clock, no threads: events and the time go in, commands come out. What may be said
when is wire.Conversation's; the rules of queueing, deadlines, workers that die, eviction and
draining are here.
"""

from __future__ import annotations

from collections.abc import Callable

from ionn_edge.config import Config
from ionn_edge.machine import events
from ionn_edge.machine.events import Command, Event, Model
from ionn_edge.machine.intake import Intake, have_of
from ionn_edge.machine.open_queries import OpenQueries, tensor_bytes
from ionn_edge.machine.quota import Quota
from wire import Conversation, RemoteProtocolError, Role, State, error_message, messages, negotiate

_SPEAKING = frozenset({State.GREETED, State.OFFERED, State.READY, State.ASKED, State.EVICTED})
_HOLDING = frozenset({State.READY, State.ASKED, State.BULK})
# So long may be kept what makes nothing usable, for a message less: the next chunk's
# acknowledgement comes before.
UNSAID_S = 0.05


class Session:
    """One connection's conversation, its model and its queue of queries.

    welcome: makes the Welcome for (protocol version, now). quota: what the client's device may
    ask for over all of its connections, if that is limited.
    heard_at: when the client last said something.
    """

    def __init__(
        self,
        config: Config,
        welcome: Callable[[int, float], messages.Welcome],
        quota: Quota | None = None,
    ) -> None:
        self.config = config
        self._quota = quota
        self.model: Model | None = None
        self.closed = False
        self._welcome = welcome
        self._conversation = Conversation(Role.EDGE)
        self._commands: list[Command] = []
        self._now = 0.0
        self._admitted = self._joins = True
        self.heard_at = 0.0
        self._pinged = False
        self._offered = ""
        self._intake: Intake | None = None
        self._open = OpenQueries()
        self._worker_ready = False
        self._deaths = 0
        self._drain_until: float | None = None
        # What is stored, to be said with whatever is said next, and when at the latest.
        self._unsaid: list[messages.Held] = []
        self._say_at = 0.0

    def __repr__(self) -> str:
        return (
            f"<Session: {self._conversation.state.value}, {self.queued} queued,"
            f" {self.running} running>"
        )

    @property
    def running(self) -> int:
        return self._open.running

    @property
    def queued(self) -> int:
        return self._open.queued

    @property
    def waiting_bytes(self) -> int:
        """Tensors of queries that wait."""
        return self._open.waiting_bytes

    @property
    def could_run(self) -> bool:
        """Whether a query waits for nothing but its turn."""
        return self._worker_ready and not self.running and self.queued > 0

    @property
    def busy(self) -> bool:
        """Whether a query is open, which forbids eviction."""
        return self.running + self.queued > 0

    @property
    def wake_at(self) -> float | None:
        """When TimePassed is due, if nothing happens before."""
        if self.closed:
            return None
        config = self.config
        times = self._open.deadlines()
        if (running_since := self._open.runs_since()) is not None:
            times.append(running_since + config.range_timeout_s)
        if self._drain_until is not None:
            times.append(self._drain_until)
        if self._unsaid:
            times.append(self._say_at)
        if self._conversation.state is State.HELLO:
            times.append(self.heard_at + config.hello_timeout_s)
        else:
            patience_s = config.silence_s if self._pinged else config.ping_after_s
            times.append(self.heard_at + patience_s)
        return min(times)

    def handle(self, event: Event, now: float) -> list[Command]:
        """Take one event at time `now`; return the commands that follow, in order."""
        if self.closed:
            return []
        self._now = now
        self._learn(event)
        if not self.closed:
            self._expire()
        if not self.closed:
            self._run_next()
        if not self.closed and self._drain_until is not None:
            self._drain(self._drain_until)
        commands, self._commands = self._commands, []
        return commands

    def _learn(self, event: Event) -> None:
        """What TimePassed tells, `handle` looks at in any case."""
        match event:
            case events.Connected(admitted, joins):
                self._admitted, self._joins, self.heard_at = admitted, joins, self._now
            case events.Received(message):
                self._receive(message)
            case events.Garbled(text, code):
                self._fail(code, text)
            case events.ModelOpened():
                self._opened(event)
            case events.ModelUnknown():
                self._send(messages.Unknown(self._offered))
            case events.ModelRefused(code, text):
                self._fail(code, text)
            case events.SegmentFailed(code, text):
                # As of one that is stored: of an evicted model it means nothing.
                if self._conversation.state in _HOLDING:
                    self._fail(code, text)
            case events.SegmentStored():
                self._stored(event)
            case events.LaneJoined(intake):
                self._intake = intake
                self._send(messages.Joined())
            case events.LaneRefused(text):
                self._fail("unexpected", text)
            case events.LaneOver():
                self._end(messages.Bye("done"))
            case events.HeldCounted():
                self._counted(event)
            case events.RangeRan():
                self._ran(event)
            case events.RangeFailed(query, code, text):
                if self._open.settle(query):
                    self._answer_error(query, code, text)
            case events.WorkerLost(reason):
                self._worker_lost(reason)
            case events.WorkerRestarted():
                self._worker_ready = True
            case events.ModelEvicted(epoch):
                self._evicted(epoch)
            case events.LoadReported(load):
                if self._conversation.state in _SPEAKING:
                    self._send(load)
            case events.Draining():
                self._drain_until = self._now + self.config.drain_s

    # Saying things.

    def _do(self, command: Command) -> None:
        self._commands.append(command)

    def _send(self, message: messages.Message) -> None:
        self._say_what_is_held()
        self._say(message)

    def _say(self, message: messages.Message) -> None:
        self._conversation.sent(message)
        self._do(events.Send(message))

    def _say_what_is_held(self) -> None:
        unsaid, self._unsaid = self._unsaid, []
        for held in unsaid:
            self._say(held)

    def _answer_error(self, query: int, code: str, text: str) -> None:
        self._send(error_message(code, text, query))

    def _fail(self, code: str, text: str) -> None:
        self._end(error_message(code, text))

    def _end(self, farewell: messages.Message | None = None) -> None:
        if farewell is not None:
            self._send(farewell)
        self._open.drop()
        self._do(events.EndLane())
        self._do(events.StopWorker())
        self._do(events.CloseConnection())
        self.closed = True

    # Hearing things.

    def _receive(self, message: messages.Message) -> None:
        self.heard_at, self._pinged = self._now, False
        try:
            self._conversation.received(message)
            self._dispatch(message)
        except RemoteProtocolError as error:
            self._fail(error.code, str(error))

    def _dispatch(self, message: messages.Message) -> None:
        match message:
            case messages.Chunk(payload):
                self._take(payload)
            case messages.Segment():
                if self._intake is not None:
                    self._intake.announce(message)
            case messages.Hello():
                self._greet(message)
            case messages.Join(lane):
                self._do(events.JoinLane(lane))
            case messages.Offer() if not self._admitted:
                raise self._full()
            case messages.Offer(fingerprint, graph) if self.model is not None:
                self._asked(self.model, fingerprint, graph)
            case messages.Offer(fingerprint, graph):
                self._offered = fingerprint
                self._do(events.OpenModel(fingerprint, graph))
            case messages.Execute():
                self._execute(message)
            case messages.Cancel(query):
                self._open.cancel(query)
            case messages.Ping(token):
                self._send(messages.Pong(token, self._now))
            case messages.GetLoad():
                self._do(events.ReportLoad())
            case messages.Bye() | messages.Error():
                self._end()

    def _greet(self, hello: messages.Hello) -> None:
        version = negotiate(hello)
        if not self._admitted and not self._joins:
            raise self._full()
        self._send(self._welcome(version, self._now))

    def _full(self) -> RemoteProtocolError:
        text = f"this edge serves at most {self.config.max_clients} clients; try again later"
        return RemoteProtocolError(text, "overloaded")

    # The model.

    def _opened(self, opened: events.ModelOpened) -> None:
        self.model = opened.model
        self._intake = Intake(opened.model, opened.held, self.config.limits)
        self._worker_ready, self._deaths = opened.worker_ready, 0
        self._send(have_of(opened.model, opened.epoch, opened.held))

    def lend_intake(self) -> Intake | None:
        """For a second connection's segments; None while nothing is agreed on."""
        if self._conversation.state is not State.READY or self._intake is None:
            return None
        return self._intake.beside()

    def _asked(self, model: Model, fingerprint: str, graph: messages.Buffer) -> None:
        """What is held is asked anew: the client lost its second connection."""
        if fingerprint != model.fingerprint or len(graph):
            raise RemoteProtocolError("one connection is about one model only", "unexpected")
        self._offered = fingerprint
        self._do(events.EndLane())
        self._do(events.CountHeld())

    def _counted(self, counted: events.HeldCounted) -> None:
        # Evicted meanwhile: then the question is an offer, and is answered as one.
        if self._conversation.state is State.ASKED and self.model is not None:
            self._intake = Intake(self.model, counted.held, self.config.limits)
            self._send(have_of(self.model, counted.epoch, counted.held))

    def _take(self, payload: messages.Buffer) -> None:
        # Evicted: the chunk crossed the news.
        if self._intake is None:
            return
        complete = self._intake.take(payload)
        # Before the disk has it: what the client learns of here is the link.
        self._send(messages.ChunkAck(self._now))
        if complete is not None:
            self._do(complete)

    def _stored(self, stored: events.SegmentStored) -> None:
        # Evicted while the segment was on its way to the disk: it is not there.
        if self._conversation.state not in _HOLDING:
            return
        held = messages.Held(stored.weight, stored.plane, stored.count, stored.complete)
        if stored.complete or self._intake is None or self._intake.ends_plane(held):
            # A layer may be usable now.
            self._send(held)
            return
        if not self._unsaid:
            self._say_at = self._now + UNSAID_S
        self._unsaid.append(held)

    def _evicted(self, epoch: str) -> None:
        assert self.model is not None
        # Only where somebody has had it forgotten: room is made of what is not busy.
        for query in self._open.drop():
            text = "the model was dropped; offer it again"
            self._answer_error(query.number, "not-uploaded", text)
        fingerprint, self.model, self._intake = self.model.fingerprint, None, None
        self._worker_ready = False
        self._do(events.EndLane())
        self._do(events.StopWorker())
        self._send(messages.Evicted(fingerprint, epoch))
        if self._conversation.state is State.OFFERED:
            self._do(events.OpenModel(self._offered, b""))

    # Queries.

    def _execute(self, execute: messages.Execute) -> None:
        number = execute.query
        if number in self._open:
            raise RemoteProtocolError(f"query {number} is open already", "unexpected")
        refusal = self._refusal(execute) or self._quota_refusal(execute)
        if refusal is not None:
            self._answer_error(number, *refusal)
            return
        self._open.add(execute, self._now)

    def _refusal(self, execute: messages.Execute) -> tuple[str, str] | None:
        model = self.model
        if model is None:
            return "not-uploaded", "the model was evicted to make room; offer it again"
        if execute.stop > model.layers:
            layers = f"layers [{execute.start}, {execute.stop})"
            return "input", f"{layers} of a model with {model.layers}"
        if self._drain_until is not None:
            return "overloaded", "the edge is stopping"
        if self.queued + self.running >= self.config.max_queries:
            return "overloaded", f"{self.config.max_queries} queries are open already"
        size = self.waiting_bytes + tensor_bytes(execute)
        if self.queued and size > self.config.max_waiting_bytes:
            return "overloaded", f"open queries hold {size} bytes of tensors"
        return None

    def _quota_refusal(self, execute: messages.Execute) -> tuple[str, str] | None:
        # Last: a query that is refused for another reason uses nothing up.
        size = tensor_bytes(execute)
        text = None if self._quota is None else self._quota.refusal(self._now, size)
        return None if text is None else ("overloaded", text)

    def _run_next(self) -> None:
        if not self.could_run or (self._quota is not None and not self._quota.may_run(self)):
            return
        asked = self._open.begin(self._now)
        self._do(
            events.RunRange(
                *(asked.query, asked.start, asked.stop),
                *(asked.precision, asked.reply_coding, asked.tensors),
            )
        )

    def _ran(self, ran: events.RangeRan) -> None:
        query = self._open.settle(ran.query)
        if query is not None:
            self._deaths = 0
            queue_s = max(ran.began_at - query.received_at, 0.0)
            self._send(
                messages.Result(
                    *(query.number, query.execute.start, ran.stop, ran.precision),
                    *(queue_s, ran.coding_s, ran.compute_s, ran.tensors),
                )
            )

    def _worker_lost(self, reason: str) -> None:
        self._worker_ready = False
        self._deaths += 1
        for query in self._open.drop():
            self._answer_error(query.number, "execution", reason)
        if self._deaths <= self.config.max_restarts:
            self._do(events.RestartWorker())
        else:
            # Without a worker it would serve nothing; who still wants one comes again.
            text = f"the worker failed {self._deaths} times in a row: {reason}"
            self._fail("overloaded", text)

    # Time.

    def _expire(self) -> None:
        now = self._now
        if self._unsaid and now >= self._say_at:
            self._say_what_is_held()
        for query in self._open.expired(now):
            waited_s = now - query.received_at
            text = f"the deadline passed before the range ran (waited {waited_s:.3f} s)"
            self._answer_error(query.number, "deadline", text)
        timeout_s, running_since = self.config.range_timeout_s, self._open.runs_since()
        if running_since is not None and now >= running_since + timeout_s:
            self._do(events.StopWorker())
            self._worker_lost(f"the range ran for more than {timeout_s:g} s and was stopped")
        if not self.closed:
            self._expect_life()

    def _expect_life(self) -> None:
        silent_s = self._now - self.heard_at
        if self._conversation.state is State.HELLO:
            if silent_s >= self.config.hello_timeout_s:
                self._fail("unexpected", f"no Hello within {self.config.hello_timeout_s:g} s")
        elif silent_s >= self.config.silence_s:
            self._end()
        elif silent_s >= self.config.ping_after_s and not self._pinged:
            self._pinged = True
            self._send(messages.Ping(0))

    def _drain(self, until: float) -> None:
        if not self.busy or self._now >= until:
            self._end(messages.Bye("draining"))
