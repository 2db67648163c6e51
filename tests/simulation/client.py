"""The simulated wearable: a real Session and Driver, with a modelled processor and socket."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ionn_client import Options
from ionn_client.boxes.connection import CONNECT_TIMEOUT_S, Connection
from ionn_client.boxes.connections import Connections, Opener
from ionn_client.driver import Driver
from ionn_client.errors import DeadlineExceeded, OffloadError, PairingError
from ionn_client.machine.audit import difference
from ionn_client.machine.events import AuditRange, RangeAudited
from ionn_client.machine.forecast import Forecast
from ionn_client.machine.query import Answer
from ionn_client.machine.session import Session
from ionn_client.machine.tensors import live_from_wire
from ionn_edge.doors.devices import Device
from layergraph.execute import Live
from tests.simulation.checks import ClientChecks
from tests.simulation.loop import HERE, ShiftedLoop
from tests.simulation.models import Model, Poisoned
from tests.simulation.network import Socket, Tamper, Way, connected
from wire import DEFAULT_LIMITS, Encoder
from wire.activations import decode_tensor

if TYPE_CHECKING:
    from tests.simulation.world import World

# A timer may be so late, by itself or behind what else there is to do.
LATE_S = 0.3
# Of the ranges that run here, so many are brief.
AT_ONCE = 0.1


@dataclass(slots=True)
class Asked:
    """A query, and what became of it: an answer, an error, or that its caller went away."""

    number: int
    live: Live
    at: float
    deadline_s: float | None
    precision: str
    lossless: bool
    poisoned: bool
    abandon_s: float | None
    outcome: Answer | BaseException | None = None
    ended_at: float | None = None


class _Processor:
    """What LocalRunner is to a driver: ranges in turn, each taking its virtual time."""

    def __init__(self, wearer: Wearer) -> None:
        self.auditor = _Auditor(wearer)
        self._wearer = wearer
        self._turn = asyncio.Lock()

    def run_at_once(self, start: int, stop: int, live: Live) -> tuple[Live, float] | None:
        wearer = self._wearer
        if self._turn.locked() or wearer.rng.random() > AT_ONCE:
            return None
        return wearer.model.run(start, stop, live), self._takes_s(start, stop)

    async def run(
        self, start: int, stop: int, live: Live, wanted: Callable[[], bool]
    ) -> tuple[Live, float] | None:
        wearer = self._wearer
        async with self._turn:
            if not wanted():
                return None
            takes_s = self._takes_s(start, stop)
            await asyncio.sleep(takes_s)
            return wearer.model.run(start, stop, live), takes_s

    def _takes_s(self, start: int, stop: int) -> float:
        wearer = self._wearer
        return (stop - start) * wearer.layer_s * wearer.rng.uniform(0.9, 1.2)


class _Auditor:
    """What Auditor is to a driver: beside the queries, on the same processor."""

    def __init__(self, wearer: Wearer) -> None:
        self._wearer = wearer

    async def run(self, asked: AuditRange) -> RangeAudited:
        wearer, graph = self._wearer, self._wearer.model.graph
        takes_s = (asked.stop - asked.start) * wearer.layer_s * wearer.rng.uniform(1.0, 3.0)
        await asyncio.sleep(takes_s)
        live = asked.live
        if asked.coded:
            live = live_from_wire(tuple(map(decode_tensor, asked.coded)), graph, asked.start)
        live = wearer.model.run(asked.start, asked.stop, live)
        apart = None if asked.claimed is None else difference(live, asked.claimed)
        return RangeAudited(asked.audit, asked.stop, live, apart, takes_s)


class _Access:
    """What Access is to a driver: an edge without a guard, whose lies would be remembered."""

    def __init__(self, wearer: Wearer) -> None:
        self._wearer = wearer

    def http(self, _: Any) -> contextlib.AbstractAsyncContextManager[None]:
        return contextlib.nullcontext()

    def quarantine(self, reason: str) -> None:
        self._wearer.checks.quarantined(reason)


class _Opener(Opener):
    """Opens simulated connections."""

    def __init__(self, wearer: Wearer) -> None:
        self._wearer = wearer

    async def open(self) -> Connection | PairingError | str:
        return await self._wearer.opened()


class _Driver(Driver):
    """The real driver; only where it would open a socket, it opens a simulated one."""

    def __init__(self, wearer: Wearer, session: Session, options: Options) -> None:
        super().__init__(session, _Access(wearer), _Processor(wearer), options)  # type: ignore[arg-type]
        self._loop = wearer.loop  # type: ignore[assignment]
        self._began = wearer.loop.time()
        self._connections = Connections(self._post, _Opener(wearer), self._begin)


@dataclass(eq=False)
class Wearer:
    """One client: its link, its model, its queries."""

    world: World
    name: str
    device: Device
    model: Model
    options: Options
    layer_s: float
    up: Way
    down: Way
    rng: random.Random
    # A thread takes at most.
    slowest_s: float
    # Of the process, as HERE has it.
    alive: bool = True
    stopping: bool = False
    unreachable_until: float = 0.0
    sockets: list[Socket] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    asking: list[asyncio.Task[None]] = field(default_factory=list)
    tampers: list[tuple[str, Callable[[], Tamper]]] = field(default_factory=list)
    context: contextvars.Context = field(default_factory=contextvars.copy_context)

    def start(self) -> None:
        world = self.world
        self.context.run(HERE.set, self)
        self.loop = ShiftedLoop(world.loop, self.rng.uniform(0.0, 1e5))
        forecast = Forecast(
            self.model.graph,
            [self.layer_s] * self.model.layers,
            world.activations(self.model),
            self.options.activation_tolerance,
            self.options.objective,
        )
        session = Session(
            self.model.graph,
            self.model.offer,
            self.model.blobs,
            forecast,
            self.options,
            random.Random(self.rng.random()),
        )
        self.session = session
        self.checks = ClientChecks(self, session)
        self.driver = _Driver(self, session, self.options)
        self.running = world.loop.create_task(self.driver.run(), context=self.context)

    @property
    def busy_s(self) -> float:
        """What all of its queries take its own processor, at the most."""
        return 1.2 * self.layer_s * self.model.layers * len(self.asked)

    @property
    def listens_in_vain(self) -> bool:
        """Whether it has a connection that brings nothing any more."""
        lines = self.driver._connections.first, self.driver._connections.lane
        sockets: list[Any] = [line.current._socket for line in lines if line.current is not None]
        return any(socket.peer.deaf for socket in sockets if not socket.closed)

    def thread_s(self) -> tuple[float, float]:
        return self.rng.uniform(0.0001, self.slowest_s), self.rng.uniform(0.00001, 0.0005)

    async def opened(self) -> Connection | str:
        """As the driver's own, after the time that a handshake takes."""
        world = self.world
        await asyncio.sleep(2 * (self.up.delay_s + self.down.delay_s))
        spot, now = world.spot, world.loop.time()
        life = spot.life
        if self.unreachable_until > now or (life is None and spot.silent):
            await asyncio.sleep(CONNECT_TIMEOUT_S)
            return f"no edge: no answer within {CONNECT_TIMEOUT_S:.0f} s"
        if life is None or life.box.draining:
            return "no edge: Connection refused"
        ours, theirs = connected(world.loop, self.rng, self.up, self.down)
        self.sockets = [each for each in self.sockets if not each.closed]
        self.sockets.append(ours)
        for direction, make in self.tampers:
            _spoil(ours, direction, make)
        life.accept(theirs, self.device)
        connection: Any = Connection(ours)  # type: ignore[arg-type]
        connection._encoder = Encoder(DEFAULT_LIMITS, world.scenario.inline_bytes)
        return connection

    def tamper(self, direction: str, make: Callable[[], Tamper]) -> None:
        """What goes up, or down, is changed from now on, on connections to come too."""
        self.tampers.append((direction, make))
        for socket in self.sockets:
            _spoil(socket, direction, make)

    def leave_alone(self) -> None:
        """Nothing is changed any more."""
        self.tampers.clear()
        for socket in self.sockets:
            socket.spoil(None)
            socket.peer.spoil(None)

    def ask(self, asked: Asked) -> None:
        self.asked.append(asked)
        task = self.world.loop.create_task(self._ask(asked), context=self.context)
        self.asking.append(task)
        if asked.abandon_s is not None:
            self.world.loop.call_later(asked.abandon_s, task.cancel)

    async def _ask(self, asked: Asked) -> None:
        asked.at = self.loop.time()
        # One that is abandoned before it gets here has no number there.
        asked.number = self.driver._next_query
        try:
            asked.outcome = await self.driver.ask(
                asked.live, asked.deadline_s, asked.precision, asked.lossless
            )
        except (DeadlineExceeded, OffloadError, Poisoned, asyncio.CancelledError) as error:
            asked.outcome = error
        except Exception as error:
            self.world.violated(f"a query of {self.name} failed with {error!r}", error)
            asked.outcome = error
        asked.ended_at = self.loop.time()
        self.checks.answered(asked)

    async def stop(self) -> None:
        """As Offload's exit does."""
        await self.driver.close()
        self.running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.running
        await asyncio.gather(*self.asking, return_exceptions=True)
        for socket in self.sockets:
            socket.abort()


def _spoil(ours: Socket, direction: str, make: Callable[[], Tamper]) -> None:
    (ours if direction == "up" else ours.peer).spoil(make())
