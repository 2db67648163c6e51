"""All options of an edge box, with units and defaults."""

from __future__ import annotations

import os
import re
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ionn_edge.settings import WorkerSettings
from pairing.directories import cache_of, state_of
from pairing.identity import checked_name
from wire import DEFAULT_LIMITS, Limits

DEFAULT_PORT = 7431
CALIBRATIONS = ("auto", "again", "off")
_QUOTAS = {
    "weights": "device_disk_bytes",
    "memory": "device_memory_bytes",
    "connections": "device_clients",
    "queries": "device_queries",
    "rate": "device_queries_per_s",
}
_SUFFIXES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def usable_threads() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_store() -> Path:
    """Where weights are kept: the user's cache directory."""
    return cache_of("edge")


def default_state() -> Path:
    """Where the box's identity and its paired devices are kept: the user's state directory."""
    return state_of("edge")


def default_name() -> str:
    """What a person knows this machine by: its host name, if that is a name."""
    try:
        return checked_name(socket.gethostname().partition(".")[0])
    except ValueError:
        return "edge"


def parse_bytes(text: str) -> int:
    """Bytes from "512M", "4G" or "4GiB"; K, M, G and T are powers of 1,024. Raises ValueError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:iB|B)?", text.strip(), re.IGNORECASE)
    size = int(float(match[1]) * _SUFFIXES[match[2].upper()]) if match else 0
    if not 0 < size < 1 << 62:
        raise ValueError(f"a size looks like 512M or 4G, not {text!r}")
    return size


def parse_quota(text: str) -> dict[str, Any]:
    """Config's fields for what one device may use: "1G" of weights, or "weights=1G,rate=50,...".

    Raises ValueError.
    """
    fields: dict[str, Any] = {}
    for part in text.split(",") if "=" in text else [f"weights={text}"]:
        name, _, value = part.strip().partition("=")
        if name not in _QUOTAS or _QUOTAS[name] in fields:
            known = ", ".join(_QUOTAS)
            raise ValueError(f"a quota is a size, or names each once of {known}; not {text!r}")
        if name in ("weights", "memory"):
            fields[_QUOTAS[name]] = parse_bytes(value)
        elif not re.fullmatch(r"[0-9]{1,6}", value) or not int(value):
            raise ValueError(f"a quota's {name} is a whole number from 1 on, not {value!r}")
        else:
            fields[_QUOTAS[name]] = int(value)
    if "device_queries_per_s" in fields:
        # What may come at once is a second's worth.
        fields["device_burst"] = fields["device_queries_per_s"]
    return fields


def format_bytes(size: int) -> str:
    """A size for people: "4.3 GB", in thousands as the client says sizes."""
    value, unit = float(size), "bytes"
    for larger in ("KB", "MB", "GB", "TB"):
        # Not "1000.0 KB".
        if value < (1000 if unit == "bytes" else 999.95):
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"


@dataclass(frozen=True, slots=True)
class Config:
    """How an edge box serves.

    bind, port: where it listens; port 0 takes a free one. name: what people know the box by.
    unpaired: whoever connects is served, in the clear; on loopback only. state: directory for the
        box's identity and its paired devices. announce: whether it is found on its network.
    weak_isolation: serve networks though workers cannot be isolated here.
    device: "cpu" or "cuda". threads: that one query gets, of the processor.
    memory_bytes: budget for weights, of all models together. store: directory for them.
    calibration: "auto" measures layer times once per store directory, "again" anew, "off" ships
        generic figures and leaves it to clients to correct them.
    max_clients, max_queries: connections, and open queries of each. max_waiting_bytes: tensors
        that waiting queries of one client, and of all of a device's, may hold.
    hello_timeout_s: a connection that says nothing is closed after so long.
    ping_after_s, silence_s: a silent client is pinged after the first, closed after the second.
    range_timeout_s: a range that runs longer is stopped, with its worker.
    max_restarts: of a client's worker that dies, before the connection ends.
    drain_s: running queries get so long when the box stops.
    max_unsent_bytes: a client that does not read is not read from either beyond this.
    max_guests, max_guests_per_address: connections that have not said who they are; the oldest
        gives way to the next. handshake_timeout_s, request_timeout_s: they have so long to begin
        encryption, and then to ask. pairing_timeout_s: for what follows GET /pair.
    device_clients, device_queries: one paired device's connections and open queries.
    box_queries, box_waiting_bytes: open queries of all devices together, and their tensors; beyond
        that a device has one at a time.
    device_queries_per_s, device_burst: its queries per second in the long run, and at once.
    device_disk_bytes: its weights; None is as much as memory_bytes, which others evict where they
        need their share of it. device_memory_bytes: its workers' memory.
    worker_memory_bytes, worker_spare_cpu_s: see WorkerSettings; a worker that uses more is ended.
        No worker has more memory than its device.
    graph_flops, graph_nodes, graph_weights: see WorkerSettings; a graph that wants more is refused.
    """

    bind: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    device: str = "cpu"
    threads: int = field(default_factory=usable_threads)
    memory_bytes: int = 4 << 30
    store: Path = field(default_factory=default_store)
    calibration: str = "auto"
    name: str = field(default_factory=default_name)
    unpaired: bool = False
    state: Path = field(default_factory=default_state)
    announce: bool = True
    weak_isolation: bool = False
    limits: Limits = DEFAULT_LIMITS
    max_clients: int = 64
    max_queries: int = 32
    max_waiting_bytes: int = 128 << 20
    hello_timeout_s: float = 10.0
    ping_after_s: float = 20.0
    silence_s: float = 60.0
    range_timeout_s: float = 60.0
    max_restarts: int = 3
    drain_s: float = 3.0
    max_unsent_bytes: int = 64 << 20
    max_guests: int = 128
    max_guests_per_address: int = 32
    handshake_timeout_s: float = 5.0
    request_timeout_s: float = 5.0
    pairing_timeout_s: float = 30.0
    device_clients: int = 8
    device_queries: int = 64
    box_queries: int = 512
    box_waiting_bytes: int = 1 << 30
    device_queries_per_s: float = 1000.0
    device_burst: int = 1000
    device_disk_bytes: int | None = None
    device_memory_bytes: int = 4 << 30
    worker_memory_bytes: int = 2 << 30
    worker_spare_cpu_s: float = 30.0
    graph_flops: int = 10**13
    graph_nodes: int = 20_000
    graph_weights: int = 8_192

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65_535:
            raise ValueError(f"a port is 0 to 65535, not {self.port}")
        if self.device not in ("cpu", "cuda"):
            raise ValueError(f"the device is cpu or cuda, not {self.device!r}")
        if not 1 <= self.threads <= 1024:
            raise ValueError(f"threads are 1 to 1024, not {self.threads}")
        if self.calibration not in CALIBRATIONS:
            known = ", ".join(CALIBRATIONS)
            raise ValueError(f"calibration is one of {known}, not {self.calibration!r}")
        checked_name(self.name)

    @property
    def ranges_at_once(self) -> int:
        """Ranges that have the processor threads they are given, each to itself."""
        return max(usable_threads() // self.threads, 1)

    @property
    def workers(self) -> WorkerSettings:
        """What workers have to know of this."""
        return WorkerSettings(
            self.device,
            self.threads,
            min(self.worker_memory_bytes, self.device_memory_bytes),
            self.worker_spare_cpu_s,
            self.device_memory_bytes,
            self.graph_flops,
            self.graph_nodes,
            self.graph_weights,
        )
