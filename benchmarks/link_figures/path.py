"""Between client and edge: namespaces where root, the emulator elsewhere, and what serves there.

The edge is paired with and talked to by TLS, as people use it, unless the path says otherwise.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path as FilePath
from typing import Any

from namespaces import Namespaces, NamespacesUnavailable, burst_bytes, line_of, running

from ionn_client.emulate import LinkProcess, LinkSpec, parse_rate, parse_time
from pairing.uri import PairingUri

BENCHMARKS = FilePath(__file__).parent.parent
IONN = FilePath(sys.executable).parent / "ionn"
ONE_THREAD = {"OMP_NUM_THREADS": "1"}


@dataclass(frozen=True, slots=True)
class Cell:
    """One link. rate "20mbit", or None for loopback as it is; rtt added; queue in time."""

    rate: str | None
    rtt: str = "0ms"
    queue: str = "50ms"
    own_egress: bool = False

    @property
    def name(self) -> str:
        if self.rate is None:
            return "loopback, unshaped"
        where = ", own egress" if self.own_egress else ""
        return f"{self.rate}, +{self.rtt} RTT, {self.queue} queue{where}"

    @property
    def rate_Bps(self) -> float:
        return 1e9 if self.rate is None else parse_rate(self.rate)

    @property
    def rtt_s(self) -> float:
        return parse_time(self.rtt)

    def spec(self) -> LinkSpec:
        queue_bytes = max(int(self.rate_Bps * parse_time(self.queue)), 4 * 1_514)
        return LinkSpec(self.rate_Bps, self.rate_Bps, self.rtt_s, queue_bytes)


@dataclass
class Path:
    """How to start the two sides, and how the client reaches what listens at the edge's.

    paired: whether they pair, and encrypt; else in the clear, which an edge does on loopback only.
    burst_bytes: what passes at once after a pause.
    """

    kind: str
    client_prefix: list[str]
    edge_prefix: list[str]
    bind: str
    shaper: LinkSpec | None = None
    paired: bool = True
    burst_bytes: int = 0
    stack: ExitStack = field(default_factory=ExitStack)

    def reach(self, address: str) -> str:
        """What the client connects to for the listener at `address`."""
        if self.shaper is None:
            return address
        link = self.stack.enter_context(LinkProcess(self.shaper, address))
        return f"{link.host}:{link.port}"


@contextmanager
def open_path(cell: Cell, emulate: bool = False, paired: bool = True) -> Iterator[Path]:
    """Namespaces, or the emulator where they are not to be had (or not wanted)."""
    emulate = emulate or not paired
    with ExitStack() as stack:
        if cell.rate is None:
            yield Path("loopback", [], [], "127.0.0.1", paired=paired)
            return
        if not emulate:
            with contextlib.suppress(NamespacesUnavailable):
                link = stack.enter_context(Namespaces(cell.spec(), cell.own_egress))
                burst = burst_bytes(cell.rate_Bps)
                prefixes = link.client_prefix, link.edge_prefix
                yield Path("kernel", *prefixes, link.edge_ip, burst_bytes=burst)
                return
        yield Path("emulator", [], [], "127.0.0.1", cell.spec(), paired, stack)


@contextmanager
def edge(path: Path, environment: Mapping[str, str] | None = None) -> Iterator[dict[str, Any]]:
    """An edge box that knows nothing.

    Yields {"address": as the client reaches it, "pid": ..., "environment": the client's, by which
    it knows the edge}.
    """
    with tempfile.TemporaryDirectory(prefix="ionn-link-") as kept:
        doors = ["--state", f"{kept}/edge", "--no-announce"] if path.paired else ["--unpaired"]
        command = [
            *path.edge_prefix, *_with(environment), sys.executable, "-m", "ionn_edge", "serve",
            "--json", *doors, "--bind", path.bind, "--port", "0", "--threads", "1",
            "--store", f"{kept}/store",
        ]  # fmt: skip
        with running(command) as process:
            banner = json.loads(line_of(process))
            address = path.reach(f"{path.bind}:{banner['port']}")
            known = {"XDG_STATE_HOME": f"{kept}/client"}
            if path.paired:
                _pair(path, banner["pairing"]["uri"], address, known)
            yield {"address": address, "pid": banner["pid"], "environment": known}


def _pair(path: Path, uri: str, address: str, environment: Mapping[str, str]) -> None:
    """As a person would who carries the URI over, but for where the edge is seen from there."""
    host, _, port = address.rpartition(":")
    seen = replace(PairingUri.parse(uri), host=host, port=int(port))
    command = [*path.client_prefix, *_with(environment), str(IONN), "pair", str(seen), "--json"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


@contextmanager
def baselines(path: Path) -> Iterator[dict[str, str]]:
    """The baselines' servers; yields the address of each as the client reaches it."""
    command = [*path.edge_prefix, sys.executable, str(BENCHMARKS / "baselines.py")]
    with running([*command, "--bind", path.bind]) as process:
        ports = json.loads(line_of(process))
        yield {name: path.reach(f"{path.bind}:{port}") for name, port in ports.items()}


@contextmanager
def worker(
    path: Path,
    figure: str,
    settings: Mapping[str, Any],
    environment: Mapping[str, str] | None = None,
) -> Iterator[Iterator[dict[str, Any]]]:
    """Runs `figure` on the client's side; yields its rows as they come."""
    command = [*path.client_prefix, *_with(environment), sys.executable]
    script = [str(BENCHMARKS / "link.py"), "--inside", figure, json.dumps(settings)]
    with running([*command, *script]) as process:
        assert process.stdout is not None
        yield (json.loads(line) for line in process.stdout)
        if process.wait():
            raise RuntimeError(f"{figure} failed; its error is above")


def _with(environment: Mapping[str, str] | None) -> list[str]:
    given = {**ONE_THREAD, **(environment or {})}
    return ["env", *(f"{name}={value}" for name, value in given.items())]


def wire_bytes() -> int | None:
    """Bytes that this namespace's link has sent, with headers; None outside namespaces."""
    for line in FilePath("/proc/net/dev").read_text().splitlines():
        name, _, numbers = line.strip().partition(":")
        if name == "to-router":
            return int(numbers.split()[8])
    return None


def cpu_s(pid: int) -> float:
    """Processor seconds of a process and all its descendants that live."""
    ticks = 0
    todo = [pid]
    while todo:
        each = todo.pop()
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            fields = FilePath(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
            for thread in FilePath(f"/proc/{each}/task").iterdir():
                todo += map(int, (thread / "children").read_text().split())
    return ticks / os.sysconf("SC_CLK_TCK")
