"""Finds boxes on this network, as they announce themselves (DNS-SD over multicast DNS).

Anybody can announce anything: what is found here is where to ask, never whom to trust.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from zeroconf import Error, InterfaceChoice, IPVersion, ServiceStateChange, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from ionn_client.boxes.address import EdgeAddress
from ionn_client.errors import EdgeUnreachable
from pairing.identity import checked_name

SERVICE = "_ionn-edge._tcp.local."
LOOK_S = 3.0
ANSWER_MS = 2000.0
MOST_BOXES = 256
Interfaces = InterfaceChoice | Sequence[str]


@dataclass(frozen=True, slots=True)
class FoundBox:
    """What an announcement claims. fingerprint: of the certificate, None if it does not say."""

    name: str
    address: EdgeAddress
    fingerprint: str | None


class _Search:
    """What has announced itself so far."""

    def __init__(self, zeroconf: Zeroconf, enough: Callable[[FoundBox], bool]) -> None:
        self.found: dict[str, FoundBox] = {}
        self.done = asyncio.Event()
        self._zeroconf = zeroconf
        self._enough = enough
        self._tasks: set[asyncio.Task[None]] = set()

    def changed(self, name: str, state_change: ServiceStateChange, **_: object) -> None:
        if state_change is ServiceStateChange.Removed:
            self.found.pop(name, None)
        elif len(self._tasks) < MOST_BOXES:
            task = asyncio.ensure_future(self._ask(name))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _ask(self, service: str) -> None:
        try:
            info = AsyncServiceInfo(SERVICE, service)
        except Error:
            return  # Of a name with control characters, which must not reach the terminal.
        if not await info.async_request(self._zeroconf, ANSWER_MS):
            return
        box = found_box(info)
        if box is not None and len(self.found) < MOST_BOXES:
            self.found[service] = box
            if self._enough(box):
                self.done.set()

    async def close(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def discover(
    look_s: float = LOOK_S,
    interfaces: Interfaces = InterfaceChoice.All,
    enough: Callable[[FoundBox], bool] = lambda _: False,
) -> list[FoundBox]:
    """Boxes that announce themselves within `look_s`, by name; sooner if one is `enough`.

    Raises EdgeUnreachable where multicast is not to be had.
    """
    try:
        zeroconf = AsyncZeroconf(interfaces=interfaces, ip_version=IPVersion.All)
    except OSError as error:
        raise EdgeUnreachable(f"cannot look for boxes on this network: {error}") from error
    search = _Search(zeroconf.zeroconf, enough)
    browser = AsyncServiceBrowser(zeroconf.zeroconf, SERVICE, handlers=[search.changed])
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(look_s):
                await search.done.wait()
    finally:
        await browser.async_cancel()
        await search.close()
        await zeroconf.async_close()
    return sorted(search.found.values(), key=lambda box: (box.name, str(box.address)))


def found_box(info: AsyncServiceInfo) -> FoundBox | None:
    """What an announcement says, if it says it as boxes do."""
    told = info.decoded_properties
    name = told.get("name") or info.name.removesuffix(f".{SERVICE}")
    addresses = info.parsed_scoped_addresses()
    fingerprint = told.get("box") or ""
    try:
        if not info.port:
            return None
        address = EdgeAddress.parse(str(EdgeAddress(addresses[0], info.port)))
        known = fingerprint if re.fullmatch(r"[0-9a-f]{64}", fingerprint) else None
        return FoundBox(checked_name(name), address, known)
    except (ValueError, IndexError):
        return None


async def look_up(name: str, interfaces: Interfaces = InterfaceChoice.All) -> EdgeAddress:
    """Where the box of that name says that it is. Raises EdgeUnreachable if none or several do."""
    found = [box for box in await discover(interfaces=interfaces) if box.name == name]
    where = sorted({str(box.address) for box in found})
    if not where:
        raise EdgeUnreachable(
            f"no box on this network says that it is {name!r}: see `ionn discover`, or give its"
            " address, HOST:PORT"
        )
    if len(where) > 1:
        raise EdgeUnreachable(
            f"several say that they are {name!r}: {', '.join(where)}. Give the address of the one"
            " that you see before you"
        )
    return found[0].address
