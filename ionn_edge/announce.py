"""Lets devices on the same network find this box by name (DNS-SD over multicast DNS).

What it says anybody may say: a device believes the certificate that it pairs with, not this.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import socket
from collections.abc import AsyncIterator, Sequence

from zeroconf import Error, InterfaceChoice, ServiceInfo
from zeroconf.asyncio import AsyncZeroconf

from wire import VERSION

SERVICE = "_ionn-edge._tcp.local."
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
    """Where a box that listens there is reached from its network, the likeliest first."""
    if not ipaddress.ip_address(host).is_unspecified:
        return [host]
    found = [*_own_addresses(socket.AF_INET, "192.0.2.1")]
    if ":" in host:
        found += _own_addresses(socket.AF_INET6, "2001:db8::1")
    return found or ["127.0.0.1"]


def _own_addresses(family: socket.AddressFamily, towards: str) -> list[str]:
    """The one that the route towards elsewhere begins at. Nothing is sent."""
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((towards, 9))
            return [probe.getsockname()[0]]
    except OSError:
        return []


def _interfaces(host: str) -> InterfaceChoice | Sequence[str]:
    unspecified = ipaddress.ip_address(host).is_unspecified
    return InterfaceChoice.Default if unspecified else [host]
