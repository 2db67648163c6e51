"""The simulated edge: real boxes, links, sessions and stores, one process life after the other.

Real: ionn_edge's Box, Link, Session, Intake, Writer, Store and Graphs, with files in memory.
Modelled: worker processes (see worker), sockets (see network), threads and time (see loop). A
process that is killed leaves a copy of its directory as it was at that moment; whatever its
Python objects still do when they are cancelled, they do to the old one.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import errno
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ionn_edge.box import Box
from ionn_edge.doors.devices import LOOPBACK, Device
from ionn_edge.doors.guard import Guard
from ionn_edge.link import Link
from ionn_edge.machine.quota import Quota
from ionn_edge.storage import parts
from ionn_edge.storage.admission import verify_all
from ionn_edge.storage.opening import learn_graphs
from ionn_edge.workers import jobs
from planner.predictor import Predictor, Sample
from planner.work import OperatorWork
from tests.simulation.edge_checks import EdgeChecks
from tests.simulation.loop import HERE, ShiftedLoop
from tests.simulation.models import EXACT, Model
from tests.simulation.network import Socket
from tests.simulation.shares import Shares
from tests.simulation.worker import Nursery, Worker
from wire import Encoder

if TYPE_CHECKING:
    from tests.simulation.world import World

PREDICTOR = Predictor.fit(
    [Sample((OperatorWork("linear", 10.0**k, 10.0**k),), 1e-9 * 10.0**k) for k in range(2, 8)]
).to_plain()

# A worker is made, and a slow disk takes what it was given, in so many times so long.
REST_TRIES, REST_S = 20, 0.25


class _Ordered(dict[Any, None]):
    """A set whose order does not depend on addresses."""

    def add(self, item: Any) -> None:
        self[item] = None

    def discard(self, item: Any) -> None:
        self.pop(item, None)


class Life:
    """One process of the edge, from its start until it is killed or has drained."""

    def __init__(self, world: World, directory: Path, number: int) -> None:
        self.world = world
        self.directory = directory
        self.number = number
        self.rng = random.Random(world.rng.random())
        self.alive = True
        self.models = world.models
        self.workers: list[Worker] = []
        self.sockets: list[Socket] = []
        self.links: list[Link] = []
        # What faults change.
        self.slowness = self.disk_slowness = 1.0
        self.no_workers = self.disk_full = False
        self.loop = ShiftedLoop(world.loop, self.rng.uniform(0.0, 1e5))
        self._tasks: list[asyncio.Task[None]] = []
        self.box = Box(world.scenario.config(directory), Nursery(self), self.loop.time)
        self._guard = Guard(self.box.config, self.loop.time)
        self.shares = Shares(self)
        self.box.clients = _Ordered()  # type: ignore[assignment]
        self.box.predictor = PREDICTOR
        self.context = contextvars.copy_context()
        self.context.run(HERE.set, self)

    @property
    def quotas(self) -> list[Quota]:
        """Of the devices that have come."""
        return list(self._guard._quotas.values())

    def thread_s(self) -> tuple[float, float]:
        before_s = self.rng.uniform(0.00005, 0.002) * self.disk_slowness
        return before_s, self.rng.uniform(0.00001, 0.0005)

    def compute_s(self, layers: int) -> float:
        layer_s = self.world.scenario.edge_layer_s * self.rng.uniform(0.8, 1.5)
        return layers * layer_s * self.slowness

    def start(self) -> None:
        devices = {wearer.device.id: None for wearer in self.world.wearers}
        self.box.open(devices if self.world.scenario.knows_devices else ())
        self._spawn(self._prepare())

    async def _prepare(self) -> None:
        await learn_graphs(self.box)
        await verify_all(self.box)

    def _spawn(self, work: Any) -> None:
        self._tasks.append(self.world.loop.create_task(work, context=self.context))

    def accept(self, socket: Socket, device: Device) -> None:
        self.sockets.append(socket)
        self._spawn(self._serve(socket, device))

    async def _serve(self, socket: Socket, device: Device) -> None:
        """As ionn_edge.doors.routes does."""
        with contextlib.ExitStack() as stack:
            quota = None if device is LOOPBACK else stack.enter_context(self._guard.seat(device))
            await self._converse(socket, device, quota)

    async def _converse(self, socket: Socket, device: Device, quota: Quota | None) -> None:
        link: Any = Link(self.box, socket, socket, device.name, device, quota)  # type: ignore[arg-type]
        scenario = self.world.scenario
        # Its timers are of the clock that it reads.
        link._loop = self.loop
        link._outbox.encoder = Encoder(self.box.config.limits, scenario.inline_bytes)
        EdgeChecks(self, link, socket)
        self.links.append(link)
        try:
            await link.serve()
        except Exception as error:
            self.world.violated(f"an exception ended a connection at the edge: {error!r}", error)
        finally:
            self.links.remove(link)
            self.sockets.remove(socket)
            socket.abort()

    async def at_rest(self, look: Callable[[Life], list[str]]) -> list[str]:
        """What is still wrong with it after a while in which nothing goes wrong any more."""
        for _ in range(REST_TRIES):
            if not (wrong := look(self)):
                break
            await asyncio.sleep(REST_S)
        return wrong

    def ran(self, model: Model, job: jobs.Run, stop: int, ranks: tuple[int, ...]) -> None:
        """A worker ran layers [job.start, stop) with weights of these ranks."""
        self.world.ran(model, job, stop, ranks)

    def loaded_wrong(self, weight: int, rank: int) -> None:
        """A worker's weight has other bytes than the client's model."""
        if rank == EXACT:
            self.world.violated(f"the edge runs on wrong bytes of weight {weight} as exact ones")
        self.world.spoiled = True

    def kill(self, *, silently: bool) -> None:
        """Now, whatever it is doing."""
        self.alive = False
        for socket in list(self.sockets):
            socket.vanish(silently=silently)
        for worker in list(self.workers):
            worker.die()
        for task in self._tasks:
            task.cancel()

    async def ended(self) -> None:
        """Until nothing of it runs any more."""
        self.alive = False
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.box.writers.shutdown(wait=False)
        self.box.store.close()


class Spot:
    """Where the edge is found: a life now, or none."""

    def __init__(self, world: World, root: Path) -> None:
        self._world = world
        self._root = root
        self._lives = 0
        self.life: Life | None = None
        self.silent = False
        self.over: list[Life] = []

    def start(self, directory: Path | None = None) -> None:
        number, self._lives = self._lives, self._lives + 1
        if directory is None:
            directory = self._root / f"store{number}"
        self.life = Life(self._world, directory, number)
        self.silent = False
        self.life.start()

    def kill(self, *, silently: bool, keep_store: bool, power_cut: bool, down_s: float) -> None:
        """The process or its machine dies, and is started again after a while."""
        life, self.life = self.life, None
        if life is None:
            return
        self.silent = silently
        left = self._root / f"left{self._lives}"
        if keep_store:
            _copy(life.directory, left, life.rng, power_cut)
        life.kill(silently=silently)
        self.over.append(life)
        self._world.loop.call_later(down_s, self._restart, left if keep_store else None)

    def _restart(self, directory: Path | None) -> None:
        if self.life is None and not self._world.ending:
            self.start(directory)

    def drain(self, down_s: float) -> None:
        """The operator stops it, and starts another one on the same store."""
        life = self.life
        if life is not None and not life.box.draining:
            life.context.run(life.box.drain)
            self._world.spawn(self._drained(life, down_s))

    async def _drained(self, life: Life, down_s: float) -> None:
        limit_s = life.box.config.drain_s + 2.0
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(life.box.empty.wait(), limit_s)
        if self.life is life:
            self.kill(silently=False, keep_store=True, power_cut=False, down_s=down_s)


def _copy(source: Path, target: Path, rng: random.Random, power_cut: bool) -> None:
    """The directory as the next process finds it.

    After a power cut the machine has another boot, and files that were being written may have
    lost their end or hold something else.
    """
    if not source.exists():
        return
    shutil.copytree(source, target)
    files = sorted(path for path in target.rglob("*") if path.is_file())
    for path in files:
        # Files' times order what is evicted first, and are of the real clock.
        os.utime(path, (rng.randrange(1 << 20),) * 2)
        if power_cut and path.name == "boot":
            path.write_text("another boot")
        elif power_cut and path.suffix in (".part", ".coarse", ".middle") and rng.random() < 0.7:
            data = bytearray(path.read_bytes())[: rng.randrange(path.stat().st_size + 1)]
            if data and rng.random() < 0.5:
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            path.write_bytes(data)


@contextlib.contextmanager
def disks_that_fill() -> Iterator[None]:
    """Appending to a file fails where the process that does it has a full disk."""
    append = parts.append

    def append_or_fail(*args: Any) -> None:
        place = HERE.get(None)
        if getattr(place, "disk_full", False):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        append(*args)

    parts.append = append_or_fail
    try:
        yield
    finally:
        parts.append = append
