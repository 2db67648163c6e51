"""How a model comes in: room for it, and what of its weights is here, which is checked first."""

from __future__ import annotations

import asyncio
import logging

from ionn_edge.box import Box, Client
from ionn_edge.machine.events import Model, Progress
from ionn_edge.storage.blobs import Mismatch, blob_path, digest_of
from ionn_edge.storage.holdings import Holdings
from ionn_edge.storage.parts import Part

log = logging.getLogger("ionn_edge")


async def admit(box: Box, model: Model, owner: Client) -> tuple[Progress, ...]:
    """Room for a model; how much of each weight is there.

    Evicts others where it must, and tells their clients. Raises what Store.admit raises.
    The caller tells its session before it awaits anything: until then nobody else does.
    """
    device = owner.device.id
    shelf = box.store.shelf(device)
    await verify(box, model, box.store.published, shelf)
    evicted = box.store.admit(device, model, owner, box.busy(), box.silent())
    box.evicted(evicted)
    box.opening[owner] = model.fingerprint
    try:
        parts = shelf.owned(owner)
        await asyncio.to_thread(_resume, parts)
    finally:
        del box.opening[owner]
    for part in parts:
        if part.full:
            shelf.finish(part)
            box.completed(device, part.digest)
    if shelf.offered(owner) is None:
        # The operator had it forgotten meanwhile.
        return await admit(box, model, owner)
    return await count(box, model, owner)


async def count(box: Box, model: Model, owner: Client) -> tuple[Progress, ...]:
    """How much of each weight is there, of what can be told in a message."""
    held = _held(box, model, owner)
    if _rows(model, held) > box.config.limits.max_weights:
        # What nobody knows of cannot be gone on with.
        await asyncio.to_thread(_restart, box.store.shelf(owner.device.id).owned(owner))
        held = _held(box, model, owner)
    return held


async def verify(box: Box, model: Model, *among: Holdings) -> None:
    """Check what of a model's weights is there and was not written by this run."""
    for holdings in among:
        names = holdings.unverified(model.sizes)
        await asyncio.gather(*(_verify(box, holdings, name) for name in names))


async def verify_all(box: Box) -> None:
    """Check what earlier runs left, one blob after the other."""
    for holdings in (box.store.published, *box.store.shelves):
        while unverified := holdings.unverified():
            await _verify(box, holdings, unverified[0])


async def _verify(box: Box, holdings: Holdings, name: bytes) -> None:
    path = blob_path(holdings.place.directory, name)
    loop = asyncio.get_running_loop()
    digest = await loop.run_in_executor(box.writers, digest_of, path)
    if not holdings.verified(name, digest):
        log.warning("dropped a damaged file from the store: %s", path)


def _held(box: Box, model: Model, owner: Client) -> tuple[Progress, ...]:
    shelf = box.store.shelf(owner.device.id)
    return tuple(
        shelf.held(digest, owner) if size else Progress() for digest, size, _ in model.weights
    )


def _resume(parts: list[Part]) -> None:
    for part in parts:
        if part.on_disk_bytes:
            try:
                part.resume()
            except Mismatch:
                part.restart()


def _restart(parts: list[Part]) -> None:
    for part in parts:
        part.restart()


def _rows(model: Model, held: tuple[Progress, ...]) -> int:
    """How many rows Have needs for partial blobs, at the most."""
    return sum(
        (each.whole_bytes > 0) + (each.coarse > 0) + (each.middle > 0)
        for each, (_, size, _) in zip(held, model.weights, strict=True)
        if each.whole_bytes < size
    )
