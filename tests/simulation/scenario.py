"""What one seed's world is like: the box, the clients, their links and queries, and the faults."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from math import exp, log
from pathlib import Path

from ionn_client import Options
from ionn_client.stay import Stay
from ionn_edge.config import Config
from ionn_edge.doors.devices import LOOPBACK, Device
from planner import Link, Objective
from planner.power import RADIOS, Power
from tests.simulation.faults import FAULTS, TAMPERING
from tests.simulation.models import NAMES, model
from wire import DEFAULT_LIMITS

_DEVICES = tuple(Device(letter * 64, f"device {letter}") for letter in "ab")

# Of all clients, with those that the edge does not know yet to be gone.
MOST_CONNECTIONS = 20


def between(rng: random.Random, low: float, high: float) -> float:
    """A number whose logarithm is evenly spread."""
    return exp(rng.uniform(log(low), log(high)))


@dataclass(frozen=True, slots=True)
class Client:
    """One wearable. Times in seconds, rates in bytes per second.

    at_once: of its queries, the share that is asked together with the one before.
    """

    model: str
    variant: int
    options: Options
    layer_s: float
    thread_s: float
    up_Bps: float
    down_Bps: float
    delay_s: float
    jitter_s: float
    begins_s: float
    queries: int
    every_s: float
    at_once: float
    deadline_s: tuple[float, float] | None
    abandons: float
    device: Device
    poison: float


@dataclass(frozen=True, slots=True)
class Scenario:
    """`active_s`: faults begin and clients ask until then. `inline_bytes`: of messages' frames.

    unstored_bytes: of segments that wait for the edge's disk, beyond which it reads no more.
    """

    seed: int
    clients: tuple[Client, ...]
    faults: tuple[str, ...]
    active_s: float
    budget_bytes: int
    max_chunk_bytes: int
    segment_bytes: int
    inline_bytes: int
    coded_apart_bytes: int
    edge_layer_s: float
    max_clients: int
    max_queries: int
    max_waiting_bytes: int
    silence_s: float
    range_timeout_s: float
    max_unsent_bytes: int
    device_queries: int
    knows_devices: bool
    takeover_s: float
    unstored_bytes: int
    edge_processors: int
    device_rate: int
    max_restarts: int
    box_queries: int

    @classmethod
    def draw(cls, seed: int) -> Scenario:
        rng = random.Random(seed)
        active_s = rng.uniform(1.0, 3.5)
        # An edge that takes so long that queries wait there for each other.
        crowded = rng.random() < 0.4
        clients = tuple(
            _client(rng, active_s, crowded) for _ in range(rng.choice((1, 1, 1, 2, 2, 3)))
        )
        largest = max(map(_size, clients))
        return cls(
            seed=seed,
            clients=clients,
            faults=_faults(rng),
            active_s=active_s,
            budget_bytes=int(
                largest * rng.choice((0.9, 1.05, 1.3, 2.2, 2.2, 3.5, 3.5, 100.0, 100.0, 100.0))
            ),
            # Of a large model not by the thousand: those after the first hundred tell nothing new.
            max_chunk_bytes=max(rng.choice((200, 700, 1 << 20, 1 << 20)), largest // 100),
            segment_bytes=max(rng.choice((400, 3000, 1 << 16)), largest // 50),
            inline_bytes=rng.choice((0, 300, 1 << 16)),
            coded_apart_bytes=rng.choice((16, 64 << 10)),
            edge_layer_s=between(rng, 4e-3, 3e-2) if crowded else between(rng, 2e-5, 5e-3),
            max_clients=rng.choice((1, 2, 64, 64, 64, 64, 64)),
            max_queries=rng.choice((1, 3, 32, 32)),
            max_waiting_bytes=rng.choice((200, 128 << 20, 128 << 20)),
            silence_s=rng.choice((6.0, 25.0, 60.0)),
            range_timeout_s=rng.choice((0.3, 60.0)),
            max_unsent_bytes=rng.choice((100, 64 << 20)),
            device_queries=rng.choice((2, 64, 64, 64)),
            knows_devices=rng.random() < 0.7,
            takeover_s=rng.choice((0.05, 1.0)),
            unstored_bytes=rng.choice((2000, 20_000, 4 << 20)),
            edge_processors=rng.choice((1, 2, 4)),
            device_rate=rng.choice((3, 1000, 1000)),
            max_restarts=rng.choice((0, 1, 3)),
            box_queries=rng.choice((2, 512, 512)),
        )

    @property
    def has_room(self) -> bool:
        """Whether every client and every model finds a place at the edge, whatever comes."""
        return self.budget_bytes > 20 * max(_size(client) for client in self.clients) and (
            self.max_clients > MOST_CONNECTIONS
        )

    @property
    def most_unstored_bytes(self) -> int:
        """What may wait for the disk: a segment more from each of a client's connections."""
        return self.unstored_bytes + 2 * (2 * self.segment_bytes + 4096)

    def config(self, directory: Path) -> Config:
        """Of the edge, on this store."""
        return Config(
            threads=1,
            memory_bytes=self.budget_bytes,
            store=directory,
            state=directory.with_name("state"),
            unpaired=any(client.device is LOOPBACK for client in self.clients),
            device_queries=self.device_queries,
            device_clients=2 * MOST_CONNECTIONS,
            device_queries_per_s=float(self.device_rate),
            device_burst=self.device_rate,
            max_restarts=self.max_restarts,
            box_queries=self.box_queries,
            device_disk_bytes=self.budget_bytes,
            calibration="off",
            limits=replace(DEFAULT_LIMITS, max_chunk_bytes=self.max_chunk_bytes),
            max_clients=self.max_clients,
            max_queries=self.max_queries,
            max_waiting_bytes=self.max_waiting_bytes,
            ping_after_s=self.silence_s / 3,
            silence_s=self.silence_s,
            range_timeout_s=self.range_timeout_s,
            max_unsent_bytes=self.max_unsent_bytes,
            drain_s=1.0,
        )


def _size(client: Client) -> int:
    return sum(map(len, model(client.model, client.variant).blobs))


def _device(rng: random.Random) -> Device:
    """One of two, or whoever is on the edge's own machine: clients may share one."""
    return rng.choice((LOOPBACK, _DEVICES[0], _DEVICES[0], _DEVICES[1]))


def _faults(rng: random.Random) -> tuple[str, ...]:
    """Mostly such that what either side promises still holds: more is checked then."""
    honest = [name for name in sorted(FAULTS) if name not in TAMPERING]
    names = honest if rng.random() < 0.7 else sorted(FAULTS)
    return tuple(rng.sample(names, rng.choice((0, 1, 2, 3, 4, 5, 6))))


def _client(rng: random.Random, active_s: float, crowded: bool) -> Client:
    # Often an upload that lasts for many round trips, and so is interrupted; and by planes one
    # that lasts for longer than a query, which then finds some of them.
    links = ((6e4, 0.005), (3e5, 0.02), (3e6, 0.1))
    precision = rng.choice(("exact", "progressive"))
    slow = precision == "progressive" and rng.random() < 0.6
    fastest_Bps, longest_s = links[0] if slow else rng.choice(links)
    up_Bps, delay_s = between(rng, 1e4, fastest_Bps), between(rng, 1e-4, longest_s)
    queries = rng.randrange(3, 15)
    options = _options(rng, precision, up_Bps, delay_s)
    deadline_s = (0.02, 1.5) if rng.random() < 0.3 else None
    return Client(
        # A second connection is of use only where there is much to carry.
        model="wide" if options.lane and rng.random() < 0.4 else rng.choice(NAMES),
        variant=rng.choice((0, 0, 1)),
        options=options,
        layer_s=between(rng, 0.05 if crowded else 3e-3, 0.1),
        # Coding for as long as queries take, too: much may happen meanwhile.
        thread_s=rng.choice((0.003, 0.003, 0.05)),
        up_Bps=up_Bps,
        down_Bps=up_Bps * rng.choice((0.5, 1.0, 4.0)),
        delay_s=delay_s,
        jitter_s=rng.choice((0.0, 0.001, 0.02)),
        begins_s=rng.choice((0.0, 0.0, rng.uniform(0.0, active_s))),
        queries=queries,
        every_s=active_s / queries * rng.choice((0.5, 1.0, 1.3)),
        at_once=0.7 if crowded else 0.3,
        deadline_s=deadline_s,
        device=_device(rng),
        abandons=rng.choice((0.0, 0.0, 0.1)),
        poison=rng.choice((0.0, 0.0, 0.0, 0.1, 0.5)),
    )


def _options(rng: random.Random, precision: str, up_Bps: float, delay_s: float) -> Options:
    guess = up_Bps * rng.choice((0.3, 1.0, 1.0, 5.0))
    options = Options(
        precision=precision,
        lane=rng.random() < 0.4,
        assumed_link=Link(guess, guess, 2 * delay_s),
        replan=rng.random() < 0.8,
        hedging=rng.random() < 0.7,
        audit_share=rng.choice((0.0, 0.01, 0.5)),
        silence_s=rng.choice((0.5, 2.0)),
        backoff_s=rng.choice((0.02, 0.1)),
        max_backoff_s=rng.choice((0.3, 2.0)),
        patience=rng.choice((1.5, 3.0)),
    )
    if precision == "exact":
        ways = ("efficiency", "efficiency", "ionn", "stay", "partition")
        match rng.choice(ways):
            case "ionn":
                options = replace(options, algorithm="ionn", acknowledge="partition")
            case "partition":
                options = replace(options, acknowledge="partition")
            case "stay":
                energy = Objective(power=Power(2.0, 0.3, RADIOS["wifi"]))
                options = replace(options, objective=energy, stay=Stay(rng.uniform(1, 60), 20_000))
    return options
