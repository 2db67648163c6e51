"""How a model comes in: room for it, and what of its weights is here, which is checked first."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import TypeVar

from ionn_edge.box import Box, Client
from ionn_edge.machine.events import NOTHING, Model, Progress
from ionn_edge.storage.blobs import Mismatch, blob_path, digest_of
from ionn_edge.storage.holdings import Holdings
from ionn_edge.storage.parts import Part

log = logging.getLogger("ionn_edge")
_Item = TypeVar("_Item")
# Of a model's weights, so many are looked at before the time is; and a turn takes so long. A query
# that others ask meanwhile needs several turns: it is to meet one of these at the most.
LOOKED_AT, SLICE_S, PAUSE_S = 32, 0.0005, 0.004
# As many as there are threads for, and a few more, that none has to wait.
VERIFIED_TOGETHER = 16


@dataclass(frozen=True, slots=True)
class Here:
    """What of a model is here: how much of each weight, and the numbers of those that are whole."""

    held: tuple[Progress, ...]
    whole: tuple[int, ...]


async def admit(box: Box, model: Model, owner: Client) -> Here:
    """Room for a model; what of it is there.

    Evicts others where it must, and tells their clients. Raises what Store.admit raises.
    The caller tells its session before it awaits anything: until then nobody else does.
    """
    device = owner.device.id
    shelf = box.store.shelf(device)
    async for digest in _in_turns(box, owner, model.sizes):
        # A keyed hash each, which both remember.
        shelf.name(digest)
    await verify(box, model, box.store.published, shelf)
    with shelf.claims(model) as claims:
        async for _ in _in_turns(box, owner, claims.look()):
            pass
        began_s = time.thread_time()
        evicted = box.store.admit(device, model, owner, box.busy(), box.silent(), claims)
    box.evicted(evicted)
    box.opening[owner] = model.fingerprint
    parts = shelf.owned(owner)
    box.opening_rest_s(owner.device, time.thread_time() - began_s)
    try:
        await asyncio.to_thread(_resume, parts)
    finally:
        del box.opening[owner]
    for part in parts:
        if part.full:
            shelf.finish(part)
            box.completed(device, part.digest)
    here = await count(box, model, owner)
    if shelf.offered(owner) is None:
        # The operator had it forgotten meanwhile.
        return await admit(box, model, owner)
    return here


async def count(box: Box, model: Model, owner: Client) -> Here:
    """What of a model is there, as far as it can be told in a message."""
    rows, here = await _here(box, model, owner)
    if rows > box.config.limits.max_weights:
        # What nobody knows of cannot be gone on with.
        await asyncio.to_thread(_restart, box.store.shelf(owner.device.id).owned(owner))
        _, here = await _here(box, model, owner)
    return here


async def whole_weights(box: Box, model: Model, owner: Client) -> tuple[int, ...]:
    """Numbers of those that are there entirely."""
    _, here = await _here(box, model, owner)
    return here.whole


async def verify(box: Box, model: Model, *among: Holdings) -> None:
    """Check what of a model's weights is there and was not written by this run."""
    for holdings in among:
        names = holdings.unverified(model.sizes)
        for at in range(0, len(names), VERIFIED_TOGETHER):
            some = names[at : at + VERIFIED_TOGETHER]
            await asyncio.gather(*(_verify(box, holdings, name) for name in some))


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


async def _here(box: Box, model: Model, owner: Client) -> tuple[int, Here]:
    """How many rows Have needs for partial blobs, at the most; and what is here."""
    shelf = box.store.shelf(owner.device.id)
    rows, held, whole = 0, list[Progress](), list[int]()
    async for digest, size, _ in _in_turns(box, owner, model.weights):
        each = shelf.held(digest, owner) if size else NOTHING
        if size and each.whole_bytes == size and shelf.is_whole(digest):
            whole.append(len(held))
        elif each is not NOTHING:
            rows += (each.whole_bytes > 0) + (each.coarse > 0) + (each.middle > 0)
        held.append(each)
    return rows, Here(tuple(held), tuple(whole))


async def _in_turns(box: Box, owner: Client, items: Iterable[_Item]) -> AsyncIterator[_Item]:
    """Each of them, with a pause now and then while there are others, and a longer rest once those
    before have kept these waiting for too much of the time."""
    device = owner.device
    began_s = time.thread_time()
    for number, item in enumerate(items):
        yield item
        if number % LOOKED_AT == LOOKED_AT - 1:
            spent_s = time.thread_time() - began_s
            if spent_s >= SLICE_S:
                rest_s = box.opening_rest_s(device, spent_s)
                await asyncio.sleep(0 if box.is_alone(device) else max(rest_s, PAUSE_S))
                began_s = time.thread_time()


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
