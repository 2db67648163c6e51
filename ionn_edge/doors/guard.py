"""Who may come in, and with how many connections and queries: a paired box's memory of devices.

Knows certificates and tokens, no sockets. What it refuses is refused before anything is made.
"""

from __future__ import annotations

import contextlib
import logging
import ssl
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from ionn_edge.config import Config
from ionn_edge.doors.devices import Device, Paired, Registry, RegistryError
from ionn_edge.machine.quota import Quota
from pairing.identity import Identity
from pairing.tls import server_context, trust
from pairing.tokens import same_token

# A connection every second would otherwise be a write every second.
KEEP_EVERY_S = 60.0
log = logging.getLogger("ionn_edge")


class Denied(Exception):
    """Not to be let in. `status` is HTTP's; the text says what to do."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Guard:
    """The box's identity, its paired devices, and what each has of the box at the moment.

    context: for encryption with whom is paired now, and with whom would pair.
    """

    identity: Identity
    context: ssl.SSLContext

    def __init__(self, config: Config, clock: Callable[[], float] = time.time) -> None:
        self.registry = Registry(config.state)
        self._config = config
        self._clock = clock
        self._seats: Counter[str] = Counter()
        self._quotas: dict[str, Quota] = {}
        self._kept_at = 0.0

    @property
    def state(self) -> Path:
        return self._config.state

    def open(self) -> None:
        """Read who this is, and who is known. Raises IdentityError, RegistryError."""
        self.identity = Identity.load(self.state, self._config.name)
        self.registry.open()
        self._trust()

    def _trust(self) -> None:
        certificates = [paired.certificate for paired in self.registry.all()]
        self.context = server_context(self.identity, certificates)

    def device_of(self, fingerprint: str | None, authorization: list[str]) -> Device:
        """Whose connection it is, by its certificate and Authorization headers. Raises Denied."""
        if fingerprint is None:
            raise Denied(401, "this edge serves paired devices only: pair with it first: ionn pair")
        paired = self.registry.get(fingerprint)
        if paired is None:
            raise Denied(403, "this device is not paired with this edge any more: pair again")
        kind, _, token = (authorization[0] if len(authorization) == 1 else "").partition(" ")
        known = same_token(token.strip(), paired.token_digest)
        if kind.lower() != "bearer" or not known:
            raise Denied(401, "this is not the token of this device's pairing: pair again")
        return paired.device

    @contextlib.contextmanager
    def seat(self, device: Device) -> Iterator[Quota]:
        """One of the device's connections, as long as it lasts. Raises Denied."""
        most = self._config.device_clients
        if self._seats[device.id] >= most:
            raise Denied(429, f"this device has {most} connections already: close one of them")
        self._seats[device.id] += 1
        quota = self._quotas.setdefault(
            device.id, Quota(self._config, self._devices_here, self._quotas.values)
        )
        self.registry.seen(device.id, self._clock())
        try:
            yield quota
        finally:
            self.registry.seen(device.id, self._clock())
            self._seats[device.id] -= 1
            # The quota stays: or who connects anew has a full bucket.

    def _devices_here(self) -> int:
        return sum(count > 0 for count in self._seats.values())

    async def pair(self, device: Device, certificate: bytes, token_digest: str) -> None:
        """Let it in from now on, and with this token only.

        Raises RegistryError, and IdentityError for a certificate that TLS does not take: kept, it
        would keep the box from ever starting again.
        """
        trust(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), certificate)
        await self.registry.add(Paired(device, certificate, token_digest, self._clock()))
        self._trust()
        log.info("paired with %s (%s)", device.name, device.id[:12])

    async def unpair(self, device: Device) -> None:
        """Let it in no more, from this moment on. Raises RegistryError if the file still would."""
        try:
            await self.registry.remove(device.id)
        finally:
            self._quotas.pop(device.id, None)
            self._trust()
            log.info("unpaired %s (%s)", device.name, device.id[:12])

    async def keep(self, at_last: bool = False) -> None:
        """Write when devices were seen, now and then and at last."""
        now = self._clock()
        if self.registry.unkept and (at_last or now >= self._kept_at + KEEP_EVERY_S):
            self._kept_at = now
            try:
                await self.registry.keep()
            except RegistryError as error:
                # Nobody's rights depend on it.
                log.warning("when devices were seen is not kept: %s", error)
