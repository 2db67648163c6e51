"""What must hold at every step of the edge's machine, whatever happens to it: see `checks`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ionn_edge.machine import events
from ionn_edge.machine.open_queries import tensor_bytes
from tests.simulation.edge_queries import EdgeQueries
from tests.simulation.network import Socket
from tests.simulation.wakes import Wakes, is_early
from wire import messages

if TYPE_CHECKING:
    from tests.simulation.edge import Life

# Errors that say that the other side is wrong, and those of them that no lie has to come before.
BLAME = frozenset({"malformed", "unexpected", "graph", "version", "coding"})
TAKEN_OVER = "another connection"
EXPECTED = (TAKEN_OVER, "no Hello", "no connection", "that connection", "connection reset")


class EdgeChecks:
    """One connection's machine at the edge."""

    def __init__(self, life: Life, link: Any, socket: Socket) -> None:
        self._life = life
        self._world = life.world
        self._link = link
        self._socket = socket
        self._session = link.session
        self._handle = link.session.handle
        self._awake = Wakes()
        # Queries to be answered, and those that were cancelled: they may be.
        self._open: dict[int, messages.Execute] = {}
        self._cancelled: set[int] = set()
        self._steps = 0
        self._queries = EdgeQueries(link.session.config)
        # The longest time in which nothing was heard.
        self._silent_s = 0.0
        link.session.handle = self.handle

    def handle(self, event: Any, now: float) -> list[Any]:
        session, was_closed = self._session, self._session.closed
        self._world.step("edge", event)
        if isinstance(event, events.Received):
            self._silent_s = max(self._silent_s, now - self._link.heard_at)
        early = self._early(event, now)
        self._hears(event)
        try:
            commands = [*early, *self._handle(event, now)]
        except Exception as error:
            self._wrong(f"an exception escaped the edge's machine: {error!r}", error)
            raise
        if was_closed and commands:
            self._wrong(f"a session that is over does {commands}")
        for command in commands:
            if isinstance(command, events.Send):
                self._world.said("edge", command.message)
                self._says(command.message)
            elif isinstance(command, events.RunRange):
                self._world.happens("RunRange")
        parted = session.closed or session.model is None
        if self._link._lane is not None and parted and events.EndLane() not in commands:
            self._wrong("its second connection goes on without it")
        for wrong in self._queries.step(event, commands, now):
            if not self._socket.tampered:
                self._wrong(wrong)
        for wrong in self._life.shares.step(self._link, event, commands, now):
            self._wrong(wrong)
        time_passed = isinstance(event, events.TimePassed)
        if self._awake.too_often(time_passed, session.wake_at, now):
            self._wrong(f"the edge's wake_at stays {session.wake_at}, and it is {now}")
        self._bounded()
        return commands

    def _early(self, event: Any, now: float) -> list[Any]:
        """What it would do now without being woken: nothing, but take a turn that it waits for."""
        if isinstance(event, events.TimePassed) or not is_early(self._session.wake_at, now):
            return []
        commands = self._handle(events.TimePassed(), now)
        if late := [each for each in commands if not isinstance(each, events.RunRange)]:
            self._wrong(f"it sleeps until {self._session.wake_at}, and has to do {late} at {now}")
        return commands

    def _wrong(self, text: str, error: BaseException | None = None) -> None:
        if self._life.alive:
            self._world.violated(text, error)

    def _hears(self, event: Any) -> None:
        match event:
            case events.Received(messages.Execute() as execute):
                self._open.setdefault(execute.query, execute)
            case events.Received(messages.Cancel(number)):
                self._cancelled.add(number)
            case events.RangeFailed(number, "not-uploaded", text):
                self._promise_broken(number, text)
            case events.RangeRan():
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
            case messages.Have():
                links = self._life.links
                models = sum(each.session.model is not None and not each.is_lane for each in links)
                if models > self._session.config.max_clients:
                    self._wrong(f"{models} clients have a model here")
            case messages.Error(code, text):
                expected = self._world.lies or text.startswith(EXPECTED)
                if code in BLAME and not expected:
                    self._wrong(f"it takes an honest client for a broken one: {text}")
                if text.startswith(TAKEN_OVER):
                    self._taken_over()

    def _taken_over(self) -> None:
        """Only of who says nothing for a while."""
        silent_s = max(self._silent_s, self._life.box.clock() - self._link.heard_at)
        if silent_s < self._world.scenario.takeover_s and self._link._lane is None:
            self._wrong(f"it lost its upload to another, and was never silent for {silent_s:.3f} s")

    def _bounded(self) -> None:
        session, config = self._session, self._session.config
        if not session.closed:
            kept = self._cancelled.union(filter(session._open.__contains__, self._open))
            if forgotten := self._open.keys() - kept:
                self._wrong(f"queries {sorted(forgotten)} will never be answered")
        if session.queued > config.max_queries:
            self._wrong(f"{session.queued} queries wait")
        unstored_bytes = self._link._writer._unstored_bytes
        if not 0 <= unstored_bytes <= self._world.scenario.most_unstored_bytes:
            self._wrong(f"{unstored_bytes} bytes wait for the disk")
        self._steps += 1
        if self._steps % 16:
            return
        held = sum(tensor_bytes(each.execute) for each in session._open._waiting.values())
        if held > config.max_waiting_bytes and session.queued > 1:
            self._wrong(f"queries that wait hold {held} bytes")
        store = self._life.box.store
        if store.used_bytes > store.budget_bytes:
            self._wrong(f"the store holds {store.used_bytes} of {store.budget_bytes} bytes")
