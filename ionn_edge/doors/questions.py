"""What the operator of a running box may ask, as handlers for its control socket."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Mapping
from typing import Any

from ionn_edge.box import Box
from ionn_edge.cache import CacheQuestions, forget, store_rows
from ionn_edge.doors.control import ControlError, Handler
from ionn_edge.doors.devices import LOOPBACK, Paired, Registry, RegistryError
from ionn_edge.doors.guard import Guard
from ionn_edge.doors.pairing_desk import PairingDesk
from ionn_edge.storage.blobs import all_removed
from ionn_edge.storage.publishing import PublishingQuestions

# For the connections of a device that is unpaired to end: they are cut, but run code of ours.
LEAVE_TIMEOUT_S = 5.0


class Questions:
    """The handlers for one box. address: where others on its network reach it."""

    def __init__(self, box: Box, guard: Guard, desk: PairingDesk, address: tuple[str, int]) -> None:
        self._box = box
        self._guard = guard
        self._desk = desk
        self._address = address

    def handlers(self) -> Mapping[str, Handler]:
        return {
            "devices": self._devices,
            "unpair": self._unpair,
            "pair": self._pair,
            **CacheQuestions(self._box, self._device).handlers(),
            **PublishingQuestions(self._box, self._device).handlers(),
        }

    def _device(self, what: str) -> str:
        """An id; an unpaired box's device has one, too, which may have left something."""
        return what if what == LOOPBACK.id else the_one(self._guard.registry, what).device.id

    async def _devices(self, _: dict[str, Any]) -> list[dict[str, Any]]:
        connections = Counter(client.device.id for client in self._box.clients)
        held = {each["id"]: each["used_bytes"] for each in store_rows(self._box.store)["devices"]}
        rows = [row(paired) for paired in self._guard.registry.all()]
        return [
            {**each, "connections": connections[each["id"]], "held_bytes": held.get(each["id"], 0)}
            for each in rows
        ]

    async def _pair(self, _: dict[str, Any]) -> dict[str, Any]:
        self._desk.open()
        return pairing_plain(self._desk, self._address)

    async def _unpair(self, asked: dict[str, Any]) -> dict[str, Any]:
        paired = the_one(self._guard.registry, asked["device"])
        try:
            await self._guard.unpair(paired.device)
        except RegistryError as error:
            failure = f"{paired.device.name} is out until this box restarts only: {error}"
            raise ControlError(failure) from error
        finally:
            await self._cut_off(paired)
        return row(paired)

    async def _cut_off(self, paired: Paired) -> None:
        await end_connections(self._box, paired.device.id)
        forget(self._box, paired.device.id)
        await all_removed()


async def end_connections(box: Box, device: str) -> None:
    """At once, and if it does not take long, until all that they began has ended."""
    its = [each for each in box.clients if each.device.id == device]
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LEAVE_TIMEOUT_S):
            await asyncio.gather(*(client.revoke() for client in its))


def the_one(registry: Registry, what: str) -> Paired:
    """The device of this name, or whose id begins so. Raises ControlError."""
    found = registry.find(what)
    if len(found) == 1:
        return found[0]
    if not found:
        raise ControlError(f"no paired device is called {what!r}; see: ionn edge devices")
    ids = ", ".join(paired.device.id[:12] for paired in found)
    raise ControlError(f"{len(found)} devices are called {what!r}; give one's id: {ids}")


def row(paired: Paired) -> dict[str, Any]:
    """A device as plain data, without what is secret."""
    return {
        "id": paired.device.id,
        "name": paired.device.name,
        "paired_at": paired.paired_at,
        "seen_at": paired.seen_at,
    }


def pairing_plain(desk: PairingDesk, address: tuple[str, int]) -> dict[str, Any]:
    """How to pair with the box that listens there; code and URI are None while that is closed."""
    return {
        "code": desk.code,
        "uri": desk.uri(*address),
        "fingerprint": desk.fingerprint,
        "failures": desk.failures,
    }
