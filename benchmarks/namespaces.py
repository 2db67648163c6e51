"""Client, router and edge in network namespaces, the link between them shaped by `tc qdisc tbf`.

For what is emulated and what is real see netns.py, which checks it.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from ionn_client.emulate import LinkSpec

CLIENT_IP, EDGE_IP = "10.231.1.2", "10.231.2.2"
ROUTER_CLIENT_IP, ROUTER_EDGE_IP = "10.231.1.1", "10.231.2.1"
FRAME_BYTES = 1_514
# What tbf may send at once: a few frames, or half a millisecond where timers would limit the rate.
MIN_BURST_BYTES, BURST_S = 2 * FRAME_BYTES, 0.0005
# What nearly every system uses; the machine that measures may be set to something else.
CONGESTION_CONTROL = "cubic"


def burst_bytes(rate_Bps: float) -> int:
    """What passes at once after a pause, as if the link had no rate: its bucket is full then."""
    return max(MIN_BURST_BYTES, int(rate_Bps * BURST_S))


class NamespacesUnavailable(RuntimeError):
    """This machine or this user cannot make shaped namespaces; the text says what is missing."""


class Namespaces:
    """Three namespaces with the link between them, for as long as the context lasts.

        with Namespaces(spec) as link:
            subprocess.run([*link.edge_prefix, "my-server", "--bind", link.edge_ip])

    own_egress: the uplink is shaped on the client's own interface, with the kernel's three-band
    priority queue (pfifo_fast), instead of in the router.
    NamespacesUnavailable without root, iproute2, or the kernel's namespaces, veth, tbf, and TUN for
    a round trip.
    """

    edge_ip = EDGE_IP

    def __init__(self, spec: LinkSpec, own_egress: bool = False) -> None:
        self.spec = spec
        self._own_egress = own_egress
        self._names = {role: f"ionn-{role}-{os.getpid()}" for role in ("client", "router", "edge")}
        self._cleanup = ExitStack()

    @property
    def client_prefix(self) -> list[str]:
        return ["ip", "netns", "exec", self._names["client"]]

    @property
    def edge_prefix(self) -> list[str]:
        return ["ip", "netns", "exec", self._names["edge"]]

    def __enter__(self) -> Self:
        if os.geteuid() != 0:
            raise NamespacesUnavailable("network namespaces need root: run with sudo")
        for tool in ("ip", "tc"):
            if shutil.which(tool) is None:
                raise NamespacesUnavailable(f"`{tool}` is missing: apt-get install iproute2")
        try:
            self._build()
        except BaseException:
            self._cleanup.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._cleanup.close()

    def _build(self) -> None:
        for name in self._names.values():
            _do("ip", "netns", "add", name)
            self._cleanup.callback(_remove, name)
            _do("ip", "-n", name, "link", "set", "lo", "up")
        if self.spec.rtt_s:
            self._delay("to-client")
        else:
            self._cable("client", "to-client")
        self._cable("edge", "to-edge")
        self._address("client", CLIENT_IP, "to-client", ROUTER_CLIENT_IP)
        self._address("edge", EDGE_IP, "to-edge", ROUTER_EDGE_IP)
        forward = "echo 1 > /proc/sys/net/ipv4/ip_forward"
        _do("ip", "netns", "exec", self._names["router"], "sh", "-c", forward)
        if self._own_egress:
            self._shape("client", "to-router", self.spec.up_Bps, priorities=True)
        else:
            self._shape("router", "to-edge", self.spec.up_Bps)
        self._shape("router", "to-client", self.spec.down_Bps)

    def _cable(self, role: str, router_end: str) -> None:
        _do(
            *("ip", "-n", self._names[role], "link", "add", "to-router", "type", "veth"),
            *("peer", "name", router_end, "netns", self._names["router"]),
        )

    def _delay(self, router_end: str) -> None:
        command = [
            *(sys.executable, str(Path(__file__).with_name("delay.py"))),
            *("--delay", f"{self.spec.rtt_s / 2:.9f}"),
            *("--client-netns", self._names["client"], "--device", "to-router"),
            *("--router-netns", self._names["router"], "--router-device", router_end),
        ]
        process = self._cleanup.enter_context(running(command))
        try:
            line_of(process)
        except RuntimeError as error:
            raise NamespacesUnavailable(f"packets cannot be delayed: {error}") from None

    def _address(self, role: str, ip: str, router_end: str, router_ip: str) -> None:
        here, router = self._names[role], self._names["router"]
        for name, end, address in ((here, "to-router", ip), (router, router_end, router_ip)):
            _do("ip", "-n", name, "addr", "add", f"{address}/24", "dev", end)
            _do("ip", "-n", name, "link", "set", end, "up")
        route = ("route", "add", "default", "via", router_ip, "congctl", CONGESTION_CONTROL)
        _do("ip", "-n", here, *route)

    def _shape(self, role: str, end: str, rate_Bps: float, priorities: bool = False) -> None:
        name = self._names[role]
        queue_bytes = max(self.spec.queue_bytes, burst_bytes(rate_Bps))
        _do(
            *("tc", "-n", name, "qdisc", "add", "dev", end, "root", "handle", "1:", "tbf"),
            *("rate", f"{rate_Bps * 8:.0f}bit", "burst", str(burst_bytes(rate_Bps))),
            *("limit", str(queue_bytes)),
        )
        if priorities:
            # The child's length is the device's, in packets.
            packets = str(max(queue_bytes // FRAME_BYTES, 2))
            _do("ip", "-n", name, "link", "set", end, "txqueuelen", packets)
            _do("tc", "-n", name, "qdisc", "add", "dev", end, "parent", "1:1", "pfifo_fast")


def _do(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = done.stderr.strip() or f"exit status {done.returncode}"
        raise NamespacesUnavailable(f"`{shlex.join(command)}` failed: {reason}")


def _remove(name: str) -> None:
    pids = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True)
    for pid in pids.stdout.split():  # What a command left behind would keep the namespace alive.
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    subprocess.run(["ip", "netns", "del", name], check=True)


@contextmanager
def running(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.terminate()


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError("a process of the check ended early; its error is above")
    return line
