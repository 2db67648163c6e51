"""What of weights a directory holds: whole blobs, and those on their way, each with its writer.

Bookkeeping for the event loop, which knows neither models nor a budget: `store` decides what
goes. A partial blob has one writer, so that no connection can spoil another's upload. Blobs are
asked for by their digests and remembered by their names (see places).
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Set
from dataclasses import dataclass

from ionn_edge.machine.events import NOTHING, Progress
from ionn_edge.storage.blobs import (
    MOST_PARTS,
    blob_path,
    cannot_store,
    remove,
    remove_beside,
    touch,
    touch_beside,
)
from ionn_edge.storage.leftovers import leftovers
from ionn_edge.storage.parts import Part
from ionn_edge.storage.places import Place

# Remembered, of one device: as many as it may have here (see shelf), and then some.
_MOST_NAMES = 1 << 16
# Files that are removed while others wait for it: 10 to 150 microseconds each.
AT_ONCE = 32


class WrongSize(Exception):
    """The model declares another size for a blob than the blob has."""


@dataclass(slots=True)
class Blob:
    """A whole one; `verified` once its digest was checked in this run."""

    size_bytes: int
    verified: bool
    used_at: float


class Holdings:
    """The weights in one directory."""

    def __init__(self, place: Place) -> None:
        self.place = place
        # Changed by `_put` and `_pop` only.
        self.blobs: dict[bytes, Blob] = {}
        self._blobs_bytes = 0
        self._watching: list[set[bytes]] = []
        self._parts: dict[bytes, list[Part]] = {}
        self._next_part = 0
        self._names: dict[bytes, bytes] = {}

    def open(self) -> None:
        """Create or scan the directory. Raises OSError."""
        directory = self.place.directory
        if directory.is_symlink() or directory.is_file():
            directory.unlink()
        directory.mkdir(mode=0o700, exist_ok=True)
        whole, parts = leftovers(self.place)
        for found in whole:
            self._put(found.name, Blob(found.size_bytes, False, found.used_at))
        for part in parts:
            self._parts[part.name] = [part]
            self._next_part = max(self._next_part, part.number + 1)
        self._next_part %= MOST_PARTS

    def name(self, digest: bytes) -> bytes:
        """What the blob is called here: computed once, as a model is asked for many times."""
        name = self._names.get(digest)
        if name is None:
            if len(self._names) >= _MOST_NAMES:
                self._names.clear()
            name = self._names[digest] = self.place.name(digest)
        return name

    @property
    def used_bytes(self) -> int:
        """What counts against a budget: whole blobs, and partial ones as what they will be."""
        return self._blobs_bytes + sum(part.budget_bytes for part in self.parts)

    @contextlib.contextmanager
    def watched(self) -> Iterator[set[bytes]]:
        """Names of what comes, is verified, is begun or goes, inside."""
        names = set[bytes]()
        self._watching.append(names)
        try:
            yield names
        finally:
            self._watching = [each for each in self._watching if each is not names]

    def _changed(self, name: bytes) -> None:
        for names in self._watching:
            names.add(name)

    def is_begun(self, name: bytes) -> bool:
        """Whether a blob is on its way, by whomever."""
        return name in self._parts

    @property
    def parts(self) -> list[Part]:
        return [part for parts in self._parts.values() for part in parts]

    def held(self, digest: bytes, owner: object | None = None) -> Progress:
        """How much of a blob is here; of partial ones `owner`'s, or the one that is furthest."""
        if not (self.blobs or self._parts):
            return NOTHING
        name = self.name(digest)
        blob = self.blobs.get(name)
        if blob is not None and blob.verified:
            return Progress(blob.size_bytes)
        parts = [p for p in self._parts.get(name, ()) if owner in (None, p.owner)]
        return max(parts, key=lambda part: part.reach).held if parts else NOTHING

    def is_whole(self, digest: bytes) -> bool:
        """Whether the blob is here and its digest was verified."""
        blob = self.blobs.get(self.name(digest)) if self.blobs else None
        return blob is not None and blob.verified

    # Whole blobs.

    def unverified(self, among: Collection[bytes] | None = None) -> list[bytes]:
        """Names of whole blobs of earlier runs that were not verified yet, the latest first.

        Only of those with the digests `among`, if given.
        """
        if not self.blobs:
            return []
        names = self.blobs if among is None else map(self.name, among)
        waiting = [name for name in names if name in self.blobs and not self.blobs[name].verified]
        return sorted(waiting, key=lambda name: -self.blobs[name].used_at)

    def verified(self, name: bytes, digest: bytes | None) -> bool:
        """A blob of an earlier run has this digest, or cannot be read: it goes unless it is right.

        Whether it is.
        """
        sound = digest is not None and self.place.name(digest) == name
        blob = self.blobs.get(name)
        if blob is not None and sound:
            blob.verified = True
            self._changed(name)
        elif blob is not None and not blob.verified:
            self.drop_blob(name)
        return sound

    def check_sizes(self, sizes: Mapping[bytes, int]) -> None:
        """Raises WrongSize where a blob that is here has another size than declared."""
        for digest, size in sizes.items() if self.blobs else ():
            blob = self.blobs.get(self.name(digest))
            if blob is not None and blob.verified and blob.size_bytes != size:
                raise WrongSize(
                    f"a weight is declared with {size} bytes; what has its digest"
                    f" {digest.hex()[:16]} has {blob.size_bytes}"
                )

    def mark_used(self, names: Set[bytes]) -> None:
        here = names & self.blobs.keys()
        (touch if len(here) <= AT_ONCE else touch_beside)(self.place.directory, here)

    def drop_blob(self, name: bytes) -> None:
        if self._pop(name) is not None:
            remove(blob_path(self.place.directory, name))

    def _put(self, name: bytes, blob: Blob) -> None:
        self._pop(name)
        self.blobs[name] = blob
        self._blobs_bytes += blob.size_bytes
        self._changed(name)

    def _pop(self, name: bytes) -> Blob | None:
        blob = self.blobs.pop(name, None)
        if blob is not None:
            self._blobs_bytes -= blob.size_bytes
            self._changed(name)
        return blob

    # Partial ones.

    def part(self, digest: bytes, owner: object) -> Part | None:
        """The partial blob that `owner` writes; None where another has completed it."""
        name = self.name(digest)
        parts = [part for part in self._parts.get(name, ()) if part.owner is owner]
        if not parts:
            return None
        if self.is_whole(digest):
            self.drop_part(parts[0])
            return None
        return parts[0]

    def owned(self, owner: object) -> list[Part]:
        return [part for part in self.parts if part.owner is owner]

    def claimable(self, name: bytes, size: int, silent: Collection[object]) -> Part | None:
        """The partial blob that is furthest, of those that nobody writes any more."""
        free = [
            part
            for part in self._parts.get(name, ())
            if (part.owner is None or part.owner in silent)
            and part.held_bytes <= size
            and part.size_bytes in (None, size)
        ]
        return max(free, key=lambda part: part.reach, default=None)

    def claim(self, part: Part | None, digest: bytes, size: int, dtype: str, owner: object) -> Part:
        """A claimable part, or a new one: `owner`'s to write from now on."""
        if part is not None and not part.on_disk_bytes:
            # Who had it may be writing to it this moment.
            self.drop_part(part)
            part = None
        if part is None:
            part = Part(self.place, self.name(digest), self._next_part)
            self._next_part = (self._next_part + 1) % MOST_PARTS
            self._parts.setdefault(part.name, []).append(part)
            self._changed(part.name)
        part.claim(digest, size, dtype, owner)
        return part

    def finish(self, part: Part) -> None:
        """A part is full and verified: it is a blob from now on. Raises StorageError."""
        if part.dropped or self.is_whole(part.digest):
            self.drop_part(part)
            return
        assert part.size_bytes is not None
        try:
            part.became_whole(blob_path(self.place.directory, part.name))
        except OSError as error:
            raise cannot_store(self.place.directory, error) from error
        self._lose(part)
        for other in self._unowned(part.name):
            self.drop_part(other)
        self._put(part.name, Blob(part.size_bytes, True, 0.0))

    def drop(self, part: Part) -> None:
        """A part has the wrong bytes: who writes it begins anew."""
        owner, size_bytes = part.owner, part.size_bytes
        self.drop_part(part)
        if owner is not None and size_bytes is not None:
            self.claim(None, part.digest, size_bytes, part.dtype, owner)

    def drop_part(self, part: Part) -> None:
        part.dropped, part.owner = True, None
        part.remove()
        self._lose(part)

    def drop_all(self, names: Collection[bytes], parts: Collection[Part]) -> None:
        """Drop blobs and parts, so many of them beside that nobody has to wait for it."""
        if len(names) + len(parts) <= AT_ONCE:
            for name in names:
                self.drop_blob(name)
            for part in parts:
                self.drop_part(part)
            return
        going = [blob_path(self.place.directory, name) for name in names]
        for name in names:
            self._pop(name)
        for part in parts:
            part.dropped, part.owner = True, None
            going += part.files
            self._lose(part)
        remove_beside(going)

    def _lose(self, part: Part) -> None:
        parts = self._parts.get(part.name, [])
        if part in parts:
            parts.remove(part)
        if not parts:
            self._parts.pop(part.name, None)
        self._changed(part.name)

    def release(self, owner: object) -> None:
        """The owner is gone; what it wrote stays, for whoever offers the same.

        Of several beginnings of one blob that nobody writes, only the furthest will be gone on
        with; the others go.
        """
        for part in self.owned(owner):
            part.owner = None
            if len(self._parts[part.name]) > 1:
                free = sorted(self._unowned(part.name), key=lambda each: each.reach)
                for lesser in free[:-1]:
                    self.drop_part(lesser)

    def _unowned(self, name: bytes) -> list[Part]:
        return [part for part in self._parts.get(name, ()) if part.owner is None]
