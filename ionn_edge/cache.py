"""What may be asked of the cache: who has how much, and that something goes.

Asked by the operator of a running box through its control socket, by a device about its own, or
of the files of a box that does not run. Answers are plain data.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ionn_edge.box import Box
from ionn_edge.doors.control import Handler
from ionn_edge.doors.devices import LOOPBACK
from ionn_edge.storage.blobs import StorageError, StoreInUse, all_removed, wait_removed
from ionn_edge.storage.secret import cache_secret
from ionn_edge.storage.shelf import Shelf
from ionn_edge.storage.store import Store


class CacheQuestions:
    """The handlers of a running box that are about its cache.

    find: the id of the device that goes by a name or by the beginning of its id.
    """

    def __init__(self, box: Box, find: Callable[[str], str]) -> None:
        self._box = box
        self._find = find

    def handlers(self) -> Mapping[str, Handler]:
        return {
            "cache ls": self._rows,
            "cache prune": self._prune,
            "cache forget": self._forget,
        }

    async def _rows(self, _: dict[str, Any]) -> dict[str, Any]:
        return cache_rows(self._box)

    async def _prune(self, asked: dict[str, Any]) -> dict[str, Any]:
        freed_bytes = prune(self._box, int(asked["bytes"]))
        await all_removed()
        return {"freed_bytes": freed_bytes}

    async def _forget(self, asked: dict[str, Any]) -> dict[str, Any]:
        freed_bytes = forget(self._box, self._find(asked["device"]))
        await all_removed()
        return {"freed_bytes": freed_bytes}


# Of a running box.


def cache_rows(box: Box) -> dict[str, Any]:
    """What every device has, as plain data: sizes in bytes, the least recently used model first."""
    offered = Counter(
        (client.device.id, client.session.model.fingerprint)
        for client in box.clients
        if client.session.model is not None and not client.is_lane
    )
    rows = store_rows(box.store)
    for row in rows["devices"]:
        for model in row["models"]:
            model["clients"] = offered[row["id"], model["fingerprint"]]
    return rows


def prune(box: Box, limit_bytes: int) -> int:
    """Evict until devices have so little together, but for what is running; the bytes freed."""
    before_bytes = box.store.used_bytes
    box.evicted(box.store.prune(limit_bytes, box.busy()))
    return before_bytes - box.store.used_bytes


def forget(box: Box, device: str) -> int:
    """Drop everything that a device has here; the bytes freed.

    Its open queries fail, so that they run on the device, and its connections are told that their
    models went.
    """
    shelf = box.store.shelf(device)
    freed_bytes = _size(shelf)
    models = [(device, fingerprint) for fingerprint in shelf.fingerprints]
    shelf.wipe()
    box.forgot(device)
    box.evicted(models)
    box.forget_uses(device)
    return freed_bytes


# Of files.


def in_use(directory: Path) -> StorageError:
    """What a command says that cannot have the store of a box that runs."""
    return StorageError(
        f"a box that runs has the store {directory}: say its --state, or stop it first if it"
        " is unpaired, which answers no questions"
    )


@contextlib.contextmanager
def at_rest(directory: Path, state: Path, devices: Iterable[str]) -> Iterator[Store]:
    """The store of a box that does not run, in which these devices may have something.

    Raises StorageError where one runs, or there is none.
    """
    if not directory.is_dir():
        raise StorageError(f"there is no store in {directory}")
    # Nothing is evicted for being too much: what the box's budget is, only the box knows.
    store = Store(directory, 1 << 62)
    try:
        store.open(cache_secret(state), [LOOPBACK.id, *devices])
    except StoreInUse:
        raise in_use(directory) from None
    try:
        yield store
    finally:
        store.close()


def store_rows(store: Store) -> dict[str, Any]:
    """What every device has, as plain data: sizes in bytes.

    Models of a box that does not run are those whose graphs are kept; what is there of their
    weights is not known then, but of all of a device's together.
    """
    return {
        "used_bytes": store.used_bytes,
        "devices": [_device_row(shelf) for shelf in store.shelves if _size(shelf)],
        "published": [
            {
                "fingerprint": each.fingerprint,
                "name": store.published.names[each.fingerprint],
                "total_bytes": each.total_bytes,
            }
            for each in store.published.models.values()
        ],
        "strange_bytes": sum(each.size_bytes for each in store.strange),
    }


def prune_files(store: Store, limit_bytes: int) -> int:
    """As `prune`, of a box that does not run."""
    before_bytes = store.used_bytes
    store.prune(limit_bytes, ())
    return before_bytes - store.used_bytes


def forget_files(store: Store, device: str) -> int:
    """As `forget`, of a box that does not run."""
    shelf = store.shelf(device)
    freed_bytes = _size(shelf)
    shelf.wipe()
    wait_removed()
    with contextlib.suppress(OSError):
        shelf.place.directory.rmdir()
    return freed_bytes


def _size(shelf: Shelf) -> int:
    return shelf.used_bytes + shelf.graphs.used_bytes


def _device_row(shelf: Shelf) -> dict[str, Any]:
    models = dict.fromkeys(shelf.graphs.kept(), (None, None)) | shelf.models
    return {
        "id": shelf.device,
        "used_bytes": _size(shelf),
        "weights": len(shelf.blobs),
        "models": [
            {"fingerprint": fingerprint, "held_bytes": held, "total_bytes": total}
            for fingerprint, (held, total) in models.items()
        ],
    }
