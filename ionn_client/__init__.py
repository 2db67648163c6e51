"""The wearable's side of IONN: run a model together with an edge box while it uploads."""

from ionn_client.config import EdgeAddress, Options
from ionn_client.errors import (
    DeadlineExceeded,
    EdgeRejected,
    EdgeUnreachable,
    OffloadError,
    VersionMismatch,
)
from ionn_client.offload import (
    Offload,
    Profiled,
    Status,
    SyncOffload,
    connect,
    connect_sync,
    prepare,
)
from ionn_client.query import QueryResult

__all__ = [
    "DeadlineExceeded",
    "EdgeAddress",
    "EdgeRejected",
    "EdgeUnreachable",
    "Offload",
    "OffloadError",
    "Options",
    "Profiled",
    "QueryResult",
    "Status",
    "SyncOffload",
    "VersionMismatch",
    "connect",
    "connect_sync",
    "prepare",
]
