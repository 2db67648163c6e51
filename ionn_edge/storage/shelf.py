"""One device's part of the store: its weights, its models, its graphs.

Nothing here is another device's: an answer made of it tells nothing of others. What the operator
has published is looked up beside it, and is everybody's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Set
from dataclasses import dataclass

from ionn_edge.machine.events import Model, Progress
from ionn_edge.storage.graphs import Graphs
from ionn_edge.storage.holdings import Holdings
from ionn_edge.storage.parts import Part
from ionn_edge.storage.places import Place

# Of one device: models, and their weights' names or files; two of the largest models' are these.
# Small weights take next to nothing of a quota, and memory and inodes all the same.
MOST_MODELS, MOST_NAMES = 256, 1 << 17


@dataclass(slots=True)
class _Stored:
    """A model: the sizes of its blobs here by name, and of those that are published likewise."""

    sizes: dict[bytes, int]
    public: dict[bytes, int]
    used_at: int

    @property
    def names(self) -> int:
        return len(self.sizes) + len(self.public)


@dataclass(frozen=True, slots=True)
class Claims:
    """What a model lacks: the part that goes on with each missing digest, if there is one.

    sizes: of its blobs that are not published, by name. public: of those that are, likewise.
    growth_bytes: what it takes of a budget. missing_bytes: what it takes of the disk.
    """

    sizes: dict[bytes, int]
    public: dict[bytes, int]
    parts: Mapping[bytes, Part | None]
    growth_bytes: int
    missing_bytes: int


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

    def check_sizes(self, sizes: Mapping[bytes, int]) -> None:
        self._public.check_sizes(sizes)
        super().check_sizes(sizes)

    @property
    def models(self) -> dict[str, tuple[int, int]]:
        """(held bytes, total bytes) of each model, the least recently used first."""
        ordered = sorted(self._models.items(), key=lambda item: item[1].used_at)
        return {
            fingerprint: (
                sum(map(self._whole_bytes, stored.sizes)) + sum(stored.public.values()),
                sum(stored.sizes.values()) + sum(stored.public.values()),
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
        super().release(owner)

    # What comes.

    def claims(self, model: Model, silent: Collection[object]) -> Claims:
        """What the model lacks. Raises WrongSize."""
        self.check_sizes(model.sizes)
        own: dict[bytes, int] = {}
        public: dict[bytes, int] = {}
        parts: dict[bytes, Part | None] = {}
        growth_bytes = missing_bytes = 0
        for digest, size in model.sizes.items():
            if self._public.is_whole(digest):
                public[self._public.name(digest)] = size
                continue
            name = self.name(digest)
            own[name] = size
            if name not in self.blobs and size:
                parts[digest] = part = self.claimable(name, size, silent)
                final_bytes = size + (part.planes_of(size) if part else 0)
                growth_bytes += final_bytes - (part.budget_bytes if part else 0)
                missing_bytes += final_bytes - (part.on_disk_bytes if part else 0)
        return Claims(own, public, parts, growth_bytes, missing_bytes)

    def take(self, model: Model, claims: Claims, owner: object) -> None:
        """The model is here from now on, and what it lacks is `owner`'s to write."""
        sizes = model.sizes
        dtypes = {digest: dtype for digest, _, dtype in model.weights}
        # Equal bytes may be of several types; only this one can come by planes.
        dtypes |= {digest: each for digest, _, each in model.weights if each == "float32"}
        for digest, part in claims.parts.items():
            self.claim(part, digest, sizes[digest], dtypes[digest], owner)
        if claims.public:
            for digest in sizes:
                if self._public.name(digest) in claims.public:
                    self._drop_copy(self.name(digest), self._public.name(digest))
        stored = _Stored(claims.sizes, claims.public, next(self._uses))
        self._models[model.fingerprint] = stored
        self._offered[owner] = model.fingerprint
        for name in claims.sizes:
            self.mark_used(name)

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
        gone = {name for each in going for name in self._models[each].sizes}
        gone.difference_update(kept)
        for fingerprint, stored in self._models.items():
            if fingerprint not in going:
                gone.difference_update(stored.sizes)
        writers = {owner for owner, each in self._offered.items() if each in going}
        parts = [p for p in self.parts if p.name in gone or p.owner in writers]
        return [name for name in gone if name in self.blobs], parts

    def evict(self, going: Collection[str], kept: Collection[bytes] = ()) -> None:
        """Drop these models."""
        blobs, parts = self.doomed(going, kept)
        for name in blobs:
            self.drop_blob(name)
        for part in parts:
            self.drop_part(part)
        for fingerprint in going:
            del self._models[fingerprint]
        for owner, fingerprint in list(self._offered.items()):
            if fingerprint in going:
                del self._offered[owner]

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
        self._public.blobs[public] = self.blobs.pop(name)
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
        for _, stray in self.strays():
            self.drop_stray(stray)
        self._names.clear()
        # What is still being written to the old ones finds out.
        self.graphs.wipe()
        self.graphs = Graphs(self.place)

    def _whole_bytes(self, name: bytes) -> int:
        blob = self.blobs.get(name)
        if blob is not None and blob.verified:
            return blob.size_bytes
        return max((part.held_bytes for part in self._parts.get(name, ())), default=0)
