"""What must hold at every step of a client's machine, whatever happens to it.

The checks wrap what a real session does with events. What is said and heard is read here once
more, by other code than the machines' own.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from ionn_client.errors import DeadlineExceeded, OffloadError
from ionn_client.machine import events as client_events
from ionn_client.machine.query import Answer
from ionn_client.machine.session import Session
from tests.simulation.connection import FirstConnection
from tests.simulation.ledger import Ledger
from tests.simulation.models import EXACT, Poisoned
from tests.simulation.queries import ClientQueries
from tests.simulation.wakes import Wakes, is_early
from wire import PRECISIONS, messages

if TYPE_CHECKING:
    from tests.simulation.client import Asked, Wearer

# Of a query without a deadline, beside what its link and its processor take.
HUNG_S = 60.0
LATE_S = 0.3
# Of a timer, behind others of the same moment.
TIMER_S = 1e-3
MAX_IN_FLIGHT_BYTES = 16 << 20
MAX_PINGS = 8
# Whether nothing is due before `wake_at`, at every so many events.
LOOK_EVERY = 4


class ClientChecks:
    """One client's machine."""

    def __init__(self, wearer: Wearer, session: Session) -> None:
        self._wearer = wearer
        self._world = wearer.world
        self._session = session
        self._take, self._catch_up = session.take, session.catch_up
        self._awake = Wakes()
        self._time_passed = False
        self._caught_up = False
        self._takes = 0
        self._ended: set[int] = set()
        self._asked: set[int] = set()
        self._queries = ClientQueries(session)
        self._queries.local_s = 1.2 * wearer.layer_s * wearer.model.layers
        self._connection = FirstConnection()
        self.ledger = Ledger(wearer.model)
        session.take = self.take  # type: ignore[method-assign]
        session.catch_up = self.catch_up  # type: ignore[method-assign]

    def take(self, event: Any, now: float) -> list[Any]:
        self._world.step(self._wearer.name, event)
        early = self._early(event, now)
        self._hears(event)
        if self._world.jumped_s:
            self._queries.local_s = None
        self._queries.hears(event)
        self._connection.hears(event)
        self._time_passed = isinstance(event, client_events.TimePassed)
        self._caught_up = False
        return [*early, *self._done(partial(self._take, event), now, caught_up=False)]

    def _early(self, event: Any, now: float) -> list[Any]:
        """What it would do now without being woken: nothing, but send weights sooner."""
        self._takes += 1
        busy = isinstance(event, client_events.TimePassed) or not self._caught_up
        if self._takes % LOOK_EVERY or busy or not is_early(self._session.wake_at, now):
            return []
        wake_at = self._session.wake_at
        woken = partial(self._take, client_events.TimePassed())
        commands = self._done(woken, now, caught_up=False)
        commands += self._done(self._catch_up, now, caught_up=True)
        if late := [each for each in commands if not _sends_weights(each)]:
            self._wrong(f"it sleeps until {wake_at}, and has to do {late} at {now}")
        return commands

    def catch_up(self, now: float) -> list[Any]:
        self._caught_up = True
        commands = self._done(self._catch_up, now, caught_up=True)
        if self._awake.too_often(self._time_passed, self._session.wake_at, now):
            self._wrong(f"the client's wake_at stays {self._session.wake_at}, and it is {now}")
        return commands

    def _done(
        self, decide: Callable[[float], list[Any]], now: float, *, caught_up: bool
    ) -> list[Any]:
        try:
            commands = decide(now)
        except Exception as error:
            self._wrong(f"an exception escaped the client's machine: {error!r}", error)
            raise
        for command in commands:
            self._does(command)
            for wrong in self._connection.does(command):
                if self._trusting and not self._world.jumped_s:
                    self._wrong(wrong)
        for wrong in self._queries.did(commands, now, caught_up=caught_up):
            if self._trusting:
                self._wrong(wrong)
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
                if fields.get("phase") == "ready":
                    self._is_ready()
                self._world.counts[" ".join(filter(None, ("saw", kind, fields.get("phase"))))] += 1

    def _is_ready(self) -> None:
        """Everything is there, unless it is not wanted."""
        options = self._session.options
        lacking = self.ledger.lacking
        if lacking and self._trusting and options.algorithm == "efficiency" and not options.stay:
            self._wrong(f"it is ready, and weights {lacking} are not there")

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

    def _limit_s(self, asked: Asked) -> float:
        wearer, jumped_s = self._wearer, self._world.jumped_s
        limit_s = HUNG_S
        if not jumped_s:
            limit_s = min(self._queries.longest_wait_s(asked.number), HUNG_S)
        limit_s += LATE_S + wearer.busy_s
        if asked.deadline_s is not None:
            limit_s = min(limit_s, asked.deadline_s + TIMER_S)
        return limit_s + jumped_s

    def answered(self, asked: Asked) -> None:
        """A caller got something: is it what it asked for, and in time?"""
        took_s, limit_s = (asked.ended_at or 0.0) - asked.at, self._limit_s(asked)
        if took_s > limit_s:
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


def _sends_weights(command: Any) -> bool:
    match command:
        case client_events.SendMessage(message) | client_events.SendOnLane(message):
            return isinstance(message, messages.Segment | messages.Chunk)
        case client_events.CodeSegment() | client_events.Record():
            return True
    return False
