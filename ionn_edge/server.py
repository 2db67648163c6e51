"""Sockets and signals: one aiohttp application round one box."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

from aiohttp import web

from ionn_edge.arrivals import WholeFrames
from ionn_edge.box import AGENT, Box
from ionn_edge.calibrate import calibrated
from ionn_edge.config import Config
from ionn_edge.link import CLOSE_TIMEOUT_S, Link
from ionn_edge.opening import learn_graphs
from wire import OLDEST_VERSION, VERSION

PATH = "/ionn"
log = logging.getLogger("ionn_edge")


def application(box: Box) -> web.Application:
    """The routes: the protocol at /ionn, and what this is at /."""

    async def describe(_: web.Request) -> web.Response:
        return web.json_response(description(box))

    async def converse(request: web.Request) -> web.StreamResponse:
        return await _converse(box, request)

    app = web.Application()
    app.router.add_get("/", describe)
    app.router.add_get(PATH, converse)
    return app


def description(box: Box) -> dict[str, Any]:
    """What this box is, as plain data."""
    config = box.config
    return {
        "what": "an IONN edge box",
        "agent": AGENT,
        "protocol": {"path": PATH, "oldest": OLDEST_VERSION, "newest": VERSION},
        "device": config.device,
        "device_name": box.device_name,
        "threads": config.threads,
        "memory_bytes": config.memory_bytes,
        "used_bytes": box.store.used_bytes,
        "clients": box.served,
    }


async def _converse(box: Box, request: web.Request) -> web.StreamResponse:
    if "Origin" in request.headers:
        # Any web page could otherwise have its visitor's browser talk to an edge on loopback.
        raise web.HTTPForbidden(text="an edge does not talk to browsers\n")
    ws = web.WebSocketResponse(
        compress=False,
        autoping=True,
        heartbeat=None,
        timeout=CLOSE_TIMEOUT_S,
        max_msg_size=box.config.limits.max_frame_bytes,
    )
    if not ws.can_prepare(request):
        raise web.HTTPUpgradeRequired(
            headers={"Upgrade": "websocket"},
            text="this is an IONN edge; its protocol needs a WebSocket\n",
        )
    await ws.prepare(request)
    transport = request.transport
    assert transport is not None
    WholeFrames.attach(transport)
    link = Link(box, ws, transport, request.remote or "a client")
    try:
        await link.serve()
    except Exception:
        # The connection's one safety net: a bug here ends this client's connection only.
        log.exception("closed a connection after an error of our own")
        transport.abort()
    return ws


@contextlib.asynccontextmanager
async def serving(box: Box, listener: socket.socket) -> AsyncIterator[None]:
    """Clients can connect inside; at the end running queries are finished and all said goodbye."""
    runner = web.AppRunner(application(box), access_log=None, shutdown_timeout=CLOSE_TIMEOUT_S)
    await runner.setup()
    site = web.SockSite(runner, listener)
    await site.start()
    preparing = asyncio.create_task(_prepare(box))
    try:
        yield
    finally:
        preparing.cancel()
        await asyncio.gather(preparing, return_exceptions=True)
        await site.stop()
        box.drain()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(box.empty.wait(), box.config.drain_s + CLOSE_TIMEOUT_S)
        await runner.cleanup()


async def _prepare(box: Box) -> None:
    await learn_graphs(box)
    await box.verify_all()


async def serve(
    config: Config, listener: socket.socket, started: Callable[[Box, tuple[str, int]], None]
) -> None:
    """Serve on a bound socket until SIGTERM or SIGINT; then finish running queries and stop.

    `started` is called once, when clients can connect. Raises StorageError or EngineError.
    """
    box = Box(config)
    box.open()
    try:
        await box.nursery.start()
        await box.probe()
        box.predictor = await calibrated(box)
        stop = _stop_signal()
        async with serving(box, listener):
            started(box, listener.getsockname()[:2])
            await stop.wait()
    finally:
        await box.nursery.close()
        box.close()


def _stop_signal() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        # A second signal does not wait for anybody.
        loop.add_signal_handler(number, lambda: os._exit(1) if stop.is_set() else stop.set())
    return stop


def run(config: Config, started: Callable[[Box, tuple[str, int]], None]) -> None:
    """Bind and serve, on uvloop where there is one. Raises OSError, StorageError, EngineError."""
    listener = bound(config.bind, config.port)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner, listener:
        runner.run(serve(config, listener, started))


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


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
