"""What may be asked of the cache: who has how much, and that something goes or is everybody's.

Asked by the operator of a running box through its control socket, by a device about its own, or
of the files of a box that does not run. Answers are plain data.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ionn_edge.admission import verify
from ionn_edge.blobs import StorageError
from ionn_edge.box import Box
from ionn_edge.control import ControlError, Handler
from ionn_edge.devices import LOOPBACK
from ionn_edge.engine import EngineError
from ionn_edge.opening import learn
from ionn_edge.secret import cache_secret
from ionn_edge.shelf import Shelf
from ionn_edge.store import Store

# Of a fingerprint, at least so much names a model.
LEAST_FINGERPRINT_CHARS = 6


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
            "cache publish": self._publish,
            "cache unpublish": self._unpublish,
        }

    async def _rows(self, _: dict[str, Any]) -> dict[str, Any]:
        return cache_rows(self._box)

    async def _prune(self, asked: dict[str, Any]) -> dict[str, Any]:
        return {"freed_bytes": prune(self._box, int(asked["bytes"]))}

    async def _forget(self, asked: dict[str, Any]) -> dict[str, Any]:
        return {"freed_bytes": forget(self._box, self._find(asked["device"]))}

    async def _publish(self, asked: dict[str, Any]) -> dict[str, Any]:
        device = self._find(asked["device"])
        return {"fingerprint": await publish(self._box, device, asked["model"])}

    async def _unpublish(self, asked: dict[str, Any]) -> dict[str, Any]:
        return {"fingerprint": unpublish(self._box, asked["model"])}


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


async def publish(box: Box, device: str, what: str) -> str:
    """Make a model that a device has uploaded everybody's; its fingerprint.

    what: the fingerprint, or its beginning. Raises ControlError.
    """
    shelf = box.store.shelf(device)
    # A graph is written beside what is said of it.
    await shelf.graphs.all_kept()
    fingerprint = _the_one({*shelf.fingerprints, *shelf.graphs.kept()}, what)
    model = shelf.graphs.known(fingerprint)
    if model is None:
        with contextlib.suppress(EngineError):
            await learn(box, device, shelf.graphs, [fingerprint])
        model = shelf.graphs.known(fingerprint)
    graph = shelf.graphs.load(fingerprint)
    if model is None or graph is None:
        raise ControlError(f"the graph of {fingerprint[:16]} is not here; have it offered again")
    await verify(box, model, box.store.published, shelf)
    lacking = [
        digest for digest, size in model.sizes.items() if size and not shelf.is_whole(digest)
    ]
    if lacking:
        count = len(model.sizes)
        raise ControlError(f"{len(lacking)} of the model's {count} weights are not here yet")
    try:
        box.store.published.publish(model, graph, shelf)
    except StorageError as error:
        raise ControlError(str(error)) from error
    finally:
        for digest in model.sizes:
            box.completed(None, digest)
    return fingerprint


def unpublish(box: Box, what: str) -> str:
    """Have a model be nobody's; its fingerprint. Devices that use it upload it themselves."""
    published = box.store.published
    fingerprint = _the_one(published.models, what)
    box.evicted(box.store.unpublish(fingerprint))
    return fingerprint


# Of files.


@contextlib.contextmanager
def at_rest(directory: Path, state: Path, devices: Iterable[str]) -> Iterator[Store]:
    """The store of a box that does not run, in which these devices may have something.

    Raises StorageError where one runs, or there is none.
    """
    if not directory.is_dir():
        raise StorageError(f"there is no store in {directory}")
    # Nothing is evicted for being too much: what the box's budget is, only the box knows.
    store = Store(directory, 1 << 62)
    store.open(cache_secret(state), [LOOPBACK.id, *devices])
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
            {"fingerprint": each.fingerprint, "total_bytes": each.total_bytes}
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


def _the_one(fingerprints: Any, what: str) -> str:
    found = [each for each in fingerprints if each.startswith(what)]
    if len(what) < LEAST_FINGERPRINT_CHARS or not found:
        raise ControlError(f"no model here is called {what!r}; see: ionn edge cache ls")
    if len(found) > 1:
        raise ControlError(f"{len(found)} models are called {what!r}; give more of the one's name")
    return str(found[0])
