"""The link by the kernel: client, router and edge in network namespaces, shaped by `tc qdisc tbf`.

    sudo python benchmarks/netns.py --rate 80mbit             # checks itself: goodput, round trip
    sudo python benchmarks/netns.py --rate 80mbit --rtt 5ms \\
        --edge-cmd "ionn edge serve --bind {edge_ip} --port {port}" \\
        --client-cmd "ionn run --edge ionn://{edge} --network alexnet"

The second opinion on `ionn_client.emulate`: here packets, headers, drops and TCP's congestion
control are real. The rate counts Ethernet frames, so at most 1448 of 1514 bytes are payload. The
kernel's delay (netem) is often not there, so `--rtt` delays packets between client and router
with `delay.py`; without it the round trip is the kernel's own.

The bottleneck is in the router, as with an access point, or with `own_egress` on the client's own
interface, where a child queue honours priorities (SO_PRIORITY).

Needs root and iproute2 (`apt-get install iproute2`). Nothing outside the three namespaces changes,
and they are removed at the end.
"""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass

from namespaces import FRAME_BYTES, Namespaces, NamespacesUnavailable, line_of, running

from ionn_client.emulate import LinkSpec, parse_rate, parse_size, parse_time

PAYLOAD_BYTES = 1_448
PORT = 7_431
START_S = 30.0

SINK = """
import json, socket, sys, time
with socket.create_server((sys.argv[1], int(sys.argv[2]))) as listener:
    print("ready", flush=True)
    side, _ = listener.accept()
    side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for _ in range(int(sys.argv[3])):
        side.sendall(side.recv(1))
    first_bytes = len(side.recv(1 << 20))
    start_s = end_s = window_s = time.monotonic()
    later_bytes = window_bytes = 0
    rates = []
    while piece := side.recv(1 << 20):
        later_bytes += len(piece)
        window_bytes += len(piece)
        end_s = time.monotonic()
        if end_s - window_s >= 0.25:
            rates.append(window_bytes / (end_s - window_s))
            window_bytes, window_s = 0, end_s
    Bps = later_bytes / (end_s - start_s)
    print(json.dumps({"bytes": first_bytes + later_bytes, "Bps": Bps, "quarters_Bps": rates}))
"""

PROBE = """
import socket, sys, time
while True:
    try:
        socket.create_connection((sys.argv[1], int(sys.argv[2]))).close()
        break
    except OSError:
        time.sleep(0.05)
"""

SOURCE = """
import json, socket, sys, time
with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as side:
    side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    rtts_s = []
    for _ in range(int(sys.argv[3])):
        start_s = time.monotonic()
        side.sendall(b"?")
        side.recv(1)
        rtts_s.append(time.monotonic() - start_s)
    side.sendall(bytes(int(sys.argv[4])))
    side.shutdown(socket.SHUT_WR)
    side.recv(1)
    print(json.dumps({"rtt_s": sorted(rtts_s)[len(rtts_s) // 2]}))
"""


@dataclass(frozen=True, slots=True)
class Check:
    """What was seen through the link: upload payload per second, and the idle round trip."""

    nominal_Bps: float
    goodput_Bps: float
    rtt_s: float

    @property
    def ratio(self) -> float:
        return self.goodput_Bps / self.nominal_Bps


@dataclass(frozen=True, slots=True)
class Transfer:
    """A bare TCP transfer, timed where it arrived: the mean rate, and that of each quarter second;
    before it the idle round trip of a byte."""

    Bps: float
    quarters_Bps: tuple[float, ...]
    rtt_s: float


def transfer(
    edge_prefix: list[str],
    client_prefix: list[str],
    bound: tuple[str, int],
    reach: Callable[[], str],
    size: int,
    echoes: int,
) -> Transfer:
    """Sends `size` bytes from a client to a server at `bound`, which `reach` says how to reach."""
    sink = [*edge_prefix, sys.executable, "-c", SINK, bound[0], str(bound[1]), str(echoes)]
    with running(sink) as edge:
        line_of(edge)
        ip, _, port = reach().rpartition(":")
        source = [sys.executable, "-c", SOURCE, ip, port, str(echoes), str(size)]
        with running([*client_prefix, *source]) as client:
            sent, received = json.loads(line_of(client)), json.loads(line_of(edge))
    if received["bytes"] != size:
        raise RuntimeError(f"{size} bytes were sent and {received['bytes']} arrived")
    return Transfer(received["Bps"], tuple(received["quarters_Bps"]), sent["rtt_s"])


def check(link: Namespaces, target: str, seconds: float) -> Check:
    """Uploads for about `seconds` to `target`, "ip:port" as the client sees the edge."""
    size, bound = int(link.spec.up_Bps * seconds), (link.edge_ip, PORT)
    seen = transfer(link.edge_prefix, link.client_prefix, bound, lambda: target, size, 100)
    return Check(link.spec.up_Bps, seen.Bps, seen.rtt_s)


def main() -> None:
    parser = _parser()
    arguments = parser.parse_args()
    if bool(arguments.edge_cmd) != bool(arguments.client_cmd):
        parser.error("--edge-cmd and --client-cmd go together")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # So that contexts are left.
    try:
        spec = LinkSpec(
            up_Bps=parse_rate(arguments.up or arguments.rate),
            down_Bps=parse_rate(arguments.down or arguments.rate),
            rtt_s=parse_time(arguments.rtt),
            queue_bytes=parse_size(arguments.queue),
        )
        with Namespaces(spec, arguments.own_egress) as link:
            target = f"{link.edge_ip}:{PORT}"
            if arguments.edge_cmd:
                raise SystemExit(_run(link, target, arguments.edge_cmd, arguments.client_cmd))
            _report(check(link, target, arguments.seconds), spec.rtt_s, arguments.json)
    except (NamespacesUnavailable, ValueError) as error:
        raise SystemExit(f"netns: {error}") from None


def _run(link: Namespaces, target: str, edge_cmd: str, client_cmd: str) -> int:
    """Runs the edge's command until the client's ends, and returns the client's exit status."""

    def filled(command: str) -> list[str]:
        names = {"{edge}": target, "{edge_ip}": link.edge_ip, "{port}": str(PORT)}
        for name, value in names.items():
            command = command.replace(name, value)
        return shlex.split(command)

    with subprocess.Popen([*link.edge_prefix, *filled(edge_cmd)]) as edge:
        try:
            probe = [*link.edge_prefix, sys.executable, "-c", PROBE, link.edge_ip, str(PORT)]
            subprocess.run(probe, check=True, timeout=START_S)
            return subprocess.run([*link.client_prefix, *filled(client_cmd)]).returncode
        finally:
            edge.terminate()


def _report(seen: Check, rtt_s: float, as_json: bool) -> None:
    payload_Bps = seen.nominal_Bps * PAYLOAD_BYTES / FRAME_BYTES
    if as_json:
        print(json.dumps({**asdict(seen), "ratio": seen.ratio, "added_rtt_s": rtt_s}))
        return
    print(f"emulated by the kernel: namespaces, veth, tbf; {rtt_s * 1e3:g} ms added")
    print(f"  nominal      {seen.nominal_Bps * 8e-6:8.3f} Mbit/s of Ethernet frames")
    print(f"  payload      {payload_Bps * 8e-6:8.3f} Mbit/s of it at the most")
    print(f"  upload       {seen.goodput_Bps * 8e-6:8.3f} Mbit/s seen, {seen.ratio:.1%} of nominal")
    print(f"  round trip   {seen.rtt_s * 1e3:8.3f} ms, idle, one byte")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="benchmarks/netns.py",
        description="The emulated link by the kernel. Without commands it checks itself.",
    )
    parser.add_argument("--rate", default="80mbit", help="both ways, of frames (default 80mbit)")
    parser.add_argument("--up", help="client to edge, instead of --rate")
    parser.add_argument("--down", help="edge to client, instead of --rate")
    parser.add_argument("--rtt", default="0ms", help="added to the kernel's own (default none)")
    parser.add_argument("--queue", default="64k", help="bytes that wait, each way (default 64k)")
    parser.add_argument(
        "--own-egress", action="store_true", help="shape the uplink on the client's own interface"
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="of upload in the check")
    parser.add_argument(
        "--edge-cmd", help="runs beside the edge; {edge_ip} and {port} are filled in"
    )
    parser.add_argument("--client-cmd", help="runs beside the client; {edge} is filled in")
    parser.add_argument("--json", action="store_true", help="print the check as JSON")
    return parser


if __name__ == "__main__":
    main()
