"""Lets devices on the same network find this box by name (DNS-SD over multicast DNS).

What it says anybody may say: a device believes the certificate that it pairs with, not this. What
others say on that network anybody may say as well, as fast as they like, and all of it is read and
remembered here. So this is done by a process of its own, which goes behind those that serve, and
has so much memory and no more: `python -m ionn_edge.doors.announce NAME HOST PORT FINGERPRINT`.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import ipaddress
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import AsyncIterator, Sequence

from zeroconf import Error, InterfaceChoice, ServiceInfo
from zeroconf.asyncio import AsyncZeroconf

from wire import VERSION

SERVICE = "_ionn-edge._tcp.local."
# Linux: an interface's address (netdevice(7)).
SIOCGIFADDR = 0x8915
# Of a name's 63, the rest is for a number where several are called the same.
LABEL_BYTES = 57
# Of what others on the network say, so much is remembered.
MOST_BYTES = 192 << 20
# It is started again, should it end, and has so long to say goodbye.
AGAIN_S, GOODBYE_S = 60.0, 3.0
NOT_ANNOUNCED = "this box is not announced on its network: %s"
log = logging.getLogger("ionn_edge")


@contextlib.asynccontextmanager
async def announced(name: str, host: str, port: int, fingerprint: str) -> AsyncIterator[None]:
    """The box is announced inside, on the network of `host`, or on all if it listens on all.

    That it cannot be is only logged: its address still does.
    """
    keeping = asyncio.create_task(_keep_announced(name, host, str(port), fingerprint))
    try:
        yield
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)


async def _keep_announced(*what: str) -> None:
    while True:
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "ionn_edge.doors.announce", *what),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
            )
        except OSError as error:
            log.warning(NOT_ANNOUNCED, error.strerror or error)
        else:
            await _watch(process)
        await asyncio.sleep(AGAIN_S)


async def _watch(process: asyncio.subprocess.Process) -> None:
    """Until it ends; or until nobody wants it any more, when it says goodbye."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        while line := await process.stdout.readline():
            log.warning(NOT_ANNOUNCED, line.decode(errors="replace").strip())
        log.warning(NOT_ANNOUNCED, f"who does that has ended ({await process.wait()})")
    finally:
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), GOODBYE_S)
        except TimeoutError:
            process.kill()
            await process.wait()


def main() -> None:
    """The process: until its input ends, which the box's own end does, too. Says what is wrong."""
    os.nice(19)
    resource.setrlimit(resource.RLIMIT_DATA, (MOST_BYTES, MOST_BYTES))
    # A terminal's, which is meant for the box: that ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    name, host, port, fingerprint = sys.argv[1:]
    asyncio.run(_until_input_ends(service(name, host, int(port), fingerprint), host))


async def _until_input_ends(info: ServiceInfo, host: str) -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), ended.set)
    await _announce(info, host, ended)


async def _announce(info: ServiceInfo, host: str, ended: asyncio.Event) -> None:
    try:
        zeroconf = AsyncZeroconf(interfaces=_interfaces(host))
    except OSError as error:
        print(error.strerror or error, flush=True)
        await ended.wait()
        return
    try:
        registering = asyncio.create_task(_register(zeroconf, info))
        await ended.wait()
        registering.cancel()
    finally:
        await zeroconf.async_unregister_all_services()
        await zeroconf.async_close()


async def _register(zeroconf: AsyncZeroconf, info: ServiceInfo) -> None:
    try:
        await zeroconf.async_register_service(info, allow_name_change=True)
    except (OSError, Error) as error:
        print(repr(error), flush=True)


def service(name: str, host: str, port: int, fingerprint: str) -> ServiceInfo:
    """What is announced. TXT: box, the certificate's SHA-256 in hexadecimal; version; name."""
    label = name.replace(".", "-").encode()[:LABEL_BYTES].decode("utf-8", "ignore")
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


if __name__ == "__main__":
    main()
