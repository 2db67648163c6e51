"""Sockets and signals: from a bound listener to a box that serves, and back."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ipaddress
import logging
import os
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import cast

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from ionn_edge.box import Box
from ionn_edge.calibration.calibrate import calibrated
from ionn_edge.config import Config
from ionn_edge.doors.announce import addresses, announced
from ionn_edge.doors.control import answering, claimed
from ionn_edge.doors.door import Door
from ionn_edge.doors.guard import Guard
from ionn_edge.doors.pairing_desk import PairingDesk
from ionn_edge.doors.questions import Questions
from ionn_edge.doors.routes import Routes
from ionn_edge.outbox import CLOSE_TIMEOUT_S
from ionn_edge.storage.admission import verify_all
from ionn_edge.storage.opening import learn_graphs
from ionn_edge.workers.isolation import Isolation, isolation

# Objects made, and looks at the younger ones, before one at each generation (see gc).
GARBAGE = 700, 4, 1000
# A thread that computes in Python gives the loop its turn after so long: by default 5 ms.
SWITCH_S = 0.0005
log = logging.getLogger("ionn_edge")


@dataclass(frozen=True, slots=True)
class Serving:
    """A box that clients can reach. address: where it listens. desk: None if it is unpaired."""

    box: Box
    address: tuple[str, int]
    desk: PairingDesk | None
    isolation: Isolation

    @property
    def reachable(self) -> tuple[str, int]:
        """The address for others on its network."""
        host, port = self.address
        return addresses(host)[0], port


@contextlib.asynccontextmanager
async def serving(
    box: Box,
    listener: socket.socket,
    guard: Guard | None = None,
    desk: PairingDesk | None = None,
) -> AsyncIterator[Door]:
    """Clients can connect inside; at the end running queries are finished and all said goodbye.

    Without a guard, everybody who reaches the listener is served.
    """
    app = Routes(box, guard, desk).application()
    runner = web.AppRunner(
        app, access_log=None, shutdown_timeout=CLOSE_TIMEOUT_S, logger=_http_log()
    )
    await runner.setup()
    http = cast(Callable[[], asyncio.Protocol], runner.server)

    def context() -> ssl.SSLContext | None:
        return None if guard is None else guard.context

    door = Door(box.config, http, context, lambda: bool(box.clients))
    door.listen(listener)
    tasks = [asyncio.create_task(door.accept(listener)), asyncio.create_task(_prepare(box))]
    try:
        yield door
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        listener.close()
        door.close()
        box.drain()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(box.empty.wait(), box.config.drain_s + CLOSE_TIMEOUT_S)
        await runner.cleanup()
        if guard is not None:
            await guard.keep(at_last=True)


def _http_log() -> logging.Logger:
    """aiohttp's, but for what strangers could fill a disk with: tracebacks of their nonsense."""
    http_log = logging.getLogger("ionn_edge.http")
    http_log.addFilter(_is_ours)
    return http_log


def _is_ours(record: logging.LogRecord) -> bool:
    return record.exc_info is None or not isinstance(record.exc_info[1], HttpProcessingError)


async def _prepare(box: Box) -> None:
    await learn_graphs(box)
    await verify_all(box)


async def serve(
    config: Config, listener: socket.socket, started: Callable[[Serving], None]
) -> None:
    """Serve on a bound socket until SIGTERM or SIGINT; then finish running queries and stop.

    `started` is called once, when clients can connect. Raises StorageError, EngineError, ValueError
    where workers cannot be shut in and others than this machine reach the socket, and, if devices
    pair with this box, ControlError, IdentityError or RegistryError.
    """
    with contextlib.ExitStack() as state:
        guard = desk = None
        if not config.unpaired:
            state.enter_context(claimed(config.state))
            guard = Guard(config)
            guard.open()
            desk = PairingDesk(guard, config.name)
        box = Box(config)
        box.open([] if guard is None else [each.device.id for each in guard.registry.all()])
        try:
            await box.nursery.start()
            await box.probe()
            address = listener.getsockname()[:2]
            box.isolation = shut_in = await _shut_in(box, address[0])
            box.predictor = await calibrated(box)
            await _serve(Serving(box, address, desk, shut_in), listener, guard, started)
        finally:
            await box.nursery.close()
            box.close()


async def _shut_in(box: Box, host: str) -> Isolation:
    """What workers are kept from. Raises ValueError if that is too little for who reaches it."""
    shut_in = await isolation(box.nursery, box.store.directory)
    if not shut_in.strong and not is_loopback(host) and not box.config.weak_isolation:
        raise ValueError(
            f"workers cannot be shut in on this machine ({shut_in}), so a device could break out"
            f" of its own: serve 127.0.0.1 only, or a network with --weak-isolation if you trust"
            " every device that you pair"
        )
    return shut_in


async def _serve(
    what: Serving,
    listener: socket.socket,
    guard: Guard | None,
    started: Callable[[Serving], None],
) -> None:
    stop = _stop_signal()
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(serving(what.box, listener, guard, what.desk))
        if guard is not None and what.desk is not None:
            questions = Questions(what.box, guard, what.desk, what.reachable)
            await stack.enter_async_context(answering(guard.state, questions.handlers()))
            if what.box.config.announce:
                announcing = asyncio.create_task(_announce(what, guard))
                stack.push_async_callback(_cancel, announcing)
        started(what)
        _spare_what_stays()
        await stop.wait()


async def _announce(what: Serving, guard: Guard) -> None:
    async with announced(what.box.config.name, *what.address, guard.identity.fingerprint):
        await asyncio.Event().wait()


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _stop_signal() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        # A second signal does not wait for anybody.
        loop.add_signal_handler(number, lambda: os._exit(1) if stop.is_set() else stop.set())
    return stop


def run(config: Config, started: Callable[[Serving], None]) -> None:
    """Bind and serve, on uvloop where there is one.

    Raises OSError, ValueError for an address that an unpaired box must not serve, and what
    `serve` raises.
    """
    listener = bound(config.bind, config.port)
    sys.setswitchinterval(SWITCH_S)
    _spare_what_stays()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner, listener:
        host = listener.getsockname()[0]
        if config.unpaired and not is_loopback(host):
            raise ValueError(
                f"--unpaired serves this machine only, and {host} is reached from others: bind"
                " 127.0.0.1, or leave --unpaired out and pair devices"
            )
        runner.run(serve(config, listener, started))


def _spare_what_stays() -> None:
    """Looking through all that was imported and made for garbage would keep everybody waiting.

    Young garbage is looked for often, which takes little each time, and all of it seldom.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GARBAGE)


def bound(host: str, port: int) -> socket.socket:
    """A socket that listens there. Raises OSError."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError:
        listener.close()
        raise
    return listener


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches that address."""
    return ipaddress.ip_address(host.partition("%")[0]).is_loopback


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
