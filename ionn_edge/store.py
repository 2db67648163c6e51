"""Which weights the box holds, for whom, under a byte budget.

Bookkeeping for the event loop; what takes long (hashing, writing) is `parts`, called by others
from threads. Models are evicted whole, the least recently used first. Blobs that several
models share count once. What an earlier run left belongs to no model until one claims it, and
goes first. A partial blob has one writer, so that no client can spoil another's upload.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ionn_edge.blobs import StorageError, blob_path, cannot_store, remove
from ionn_edge.config import format_bytes
from ionn_edge.events import Model, Progress
from ionn_edge.leftovers import leftovers
from ionn_edge.parts import Part


class NoRoom(Exception):
    """The model does not fit the budget."""


class WrongSize(Exception):
    """The model declares another size for a blob than the blob has."""


@dataclass(slots=True)
class _Blob:
    size_bytes: int
    verified: bool
    used_at: float


@dataclass(slots=True)
class _Stored:
    sizes: Mapping[bytes, int]
    used_at: int


class Store:
    """The weights in one directory, which only one edge may use at a time."""

    def __init__(self, directory: Path, budget_bytes: int) -> None:
        self.directory = directory
        self.budget_bytes = budget_bytes
        self._blobs: dict[bytes, _Blob] = {}
        self._parts: dict[bytes, list[Part]] = {}
        self._models: dict[str, _Stored] = {}
        self._fingerprints: dict[object, str] = {}
        self._uses = 0
        self._next_part = 0
        self._lock: int | None = None

    def open(self) -> None:
        """Create or scan the directory. Raises StorageError where it cannot be used."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = os.open(
                self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
            )
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._scan()
        except BlockingIOError:
            self.close()
            raise StorageError(
                f"another edge uses the store {self.directory}; give this one another --store"
            ) from None
        except OSError as error:
            self.close()
            reason = (error.strerror or type(error).__name__).lower()
            raise StorageError(f"the store {self.directory} cannot be used: {reason}") from error
        self._drop_orphans(0, ())

    def close(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @property
    def used_bytes(self) -> int:
        """What counts against the budget: whole blobs, and partial ones as what they will be."""
        return sum(blob.size_bytes for blob in self._blobs.values()) + sum(
            part.budget_bytes for part in self._all_parts()
        )

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

    def held(self, digest: bytes, owner: object | None = None) -> Progress:
        """How much of a blob is here; of partial ones `owner`'s, or the one that is furthest."""
        blob = self._blobs.get(digest)
        if blob is not None and blob.verified:
            return Progress(blob.size_bytes)
        parts = [p for p in self._parts.get(digest, ()) if owner in (None, p.owner)]
        return max(parts, key=lambda part: part.reach).held if parts else Progress()

    def is_whole(self, digest: bytes) -> bool:
        """Whether the blob is here and its digest was verified."""
        blob = self._blobs.get(digest)
        return blob is not None and blob.verified

    def unverified(self, among: Collection[bytes] | None = None) -> list[bytes]:
        """Whole blobs of earlier runs whose digest was not verified yet, the latest first."""
        digests = self._blobs if among is None else self._blobs.keys() & among
        waiting = [digest for digest in digests if not self._blobs[digest].verified]
        return sorted(waiting, key=lambda digest: -self._blobs[digest].used_at)

    def verified(self, digest: bytes, sound: bool) -> None:
        """A blob of an earlier run has the right bytes, or has not and goes."""
        blob = self._blobs.get(digest)
        if blob is not None and sound:
            blob.verified = True
        elif blob is not None and not blob.verified:
            self._drop_blob(digest)

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
        self._check_sizes(sizes)
        claims = {
            digest: self._claimable(digest, size, silent)
            for digest, size in sizes.items()
            if digest not in self._blobs and size
        }
        final = {d: sizes[d] + (p.planes_of(sizes[d]) if p else 0) for d, p in claims.items()}
        growth_bytes = sum(final[d] - (p.budget_bytes if p else 0) for d, p in claims.items())
        missing_bytes = sum(final[d] - (p.on_disk_bytes if p else 0) for d, p in claims.items())
        evicted = self._make_room(growth_bytes, missing_bytes, model.fingerprint, sizes, busy)
        dtypes = {digest: dtype for digest, _, dtype in model.weights}
        # Equal bytes may be of several types; only this one can come by planes.
        dtypes |= {digest: each for digest, _, each in model.weights if each == "float32"}
        for digest, part in claims.items():
            self._claim(digest, part).claim(sizes[digest], dtypes[digest], owner)
        self._models[model.fingerprint] = _Stored(sizes, 0)
        self._fingerprints[owner] = model.fingerprint
        self.touch(model.fingerprint)
        for digest in sizes:
            self._mark_used(digest)
        return evicted

    def widen(self, owner: object, busy: Collection[str] = ()) -> list[str]:
        """Make room for the planes of every blob that `owner` writes, beside the blobs.

        Returns the models evicted for it, as `admit` does. Raises NoRoom, or StorageError.
        """
        fingerprint = self._fingerprints[owner]
        parts = [p for p in self.owned(owner) if p.by_planes and not p.widened]
        growth_bytes = sum(part.planes_of(part.size_bytes or 0, True) for part in parts)
        sizes = self._models[fingerprint].sizes
        evicted = self._make_room(growth_bytes, growth_bytes, fingerprint, sizes, busy)
        for part in parts:
            part.widened = True
        return evicted

    def part(self, digest: bytes, owner: object) -> Part | None:
        """The partial blob that `owner` writes; None where another has completed it."""
        parts = [part for part in self._parts.get(digest, ()) if part.owner is owner]
        if not parts:
            return None
        if self.is_whole(digest):
            self._drop_part(parts[0])
            return None
        return parts[0]

    def owned(self, owner: object) -> list[Part]:
        return [part for part in self._all_parts() if part.owner is owner]

    def finish(self, part: Part) -> None:
        """A part is full and verified: it is a blob from now on. Raises StorageError."""
        if part.dropped or self.is_whole(part.digest):
            self._drop_part(part)
            return
        assert part.size_bytes is not None
        try:
            part.became_whole(blob_path(self.directory, part.digest))
        except OSError as error:
            raise cannot_store(self.directory, error) from error
        self._parts[part.digest].remove(part)
        for other in self._unowned(part.digest):
            self._drop_part(other)
        self._blobs[part.digest] = _Blob(part.size_bytes, True, 0.0)

    def drop(self, part: Part) -> None:
        """A part has the wrong bytes: who writes it begins anew."""
        owner, size_bytes = part.owner, part.size_bytes
        self._drop_part(part)
        if owner is not None and size_bytes is not None:
            self._claim(part.digest, None).claim(size_bytes, part.dtype, owner)

    def touch(self, fingerprint: str) -> None:
        """The model is in use."""
        stored = self._models.get(fingerprint)
        if stored is not None:
            self._uses += 1
            stored.used_at = self._uses

    def release(self, owner: object) -> None:
        """The owner is gone; what it wrote stays, for whoever offers the same.

        Of several beginnings of one blob that nobody writes, only the furthest will be gone on
        with; the others go.
        """
        self._fingerprints.pop(owner, None)
        for part in self.owned(owner):
            part.owner = None
            free = sorted(self._unowned(part.digest), key=lambda each: each.reach)
            for lesser in free[:-1]:
                self._drop_part(lesser)

    def _scan(self) -> None:
        whole, parts = leftovers(self.directory)
        for found in whole:
            self._blobs[found.digest] = _Blob(found.size_bytes, False, found.used_at)
        for part in parts:
            self._parts[part.digest] = [part]
            self._next_part = max(self._next_part, part.number + 1)

    def _all_parts(self) -> list[Part]:
        return [part for parts in self._parts.values() for part in parts]

    def _unowned(self, digest: bytes) -> list[Part]:
        return [part for part in self._parts.get(digest, ()) if part.owner is None]

    def _check_sizes(self, sizes: Mapping[bytes, int]) -> None:
        for digest, size in sizes.items():
            blob = self._blobs.get(digest)
            if blob is not None and blob.verified and blob.size_bytes != size:
                raise WrongSize(
                    f"a weight is declared with {size} bytes; what has its digest"
                    f" {digest.hex()[:16]} has {blob.size_bytes}"
                )

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

    def _claimable(self, digest: bytes, size: int, silent: Collection[object]) -> Part | None:
        """The partial blob that is furthest, of those that nobody writes any more."""
        free = [
            part
            for part in self._parts.get(digest, ())
            if (part.owner is None or part.owner in silent)
            and part.held_bytes <= size
            and part.size_bytes in (None, size)
        ]
        return max(free, key=lambda part: part.reach, default=None)

    def _claim(self, digest: bytes, part: Part | None) -> Part:
        if part is not None and not part.on_disk_bytes:
            # Who had it may be writing to it this moment.
            self._drop_part(part)
            part = None
        if part is None:
            part = Part(self.directory, digest, self._next_part)
            self._next_part += 1
            self._parts.setdefault(digest, []).append(part)
        return part

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
        return sum(self._blobs[digest].size_bytes for digest in blobs) + sum(
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
        blobs = [digest for digest in gone if digest in self._blobs]
        writers = {owner for owner, name in self._fingerprints.items() if name in going}
        parts = [p for p in self._all_parts() if p.digest in gone or p.owner in writers]
        return blobs, parts

    def _evict(self, going: Collection[str], newcomer: Iterable[bytes]) -> None:
        blobs, parts = self._doomed(going, newcomer)
        for digest in blobs:
            self._drop_blob(digest)
        for part in parts:
            self._drop_part(part)
        for name in going:
            del self._models[name]
        for owner, name in list(self._fingerprints.items()):
            if name in going:
                del self._fingerprints[owner]

    def _drop_orphans(self, growth_bytes: int, newcomer: Iterable[bytes]) -> None:
        """Make room among what no model has a use for, the longest unused first."""
        used = set(newcomer).union(*(stored.sizes for stored in self._models.values()))
        excess_bytes = self.used_bytes + growth_bytes - self.budget_bytes
        blobs = [digest for digest in self._blobs if digest not in used]
        for digest in sorted(blobs, key=lambda digest: self._blobs[digest].used_at):
            if excess_bytes > 0:
                excess_bytes -= self._blobs[digest].size_bytes
                self._drop_blob(digest)
        for part in self._all_parts():
            if excess_bytes > 0 and part.owner is None and part.digest not in used:
                excess_bytes -= part.budget_bytes
                self._drop_part(part)

    def _drop_blob(self, digest: bytes) -> None:
        del self._blobs[digest]
        remove(blob_path(self.directory, digest))

    def _drop_part(self, part: Part) -> None:
        part.dropped, part.owner = True, None
        part.remove()
        parts = self._parts.get(part.digest, [])
        if part in parts:
            parts.remove(part)

    def _mark_used(self, digest: bytes) -> None:
        blob = self._blobs.get(digest)
        if blob is not None:
            try:
                os.utime(blob_path(self.directory, digest))
            except OSError:
                return  # Only the order of a later run's eviction suffers.
