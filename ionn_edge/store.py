"""Which weights the box holds, for whom, under a byte budget.

Bookkeeping for the event loop; what takes long (hashing, writing) is `parts`, called by others
from threads. Models are evicted whole, the least recently used first. Blobs that several
models share count once. What an earlier run left belongs to no model until one claims it, and
goes first.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ionn_edge.blobs import StorageError
from ionn_edge.config import format_bytes
from ionn_edge.events import Model
from ionn_edge.holdings import Holdings, WrongSize
from ionn_edge.parts import Part

__all__ = ["NoRoom", "Store", "WrongSize"]


class NoRoom(Exception):
    """The model does not fit the budget."""


@dataclass(slots=True)
class _Stored:
    sizes: Mapping[bytes, int]
    used_at: int


class Store(Holdings):
    """The weights in one directory under a budget, and the models that they are of."""

    def __init__(self, directory: Path, budget_bytes: int) -> None:
        super().__init__(directory)
        self.budget_bytes = budget_bytes
        self._models: dict[str, _Stored] = {}
        self._fingerprints: dict[object, str] = {}
        self._uses = 0

    def open(self) -> None:
        super().open()
        self._drop_orphans(0, ())

    @property
    def models(self) -> dict[str, tuple[int, int]]:
        """(held bytes, total bytes) of each model, the least recently used first."""
        ordered = sorted(self._models.items(), key=lambda item: item[1].used_at)
        return {
            fingerprint: (
                sum(self.held(digest).whole_bytes for digest in stored.sizes),
                sum(stored.sizes.values()),
            )
            for fingerprint, stored in ordered
        }

    def touch(self, fingerprint: str) -> None:
        """The model is in use."""
        stored = self._models.get(fingerprint)
        if stored is not None:
            self._uses += 1
            stored.used_at = self._uses

    def release(self, owner: object) -> None:
        self._fingerprints.pop(owner, None)
        super().release(owner)

    def admit(
        self,
        model: Model,
        owner: object,
        busy: Collection[str] = (),
        silent: Collection[object] = (),
    ) -> list[str]:
        """Make room for a model and give its missing blobs to `owner` to write.

        Partial blobs that nobody writes, or an owner in `silent`, are its to continue. Returns
        the models evicted for it; never one in `busy`. Raises NoRoom, WrongSize, or
        StorageError where the disk has not the space.
        """
        sizes, total_bytes = model.sizes, model.total_bytes
        if total_bytes > self.budget_bytes:
            raise NoRoom(
                f"the model's weights take {format_bytes(total_bytes)}, and the edge's memory "
                f"budget is {format_bytes(self.budget_bytes)} (ionn edge serve --memory)"
            )
        self.check_sizes(sizes)
        claims = {
            digest: self.claimable(digest, size, silent)
            for digest, size in sizes.items()
            if digest not in self.blobs and size
        }
        final = {d: sizes[d] + (p.planes_of(sizes[d]) if p else 0) for d, p in claims.items()}
        growth_bytes = sum(final[d] - (p.budget_bytes if p else 0) for d, p in claims.items())
        missing_bytes = sum(final[d] - (p.on_disk_bytes if p else 0) for d, p in claims.items())
        evicted = self._make_room(growth_bytes, missing_bytes, model.fingerprint, sizes, busy)
        dtypes = {digest: dtype for digest, _, dtype in model.weights}
        # Equal bytes may be of several types; only this one can come by planes.
        dtypes |= {digest: each for digest, _, each in model.weights if each == "float32"}
        for digest, part in claims.items():
            self.claim(part, digest, sizes[digest], dtypes[digest], owner)
        self._models[model.fingerprint] = _Stored(sizes, 0)
        self._fingerprints[owner] = model.fingerprint
        self.touch(model.fingerprint)
        for digest in sizes:
            self.mark_used(digest)
        return evicted

    def widen(self, owner: object, busy: Collection[str] = ()) -> list[str]:
        """Make room for the planes of every blob that `owner` writes, beside the blobs.

        On the disk for the planes, in the budget also for the tensors that are made of them.
        Returns the models evicted for it, as `admit` does. Raises NoRoom, or StorageError.
        """
        fingerprint = self._fingerprints[owner]
        parts = [p for p in self.owned(owner) if p.by_planes and not p.widened]
        planes_bytes = sum(part.planes_of(part.size_bytes or 0, True) for part in parts)
        growth_bytes = planes_bytes + sum(part.rough_bytes for part in parts)
        sizes = self._models[fingerprint].sizes
        evicted = self._make_room(growth_bytes, planes_bytes, fingerprint, sizes, busy)
        for part in parts:
            part.widened = True
        return evicted

    def _make_room(
        self,
        growth_bytes: int,
        missing_bytes: int,
        fingerprint: str,
        sizes: Mapping[bytes, int],
        busy: Collection[str],
    ) -> list[str]:
        """Evict for a model until the budget has room for its growth, the disk for the missing."""
        self._drop_orphans(growth_bytes, sizes)
        evicted = self._to_evict(growth_bytes, fingerprint, sizes, busy)
        self._check_disk(missing_bytes, self._freed(evicted, sizes))
        self._evict(evicted, sizes)
        return evicted

    def _check_disk(self, missing_bytes: int, freed_bytes: int) -> None:
        disk = os.statvfs(self.directory)
        free = disk.f_bavail * disk.f_frsize
        if missing_bytes > free + freed_bytes:
            raise StorageError(
                f"{format_bytes(missing_bytes)} of weights are missing, and the edge's disk has"
                f" {format_bytes(free)} left ({self.directory})"
            )

    def _to_evict(
        self, growth_bytes: int, newcomer: str, sizes: Mapping[bytes, int], busy: Collection[str]
    ) -> list[str]:
        evictable = sorted(
            (name for name in self._models if name != newcomer and name not in busy),
            key=lambda name: self._models[name].used_at,
        )
        going: list[str] = []
        used_bytes = self.used_bytes
        while used_bytes - self._freed(going, sizes) + growth_bytes > self.budget_bytes:
            if len(going) == len(evictable):
                raise NoRoom(
                    f"the model needs {format_bytes(growth_bytes)} more, and of the edge's memory"
                    f" budget of {format_bytes(self.budget_bytes)} the rest is in use; try later"
                )
            going.append(evictable[len(going)])
        return going

    def _freed(self, going: Collection[str], newcomer: Iterable[bytes]) -> int:
        blobs, parts = self._doomed(going, newcomer)
        return sum(self.blobs[digest].size_bytes for digest in blobs) + sum(
            part.budget_bytes for part in parts
        )

    def _doomed(
        self, going: Collection[str], newcomer: Iterable[bytes]
    ) -> tuple[list[bytes], list[Part]]:
        """Blobs and parts that no remaining model, nor the newcomer, has a use for."""
        gone = {digest for name in going for digest in self._models[name].sizes}
        gone.difference_update(newcomer)
        for name, stored in self._models.items():
            if name not in going:
                gone.difference_update(stored.sizes)
        blobs = [digest for digest in gone if digest in self.blobs]
        writers = {owner for owner, name in self._fingerprints.items() if name in going}
        parts = [p for p in self.parts if p.digest in gone or p.owner in writers]
        return blobs, parts

    def _evict(self, going: Collection[str], newcomer: Iterable[bytes]) -> None:
        blobs, parts = self._doomed(going, newcomer)
        for digest in blobs:
            self.drop_blob(digest)
        for part in parts:
            self.drop_part(part)
        for name in going:
            del self._models[name]
        for owner, name in list(self._fingerprints.items()):
            if name in going:
                del self._fingerprints[owner]

    def _drop_orphans(self, growth_bytes: int, newcomer: Iterable[bytes]) -> None:
        """Make room among what no model has a use for, the longest unused first."""
        used = set(newcomer).union(*(stored.sizes for stored in self._models.values()))
        excess_bytes = self.used_bytes + growth_bytes - self.budget_bytes
        blobs = [digest for digest in self.blobs if digest not in used]
        for digest in sorted(blobs, key=lambda digest: self.blobs[digest].used_at):
            if excess_bytes > 0:
                excess_bytes -= self.blobs[digest].size_bytes
                self.drop_blob(digest)
        for part in self.parts:
            if excess_bytes > 0 and part.owner is None and part.digest not in used:
                excess_bytes -= part.budget_bytes
                self.drop_part(part)
