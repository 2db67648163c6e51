"""One device's part of the store: its weights, its models, its graphs.

Nothing here is another device's: an answer made of it tells nothing of others. What the operator
has published is looked up beside it, and is everybody's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Set
from dataclasses import dataclass

from ionn_edge.machine.events import Model, Progress
from ionn_edge.storage.claims import Claims, Unbegun
from ionn_edge.storage.graphs import Graphs
from ionn_edge.storage.holdings import Holdings
from ionn_edge.storage.parts import Part
from ionn_edge.storage.places import Place

# Of one device: models, and their weights' names or files; four of the largest models' are these.
# Small weights take next to nothing of a quota, and memory, inodes and the event loop's time all
# the same, whenever all of a device's are gone through.
MOST_MODELS, MOST_NAMES = 256, 1 << 15


@dataclass(slots=True)
class _Stored:
    """A model: the sizes of its blobs here by name, and of those that are published likewise."""

    sizes: dict[bytes, int]
    public: dict[bytes, int]
    used_at: int

    @property
    def names(self) -> int:
        return len(self.sizes) + len(self.public)

    @property
    def public_bytes(self) -> int:
        return sum(self.public.values())


class Shelf(Holdings):
    """What one device has here. `public` is what every device has.

    uses: numbers the uses of all devices' models, so that the least recent one can be told.
    """

    def __init__(self, device: str, place: Place, public: Holdings, uses: Iterator[int]) -> None:
        super().__init__(place)
        self.device = device
        self.graphs = Graphs(place)
        self._public = public
        self._uses = uses
        self._models: dict[str, _Stored] = {}
        self._offered: dict[object, str] = {}
        self._unbegun: dict[object, Unbegun] = {}

    def __repr__(self) -> str:
        return f"<Shelf of {self.device[:12]}: {len(self._models)} models>"

    def open(self) -> None:
        super().open()
        self.graphs.open()

    # What is here.

    def held(self, digest: bytes, owner: object | None = None) -> Progress:
        public = self._public.held(digest)
        return public if public.whole_bytes else super().held(digest, owner)

    def is_whole(self, digest: bytes) -> bool:
        return self._public.is_whole(digest) or super().is_whole(digest)

    @property
    def used_bytes(self) -> int:
        return super().used_bytes + sum(each.budget_bytes for each in self._unbegun.values())

    @property
    def models(self) -> dict[str, tuple[int, int]]:
        """(held bytes, total bytes) of each model, the least recently used first."""
        ordered = sorted(self._models.items(), key=lambda item: item[1].used_at)
        return {
            fingerprint: (
                self._whole_bytes(stored.sizes) + stored.public_bytes,
                sum(stored.sizes.values()) + stored.public_bytes,
            )
            for fingerprint, stored in ordered
        }

    @property
    def fingerprints(self) -> list[str]:
        return list(self._models)

    def used_at(self, fingerprint: str) -> int:
        """Which of all uses was the model's latest."""
        return self._models[fingerprint].used_at

    def sizes(self, fingerprint: str) -> Mapping[bytes, int]:
        """Of the model's blobs that are the device's own, by name."""
        return self._models[fingerprint].sizes

    @property
    def attended(self) -> set[str]:
        """Fingerprints of models that a connection has offered."""
        return set(self._offered.values())

    def offered(self, owner: object) -> str | None:
        """What was admitted for this owner, if it was not evicted since."""
        return self._offered.get(owner)

    def touch(self, fingerprint: str) -> None:
        """The model is in use."""
        stored = self._models.get(fingerprint)
        if stored is not None:
            stored.used_at = next(self._uses)

    def release(self, owner: object) -> None:
        self._offered.pop(owner, None)
        self._unbegun.pop(owner, None)
        super().release(owner)

    # What comes.

    def part(self, digest: bytes, owner: object) -> Part | None:
        unbegun = self._unbegun.get(owner)
        row = None if unbegun is None else unbegun.take(digest)
        if unbegun is None or row is None or self.is_whole(digest):
            return super().part(digest, owner)
        part = self.claim(None, *row, owner)
        part.widened = unbegun.widened and part.by_planes
        return part

    def unbegun(self, owner: object) -> Unbegun:
        """What it is to bring of which nothing has come."""
        return self._unbegun.get(owner) or Unbegun()

    def unbegun_of(self, owners: Collection[object]) -> list[tuple[object, Unbegun]]:
        return [(owner, each) for owner, each in self._unbegun.items() if owner in owners]

    def knows(self, name: bytes) -> bool:
        """Whether there is anything of a blob, or a model has it."""
        return (
            name in self.blobs
            or self.is_begun(name)
            or any(name in stored.sizes for stored in self._models.values())
        )

    @contextlib.contextmanager
    def claims(self, model: Model) -> Iterator[Claims]:
        """What the model lacks, which is to be looked for, and to be taken inside."""
        with self.watched() as changed, self._public.watched() as news:
            yield Claims(self, self._public, model, changed, news)

    def take(self, fingerprint: str, claims: Claims, owner: object) -> None:
        """The model is here from now on, and what it lacks is `owner`'s to write."""
        for theirs, digests in claims.taken:
            for digest in digests:
                theirs.take(digest)
        self._unbegun[owner] = claims.unbegun
        for digest, part in claims.begun.items():
            self.claim(part, *claims.row(digest), owner)
        for name, public in claims.copies:
            self._drop_copy(name, public)
        stored = _Stored(claims.sizes, claims.public, next(self._uses))
        self._models[fingerprint] = stored
        self._offered[owner] = fingerprint
        self.mark_used(claims.sizes.keys())

    # What goes.

    def strays(self, kept: Collection[bytes] = ()) -> list[tuple[float, bytes | Part]]:
        """Blobs and parts that no model has a use for, but for the names `kept`; when used."""
        used = set(kept).union(*(stored.sizes for stored in self._models.values()))
        blobs = [(blob.used_at, name) for name, blob in self.blobs.items() if name not in used]
        parts = [p for p in self.parts if p.owner is None and p.name not in used]
        return [*blobs, *((float("inf"), part) for part in parts)]

    def doomed(
        self, going: Collection[str], kept: Collection[bytes] = ()
    ) -> tuple[list[bytes], list[Part]]:
        """Blobs and parts that go with these models: nothing that others use, nor what is kept."""
        if not going:
            return [], []
        gone = {name for each in going for name in self._models[each].sizes}
        gone.difference_update(kept)
        for fingerprint, stored in self._models.items():
            if fingerprint not in going:
                gone.difference_update(stored.sizes)
        writers = self._writers(going)
        parts = [p for p in self.parts if p.name in gone or p.owner in writers]
        return [name for name in gone if name in self.blobs], parts

    def evict(self, going: Collection[str], kept: Collection[bytes] = ()) -> None:
        """Drop these models."""
        self.drop_all(*self.doomed(going, kept))
        for fingerprint in going:
            del self._models[fingerprint]
        for owner in self._writers(going):
            del self._offered[owner]
            self._unbegun.pop(owner, None)

    def unbegun_bytes(self, going: Collection[str]) -> int:
        """What those who offered these models have room for, and have not begun."""
        return sum(self.unbegun(owner).budget_bytes for owner in self._writers(going))

    def _writers(self, going: Collection[str]) -> set[object]:
        return {owner for owner, each in self._offered.items() if each in going}

    def thin(self, fingerprint: str, claims: Claims, busy: Collection[str]) -> list[str]:
        """Drop models and strays, the longest unused first, where there would be too many of them
        once this model is here; fingerprints of the models."""
        others = [each for each in self._models if each != fingerprint]
        models = len(others) + 1
        names = sum(self._models[each].names for each in others)
        names += len(claims.sizes) + len(claims.public)
        going: list[str] = []
        for each in sorted(others, key=self.used_at):
            if (models > MOST_MODELS or names > MOST_NAMES) and each not in busy:
                going.append(each)
                models, names = models - 1, names - self._models[each].names
        self.evict(going, claims.sizes.keys())
        excess = len(self.blobs) + len(self._parts) - MOST_NAMES
        if excess > 0:
            strays = sorted(self.strays(claims.sizes.keys()), key=lambda each: each[0])
            for _, stray in strays[:excess]:
                self.drop_stray(stray)
        return going

    def give(self, name: bytes, public: bytes) -> None:
        """A blob is published, under that name there, and no more this device's own."""
        blob = self._pop(name)
        assert blob is not None
        self._public._put(public, blob)
        self._drop_copy(name, public)

    def _drop_copy(self, name: bytes, public: bytes) -> None:
        """Have nothing of one's own of a blob that is published; who writes to it finds out."""
        for stored in self._models.values():
            if name in stored.sizes:
                stored.public[public] = stored.sizes.pop(name)
        self.drop_blob(name)
        for part in self._unowned(name):
            self.drop_part(part)

    def drop_stray(self, stray: bytes | Part) -> None:
        if isinstance(stray, Part):
            self.drop_part(stray)
        else:
            self.drop_blob(stray)

    def relying_on(self, public: Set[bytes]) -> list[str]:
        """Fingerprints of models that use any of these published blobs, by their names there."""
        return [f for f, stored in self._models.items() if stored.public.keys() & public]

    def wipe(self) -> None:
        """Nothing of the device's is here any more."""
        self.evict(list(self._models))
        strays = [stray for _, stray in self.strays()]
        blobs = [stray for stray in strays if isinstance(stray, bytes)]
        self.drop_all(blobs, [stray for stray in strays if isinstance(stray, Part)])
        self._names.clear()
        # What is still being written to the old ones finds out.
        self.graphs.wipe()
        self.graphs = Graphs(self.place)

    def _whole_bytes(self, sizes: dict[bytes, int]) -> int:
        """Of blobs of these names, and of the leading bytes of those that come."""
        whole = {name for name in sizes.keys() & self.blobs.keys() if self.blobs[name].verified}
        begun = (sizes.keys() & self._parts.keys()) - whole
        return sum(self.blobs[name].size_bytes for name in whole) + sum(
            max(part.held_bytes for part in self._parts[name]) for name in begun
        )
