"""Pairs this device with a box: the sockets and files round the exchange of the pairing package.

What is kept before the box has confirmed is on probation (`KnownBox.confirmed`); where that last
word gets lost, the next connection tells, and it is tried here at once.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import time
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import aiohttp

from ionn_client.boxes.access import Access, http_session
from ionn_client.boxes.address import EdgeAddress
from ionn_client.boxes.connection import Connection, cause, hung_up
from ionn_client.boxes.known_boxes import KnownBox, KnownBoxes
from ionn_client.errors import CertificateChanged, EdgeUnreachable, PairingError
from pairing.exchange import ClientExchange
from pairing.frames import MAX_FRAME_BYTES, BoxGrant, How, PairingFailed
from pairing.identity import Identity, checked_name, fingerprint_of, from_der
from pairing.private import StateError
from pairing.tls import client_context
from pairing.uri import PairingUri, parse_code

PATH = "/pair"
# For each step. The box gives an attempt 30 s.
TIMEOUT_S = 10.0
TROUBLES = (aiohttp.ClientError, OSError, TimeoutError)
ENDS = (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSING, aiohttp.WSMsgType.CLOSED,
        aiohttp.WSMsgType.ERROR)  # fmt: skip
ADVICE = {
    "code": "This code is spent: the box shows a new one now. Read that, and pair again",
    "secret": "This URI is spent: the box shows a new one now. Take that, and pair again",
}


@dataclass(frozen=True, slots=True)
class Attempt:
    """How to pair: with whom, by what, and what to call each other.

    box: the certificate's fingerprint, None where only the code says who it is. called: the box's
    name here, None for its own. device: what the box is to call this device, None for its host
    name.
    """

    address: EdgeAddress
    how: How
    password: str = field(repr=False)
    box: str | None = None
    called: str | None = None
    device: str | None = None

    @classmethod
    def by_uri(cls, uri: PairingUri) -> Attempt:
        return cls(EdgeAddress(uri.host, uri.port), "secret", uri.secret, uri.box)

    @classmethod
    def by_code(cls, address: EdgeAddress, code: str) -> Attempt:
        """Raises ValueError for a code that cannot be one, which costs no guess."""
        return cls(address, "code", parse_code(code))


async def pair(attempt: Attempt, state: Path | None = None) -> KnownBox:
    """The box, once both sides know each other and have kept it. Worth one guess.

    Raises PairingError if they do not, EdgeUnreachable if no box answers, and ValueError for a
    name that cannot be one.
    """
    boxes = KnownBoxes(state)
    device = checked_name(attempt.device or default_device_name())
    if attempt.called is not None:
        checked_name(attempt.called)
    try:
        identity = await asyncio.to_thread(Identity.load, boxes.directory, device)
        async with _telling(attempt), _opened(attempt) as opened:
            return await _exchange(opened, attempt, boxes, identity, device)
    except StateError as error:
        raise PairingError(str(error)) from error
    except _NotConfirmed as error:
        return await _settled(error.box, boxes)


def default_device_name() -> str:
    """This machine's host name, if it is a name."""
    try:
        return checked_name(socket.gethostname().partition(".")[0])
    except ValueError:
        return "device"


def no_address(name: str, hosts: Collection[str] = ()) -> str:
    """What a box calls itself, so that nobody takes it for the address of another.

    hosts: names in other boxes' addresses, in lower case.
    """
    bare = re.sub(r"[.:/@\[\]]", "-", name).strip("- ")
    named = any(map(str.isalpha, bare)) and bare.lower() not in {"localhost", *hosts}
    return bare if named else f"box {bare}".encode()[:60].decode(errors="ignore").strip()


class _NotConfirmed(Exception):
    """The box may or may not have kept its half."""

    def __init__(self, box: KnownBox) -> None:
        super().__init__(box.name)
        self.box = box


@asynccontextmanager
async def _opened(attempt: Attempt) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """Encrypted with whoever answers, who must have the URI's certificate if there is a URI."""
    url = Access(attempt.address).url(PATH).replace("http://", "https://", 1)
    async with (
        http_session(attempt.box, aiohttp.ClientTimeout(total=TIMEOUT_S)) as http,
        http.ws_connect(
            url, ssl=client_context(None, None), compress=0, max_msg_size=MAX_FRAME_BYTES
        ) as opened,
    ):
        try:
            yield opened
        finally:
            await hung_up(opened)


async def _exchange(
    opened: aiohttp.ClientWebSocketResponse,
    attempt: Attempt,
    boxes: KnownBoxes,
    identity: Identity,
    device: str,
) -> KnownBox:
    shown = cast(ssl.SSLObject, opened.get_extra_info("ssl_object"))
    der = shown.getpeercert(binary_form=True) or b""
    certificate, seen = from_der(der).decode(), fingerprint_of(der)
    exchange = ClientExchange(identity, device, seen, attempt.how, attempt.password)
    grant = await _granted(opened, exchange)
    others = [each for each in await asyncio.to_thread(boxes.all) if each.fingerprint != seen]
    hosts = {EdgeAddress.parse(each.address).host for each in others}
    box = KnownBox(
        name=attempt.called or no_address(grant.name, hosts),
        address=str(attempt.address),
        certificate=certificate,
        token=grant.token,
        paired_at_s=max(time.time(), 0.0),
    )
    box = await asyncio.to_thread(boxes.add, box)
    try:
        await opened.send_bytes(exchange.stored())
        exchange.receive(await _frame(opened))
    except (PairingFailed, *TROUBLES) as error:
        raise _NotConfirmed(box) from error
    await asyncio.to_thread(boxes.confirm, box)
    return replace(box, confirmed=True, quarantined=None)


async def _granted(opened: aiohttp.ClientWebSocketResponse, exchange: ClientExchange) -> BoxGrant:
    """What the box gives to who knows its code. Raises PairingFailed."""
    frame: bytes | None = exchange.start()
    try:
        while True:
            if frame is not None:
                await opened.send_bytes(frame)
            step = exchange.receive(await _frame(opened))
            if isinstance(step.store, BoxGrant):
                return step.store
            frame = step.send
    except PairingFailed as failure:
        if failure.frame is not None:
            await opened.send_bytes(failure.frame)
        raise


async def _frame(opened: aiohttp.ClientWebSocketResponse) -> bytes:
    """Raises ConnectionError if there is no other, TimeoutError if it takes too long."""
    async with asyncio.timeout(TIMEOUT_S):
        said = await opened.receive()
    if said.type is aiohttp.WSMsgType.BINARY:
        return bytes(said.data)
    if said.type in ENDS:
        raise ConnectionError("the box ended the connection")
    raise PairingFailed("malformed")


@asynccontextmanager
async def _telling(attempt: Attempt) -> AsyncIterator[None]:
    """Whatever goes wrong, in words for the person at this device."""
    where = attempt.address
    try:
        yield
    except PairingFailed as failure:
        raise PairingError(_advice(attempt, failure)) from failure
    except aiohttp.ServerFingerprintMismatch as error:
        raise CertificateChanged(
            f"who answers at {where} is not the box that the URI names. Nothing was sent. Either"
            " the URI is an old one or of another box, or somebody stands in between"
        ) from error
    except aiohttp.ClientConnectorSSLError as error:
        raise PairingError(
            f"{where} answers, but not encrypted: an edge that was started with --unpaired pairs"
            " with nobody"
        ) from error
    except TROUBLES as error:
        raise EdgeUnreachable(f"no pairing with {where}: {cause(error, TIMEOUT_S)}") from error


def _advice(attempt: Attempt, failure: PairingFailed) -> str:
    match failure.reason:
        case "wrong":
            return f"not paired: {failure}. {ADVICE[attempt.how]}"
        case "closed":
            return (
                "not paired: too many attempts failed in a row, and the box takes no pairings now."
                " `ionn edge pair` there opens it again, and shows a new code"
            )
        case _:
            return f"not paired: {failure}"


async def _settled(box: KnownBox, boxes: KnownBoxes) -> KnownBox:
    """Ask the box itself whether it kept its half, as any later connection would."""
    access = await asyncio.to_thread(Access.to, box.name, boxes.directory)
    try:
        async with access.http() as http:
            await Connection.open(http, access)
    except PairingError as error:
        raise PairingError(
            "not paired: the box did not keep its half, and this device forgets its own. Pair again"
            " with what the box shows now"
        ) from error
    except ConnectionError as error:
        raise PairingError(
            f"the box did not confirm, and does not answer now ({error}). It may know this device"
            f" or not: the next connection to {box.name!r} will tell; or pair again"
        ) from error
    return replace(box, confirmed=True, quarantined=None)
