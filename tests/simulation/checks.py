"""What must hold at every step of either machine, whatever happens to it.

Each check wraps a real session's `handle`. What is said and heard is read here once more, by
other code than the machines' own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from ionn_client.errors import DeadlineExceeded, OffloadError
from ionn_client.machine import events as client_events
from ionn_client.machine.query import Answer
from ionn_client.machine.session import Session
from ionn_edge.machine import events as edge_events
from ionn_edge.machine.open_queries import tensor_bytes
from tests.simulation.ledger import Ledger
from tests.simulation.models import EXACT, Poisoned
from tests.simulation.network import Socket
from wire import PRECISIONS, messages

if TYPE_CHECKING:
    from tests.simulation.client import Asked, Wearer
    from tests.simulation.edge import Life

# So often TimePassed may find `wake_at` passed again at once.
MOST_WAKES = 20
# Of a query without a deadline, beside what its link and its processor take.
HUNG_S = 60.0
LATE_S = 0.3
MAX_IN_FLIGHT_BYTES = 16 << 20
MAX_PINGS = 8
# Errors that say that the other side is wrong, and those of them that no lie has to come before.
BLAME = frozenset({"malformed", "unexpected", "graph", "version", "coding"})
EXPECTED = (
    "another connection",
    "no Hello",
    "no connection",
    "that connection",
    "connection reset",
)


class _Awake:
    """That a machine which was woken does not want to be woken at once, again and again."""

    def __init__(self) -> None:
        self._wakes = 0

    def too_often(self, time_passed: bool, wake_at: float | None, now: float) -> bool:
        if time_passed and wake_at is not None and wake_at <= now:
            self._wakes += 1
        else:
            self._wakes = 0
        return self._wakes > MOST_WAKES


class ClientChecks:
    """One client's machine."""

    def __init__(self, wearer: Wearer, session: Session) -> None:
        self._wearer = wearer
        self._world = wearer.world
        self._session = session
        self._handle = session.handle
        self._awake = _Awake()
        self._ended: set[int] = set()
        self._asked: set[int] = set()
        self.ledger = Ledger(wearer.model)
        session.handle = self.handle  # type: ignore[method-assign]

    def handle(self, event: Any, now: float) -> list[Any]:
        self._world.step(self._wearer.name, event)
        self._hears(event)
        try:
            commands = self._handle(event, now)
        except Exception as error:
            self._wrong(f"an exception escaped the client's machine: {error!r}", error)
            raise
        for command in commands:
            self._does(command)
        time_passed = isinstance(event, client_events.TimePassed)
        if self._awake.too_often(time_passed, self._session.wake_at, now):
            self._wrong(f"the client's wake_at stays {self._session.wake_at}, and it is {now}")
        self._bounded()
        return commands

    def _wrong(self, text: str, error: BaseException | None = None) -> None:
        self._world.violated(f"{self._wearer.name}: {text}", error)

    @property
    def _trusting(self) -> bool:
        """Whether the edge says what it means: nothing tampers with the connections."""
        return not self._world.lies

    def _hears(self, event: Any) -> None:
        match event:
            case client_events.MessageReceived(message):
                self._heard(message)
            case client_events.LaneHeard(messages.Held() as held):
                self.ledger.held(held)
            case client_events.Connected() | client_events.ConnectionLost():
                self.ledger.lost()
            case client_events.QueryAsked():
                self._asked.add(event.query)
            case client_events.QueryAbandoned(number):
                self._ended.add(number)

    def _heard(self, message: messages.Message) -> None:
        match message:
            case messages.Held():
                self.ledger.held(message)
            case messages.Have():
                own = self._session.lane.phase == "asking"
                for broken in self.ledger.have(message, own=own):
                    if self._trusting:
                        self._wrong(broken)
            case messages.Evicted():
                self.ledger.lost()
                self.ledger.epoch = message.epoch

    def _does(self, command: Any) -> None:
        match command:
            case client_events.SendMessage(message) | client_events.SendOnLane(message):
                self._world.said(self._wearer.name, message)
                self._says(message)
            case client_events.AbortConnection() | client_events.CloseConnection():
                self._world.note(self._wearer.name, "does", command)
                self.ledger.lost()
                if self._trusting and "protocol" in command.reason:
                    self._wrong(f"it takes an honest edge for a broken one: {command.reason}")
            case client_events.FinishQuery(number, _) | client_events.FailQuery(number, _):
                self._world.note(self._wearer.name, "answers", number)
                if number in self._ended or number not in self._asked:
                    self._wrong(f"query {number} is answered, which is not open")
                self._ended.add(number)
            case client_events.Record(kind, fields):
                self._world.note(self._wearer.name, "records", command)
                self._world.counts[" ".join(filter(None, ("saw", kind, fields.get("phase"))))] += 1

    def _says(self, message: messages.Message) -> None:
        if not self._trusting:
            return
        if isinstance(message, messages.Segment):
            wrong, again = self.ledger.segment(message)
            if wrong is not None:
                self._wrong(f"what it sends is acknowledged or out of order: {wrong}")
            if again:
                self._world.sent_again(self._wearer, message)
        elif isinstance(message, messages.Execute):
            layer = self.ledger.unheld(message)
            if layer is not None:
                self._wrong(
                    f"asks for layers [{message.start}, {message.stop}) at {message.precision};"
                    f" layer {layer} was not acknowledged"
                )

    def _bounded(self) -> None:
        session = self._session
        if session.pacer is not None and session.pacer.in_flight_bytes > MAX_IN_FLIGHT_BYTES:
            self._wrong(f"{session.pacer.in_flight_bytes} bytes of chunks are under way")
        pings = session.dialogue.liveness._pings
        if len(pings) > MAX_PINGS:
            self._wrong(f"{len(pings)} pings are under way")
        if len(session.queries) > len(self._asked) - len(self._ended):
            self._wrong(f"{len(session.queries)} queries are kept, more than are open")

    # Answers.

    def quarantined(self, reason: str) -> None:
        """The edge is taken for a liar."""
        world = self._world
        world.counts["quarantines"] += 1
        if not (world.spoiled or world.lies):
            self._wrong(f"an honest edge is quarantined: {reason}")

    def answered(self, asked: Asked) -> None:
        """A caller got something: is it what it asked for, and in time?"""
        took_s = (asked.ended_at or 0.0) - asked.at
        limit_s = (HUNG_S if asked.deadline_s is None else asked.deadline_s) + LATE_S
        limit_s += self._world.jumped_s
        if took_s > limit_s + self._wearer.busy_s:
            self._wrong(f"query {asked.number} took {took_s:.2f} s, more than {limit_s:.2f} s")
        match asked.outcome:
            case Answer() as answer:
                self._check_answer(asked, answer)
            case DeadlineExceeded():
                if asked.deadline_s is None or took_s < asked.deadline_s - 1e-6:
                    self._wrong(f"query {asked.number} missed no deadline, and was told so")
                self._world.counts["late"] += 1
            case Poisoned():
                if not asked.poisoned:
                    self._wrong(f"query {asked.number} failed, which its model does not")
            case OffloadError():
                if not self._wearer.stopping:
                    self._wrong(f"query {asked.number} was told of the edge: {asked.outcome}")
            case _:
                pass

    def _check_answer(self, asked: Asked, answer: Answer) -> None:
        world, model = self._world, self._wearer.model
        world.counts["answers"] += 1
        world.counts[f"by {answer.served_by}"] += 1
        if answer.fallback_reason is not None:
            world.counts["fallbacks"] += 1
        if PRECISIONS.index(answer.precision) < PRECISIONS.index(asked.precision):
            self._wrong(f"query {asked.number} got {answer.precision}, not {asked.precision}")
        if asked.poisoned:
            self._wrong(f"query {asked.number} got an answer, which its model has not")
            return
        ranks = world.ranks_of(self._wearer, asked, answer)
        if answer.precision == PRECISIONS[EXACT] and any(rank < EXACT for rank in ranks):
            self._wrong(f"query {asked.number} is said to be exact, and ran with {ranks}")
        if world.spoiled and answer.precision != PRECISIONS[EXACT]:
            return  # Planes have no digest: what was spoiled on the way shows when FINE is there.
        right = model.run(0, model.layers, asked.live, ranks)
        if not all(map(torch.equal, answer.live, right)):
            self._wrong(f"query {asked.number} got a wrong answer, from {answer.ranges}")


class EdgeChecks:
    """One connection's machine at the edge."""

    def __init__(self, life: Life, link: Any, socket: Socket) -> None:
        self._life = life
        self._world = life.world
        self._link = link
        self._socket = socket
        self._session = link.session
        self._handle = link.session.handle
        self._awake = _Awake()
        # Queries to be answered, and those that were cancelled: they may be.
        self._open: dict[int, messages.Execute] = {}
        self._cancelled: set[int] = set()
        self._steps = 0
        link.session.handle = self.handle

    def handle(self, event: Any, now: float) -> list[Any]:
        session, was_closed = self._session, self._session.closed
        self._world.step("edge", event)
        self._hears(event)
        try:
            commands = self._handle(event, now)
        except Exception as error:
            self._wrong(f"an exception escaped the edge's machine: {error!r}", error)
            raise
        if was_closed and commands:
            self._wrong(f"a session that is over does {commands}")
        for command in commands:
            if isinstance(command, edge_events.Send):
                self._world.said("edge", command.message)
                self._says(command.message)
        time_passed = isinstance(event, edge_events.TimePassed)
        if self._awake.too_often(time_passed, session.wake_at, now):
            self._wrong(f"the edge's wake_at stays {session.wake_at}, and it is {now}")
        self._bounded()
        return commands

    def _wrong(self, text: str, error: BaseException | None = None) -> None:
        if self._life.alive:
            self._world.violated(text, error)

    def _hears(self, event: Any) -> None:
        match event:
            case edge_events.Received(messages.Execute() as execute):
                self._open.setdefault(execute.query, execute)
            case edge_events.Received(messages.Cancel(number)):
                self._cancelled.add(number)
            case edge_events.RangeFailed(number, "not-uploaded", text):
                self._promise_broken(number, text)
            case edge_events.RangeRan():
                asked = self._open.get(event.query)
                if asked is not None and event.stop < asked.stop:
                    self._promise_broken(event.query, f"it stopped at {event.stop}")

    def _promise_broken(self, number: int, text: str) -> None:
        """The client asks only for what was acknowledged: it must run while the model is here."""
        if self._session.model is not None and not self._world.lies and number in self._open:
            self._wrong(f"what was acknowledged cannot be executed: query {number}: {text}")

    def _says(self, message: messages.Message) -> None:
        match message:
            case messages.Result(number) | messages.Error(query=int(number)):
                if self._open.pop(number, None) is None and not self._socket.tampered:
                    self._wrong(f"query {number} is answered again, or was not asked")
            case messages.Error(code, text):
                expected = self._world.lies or text.startswith(EXPECTED)
                if code in BLAME and not expected:
                    self._wrong(f"it takes an honest client for a broken one: {text}")

    def _bounded(self) -> None:
        session, config = self._session, self._session.config
        if not session.closed:
            kept = self._cancelled.union(filter(session._open.__contains__, self._open))
            if forgotten := self._open.keys() - kept:
                self._wrong(f"queries {sorted(forgotten)} will never be answered")
        if session.queued > config.max_queries:
            self._wrong(f"{session.queued} queries wait")
        self._steps += 1
        if self._steps % 16:
            return
        held = sum(tensor_bytes(each.execute) for each in session._open._waiting.values())
        if held > config.max_waiting_bytes and session.queued > 1:
            self._wrong(f"queries that wait hold {held} bytes")
        store = self._life.box.store
        if store.used_bytes > store.budget_bytes:
            self._wrong(f"the store holds {store.used_bytes} of {store.budget_bytes} bytes")
