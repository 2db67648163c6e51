"""What goes wrong: each fault by its name, as a function that makes it happen now.

A fault that ends by itself arranges for that. What tampers with messages marks the world: a peer
that lies has no promises to keep, and its client only has to get right answers all the same.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from ionn_edge.cache import forget, prune
from tests.simulation.network import Socket, Tamper, Way
from wire import DEFAULT_LIMITS, Decoder, ProtocolError, encode, messages

if TYPE_CHECKING:
    from tests.simulation.client import Wearer
    from tests.simulation.world import World

Fault = Callable[["World", random.Random], None]
FAULTS: dict[str, Fault] = {}
# After these, one side or the other is no honest peer any more.
TAMPERING = frozenset({"duplicates", "reordering", "corrupt chunks", "garbage"})


def _fault(name: str) -> Callable[[Fault], Fault]:
    def register(fault: Fault) -> Fault:
        FAULTS[name] = fault
        return fault

    return register


def _socket(world: World, rng: random.Random) -> Socket | None:
    """One end of some connection that is open."""
    sockets = [each for wearer in world.wearers for each in wearer.sockets if not each.closed]
    if not sockets:
        return None
    socket = rng.choice(sockets)
    return rng.choice((socket, socket.peer))


def _wearer(world: World, rng: random.Random) -> Wearer:
    return rng.choice(world.wearers)


def _way(world: World, rng: random.Random) -> Way:
    wearer = _wearer(world, rng)
    return rng.choice((wearer.up, wearer.down))


# The network.


@_fault("cut")
def _cut(world: World, rng: random.Random) -> None:
    """After any byte of what is said next."""
    if (socket := _socket(world, rng)) is not None:
        socket.cut_at = socket.sent_bytes + rng.choice(
            (0, rng.randrange(200), rng.randrange(20_000))
        )


@_fault("reset")
def _reset(world: World, rng: random.Random) -> None:
    if (socket := _socket(world, rng)) is not None:
        socket.break_off(rng.choice((0.0, rng.random())))


@_fault("half-open")
def _half_open(world: World, rng: random.Random) -> None:
    """One or both directions bring nothing any more, and nobody is told."""
    if (socket := _socket(world, rng)) is not None:
        socket.deaf = True
        socket.peer.deaf = socket.peer.deaf or rng.random() < 0.6
        if rng.random() < 0.3:
            # A timeout of the kernel's, in the end.
            world.loop.call_later(rng.uniform(1.0, 20.0), socket.break_off)


@_fault("stall")
def _stall(world: World, rng: random.Random) -> None:
    """Out of range, for a moment or longer: what is said arrives afterwards."""
    way = _way(world, rng)
    way.stalled_until = world.loop.time() + rng.choice((rng.uniform(0.05, 1.0), rng.uniform(1, 5)))


@_fault("unreachable")
def _unreachable(world: World, rng: random.Random) -> None:
    """Connections break, and no other can be made for a while."""
    wearer = _wearer(world, rng)
    wearer.unreachable_until = world.loop.time() + rng.uniform(0.5, 6.0)
    for socket in wearer.sockets:
        socket.deaf = socket.peer.deaf = True


@_fault("slow link")
def _slow_link(world: World, rng: random.Random) -> None:
    way = _way(world, rng)
    before_Bps, way.rate_Bps = way.rate_Bps, max(way.rate_Bps / rng.uniform(3, 30), 1000.0)
    world.loop.call_later(rng.uniform(0.5, 4.0), setattr, way, "rate_Bps", before_Bps)


# The edge.


def _kill(world: World, rng: random.Random, **how: bool) -> None:
    world.spot.kill(
        silently=how.get("silently", rng.random() < 0.3),
        keep_store=how.get("keep_store", True),
        power_cut=how.get("power_cut", False),
        down_s=rng.choice((0.05, rng.uniform(0.05, 4.0))),
    )


@_fault("edge killed")
def _killed(world: World, rng: random.Random) -> None:
    _kill(world, rng)


@_fault("edge and store lost")
def _lost(world: World, rng: random.Random) -> None:
    _kill(world, rng, keep_store=False)


@_fault("power cut")
def _power_cut(world: World, rng: random.Random) -> None:
    _kill(world, rng, silently=True, power_cut=True)


@_fault("drain")
def _drain(world: World, rng: random.Random) -> None:
    world.spot.drain(rng.uniform(0.05, 2.0))


@_fault("eviction")
def _eviction(world: World, rng: random.Random) -> None:
    """Another client comes whose model takes the room, and may leave soon."""
    world.visit(rng)


@_fault("forgotten")
def _forgotten(world: World, rng: random.Random) -> None:
    """A client's device has its weights wiped."""
    if (life := world.spot.life) is not None:
        life.context.run(forget, life.box, _wearer(world, rng).device.id)


@_fault("pruned")
def _pruned(world: World, rng: random.Random) -> None:
    """The operator makes room."""
    if (life := world.spot.life) is not None:
        left_bytes = rng.choice((0, rng.randrange(life.box.config.memory_bytes)))
        life.context.run(prune, life.box, left_bytes)


@_fault("disk full")
def _disk_full(world: World, rng: random.Random) -> None:
    if (life := world.spot.life) is not None:
        life.disk_full = True
        world.loop.call_later(rng.uniform(0.1, 5.0), setattr, life, "disk_full", False)


@_fault("slow edge")
def _slow_edge(world: World, rng: random.Random) -> None:
    if (life := world.spot.life) is not None:
        life.slowness = rng.choice((10.0, 300.0, 1e5))
        world.loop.call_later(rng.uniform(0.2, 5.0), setattr, life, "slowness", 1.0)


@_fault("slow disk")
def _slow_disk(world: World, rng: random.Random) -> None:
    if (life := world.spot.life) is not None:
        life.disk_slowness = rng.choice((30.0, 1000.0))
        world.loop.call_later(rng.uniform(0.2, 3.0), setattr, life, "disk_slowness", 1.0)


@_fault("worker death")
def _worker_death(world: World, rng: random.Random) -> None:
    if (life := world.spot.life) is not None:
        for worker in list(life.workers):
            if rng.random() < 0.8:
                life.context.run(worker.die)
        if rng.random() < 0.3:
            # So that the one that takes its place dies too.
            world.loop.call_later(rng.uniform(0.01, 0.3), _worker_death, world, rng)


@_fault("no workers")
def _no_workers(world: World, rng: random.Random) -> None:
    if (life := world.spot.life) is not None:
        life.no_workers = True
        world.loop.call_later(rng.uniform(0.2, 4.0), setattr, life, "no_workers", False)
        if rng.random() < 0.5:
            for worker in list(life.workers):
                life.context.run(worker.die)


# Clocks.


@_fault("client's clock jumps")
def _client_jumps(world: World, rng: random.Random) -> None:
    seconds = rng.choice((rng.uniform(0.1, 3.0), rng.uniform(3.0, 4000.0)))
    world.jumped_s += seconds
    _wearer(world, rng).loop.jump(seconds)


@_fault("edge's clock jumps")
def _edge_jumps(world: World, rng: random.Random) -> None:
    if (life := world.spot.life) is not None:
        life.loop.jump(rng.choice((rng.uniform(0.1, 3.0), rng.uniform(3.0, 4000.0))))


# Messages.


def _tamper(
    world: World,
    rng: random.Random,
    make: Callable[[random.Random], Tamper],
) -> None:
    """What this client or what the edge says to it is changed from now on, for a while."""
    world.lies = True
    wearer, direction = _wearer(world, rng), rng.choice(("up", "down"))
    wearer.tamper(direction, partial(make, rng))
    world.loop.call_later(rng.uniform(0.1, 3.0), wearer.leave_alone)


def _message(frame: bytes) -> messages.Message | None:
    """The message that a frame is, if it is a whole one."""
    try:
        return Decoder(DEFAULT_LIMITS).feed(frame)
    except ProtocolError:
        return None


@_fault("duplicates")
def _duplicates(world: World, rng: random.Random) -> None:
    def make(rng: random.Random) -> Tamper:
        share = rng.choice((0.02, 0.2))

        def tamper(frame: bytes) -> list[bytes]:
            twice = rng.random() < share and _message(frame) is not None
            return [frame, frame] if twice else [frame]

        return Tamper(tamper)

    _tamper(world, rng, make)


@_fault("reordering")
def _reordering(world: World, rng: random.Random) -> None:
    def make(rng: random.Random) -> Tamper:
        share, kept = rng.choice((0.02, 0.2)), list[bytes]()

        def tamper(frame: bytes) -> list[bytes]:
            if _message(frame) is None:
                return [frame]
            if kept:
                return [frame, kept.pop()]
            if rng.random() < share:
                kept.append(frame)
                return []
            return [frame]

        return Tamper(tamper, kept)

    _tamper(world, rng, make)


@_fault("corrupt chunks")
def _corrupt(world: World, rng: random.Random) -> None:
    """Bits of weights change on their way up, which only their digest tells."""
    world.spoiled = True

    def make(rng: random.Random) -> Tamper:
        share = rng.choice((0.05, 0.5))

        def tamper(frame: bytes) -> list[bytes]:
            said = _message(frame) if rng.random() < share else None
            if not isinstance(said, messages.Chunk):
                return [frame]
            payload = bytearray(said.payload)
            payload[rng.randrange(len(payload))] ^= 1 << rng.randrange(8)
            return [b"".join(encode(messages.Chunk(memoryview(payload))))]

        return Tamper(tamper)

    _tamper(world, rng, make)


@_fault("garbage")
def _garbage(world: World, rng: random.Random) -> None:
    """A frame that is no message, or one cut short."""

    def make(rng: random.Random) -> Tamper:
        def tamper(frame: bytes) -> list[bytes]:
            if rng.random() < 0.05:
                return [rng.choice((frame[:-1], b"", rng.randbytes(rng.randrange(40))))]
            return [frame]

        return Tamper(tamper)

    _tamper(world, rng, make)
