"""What the box has once, for all of its clients: store, workers, load, predictor, epoch."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import Any, Protocol

from ionn_edge import jobs
from ionn_edge.blobs import Mismatch, blob_path, has_digest
from ionn_edge.config import Config
from ionn_edge.engine import EngineError, Nursery, WorkerGone, WorkerSettings
from ionn_edge.events import Model, Progress
from ionn_edge.graphs import Graphs
from ionn_edge.load import LoadMeter
from ionn_edge.parts import Part
from ionn_edge.session import Session
from ionn_edge.store import Store
from wire.messages import Load, ModelLoad, Welcome

AGENT = f"ionn-edge {version('ionn')}"
# A client that reconnects may find its old connection, of which nobody knows yet that it is
# dead, still holding its uploads.
TAKEOVER_S = 1.0
log = logging.getLogger("ionn_edge")


class Client(Protocol):
    """What the box needs of a connection."""

    session: Session

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


class Box:
    """One edge. `clients` are the connections at the moment."""

    def __init__(
        self,
        config: Config,
        nursery: Nursery | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config = config
        self.clock = clock
        self.store = Store(config.store.absolute(), config.memory_bytes)
        self.graphs = Graphs(self.store.directory)
        self.nursery = nursery or Nursery(WorkerSettings(config.device, config.threads))
        self.load_meter = LoadMeter()
        self.clients: set[Client] = set()
        self.device_name = config.device
        self.predictor: dict[str, Any] = {}
        self.draining = False
        self.empty = asyncio.Event()
        self.writers = ThreadPoolExecutor(4, "ionn-store")
        self._run = secrets.token_hex(4)
        self._lapses = 0
        self._opening: dict[Client, str] = {}

    def open(self) -> None:
        """See what earlier runs left. Raises StorageError."""
        self.store.open()
        self.graphs.open()

    @property
    def epoch(self) -> str:
        """Names the time over which nothing acknowledged is forgotten."""
        return f"{self._run}.{self._lapses}"

    @property
    def served(self) -> int:
        """How many clients there are; a second connection of one is no other client."""
        return sum(not client.is_lane for client in self.clients)

    def room(self) -> tuple[bool, bool]:
        """Whether the latest connection has a client's place, or may have one's second."""
        above = self.served - self.config.max_clients
        return above <= 0, above <= sum(client.may_be_joined for client in self.clients)

    def welcome(self, protocol: int, lane: str, now: float) -> Welcome:
        config = self.config
        return Welcome(
            version=protocol,
            agent=AGENT,
            epoch=self.epoch,
            device=config.device,
            threads=config.threads,
            memory_bytes=config.memory_bytes,
            max_message_bytes=config.limits.max_message_bytes,
            max_chunk_bytes=config.limits.max_chunk_bytes,
            predictor=self.predictor,
            lane=lane,
            clock_s=now,
        )

    def load(self) -> Load:
        """The load report, at most as many models as the wire takes, the latest used."""
        sessions = [client.session for client in self.clients]
        models = []
        for fingerprint, (held_bytes, total_bytes) in reversed(self.store.models.items()):
            using = sum(
                s.model is not None and s.model.fingerprint == fingerprint for s in sessions
            )
            answered = self.load_meter.answered.get(fingerprint, 0)
            models.append(ModelLoad(fingerprint, held_bytes, total_bytes, using, answered))
        return Load(
            clients=self.served,
            running=sum(session.running for session in sessions),
            queued=sum(session.queued for session in sessions),
            slowdown=self.load_meter.slowdown(self.clock()),
            used_bytes=self.store.used_bytes,
            memory_bytes=self.config.memory_bytes,
            models=tuple(models[: self.config.limits.max_models]),
        )

    async def admit(self, model: Model, owner: Client) -> tuple[Progress, ...]:
        """Room for a model; how much of each weight is there.

        Evicts others where it must, and tells their clients. Raises what Store.admit raises.
        The caller tells its session before it awaits anything: until then nobody else does.
        """
        unverified = self.store.unverified(model.sizes)
        await asyncio.gather(*map(self._verify, unverified))
        evicted = self.store.admit(model, owner, self._busy(), self._silent())
        if evicted:
            self._forget(evicted)
        self._opening[owner] = model.fingerprint
        try:
            parts = self.store.owned(owner)
            await asyncio.to_thread(_resume, parts)
        finally:
            del self._opening[owner]
        for part in parts:
            if part.full:
                self.store.finish(part)
                self.completed(part.digest)
        return await self.count(model, owner)

    async def count(self, model: Model, owner: Client) -> tuple[Progress, ...]:
        """How much of each weight is there, of what can be told in a message."""
        held = self._held(model, owner)
        if _rows(model, held) > self.config.limits.max_weights:
            # What nobody knows of cannot be gone on with.
            await asyncio.to_thread(_restart, self.store.owned(owner))
            held = self._held(model, owner)
        return held

    def _held(self, model: Model, owner: Client) -> tuple[Progress, ...]:
        return tuple(
            self.store.held(digest, owner) if size else Progress()
            for digest, size, _ in model.weights
        )

    def widen(self, owner: Client) -> None:
        """Room for the planes of what `owner` uploads. Raises what Store.widen raises."""
        evicted = self.store.widen(owner, self._busy())
        if evicted:
            self._forget(evicted)

    def completed(self, digest: bytes) -> None:
        """A blob is whole, unless it was evicted meanwhile: whose model has it may use it."""
        if not self.store.is_whole(digest):
            return
        for client in self.clients:
            client.completed(digest)

    def ran(self, fingerprint: str, start: int, stop: int, seconds: float) -> None:
        now = self.clock()
        self.load_meter.ran(fingerprint, start, stop, seconds, now)
        self.store.touch(fingerprint)
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

    async def verify_all(self) -> None:
        """Check what earlier runs left, one blob after the other."""
        while unverified := self.store.unverified():
            await self._verify(unverified[0])

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

    def _busy(self) -> set[str]:
        sessions = [client.session for client in self.clients]
        busy = {s.model.fingerprint for s in sessions if s.model is not None and s.busy}
        return busy.union(self._opening.values())

    def _silent(self) -> set[Client]:
        since = self.clock() - TAKEOVER_S
        return {client for client in self.clients if client.heard_at < since}

    def forgot(self) -> None:
        """Something acknowledged does not hold any more: a new epoch begins."""
        self._lapses += 1

    def _forget(self, fingerprints: list[str]) -> None:
        self.forgot()
        log.info("evicted %s", ", ".join(name[:16] for name in fingerprints))
        for client in list(self.clients):
            model = client.session.model
            if model is not None and model.fingerprint in fingerprints:
                client.evicted(self.epoch)

    async def _verify(self, digest: bytes) -> None:
        path = blob_path(self.store.directory, digest)
        loop = asyncio.get_running_loop()
        sound = await loop.run_in_executor(self.writers, has_digest, path, digest)
        if not sound:
            log.warning("dropped a damaged file from the store: %s", digest.hex())
        self.store.verified(digest, sound)


def _resume(parts: list[Part]) -> None:
    for part in parts:
        if part.on_disk_bytes:
            try:
                part.resume()
            except Mismatch:
                part.restart()


def _restart(parts: list[Part]) -> None:
    for part in parts:
        part.restart()


def _rows(model: Model, held: tuple[Progress, ...]) -> int:
    """How many rows Have needs for partial blobs, at the most."""
    return sum(
        (each.whole_bytes > 0) + (each.coarse > 0) + (each.middle > 0)
        for each, (_, size, _) in zip(held, model.weights, strict=True)
        if each.whole_bytes < size
    )
