"""What may be asked of a box over HTTP, and by whom: the protocol, pairing, and being forgotten.

Until it is known whose connection it is, there is no session, no decoder, and no place taken.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
from functools import partial
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from ionn_edge.box import AGENT, Box
from ionn_edge.cache import forget
from ionn_edge.config import Config, format_bytes
from ionn_edge.doors.arrivals import frames_awaited
from ionn_edge.doors.devices import LOOPBACK, Device
from ionn_edge.doors.door import Guest
from ionn_edge.doors.frames import Pieces
from ionn_edge.doors.guard import Denied, Guard
from ionn_edge.doors.pace import Pace, PacedSocket
from ionn_edge.doors.pairing_desk import PairingDesk
from ionn_edge.doors.questions import end_connections
from ionn_edge.link import Link
from ionn_edge.machine.quota import Quota
from ionn_edge.outbox import CLOSE_TIMEOUT_S
from ionn_edge.storage.blobs import all_removed
from pairing.frames import MAX_FRAME_BYTES
from pairing.tls import peer_fingerprint
from wire import OLDEST_VERSION, VERSION

PATH, PAIR_PATH, FORGET_PATH, ABOUT_PATH = "/ionn", "/pair", "/forget", "/about"
log = logging.getLogger("ionn_edge")


class Routes:
    """The box's HTTP application. Without guard and desk it serves everybody."""

    def __init__(
        self, box: Box, guard: Guard | None = None, desk: PairingDesk | None = None
    ) -> None:
        self._box = box
        self._guard = guard
        self._desk = desk
        if desk is not None:
            # What a stolen token opened ends where its owner pairs anew.
            desk.renewed = lambda device: end_connections(box, device)

    def application(self) -> web.Application:
        app = web.Application(middlewares=[self._screen], client_max_size=1024)
        app.on_response_prepare.append(_say_less)
        app.router.add_get("/", self._describe)
        app.router.add_get(PATH, self._converse)
        app.router.add_get(PAIR_PATH, self._pair)
        app.router.add_post(FORGET_PATH, self._forget)
        app.router.add_get(ABOUT_PATH, self._about)
        return app

    @web.middleware
    async def _screen(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        # Any web page could otherwise have its visitor's browser talk to an edge on loopback,
        # under its own name or, once that name leads to loopback, under the edge's.
        if "Origin" in request.headers or (self._guard is None and not _is_plain(request.host)):
            return _refused(403, "an edge does not talk to browsers")
        try:
            return await handler(request)
        except Denied as denied:
            return _refused(denied.status, str(denied))

    async def _describe(self, _: web.Request) -> web.Response:
        fingerprint = None if self._guard is None else self._guard.identity.fingerprint
        response = web.json_response(public_description(self._box.config, fingerprint))
        response.force_close()
        return response

    def _device(self, request: web.Request) -> Device:
        """Whose request it is. Raises Denied."""
        if self._guard is None:
            return LOOPBACK
        encryption = request.get_extra_info("ssl_object")
        authorization = request.headers.getall("Authorization", [])
        return self._guard.device_of(peer_fingerprint(encryption), authorization)

    async def _converse(self, request: web.Request) -> web.StreamResponse:
        device = self._device(request)
        # A flood of pings that nobody counts would cost who sends it nothing: the link answers.
        socket = _socket(request, self._box.config.limits.max_frame_bytes, autoping=False)
        with contextlib.ExitStack() as stack:
            guard = self._guard
            quota = None if guard is None else stack.enter_context(guard.seat(device))
            await self._serve(request, socket, device, quota)
        if guard is not None:
            await guard.keep()
        return socket

    async def _serve(
        self,
        request: web.Request,
        socket: PacedSocket,
        device: Device,
        quota: Quota | None,
    ) -> None:
        guest = Guest.of(request.transport)
        if guest is not None:
            guest.admit()
        await socket.prepare(request)
        transport = request.transport
        if transport is None:
            return
        try:
            self._device(request)
        except Denied:
            # Unpaired or paired anew meanwhile, when its connections were looked for.
            transport.abort()
            return
        pieces = Pieces(self._box.config.limits.max_frame_bytes)
        rest = partial(self._box.rest_s, device)
        socket.pace = Pace(transport, pieces, rest, frames_awaited(transport)).attach()
        address = request.remote or "a client"
        where = address if device is LOOPBACK else f"{device.name} at {address}"
        link = Link(self._box, socket, transport, where, device, quota)
        try:
            await link.serve()
        except Exception:
            # The connection's one safety net: a bug here ends this client's connection only.
            log.exception("closed a connection after an error of our own")
            transport.abort()

    async def _pair(self, request: web.Request) -> web.StreamResponse:
        if self._desk is None:
            raise Denied(404, "this edge is unpaired: it serves whoever is on its machine")
        # aiohttp's limit is the first length that is too much.
        socket = _socket(request, MAX_FRAME_BYTES + 1, autoping=True)
        guest = Guest.of(request.transport)
        if guest is None:
            raise Denied(400, "one attempt per connection")
        patience_s = self._box.config.pairing_timeout_s
        guest.wait(patience_s)
        await socket.prepare(request)
        await self._desk.serve(socket, lambda: guest.stay(patience_s))
        await socket.close()
        return socket

    async def _forget(self, request: web.Request) -> web.Response:
        device = self._device(request)
        freed_bytes = forget(self._box, device.id)
        await all_removed()
        log.info("%s had %s forgotten", device.name, format_bytes(freed_bytes))
        response = web.json_response({"freed_bytes": freed_bytes})
        response.force_close()
        return response

    async def _about(self, request: web.Request) -> web.Response:
        """For devices that are served: whoever would break out need not know where to try."""
        self._device(request)
        found = self._box.isolation
        told = None if found is None else {"holds": found.holds, "fails": found.fails}
        response = web.json_response({"isolation": told})
        response.force_close()
        return response


def public_description(config: Config, fingerprint: str | None) -> dict[str, Any]:
    """What strangers may know of a box: nothing of who uses it, or how much.

    fingerprint: its certificate's; None if it is unpaired.
    """
    return {
        "what": "an IONN edge box",
        "agent": AGENT,
        "protocol": {"path": PATH, "oldest": OLDEST_VERSION, "newest": VERSION},
        "name": config.name,
        "fingerprint": fingerprint,
        "paired_only": fingerprint is not None,
    }


def _socket(request: web.Request, most_bytes: int, autoping: bool) -> PacedSocket:
    """For an upgrade, if it is one. Raises Denied."""
    socket = PacedSocket(
        compress=False,
        autoping=autoping,
        heartbeat=None,
        timeout=CLOSE_TIMEOUT_S,
        max_msg_size=most_bytes,
    )
    if not socket.can_prepare(request):
        raise Denied(426, "this is an IONN edge; its protocol needs a WebSocket")
    return socket


def _refused(status: int, text: str) -> web.Response:
    headers = {401: {"WWW-Authenticate": "Bearer"}, 426: {"Upgrade": "websocket"}}.get(status)
    response = web.Response(status=status, text=f"{text}\n", headers=headers)
    response.force_close()
    return response


async def _say_less(_: web.Request, response: web.StreamResponse) -> None:
    response.headers["Server"] = "ionn"


def _is_plain(host: str) -> bool:
    """Whether a Host header gives an address, or none, and no name that others could own."""
    bare = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
    if bare in ("", "localhost"):
        return True
    try:
        ipaddress.ip_address(bare.strip("[]"))
    except ValueError:
        return False
    return True
