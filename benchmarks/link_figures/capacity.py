"""What the link can carry as payload: a bare TCP transfer, timed where it arrives.

The median of its quarter seconds, so that neither TCP's start nor what a loss costs it counts:
what is measured against this must be measured against the link, not against one TCP's luck.
"""

from __future__ import annotations

import json
import socket
import sys

from netns import SOURCE, line_of, running

from link_figures.path import Path

ECHOES = "20"
SINK = """
import json, socket, statistics, sys, time
with socket.create_server((sys.argv[1], int(sys.argv[2]))) as listener:
    print("ready", flush=True)
    side, _ = listener.accept()
    side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for _ in range(int(sys.argv[3])):
        side.sendall(side.recv(1))
    total = len(side.recv(1 << 20))
    began_s = window_s = time.monotonic()
    window = whole = 0
    rates = []
    while piece := side.recv(1 << 20):
        total += len(piece)
        window += len(piece)
        whole += len(piece)
        now_s = time.monotonic()
        if now_s - window_s >= 0.25:
            rates.append(window / (now_s - window_s))
            window, window_s = 0, now_s
    mean = whole / (time.monotonic() - began_s)
    Bps = statistics.median(rates) if len(rates) > 3 else mean
    print(json.dumps({"bytes": total, "Bps": Bps}))
"""


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
