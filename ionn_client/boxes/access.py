"""How an edge is reached: in the clear on this very machine, or by what pairing left.

The pinned certificate is the only one that TLS takes, so whoever else answers gets neither the
token nor a byte of the model: the handshake ends before either is sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from pathlib import Path

import aiohttp

from ionn_client.boxes.address import EdgeAddress
from ionn_client.boxes.known_boxes import KnownBox, KnownBoxes
from ionn_client.errors import CertificateChanged, EdgeQuarantined, NotPaired, PairingError
from pairing.identity import FILE as IDENTITY_FILE
from pairing.identity import Identity, short
from pairing.private import StateError
from pairing.tls import client_context

DIAGNOSIS_TIMEOUT_S = 2.0
REQUEST_TIMEOUT_S = 10.0
CLOSING_TURNS = 50
BROKEN = frozenset({errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN})
PAIR_AGAIN = "To use it again, pair again: `ionn pair` with what `ionn edge pair` shows there"
# What a box says that knows who is there, and does not want that device.
UNWANTED = frozenset({401, 403})
# The same in TLS (RFC 8446, section 6.2), from servers that get to say it: asyncio's do not.
ALERTS = ("ALERT_UNKNOWN_CA", "ALERT_BAD_CERTIFICATE", "ALERT_CERTIFICATE_UNKNOWN")


@asynccontextmanager
async def http_session(
    pin: str | None, patience: aiohttp.ClientTimeout, *, here: bool = False
) -> AsyncIterator[aiohttp.ClientSession]:
    """Without redirects, which no edge makes; at the end nothing is left to the event loop.

    pin: the fingerprint of the one certificate that any socket may show; None for any.
    here: whether only this very machine is talked to.
    """
    sockets: list[socket.socket] = []

    def made(where: aiohttp.AddrInfoType) -> socket.socket:
        if here and not is_loopback(str(where[4][0])):
            # A resolver may know "localhost." from the network.
            raise OSError(errno.EADDRNOTAVAIL, f"that name leads to {where[4][0]}, not to here")
        sockets[:] = [*filter(_is_open, sockets), socket.socket(*where[:3])]
        return sockets[-1]

    tracing = aiohttp.TraceConfig()
    tracing.on_request_redirect.append(_no_redirect)
    checked = True if pin is None else aiohttp.Fingerprint(bytes.fromhex(pin))
    connector = aiohttp.TCPConnector(ssl=checked, socket_factory=made)
    try:
        async with aiohttp.ClientSession(
            connector=connector, timeout=patience, trace_configs=[tracing]
        ) as http:
            yield http
    finally:
        # TLS has a goodbye of its own, which nobody here waits for.
        for link in filter(_is_open, sockets):
            with contextlib.suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)
        for _ in range(CLOSING_TURNS):
            if not any(map(_is_open, sockets)):
                break
            await asyncio.sleep(0)


class TurnedAway(ConnectionError):
    """The edge takes others and not this device, so it seems. One that is very busy, and drops
    whom it does not know yet, looks the same for a while."""


@dataclass(slots=True)
class Access:
    """Where an edge is, and, if it is a known box, what opens its doors.

    box and context go together; neither is for an unpaired edge on loopback.
    """

    address: EdgeAddress
    box: KnownBox | None = None
    context: ssl.SSLContext | None = field(default=None, compare=False)
    boxes: KnownBoxes | None = field(default=None, compare=False)

    @classmethod
    def to(cls, edge: str, state: Path | None = None) -> Access:
        """To the known box of that name or address, or to an unpaired edge on this machine.

        state: the client's state directory; None for the usual one. Raises ValueError for what is
        neither name nor address, NotPaired for an edge elsewhere that is not known, and
        PairingError if what is known cannot be read.
        """
        boxes = KnownBoxes(state)
        box = boxes.find(edge)
        if box is not None:
            return cls(EdgeAddress.parse(box.address), box, _context(boxes.directory, box), boxes)
        address = EdgeAddress.parse(edge)
        if not is_loopback(address.host):
            raise NotPaired(
                f"no box is known by {edge!r}{boxes.near(edge)}, and only a box on this machine"
                " may be unpaired: pair first, by `ionn pair URI` with the URI that the box shows,"
                " or by `ionn discover` and `ionn pair NAME` with its code"
            )
        return cls(address)

    def __str__(self) -> str:
        return str(self.address) if self.box is None else f"{self.box.name} ({self.address})"

    def url(self, path: str) -> str:
        """What to ask for `path`, which begins with a slash."""
        host = f"[{self.address.host}]" if ":" in self.address.host else self.address.host
        return f"http{'' if self.box is None else 's'}://{host}:{self.address.port}{path}"

    @property
    def headers(self) -> dict[str, str]:
        """What a request shows: only ever sent to who has the pinned certificate."""
        return {} if self.box is None else {"Authorization": f"Bearer {self.box.token}"}

    @property
    def tls(self) -> ssl.SSLContext | bool:
        """As aiohttp's `ssl` takes it."""
        return True if self.context is None else self.context

    def http(
        self, timeout: aiohttp.ClientTimeout | None = None
    ) -> AbstractAsyncContextManager[aiohttp.ClientSession]:
        """For requests to this edge only. Each socket's certificate is compared with the pin once
        more, whatever TLS made of it; an edge without one is on this machine, whatever DNS says."""
        pin = None if self.box is None else self.box.fingerprint
        patience = timeout or aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S)
        return http_session(pin, patience, here=self.box is None)

    def check_usable(self) -> None:
        """Raises EdgeQuarantined for a box that was caught lying."""
        if self.box is not None and self.box.confirmed and self.box.quarantined is not None:
            raise EdgeQuarantined(
                f"{self.box.name} is quarantined: {self.box.quarantined}. To use it all the same,"
                f" look what is wrong there, `ionn devices forget {self.box.name}`, and pair it"
                " again"
            )

    def quarantine(self, why: str) -> None:
        """Remember that this box lied; of an unpaired one nothing is remembered.

        Raises PairingError if that cannot be written.
        """
        if self.box is not None and self.boxes is not None:
            self.boxes.quarantine(self.box.fingerprint, why)

    async def explained(self, error: BaseException) -> Exception | None:
        """What a failure to connect says of trust, if anything, as what to raise in its place.

        A PairingError if no later attempt will go better: a box on probation is forgotten then.
        A TurnedAway if one might.
        """
        if self.box is None:
            refused = isinstance(error, aiohttp.ClientResponseError) or _cut_off(error)
            return await self._turned_away() if refused else None
        if isinstance(error, aiohttp.ClientConnectorSSLError):
            return ConnectionError("it answers, but not encrypted: that is no paired box")
        refusal = self._refusal(self.box, error)
        if refusal is None and _cut_off(error):
            turned_away = await self._turned_away()
            if turned_away is None or self.box.confirmed:
                return turned_away
            refusal = NotPaired(str(turned_away))
        if isinstance(refusal, NotPaired) and await self._paired_anew():
            return ConnectionError(f"{self.box.name} has been paired anew meanwhile")
        if isinstance(refusal, NotPaired) and not self.box.confirmed:
            await self.settle(known=False)
            return NotPaired(f"{self.box.name} did not keep its half of the pairing: pair again")
        return refusal

    async def _paired_anew(self) -> bool:
        """Whether another program has got another token since; it is the one shown from now on."""
        if self.box is None or self.boxes is None:
            return False
        now = await asyncio.to_thread(self.boxes.get, self.box.fingerprint)
        if now is None or now.token == self.box.token:
            return False
        self.box = now
        return True

    def _refusal(self, box: KnownBox, error: BaseException) -> PairingError | None:
        name = box.name
        if isinstance(error, (aiohttp.ClientConnectorCertificateError,
                              aiohttp.ServerFingerprintMismatch)):  # fmt: skip
            return CertificateChanged(
                f"who answers at {self.address} is not the box {name!r} that was paired: the"
                f" certificate is another than {short(box.fingerprint)}. Nothing was sent."
                " Either somebody stands in between, or the address is another machine's here, or"
                f" the box was set up anew: if you know that it was, `ionn devices forget {name}`"
                " and pair again"
            )
        unwanted = isinstance(error, aiohttp.ClientResponseError) and error.status in UNWANTED
        if unwanted or (isinstance(error, OSError) and any(map(str(error).count, ALERTS))):
            return NotPaired(
                f"{name} does not know this device any more: it was unpaired there. {PAIR_AGAIN}"
            )
        return None

    async def settle(self, *, known: bool) -> None:
        """The box has shown whether it kept its half of a pairing that was on probation."""
        if self.box is None or self.boxes is None or self.box.confirmed:
            return
        decide = self.boxes.confirm if known else self.boxes.refuse
        await asyncio.to_thread(decide, self.box)
        if known:
            self.box = replace(self.box, confirmed=True, quarantined=None)

    async def _turned_away(self) -> TurnedAway | None:
        """Whether a connection that ended without a word was ended because it was this device's:
        that is how TLS servers here leave those that they do not trust."""
        if not await self.answers_guests():
            return None
        if self.box is None:
            return TurnedAway("it takes paired devices only: `ionn pair URI`, as it shows the URI")
        return TurnedAway(
            f"{self.box.name} closes the door on this device, but not on others: it was probably"
            f" unpaired there. {PAIR_AGAIN}"
        )

    async def answers_guests(self) -> bool:
        """Whether a device that shows nothing hears who is there, encrypted; and if this is a known
        box, whether it is that one."""
        pin = None if self.box is None else self.box.certificate.encode()
        context = client_context(None, pin)
        url = self.url("/").replace("http://", "https://", 1)
        try:
            async with (
                asyncio.timeout(DIAGNOSIS_TIMEOUT_S),
                http_session(None, aiohttp.ClientTimeout(total=DIAGNOSIS_TIMEOUT_S)) as http,
                http.get(url, ssl=context, allow_redirects=False) as answer,
            ):
                return answer.status == 200
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
            return False


async def _no_redirect(*_: object) -> None:
    raise aiohttp.ClientError("it sends clients elsewhere, which no edge does")


def _is_open(link: socket.socket) -> bool:
    return link.fileno() != -1


def _cut_off(error: BaseException) -> bool:
    """The other side ended the connection once there was one."""
    if isinstance(error, aiohttp.ClientConnectorError):
        return False
    reset = isinstance(error, OSError) and error.errno in BROKEN
    return reset or isinstance(error, aiohttp.ServerDisconnectedError)


def is_loopback(host: str) -> bool:
    """Whether this machine alone can be meant."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost"


def _context(directory: Path, box: KnownBox) -> ssl.SSLContext:
    try:
        if not (directory / IDENTITY_FILE).exists():
            raise NotPaired(
                f"this device's identity in {directory} is gone, and with it what {box.name} knew"
                " it by: pair again"
            )
        return client_context(Identity.load(directory, "ionn device"), box.certificate.encode())
    except StateError as error:
        raise PairingError(str(error)) from error
