"""Models become everybody's, and nobody's again: what the operator asks of the box about that.

A model is one that a device has uploaded, or one that the operator brings (see staging). A box
that does not run is asked likewise, by a `Box` of the command's own.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from ionn_edge.box import Box
from ionn_edge.config import format_bytes
from ionn_edge.doors.control import ControlError, Handler
from ionn_edge.machine.events import Model
from ionn_edge.storage.admission import verify
from ionn_edge.storage.blobs import StorageError, cannot_store
from ionn_edge.storage.graphs import MAX_GRAPH_BYTES
from ionn_edge.storage.holdings import WrongSize
from ionn_edge.storage.opening import NOBODY, Refused, check_of, worker_for
from ionn_edge.storage.staging import GRAPH, staged
from ionn_edge.storage.store import NoRoom

# Of a fingerprint, at least so much names a model.
LEAST_FINGERPRINT_CHARS = 6
# Weights that clients are told of while others wait: some microseconds each, for every client.
TOLD_AT_ONCE = 32
# Of a model's name, characters that are kept.
MOST_NAME = 100


class PublishingQuestions:
    """The handlers about what is published. find: the id of the device that is meant."""

    def __init__(self, box: Box, find: Callable[[str], str]) -> None:
        self._box = box
        self._find = find
        # One after the other: what one brings is no other's to drop.
        self._turn = asyncio.Lock()

    def handlers(self) -> Mapping[str, Handler]:
        return {
            "publish": self._publish,
            "publish from": self._publish_from,
            "published": self._published,
            "unpublish": self._unpublish,
        }

    async def _published(self, asked: dict[str, Any]) -> dict[str, Any]:
        box, total_bytes = self._box, int(asked["total_bytes"])
        if total_bytes > box.store.budget_bytes:
            total, budget = format_bytes(total_bytes), format_bytes(box.store.budget_bytes)
            raise ControlError(
                f"the model's weights take {total}, and the box's memory budget is {budget}"
                " (ionn edge serve --memory)"
            )
        published = await _is_published(box, asked["fingerprint"])
        return {"store": str(box.store.directory), "published": published}

    async def _publish(self, asked: dict[str, Any]) -> dict[str, Any]:
        name = "".join(each for each in str(asked.get("name", "")) if each.isprintable())
        async with self._turn:
            fingerprint = await publish(self._box, asked["fingerprint"], name[:MOST_NAME])
        return {"fingerprint": fingerprint}

    async def _publish_from(self, asked: dict[str, Any]) -> dict[str, Any]:
        device = self._find(asked["device"])
        async with self._turn:
            model = await publish_from(self._box, device, asked["model"])
        return {"fingerprint": model.fingerprint, "total_bytes": model.total_bytes}

    async def _unpublish(self, asked: dict[str, Any]) -> dict[str, Any]:
        async with self._turn:
            return {"fingerprint": unpublish(self._box, asked["model"])}


async def publish(box: Box, fingerprint: str, name: str = "") -> str:
    """Make the model everybody's that lies where `staging` has it put; its fingerprint.

    name: what the operator calls it. The box believes nothing of the rest: a worker checks the
    graph, and the weights are hashed. All of it is published, or nothing. Raises ControlError.
    """
    directory, published = staged(box.store.directory), box.store.published
    loop = asyncio.get_running_loop()
    with _explained():
        graph = await loop.run_in_executor(box.writers, _read_graph, directory)
        worker, model = await worker_for(box, check_of(box, NOBODY, fingerprint, graph))
        await worker.close()
        await verify(box, model, published)
        try:
            box.evicted(box.store.make_way(published.lacking(model.sizes), box.busy()))
            published.take(model, directory)
            await verify(box, model, published)
            published.check_sizes(model.sizes)
            if published.lacking(model.sizes):
                raise ControlError("the model's weights are not what its graph says; nothing done")
            published.record(model, graph, name)
        finally:
            box.evicted(box.store.drop_unpublished())
    await _tell(box, model)
    return fingerprint


async def _tell(box: Box, model: Model) -> None:
    """Those who are here have its weights now."""
    for number, digest in enumerate(model.sizes):
        box.completed(None, digest)
        if number % TOLD_AT_ONCE == TOLD_AT_ONCE - 1:
            await asyncio.sleep(0)


async def publish_from(box: Box, device: str, what: str) -> Model:
    """Make a model that a device has uploaded everybody's.

    what: the fingerprint, or its beginning. Raises ControlError.
    """
    shelf = box.store.shelf(device)
    # A graph is written beside what is said of it.
    await shelf.graphs.all_kept()
    fingerprint = _the_one({*shelf.fingerprints, *shelf.graphs.kept()}, what)
    graph = shelf.graphs.load(fingerprint)
    if graph is None:
        raise ControlError(f"the graph of {fingerprint[:16]} is not here; have it offered again")
    with _explained():
        # What is known of it the device's own worker said, and the device may be hostile: then
        # the graph is another than its name says, and nobody who offers that could run it.
        worker, model = await worker_for(box, check_of(box, NOBODY, fingerprint, graph))
        await worker.close()
    await verify(box, model, box.store.published, shelf)
    lacking = [
        digest for digest, size in model.sizes.items() if size and not shelf.is_whole(digest)
    ]
    if lacking:
        count = len(model.sizes)
        raise ControlError(f"{len(lacking)} of the model's {count} weights are not here yet")
    try:
        with _explained():
            box.store.published.publish(model, graph, shelf)
    finally:
        await _tell(box, model)
    return model


def unpublish(box: Box, what: str) -> str:
    """Have a model be nobody's; its fingerprint. Devices that use it upload it themselves.

    what: the name that it was published under, or its fingerprint, or the beginning of that.
    Raises ControlError.
    """
    published = box.store.published
    named = [each for each, name in published.names.items() if name and name == what]
    if len(named) > 1:
        raise ControlError(f"{len(named)} models are called {what!r}; give one's fingerprint")
    fingerprint = named[0] if named else _the_one(published.models, what)
    box.evicted(box.store.unpublish(fingerprint))
    return fingerprint


async def _is_published(box: Box, fingerprint: str) -> bool:
    """Whether all of it is here: a damaged weight is found out, and can be published again."""
    published = box.store.published
    model = published.models.get(fingerprint)
    if model is None or published.graphs.load(fingerprint) is None:
        return False
    await verify(box, model, published)
    return not published.lacking(model.sizes)


def _read_graph(directory: Path) -> bytes:
    try:
        with open(directory / GRAPH, "rb") as file:
            graph = file.read(MAX_GRAPH_BYTES + 1)
    except OSError as error:
        raise cannot_store(directory, error) from error
    if len(graph) > MAX_GRAPH_BYTES:
        limit = format_bytes(MAX_GRAPH_BYTES)
        raise ControlError(f"the model's graph takes more than {limit}, which no device can offer")
    return graph


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """What goes wrong is for the operator to read. Raises ControlError."""
    try:
        yield
    except Refused as error:
        raise ControlError(f"the box does not run this model: {error}") from error
    except (StorageError, NoRoom, WrongSize) as error:
        raise ControlError(str(error)) from error


def _the_one(fingerprints: Collection[str], what: str) -> str:
    found = [each for each in fingerprints if each.startswith(what)]
    if len(what) < LEAST_FINGERPRINT_CHARS or not found:
        raise ControlError(f"no model here is called {what!r}; see: ionn edge cache ls")
    if len(found) > 1:
        raise ControlError(f"{len(found)} models are called {what!r}; give more of the one's name")
    return found[0]
