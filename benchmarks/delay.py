"""Delays packets between two network namespaces, for kernels without netem: one TUN device in each.

    sudo python benchmarks/delay.py --client-netns a --router-netns b --device wire --delay 0.02

Prints a line when the devices are there, and works until it is terminated or its parent ends. Only
delays: every packet leaves exactly `delay` after it came, in order, and none is dropped here.
"""

from __future__ import annotations

import argparse
import ctypes
import errno
import fcntl
import os
import select
import signal
import struct
import subprocess
import sys
import time
from collections import deque

TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
PR_SET_PDEATHSIG, PR_SET_TIMERSLACK = 1, 29
MAX_PACKET_BYTES = 65_536
# A device's own queue must never be what limits: bursts wait there for this process's turn.
QUEUE_PACKETS = 10_000
PACKETS_AT_ONCE = 64


class Way:
    """One direction: what came in at `source` leaves at `sink` after the delay."""

    def __init__(self, source: int, sink: int, delay_s: float) -> None:
        self.source = source
        self.sink = sink
        self.delay_s = delay_s
        self.under_way: deque[tuple[float, bytes]] = deque()

    def take(self) -> None:
        for _ in range(PACKETS_AT_ONCE):
            try:
                packet = os.read(self.source, MAX_PACKET_BYTES)
            except BlockingIOError:
                return
            self.under_way.append((time.monotonic() + self.delay_s, packet))

    def deliver(self) -> float | None:
        """Sends on what is due; seconds until there is more to do, None for nothing under way."""
        while self.under_way:
            wait_s = self.under_way[0][0] - time.monotonic()
            if wait_s > 0:
                return wait_s
            packet = self.under_way.popleft()[1]
            try:
                os.write(self.sink, packet)
            except OSError as error:
                if error.errno != errno.EIO:  # That device is not up yet.
                    raise
        return None


def open_tun(namespace: str, name: str) -> int:
    """A TUN device `name` in `namespace`; its packets are the file descriptor's."""
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    request = struct.pack("16sH", b"ionn%d", IFF_TUN | IFF_NO_PI)
    made = fcntl.ioctl(device, TUNSETIFF, request)
    here = made[:16].rstrip(b"\0").decode()
    moved = ["ip", "link", "set", here, "netns", namespace, "name", name]
    subprocess.run([*moved, "txqueuelen", str(QUEUE_PACKETS)], check=True)
    return device


def relay(client: int, router: int, delay_s: float) -> None:
    ways = {client: Way(client, router, delay_s), router: Way(router, client, delay_s)}
    while True:
        waits = [wait_s for way in ways.values() if (wait_s := way.deliver()) is not None]
        # select, because epoll rounds every wait up to a millisecond.
        ready, _, _ = select.select(list(ways), [], [], min(waits, default=None))
        for device in ready:
            ways[device].take()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--client-netns", required=True)
    parser.add_argument("--router-netns", required=True)
    parser.add_argument("--device", required=True, help="its name in both namespaces' ends")
    parser.add_argument("--router-device", required=True)
    parser.add_argument("--delay", type=float, required=True, help="seconds, each way")
    options = parser.parse_args()
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    libc.prctl(PR_SET_TIMERSLACK, 1)
    try:
        client = open_tun(options.client_netns, options.device)
        router = open_tun(options.router_netns, options.router_device)
    except OSError as error:
        raise SystemExit(f"delay: no TUN device: {error}") from None
    print("ready", flush=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    relay(client, router, options.delay)


if __name__ == "__main__":
    main()
