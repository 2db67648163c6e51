"""What the link can carry as payload: a bare TCP transfer, timed where it arrives."""

from __future__ import annotations

import json
import socket
import sys

from netns import SINK, SOURCE, line_of, running

from link_figures.path import Path

ECHOES = "20"


def capacity_Bps(path: Path, size: int) -> float:
    """Payload bytes per second of `size` bytes over `path`."""
    port = _free_port()
    sink = [*path.edge_prefix, sys.executable, "-c", SINK, path.bind, str(port), ECHOES]
    with running(sink) as server:
        line_of(server)
        host, _, reached = path.reach(f"{path.bind}:{port}").rpartition(":")
        source = [sys.executable, "-c", SOURCE, host, reached, ECHOES, str(size)]
        with running([*path.client_prefix, *source]) as client:
            line_of(client)
            seen = json.loads(line_of(server))
    if seen["bytes"] != size:
        raise RuntimeError(f"{size} bytes were sent and {seen['bytes']} arrived")
    return float(seen["Bps"])


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
