"""What the link can carry as payload: a bare TCP transfer, timed where it arrives.

The median of its quarter seconds, so that neither TCP's start nor what a loss costs it counts:
what is measured against this must be measured against the link, not against one TCP's luck.
"""

from __future__ import annotations

import socket
import statistics

from netns import transfer

from link_figures.path import Path

ECHOES = 20


def capacity_Bps(path: Path, size: int) -> float:
    """Payload bytes per second of `size` bytes over `path`."""
    bound = (path.bind, free_port())
    seen = transfer(
        path.edge_prefix,
        path.client_prefix,
        bound,
        lambda: path.reach(f"{bound[0]}:{bound[1]}"),
        size,
        ECHOES,
    )
    return statistics.median(seen.quarters_Bps) if len(seen.quarters_Bps) > 3 else seen.Bps


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
