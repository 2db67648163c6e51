"""What of weights a directory holds: whole blobs, and those on their way, each with its writer.

Bookkeeping for the event loop, which knows neither models nor a budget: `store` decides what
goes. A partial blob has one writer, so that no client can spoil another's upload.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from ionn_edge.blobs import StorageError, blob_path, cannot_store, remove
from ionn_edge.events import Progress
from ionn_edge.leftovers import leftovers
from ionn_edge.parts import Part


class WrongSize(Exception):
    """The model declares another size for a blob than the blob has."""


@dataclass(slots=True)
class Blob:
    """A whole one; `verified` once its digest was checked in this run."""

    size_bytes: int
    verified: bool
    used_at: float


class Holdings:
    """The weights in one directory, which only one edge may use at a time."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.blobs: dict[bytes, Blob] = {}
        self._parts: dict[bytes, list[Part]] = {}
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

    def close(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @property
    def used_bytes(self) -> int:
        """What counts against a budget: whole blobs, and partial ones as what they will be."""
        return sum(blob.size_bytes for blob in self.blobs.values()) + sum(
            part.budget_bytes for part in self.parts
        )

    @property
    def parts(self) -> list[Part]:
        return [part for parts in self._parts.values() for part in parts]

    def held(self, digest: bytes, owner: object | None = None) -> Progress:
        """How much of a blob is here; of partial ones `owner`'s, or the one that is furthest."""
        blob = self.blobs.get(digest)
        if blob is not None and blob.verified:
            return Progress(blob.size_bytes)
        parts = [p for p in self._parts.get(digest, ()) if owner in (None, p.owner)]
        return max(parts, key=lambda part: part.reach).held if parts else Progress()

    def is_whole(self, digest: bytes) -> bool:
        """Whether the blob is here and its digest was verified."""
        blob = self.blobs.get(digest)
        return blob is not None and blob.verified

    # Whole blobs.

    def unverified(self, among: Collection[bytes] | None = None) -> list[bytes]:
        """Whole blobs of earlier runs whose digest was not verified yet, the latest first."""
        digests = self.blobs if among is None else self.blobs.keys() & among
        waiting = [digest for digest in digests if not self.blobs[digest].verified]
        return sorted(waiting, key=lambda digest: -self.blobs[digest].used_at)

    def verified(self, digest: bytes, sound: bool) -> None:
        """A blob of an earlier run has the right bytes, or has not and goes."""
        blob = self.blobs.get(digest)
        if blob is not None and sound:
            blob.verified = True
        elif blob is not None and not blob.verified:
            self.drop_blob(digest)

    def check_sizes(self, sizes: Mapping[bytes, int]) -> None:
        """Raises WrongSize where a blob that is here has another size than declared."""
        for digest, size in sizes.items():
            blob = self.blobs.get(digest)
            if blob is not None and blob.verified and blob.size_bytes != size:
                raise WrongSize(
                    f"a weight is declared with {size} bytes; what has its digest"
                    f" {digest.hex()[:16]} has {blob.size_bytes}"
                )

    def mark_used(self, digest: bytes) -> None:
        if digest in self.blobs:
            try:
                os.utime(blob_path(self.directory, digest))
            except OSError:
                return  # Only the order of a later run's eviction suffers.

    def drop_blob(self, digest: bytes) -> None:
        del self.blobs[digest]
        remove(blob_path(self.directory, digest))

    # Partial ones.

    def part(self, digest: bytes, owner: object) -> Part | None:
        """The partial blob that `owner` writes; None where another has completed it."""
        parts = [part for part in self._parts.get(digest, ()) if part.owner is owner]
        if not parts:
            return None
        if self.is_whole(digest):
            self.drop_part(parts[0])
            return None
        return parts[0]

    def owned(self, owner: object) -> list[Part]:
        return [part for part in self.parts if part.owner is owner]

    def claimable(self, digest: bytes, size: int, silent: Collection[object]) -> Part | None:
        """The partial blob that is furthest, of those that nobody writes any more."""
        free = [
            part
            for part in self._parts.get(digest, ())
            if (part.owner is None or part.owner in silent)
            and part.held_bytes <= size
            and part.size_bytes in (None, size)
        ]
        return max(free, key=lambda part: part.reach, default=None)

    def claim(self, part: Part | None, digest: bytes, size: int, dtype: str, owner: object) -> None:
        """Give a claimable part to `owner` to write, or a new one."""
        if part is not None and not part.on_disk_bytes:
            # Who had it may be writing to it this moment.
            self.drop_part(part)
            part = None
        if part is None:
            part = Part(self.directory, digest, self._next_part)
            self._next_part += 1
            self._parts.setdefault(digest, []).append(part)
        part.claim(size, dtype, owner)

    def finish(self, part: Part) -> None:
        """A part is full and verified: it is a blob from now on. Raises StorageError."""
        if part.dropped or self.is_whole(part.digest):
            self.drop_part(part)
            return
        assert part.size_bytes is not None
        try:
            part.became_whole(blob_path(self.directory, part.digest))
        except OSError as error:
            raise cannot_store(self.directory, error) from error
        self._parts[part.digest].remove(part)
        for other in self._unowned(part.digest):
            self.drop_part(other)
        self.blobs[part.digest] = Blob(part.size_bytes, True, 0.0)

    def drop(self, part: Part) -> None:
        """A part has the wrong bytes: who writes it begins anew."""
        owner, size_bytes = part.owner, part.size_bytes
        self.drop_part(part)
        if owner is not None and size_bytes is not None:
            self.claim(None, part.digest, size_bytes, part.dtype, owner)

    def drop_part(self, part: Part) -> None:
        part.dropped, part.owner = True, None
        part.remove()
        parts = self._parts.get(part.digest, [])
        if part in parts:
            parts.remove(part)

    def release(self, owner: object) -> None:
        """The owner is gone; what it wrote stays, for whoever offers the same.

        Of several beginnings of one blob that nobody writes, only the furthest will be gone on
        with; the others go.
        """
        for part in self.owned(owner):
            part.owner = None
            free = sorted(self._unowned(part.digest), key=lambda each: each.reach)
            for lesser in free[:-1]:
                self.drop_part(lesser)

    def _unowned(self, digest: bytes) -> list[Part]:
        return [part for part in self._parts.get(digest, ()) if part.owner is None]

    def _scan(self) -> None:
        whole, parts = leftovers(self.directory)
        for found in whole:
            self.blobs[found.digest] = Blob(found.size_bytes, False, found.used_at)
        for part in parts:
            self._parts[part.digest] = [part]
            self._next_part = max(self._next_part, part.number + 1)
