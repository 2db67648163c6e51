"""What must be so at the edge where nothing happens any more, or when everybody has gone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ionn_edge.storage.blobs import scan
from ionn_edge.storage.shelf import Shelf

if TYPE_CHECKING:
    from tests.simulation.edge import Life


def unserved(life: Life) -> list[str]:
    """Clients whose queries could not run, though nothing is in the way; and what is not stored."""
    wrong = []
    for link in life.links:
        session, worker = link.session, link._served.worker
        if session.closed or link.is_lane:
            continue
        if session.model is not None and not (
            session._worker_ready and worker is not None and worker.alive
        ):
            wrong.append("a client has a model here, and no worker that runs it")
        if link._writer._unstored_bytes:
            wrong.append(f"{link._writer._unstored_bytes} bytes are never stored")
    return wrong


def left_behind(life: Life) -> list[str]:
    """What those who have gone still take."""
    box = life.box
    kept = {
        "connections": life.links,
        "workers": life.workers,
        "models being admitted": box.opening,
        "connections with a quota": [s for q in life.quotas for s in q.sessions],
    }
    wrong = [f"{len(each)} {what}" for what, each in kept.items() if each]
    for shelf in box.store.shelves:
        wrong += _of_shelf(shelf)
    return wrong


def _of_shelf(shelf: Shelf) -> Iterator[str]:
    if shelf.attended or shelf._unbegun or any(part.owner for part in shelf.parts):
        yield "weights wait for who is gone"
    if shelf._blobs_bytes != sum(blob.size_bytes for blob in shelf.blobs.values()):
        yield f"blobs are counted as {shelf._blobs_bytes} bytes"
    files = list(scan(shelf.place.directory))
    whole = {each.name: each.size_bytes for each in files if each.kind == "whole"}
    if whole != {name: blob.size_bytes for name, blob in shelf.blobs.items()}:
        yield f"{len(whole)} whole files, and {len(shelf.blobs)} blobs"
    begun = {(part.name, part.number) for part in shelf.parts}
    if strays := [e for e in files if e.kind != "whole" and (e.name, e.number) not in begun]:
        yield f"{len(strays)} files of nobody's"
