"""The wearable's side of IONN: run a model together with an edge box while it uploads."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ionn_client.blocking import SyncOffload as SyncOffload
    from ionn_client.blocking import connect_sync as connect_sync
    from ionn_client.boxes.address import EdgeAddress as EdgeAddress
    from ionn_client.config import Options as Options
    from ionn_client.errors import CertificateChanged as CertificateChanged
    from ionn_client.errors import DeadlineExceeded as DeadlineExceeded
    from ionn_client.errors import EdgeQuarantined as EdgeQuarantined
    from ionn_client.errors import EdgeRejected as EdgeRejected
    from ionn_client.errors import EdgeUnreachable as EdgeUnreachable
    from ionn_client.errors import NotPaired as NotPaired
    from ionn_client.errors import OffloadError as OffloadError
    from ionn_client.errors import PairingError as PairingError
    from ionn_client.errors import VersionMismatch as VersionMismatch
    from ionn_client.machine.battery import Battery as Battery
    from ionn_client.machine.query import QueryResult as QueryResult
    from ionn_client.offload import Offload as Offload
    from ionn_client.offload import connect as connect
    from ionn_client.profiled import Profiled as Profiled
    from ionn_client.profiled import prepare as prepare
    from ionn_client.status import Status as Status
    from ionn_client.stay import Stay as Stay
    from ionn_client.stream import StreamResult as StreamResult

# Imported on first use: the link emulator is a small process of its own out of this package,
# and must not wait seconds for torch.
_MODULES = {
    "ionn_client.boxes.address": ("EdgeAddress",),
    "ionn_client.machine.battery": ("Battery",),
    "ionn_client.blocking": ("SyncOffload", "connect_sync"),
    "ionn_client.config": ("Options",),
    "ionn_client.errors": (
        "CertificateChanged",
        "DeadlineExceeded",
        "EdgeQuarantined",
        "EdgeRejected",
        "EdgeUnreachable",
        "NotPaired",
        "OffloadError",
        "PairingError",
        "VersionMismatch",
    ),
    "ionn_client.offload": ("Offload", "connect"),
    "ionn_client.profiled": ("Profiled", "prepare"),
    "ionn_client.machine.query": ("QueryResult",),
    "ionn_client.status": ("Status",),
    "ionn_client.stay": ("Stay",),
    "ionn_client.stream": ("StreamResult",),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
