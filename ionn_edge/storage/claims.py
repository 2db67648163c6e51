"""What a model lacks of what a device has here, found out weight by weight while others go on.

A model has thousands of weights, and to look at all of them at once would keep everybody waiting.
So it is looked at them in steps, between which anything may happen; what has changed meanwhile is
looked at again. After the last step nothing has, and room can be made for exactly what is lacking.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Set
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ionn_edge.machine.events import Model
from ionn_edge.storage.holdings import Holdings, WrongSize
from ionn_edge.storage.parts import Part

if TYPE_CHECKING:
    from ionn_edge.storage.shelf import Shelf

Row = tuple[bytes, int, str]


@dataclass(slots=True)
class Unbegun:
    """Blobs that one connection is to bring of which nothing has come: there is room for them, and
    nothing else. `rows`: (digest, bytes, dtype), by digest. widened: with planes (see Store.widen).
    """

    rows: dict[bytes, Row] = field(default_factory=dict)
    size_bytes: int = 0
    float_bytes: int = 0
    widened: bool = False

    def add(self, row: Row) -> None:
        digest, size, dtype = row
        self.rows[digest] = row
        self.size_bytes += size
        self.float_bytes += size if dtype == "float32" else 0

    def take(self, digest: bytes) -> Row | None:
        """It is begun, or nobody's any more."""
        row = self.rows.pop(digest, None)
        if row is not None:
            self.size_bytes -= row[1]
            self.float_bytes -= row[1] if row[2] == "float32" else 0
        return row

    @property
    def planes_bytes(self) -> int:
        """What planes of them take on the disk: two words of 16 bits for each element."""
        return self.float_bytes

    @property
    def budget_bytes(self) -> int:
        """As of parts: all that they will become, and with planes also the tensors made of them."""
        return self.size_bytes + 2 * self.float_bytes * self.widened

    def budget_of(self, digests: Set[bytes]) -> int:
        """The same of some of them."""
        if len(digests) == len(self.rows):
            return self.budget_bytes
        some = [self.rows[digest] for digest in digests]
        times = 3 if self.widened else 1
        return sum(size * (times if dtype == "float32" else 1) for _, size, dtype in some)


class Claims:
    """What a model lacks here. Made by Shelf.claims.

    sizes: of its blobs that are not published, by name. public: of those that are, likewise.
    begun: the part that goes on with each digest of which something is on its way, if one can.
    unbegun: what else is lacking. taken: what of that silent owners were to bring.
    growth_bytes: what the model takes of a budget. missing_bytes: what it takes of the disk.
    """

    def __init__(
        self, shelf: Shelf, public: Holdings, model: Model, changed: set[bytes], news: set[bytes]
    ) -> None:
        self._shelf = shelf
        self._public = public
        # Of which nothing is known yet; `_waiting` are the digests of others to look at.
        self._ahead = iter(model.weights)
        # Names here of which something changed since they were looked at; and there.
        self._changed, self._news = changed, news
        self._rows: dict[bytes, Row] = {}
        self._start_over()

    def _start_over(self) -> None:
        self._waiting = list(self._rows)
        self._digests: dict[bytes, bytes] = {}
        self._on_their_way: dict[bytes, Row] = {}
        self.total_bytes = 0
        self.sizes: dict[bytes, int] = {}
        self.public: dict[bytes, int] = {}
        # Names here and there of what is published and, it seems, the device's as well.
        self.copies: list[tuple[bytes, bytes]] = []
        self.unbegun = Unbegun()
        self.begun: dict[bytes, Part | None] = {}
        self.taken: list[tuple[Unbegun, set[bytes]]] = []
        self.growth_bytes = self.missing_bytes = 0

    def look(self) -> Iterator[None]:
        """In many steps, which may be gone on with by another call; once they are through, nothing
        has changed until something else runs. Raises WrongSize.
        """
        for row in self._ahead:
            # Equal bytes may be of several types; only this one can come by planes.
            if row[0] not in self._rows:
                self._waiting.append(row[0])
                self._rows[row[0]] = row
            elif row[2] == "float32":
                self._rows[row[0]] = row
            yield
        while self._waiting or self._changed or self._news:
            if self._news:
                self._news.clear()
                self._start_over()
            while self._changed:
                digest = self._digests.pop(self._changed.pop(), None)
                if digest is not None:
                    self._forget(digest)
                    self._waiting.append(digest)
            if self._waiting:
                self._look_at(self._rows[self._waiting.pop()])
                yield

    def _forget(self, digest: bytes) -> None:
        size = self.sizes.pop(self._shelf.name(digest))
        self.total_bytes -= size
        self.unbegun.take(digest)
        self._on_their_way.pop(digest, None)

    def _look_at(self, row: Row) -> None:
        digest, size, _ = row
        name = self._shelf.name(digest)
        if self._public.is_whole(digest):
            public = self._public.name(digest)
            _check_size(digest, size, self._public.blobs[public].size_bytes)
            self.public[public] = size
            if self._shelf.knows(name):
                self.copies.append((name, public))
            return
        self._digests[name] = digest
        self.sizes[name] = size
        self.total_bytes += size
        blob = self._shelf.blobs.get(name)
        if blob is not None:
            if blob.verified:
                _check_size(digest, size, blob.size_bytes)
        elif size and self._shelf.is_begun(name):
            self._on_their_way[digest] = row
        elif size:
            self.unbegun.add(row)

    def row(self, digest: bytes) -> Row:
        """(digest, bytes, dtype)."""
        return self._rows[digest]

    def settle(self, silent: Collection[object]) -> set[str]:
        """With whose beginnings it goes on: nobody's, or those of owners in `silent`.

        Fingerprints of the models that these brought, which must stay for it.
        """
        shelf, sources = self._shelf, set[str]()
        self.growth_bytes = self.missing_bytes = self.unbegun.size_bytes
        for digest, (_, size, _) in self._on_their_way.items():
            part = self.begun[digest] = shelf.claimable(shelf.name(digest), size, silent)
            final_bytes = size + (part.planes_of(size) if part else 0)
            self.growth_bytes += final_bytes - (part.budget_bytes if part else 0)
            self.missing_bytes += final_bytes - (part.on_disk_bytes if part else 0)
            if part is not None and part.owner is not None:
                sources.add(shelf.offered(part.owner) or "")
        for owner, theirs in shelf.unbegun_of(silent):
            digests = theirs.rows.keys() & self.unbegun.rows.keys()
            if digests:
                self.taken.append((theirs, digests))
                self.growth_bytes -= theirs.budget_of(digests)
                sources.add(shelf.offered(owner) or "")
        return sources


def _check_size(digest: bytes, size: int, there: int) -> None:
    if there != size:
        raise WrongSize(
            f"a weight is declared with {size} bytes; what has its digest"
            f" {digest.hex()[:16]} has {there}"
        )
