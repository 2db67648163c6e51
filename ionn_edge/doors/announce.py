"""Lets devices on the same network find this box by name (DNS-SD over multicast DNS).

What it says anybody may say: a device believes the certificate that it pairs with, not this.
"""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import logging
import socket
from collections.abc import AsyncIterator, Sequence

from zeroconf import Error, InterfaceChoice, ServiceInfo
from zeroconf.asyncio import AsyncZeroconf

from wire import VERSION

SERVICE = "_ionn-edge._tcp.local."
# Linux: an interface's address (netdevice(7)).
SIOCGIFADDR = 0x8915
log = logging.getLogger("ionn_edge")


@contextlib.asynccontextmanager
async def announced(name: str, host: str, port: int, fingerprint: str) -> AsyncIterator[None]:
    """The box is announced inside, on the network of `host`, or on all if it listens on all.

    That it cannot be is only logged: its address still does.
    """
    try:
        zeroconf = AsyncZeroconf(interfaces=_interfaces(host))
    except OSError as error:
        log.warning("this box is not announced on its network: %s", error.strerror or error)
        yield
        return
    try:
        try:
            info = service(name, host, port, fingerprint)
            await zeroconf.async_register_service(info, allow_name_change=True)
        except (OSError, Error) as error:
            log.warning("this box is not announced on its network: %r", error)
        yield
    finally:
        await zeroconf.async_unregister_all_services()
        await zeroconf.async_close()


def service(name: str, host: str, port: int, fingerprint: str) -> ServiceInfo:
    """What is announced. TXT: box, the certificate's SHA-256 in hexadecimal; version; name."""
    label = name.replace(".", "-").encode()[:63].decode("utf-8", "ignore")
    return ServiceInfo(
        SERVICE,
        f"{label}.{SERVICE}",
        port=port,
        properties={"box": fingerprint, "version": str(VERSION), "name": name},
        server=f"ionn-{fingerprint[:12]}.local.",
        parsed_addresses=addresses(host),
    )


def addresses(host: str) -> list[str]:
    """Where a box that listens there is reached from its networks, the likeliest first."""
    if not ipaddress.ip_address(host).is_unspecified:
        return [host]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        found = [address for address in _of_interfaces(probe) if not address.startswith("127.")]
        # Where the route to elsewhere begins is where most come from. Nothing is sent.
        with contextlib.suppress(OSError):
            probe.connect(("192.0.2.1", 9))
            found.insert(0, probe.getsockname()[0])
    return list(dict.fromkeys(found)) or ["127.0.0.1"]


def _of_interfaces(probe: socket.socket) -> list[str]:
    found = []
    for _, name in socket.if_nameindex():
        # An interface without an address of version 4 has none to tell.
        with contextlib.suppress(OSError):
            told = fcntl.ioctl(probe, SIOCGIFADDR, name.encode().ljust(40, b"\0"))
            found.append(socket.inet_ntoa(told[20:24]))
    return found


def _interfaces(host: str) -> InterfaceChoice | Sequence[str]:
    unspecified = ipaddress.ip_address(host).is_unspecified
    return InterfaceChoice.All if unspecified else [host]
