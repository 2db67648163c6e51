"""All options of an edge box, with units and defaults."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from wire import DEFAULT_LIMITS, Limits

DEFAULT_PORT = 7431
CALIBRATIONS = ("auto", "again", "off")
_SUFFIXES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def usable_threads() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_store() -> Path:
    """Where weights are kept: the user's cache directory."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache) / "ionn" / "edge"


def parse_bytes(text: str) -> int:
    """Bytes from "512M", "4G" or "4GiB"; K, M, G and T are powers of 1,024. Raises ValueError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:iB|B)?", text.strip(), re.IGNORECASE)
    size = int(float(match[1]) * _SUFFIXES[match[2].upper()]) if match else 0
    if not 0 < size < 1 << 62:
        raise ValueError(f"a size looks like 512M or 4G, not {text!r}")
    return size


def format_bytes(size: int) -> str:
    """A size for people: "4.0 GiB"."""
    value, unit = float(size), "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"


@dataclass(frozen=True, slots=True)
class Config:
    """How an edge box serves.

    bind, port: where it listens; port 0 takes a free one.
    device: "cpu" or "cuda". threads: that one query gets, of the processor.
    memory_bytes: budget for weights, of all models together. store: directory for them.
    calibration: "auto" measures layer times once per store directory, "again" anew, "off" ships
        generic figures and leaves it to clients to correct them.
    max_clients, max_queries: connections, and open queries of each. max_waiting_bytes: tensors
        that one client's waiting queries may hold.
    hello_timeout_s: a connection that says nothing is closed after so long.
    ping_after_s, silence_s: a silent client is pinged after the first, closed after the second.
    range_timeout_s: a range that runs longer is stopped, with its worker.
    max_restarts: of a client's worker that dies, before the connection ends.
    drain_s: running queries get so long when the box stops.
    max_unsent_bytes: a client that does not read is not read from either beyond this.
    """

    bind: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    device: str = "cpu"
    threads: int = field(default_factory=usable_threads)
    memory_bytes: int = 4 << 30
    store: Path = field(default_factory=default_store)
    calibration: str = "auto"
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
