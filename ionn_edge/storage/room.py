"""Whether there is room for a model at all, and on the disk. Who goes for it is `eviction`'s."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from ionn_edge.config import format_bytes
from ionn_edge.storage.blobs import StorageError
from ionn_edge.storage.eviction import Eviction

if TYPE_CHECKING:
    from ionn_edge.storage.store import Store

log = logging.getLogger("ionn_edge")


class NoRoom(Exception):
    """The model does not fit the budget."""


def check_total(size_bytes: int, store: Store) -> None:
    """Whether a device's model of so many bytes fits, whatever goes for it. Raises NoRoom."""
    size = format_bytes(size_bytes)
    if size_bytes > store.budget_bytes:
        raise NoRoom(
            f"the model's weights take {size}, and the edge's memory "
            f"budget is {format_bytes(store.budget_bytes)} (ionn edge serve --memory)"
        )
    if size_bytes > store.quota_bytes:
        raise NoRoom(
            f"the model's weights take {size}, and one device may have "
            f"{format_bytes(store.quota_bytes)} of them on this edge (ionn edge serve --quota)"
        )
    if size_bytes > store.devices_bytes:
        # Not how much: that would be how much is published.
        raise NoRoom(
            f"the model's weights take {size}, and this edge has not so much room beside what"
            " its operator has published (ionn edge serve --memory)"
        )


def fit_disk(eviction: Eviction, missing_bytes: int, store: Store) -> None:
    """Have as much more go as the disk lacks for what is missing. Raises StorageError."""
    disk = os.statvfs(store.directory)
    free_bytes = disk.f_bavail * disk.f_frsize
    lacking_bytes = missing_bytes - free_bytes - eviction.freed_bytes
    if lacking_bytes > 0 and not eviction.fit(store.shelves, eviction.left_bytes - lacking_bytes):
        missing, free = format_bytes(missing_bytes), format_bytes(free_bytes)
        log.warning("%s of weights have no room in %s (%s)", missing, store.directory, free)
        # How full it is depends on others: not for a client to know.
        raise StorageError(f"{missing} of weights are missing, and the edge's disk is full")
