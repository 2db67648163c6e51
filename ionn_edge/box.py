"""What the box has once, for all of its clients: store, workers, load, predictor, epoch."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import Any, Protocol
from weakref import WeakValueDictionary

from ionn_edge.config import Config
from ionn_edge.doors.devices import LOOPBACK, Device
from ionn_edge.load import LoadMeter
from ionn_edge.machine.session import Session
from ionn_edge.machine.turns import SPARE_S, Turns
from ionn_edge.storage.secret import cache_secret
from ionn_edge.storage.store import Store
from ionn_edge.workers import jobs
from ionn_edge.workers.engine import EngineError, WorkerGone
from ionn_edge.workers.isolation import Isolation
from ionn_edge.workers.nursery import Nursery
from wire.messages import Load, ModelLoad, Welcome

AGENT = f"ionn-edge {version('ionn')}"
# A client that reconnects may find its old connection, of which nobody knows yet that it is
# dead, still holding its uploads.
TAKEOVER_S = 1.0
# What models that are offered may take of the event loop at once: a few hundred weights a
# millisecond, and those of 8,192 a tenth of a second.
OPENING_SPARE_S = 0.2
# What a device has here takes so long to add up where it has thousands of weights; then it is not
# done again for so many times as long.
LONG_S, LONG_RESTS = 0.005, 100
log = logging.getLogger("ionn_edge")


class Client(Protocol):
    """What the box needs of a connection."""

    session: Session
    device: Device

    @property
    def heard_at(self) -> float: ...
    @property
    def is_lane(self) -> bool: ...
    @property
    def may_be_joined(self) -> bool: ...

    def evicted(self, epoch: str) -> None: ...
    def completed(self, digest: bytes) -> None: ...
    def tell_load(self) -> None: ...
    def drain(self) -> None: ...
    async def revoke(self) -> None: ...


class Box:
    """One edge. `clients` are the connections at the moment, `opening` those that are admitted."""

    def __init__(
        self,
        config: Config,
        nursery: Nursery | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config = config
        self.clock = clock
        self.store = Store(config.store.absolute(), config.memory_bytes, config.device_disk_bytes)
        self.nursery = nursery or Nursery(config.workers)
        self.load_meter = LoadMeter()
        self._turns, self._openings = Turns(SPARE_S), Turns(OPENING_SPARE_S)
        self._checking: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._storing: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._known_sizes: dict[str, tuple[float, dict[str, tuple[int, int]]]] = {}
        self._answered: Counter[tuple[str, str]] = Counter()
        self.clients: set[Client] = set()
        self.device_name = config.device
        # What workers were seen to be kept from; None until that was tried.
        self.isolation: Isolation | None = None
        self.predictor: dict[str, Any] = {}
        self.draining = False
        self.empty = asyncio.Event()
        self.writers = ThreadPoolExecutor(4, "ionn-store")
        self._run = secrets.token_hex(4)
        self._lapses: Counter[str] = Counter()
        self.opening: dict[Client, str] = {}

    def open(self, devices: Iterable[str] = ()) -> None:
        """See what earlier runs left of these devices. Raises StorageError."""
        # Whoever comes to an unpaired box has a shelf, too, which nobody paired has a key to.
        known = (LOOPBACK.id, *devices) if self.config.unpaired else devices
        self.store.open(cache_secret(self.config.state), known)

    def epoch(self, device: str) -> str:
        """Names the time over which nothing acknowledged to this device is forgotten."""
        return f"{self._run}.{self._lapses[device]}"

    @property
    def served(self) -> int:
        """How many clients there are; a second connection of one is no other client."""
        return sum(not client.is_lane for client in self.clients)

    def room(self) -> tuple[bool, bool]:
        """Whether the latest connection has a client's place, or may have one's second."""
        above = self.served - self.config.max_clients
        return above <= 0, above <= sum(client.may_be_joined for client in self.clients)

    def welcome(self, protocol: int, device: Device, lane: str, now: float) -> Welcome:
        config = self.config
        return Welcome(
            version=protocol,
            agent=AGENT,
            epoch=self.epoch(device.id),
            device=config.device,
            threads=config.threads,
            memory_bytes=self.store.quota(),
            max_message_bytes=config.limits.max_message_bytes,
            max_chunk_bytes=config.limits.max_chunk_bytes,
            predictor=self.predictor,
            lane=lane,
            clock_s=now,
        )

    def load(self, device: Device) -> Load:
        """What a device may know of the load: its own, and how much slower the box is for it.

        At most as many models as the wire takes, the latest used.
        """
        own = [client for client in self.clients if client.device == device]
        sessions = [client.session for client in own]
        models = []
        shelf = self.store.shelf(device.id)
        for fingerprint, (held_bytes, total_bytes) in reversed(self._sizes(device.id).items()):
            using = sum(
                s.model is not None and s.model.fingerprint == fingerprint for s in sessions
            )
            answered = self._answered[device.id, fingerprint]
            models.append(ModelLoad(fingerprint, held_bytes, total_bytes, using, answered))
        return Load(
            clients=sum(not client.is_lane for client in own),
            running=sum(session.running for session in sessions),
            queued=sum(session.queued for session in sessions),
            slowdown=self.load_meter.slowdown(self.clock()),
            used_bytes=shelf.used_bytes,
            memory_bytes=self.store.quota(),
            models=tuple(models[: self.config.limits.max_models]),
        )

    def _sizes(self, device: str) -> dict[str, tuple[int, int]]:
        """Of each of its models, held and total bytes: added up anew as seldom as it takes long."""
        until, sizes = self._known_sizes.get(device, (0.0, {}))
        if self.clock() >= until:
            began_s = time.thread_time()
            sizes = self.store.shelf(device).models
            spent_s = time.thread_time() - began_s
            if spent_s < LONG_S:
                self._known_sizes.pop(device, None)
            else:
                self._known_sizes[device] = self.clock() + spent_s * LONG_RESTS, sizes
        return sizes

    def widen(self, owner: Client) -> None:
        """Room for the planes of what `owner` uploads. Raises what Store.widen raises."""
        self.evicted(self.store.widen(owner.device.id, owner, self.busy()))

    def completed(self, device: str | None, digest: bytes) -> None:
        """A device's blob is whole, unless it was evicted meanwhile: its models may use it.

        Without a device, it is every device's.
        """
        for client in self.clients:
            its = client.device.id
            if device in (None, its) and self.store.shelf(its).is_whole(digest):
                client.completed(digest)

    def ran(self, device: Device, fingerprint: str, start: int, stop: int, seconds: float) -> None:
        now = self.clock()
        self._answered[device.id, fingerprint] += 1
        # Not by the model alone: that another device runs it would show in what is slow.
        self.load_meter.ran(f"{device.id} {fingerprint}", start, stop, seconds, now)
        self.store.shelf(device.id).touch(fingerprint)
        if self.load_meter.changed_much(now):
            for client in list(self.clients):
                client.tell_load()

    async def probe(self) -> None:
        """Make sure that workers can be had, and the device. Raises EngineError."""
        worker = await self.nursery.fork()
        try:
            worker.send(jobs.Probe())
            answer = await worker.receive()
        except WorkerGone as error:
            raise EngineError(f"no worker can be started: {error}") from error
        finally:
            await worker.close()
        if isinstance(answer, jobs.Refused):
            raise EngineError(answer.text)
        assert isinstance(answer, jobs.Probed)
        self.device_name = answer.device

    def close(self) -> None:
        """After the last connection has ended."""
        self.writers.shutdown(wait=True, cancel_futures=True)
        self.store.close()

    def turn_to_check(self, device: Device) -> asyncio.Lock:
        """To be held while a graph of this device is checked."""
        return self._checking.setdefault(device.id, asyncio.Lock())

    def turn_to_store(self, device: Device) -> asyncio.Lock:
        """To be held while segments of this device are decoded and stored: its connections
        together keep one thread, and one processor, at most."""
        return self._storing.setdefault(device.id, asyncio.Lock())

    def rest_s(self, device: Device, spent_s: float) -> float:
        """How long a connection of this device waits, which kept the others waiting for so long."""
        alone = self.is_alone(device)
        return self._turns.rest_s(device.id, spent_s, self.clock(), alone=alone)

    def opening_rest_s(self, device: Device, spent_s: float = 0.0) -> float:
        """How long this device's next offer waits, once those before took so much time in all."""
        alone = self.is_alone(device)
        return self._openings.rest_s(device.id, spent_s, self.clock(), alone=alone)

    def is_alone(self, device: Device) -> bool:
        """Whether nobody else's connections are kept waiting."""
        return all(client.device == device for client in self.clients)

    def drain(self) -> None:
        """Have every client finish and go, and take on no other; `empty` is set when all have."""
        self.draining = True
        for client in list(self.clients):
            client.drain()
        self._note_emptiness()

    def left(self, client: Client) -> None:
        """A connection has ended."""
        self.clients.discard(client)
        self._note_emptiness()

    def _note_emptiness(self) -> None:
        if self.draining and not self.clients:
            self.empty.set()

    def busy(self) -> set[tuple[str, str]]:
        """(device, fingerprint) of the models that may not be evicted now."""
        busy = {(owner.device.id, opening) for owner, opening in self.opening.items()}
        for client in self.clients:
            model = client.session.model
            if model is not None and client.session.busy:
                busy.add((client.device.id, model.fingerprint))
        return busy

    def silent(self) -> set[Client]:
        """Connections whose uploads another of theirs may take over."""
        since = self.clock() - TAKEOVER_S
        return {client for client in self.clients if client.heard_at < since}

    def forgot(self, device: str) -> None:
        """Something acknowledged to a device does not hold any more: a new epoch begins."""
        self._lapses[device] += 1

    def forget_uses(self, device: str) -> None:
        """Know no more what a device has run here, or had."""
        self._known_sizes.pop(device, None)
        for key in [key for key in self._answered if key[0] == device]:
            del self._answered[key]
        self.load_meter.forget(device)

    def evicted(self, models: Collection[tuple[str, str]]) -> None:
        """(device, fingerprint) of models that the store dropped: who is connected is told."""
        for device in {device for device, _ in models}:
            self.forgot(device)
        for device, fingerprint in models:
            del self._answered[device, fingerprint]
            log.info("evicted %s of %s", fingerprint[:16], device[:12])
            for client in list(self.clients):
                model = client.session.model
                if client.device.id == device and model and model.fingerprint == fingerprint:
                    client.evicted(self.epoch(device))
