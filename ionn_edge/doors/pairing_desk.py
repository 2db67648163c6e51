"""Where devices become known: a code and a secret that are shown, each worth one guess.

The desk serves one device at a time. Any attempt that began and did not succeed spends code and
secret; after five in a row pairing is closed until the operator opens it. SPAKE2 takes about 10 ms,
in a thread: others are served meanwhile, but nobody else at the desk.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from aiohttp import WSMsgType, web

from ionn_edge.doors.devices import Device, RegistryError
from ionn_edge.doors.guard import Guard
from pairing.exchange import EdgeExchange
from pairing.frames import MAX_FRAME_BYTES, DeviceClaim, PairingFailed, Step
from pairing.identity import IdentityError
from pairing.tokens import token_digest
from pairing.uri import PairingUri, new_code, new_secret

MOST_FAILURES = 5
log = logging.getLogger("ionn_edge")


class PairingDesk:
    """What is shown now, and who is served.

    code: for people, secret: for pairing URIs; None while closed.
    changed: called whenever they are others. renewed: called with the id of a device whose former
    token, if it had one, is nothing any more.
    """

    def __init__(self, guard: Guard, name: str) -> None:
        self._guard = guard
        self._name = name
        self.changed: Callable[[], None] = _nothing
        self.renewed: Callable[[str], Awaitable[None]] = _nobody
        self._serving: EdgeExchange | None = None
        self.failures = 0
        self.code: str | None = None
        self.secret: str | None = None
        self._renew()

    @property
    def fingerprint(self) -> str:
        return self._guard.identity.fingerprint

    def uri(self, host: str, port: int) -> str | None:
        """What to type, or to look at with a camera; None while closed."""
        if self.secret is None:
            return None
        return str(PairingUri(host, port, self.fingerprint, self.secret))

    def open(self) -> None:
        """Take pairings again, with a new code and secret if there are none."""
        self.failures = 0
        if self.code is None:
            self._renew()

    def begin(self) -> EdgeExchange:
        """Serve one attempt, to be followed by `ended`. Raises PairingFailed if that cannot be."""
        if self._serving is not None:
            raise PairingFailed("busy")
        if self.code is None or self.secret is None:
            raise PairingFailed("closed")
        self._serving = EdgeExchange(self._guard.identity, self._name, self.code, self.secret)
        return self._serving

    def ended(self, succeeded: bool) -> None:
        """The attempt is over."""
        exchange, self._serving = self._serving, None
        if succeeded:
            self.failures = 0
            self._renew()
        elif exchange is not None and exchange.begun:
            self.failures += 1
            log.warning("a pairing attempt failed (%d of %d)", self.failures, MOST_FAILURES)
            if self.failures < MOST_FAILURES:
                self._renew()
            else:
                self.code = self.secret = None
                log.warning("pairing is closed; `ionn edge pair` opens it again")
                self.changed()

    def _renew(self) -> None:
        self.code, self.secret = new_code(), new_secret()
        self.changed()

    async def serve(self, socket: web.WebSocketResponse, begun: Callable[[], None]) -> None:
        """One connection's attempt. `begun` is called once it costs a guess: few ever get there.

        Whatever goes wrong is told to the device, if it listens, and is no error here.
        """
        try:
            frame = await _frame(socket)
            exchange = self.begin()
        except PairingFailed as failure:
            await _tell(socket, failure.frame)
            return
        succeeded = False
        try:
            succeeded = await self._converse(socket, exchange, frame, begun)
        except PairingFailed as failure:
            # Who is told that it was wrong goes and reads the next code: there is none.
            closes = exchange.begun and self.failures + 1 >= MOST_FAILURES
            told = PairingFailed("closed") if closes and failure.frame is not None else failure
            await _tell(socket, told.frame)
        finally:
            self.ended(succeeded)

    async def _converse(
        self,
        socket: web.WebSocketResponse,
        exchange: EdgeExchange,
        frame: bytes,
        begun: Callable[[], None],
    ) -> bool:
        step = await _taken(exchange, frame)
        begun()
        while True:
            if isinstance(step.store, DeviceClaim):
                await self._store(step.store)
                # The device is known from here on, whether or not it hears so.
                await _tell(socket, exchange.stored())
                return True
            await _tell(socket, step.send)
            step = await _taken(exchange, await _frame(socket))

    async def _store(self, claim: DeviceClaim) -> None:
        device = Device(claim.fingerprint, claim.name)
        try:
            await self._guard.pair(device, claim.certificate, token_digest(claim.token))
        except IdentityError as error:
            raise PairingFailed("malformed") from error
        except RegistryError as error:
            log.error("a pairing was not kept: %s", error)
            raise PairingFailed("storage") from error
        await self.renewed(device.id)


def _nothing() -> None:
    pass


async def _nobody(_: str) -> None:
    pass


async def _frame(socket: web.WebSocketResponse) -> bytes:
    """The next frame. Raises PairingFailed if there is none, or one of another kind."""
    said = await socket.receive()
    if said.type is not WSMsgType.BINARY or len(said.data) > MAX_FRAME_BYTES:
        raise PairingFailed("malformed")
    return bytes(said.data)


async def _taken(exchange: EdgeExchange, frame: bytes) -> Step:
    """What follows a frame. Raises PairingFailed.

    Not left before it is over, even when it is cancelled: until then it is not known whether it was
    a guess, and another attempt would be a second one with the same code.
    """
    taking = asyncio.ensure_future(asyncio.to_thread(exchange.receive, frame))
    try:
        return await asyncio.shield(taking)
    finally:
        await asyncio.wait([taking])


async def _tell(socket: web.WebSocketResponse, frame: bytes | None) -> None:
    if frame is not None and not socket.closed:
        # Who does not listen is noticed by what it does not say next.
        with contextlib.suppress(OSError):
            await socket.send_bytes(frame)
