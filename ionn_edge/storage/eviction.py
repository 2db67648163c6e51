"""What goes when weights do not fit: who has most, not who is weakest.

Plans only; `store` does it. First goes what is nobody's and what nobody is here to use, first of
devices that have more than their share; then what is in use, but only the newcomer's own, and
that of devices with more than their share among those that are here. So a device that keeps to
its share is never evicted by another while it is here, and one that fills the box evicts itself.
In each of these groups the least recently used goes first.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from ionn_edge.storage.parts import Part
from ionn_edge.storage.shelf import Shelf


@dataclass(frozen=True, slots=True)
class Newcomer:
    """A model that needs room: `names` are its blobs, which stay, as it does itself."""

    shelf: Shelf
    fingerprint: str
    names: Collection[bytes]
    growth_bytes: int


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A model, or a stray blob or part. `attended` is whether somebody connected uses it."""

    shelf: Shelf
    what: str | bytes | Part
    used_at: float
    attended: bool = False

    @property
    def is_model(self) -> bool:
        return isinstance(self.what, str)


class Eviction:
    """What is to go for a newcomer, or for its own sake; `busy` are models that may not."""

    def __init__(
        self,
        shelves: Collection[Shelf],
        busy: Collection[tuple[str, str]] = (),
        newcomer: Newcomer | None = None,
    ) -> None:
        self.models: dict[Shelf, list[str]] = {}
        self.strays: list[tuple[Shelf, bytes | Part]] = []
        self._newcomer = newcomer
        self._busy = busy
        self._used_bytes = {shelf: shelf.used_bytes for shelf in shelves}
        self._before_bytes = sum(self._used_bytes.values())
        if newcomer is not None:
            self._used_bytes[newcomer.shelf] += newcomer.growth_bytes
            self._before_bytes += newcomer.growth_bytes

    @property
    def left_bytes(self) -> int:
        """How much there will be, of all, the newcomer included."""
        return sum(self._used_bytes.values())

    @property
    def freed_bytes(self) -> int:
        """How much less there will be."""
        return self._before_bytes - self.left_bytes

    def fit(self, among: Collection[Shelf], limit_bytes: int) -> bool:
        """Have as much go as makes these fit; whether they do then."""
        excess_bytes = sum(self._used_bytes[shelf] for shelf in among) - limit_bytes
        for may_go in self._groups(among, limit_bytes):
            if excess_bytes <= 0:
                break
            for candidate in sorted(self._candidates(among), key=lambda each: each.used_at):
                if excess_bytes > 0 and may_go(candidate):
                    excess_bytes -= self._take(candidate)
        return excess_bytes <= 0

    def carry_out(self) -> list[tuple[str, str]]:
        """Do it. (device, fingerprint) of each model that went."""
        for shelf, stray in self.strays:
            shelf.drop_stray(stray)
        for shelf, going in self.models.items():
            shelf.evict(going, self._kept(shelf))
        return [(shelf.device, each) for shelf, going in self.models.items() for each in going]

    def _groups(
        self, among: Collection[Shelf], limit_bytes: int
    ) -> Iterator[Callable[[_Candidate], bool]]:
        newcomer, used_bytes = self._newcomer, self._used_bytes
        own = None if newcomer is None else newcomer.shelf
        share = limit_bytes / max(sum(used_bytes[shelf] > 0 for shelf in among), 1)
        here = limit_bytes / max(sum(bool(s.attended) or s is own for s in among), 1)
        yield lambda c: not c.is_model and used_bytes[c.shelf] > share
        yield lambda c: c.is_model and not c.attended and used_bytes[c.shelf] > share
        yield lambda c: not c.is_model
        yield lambda c: not c.attended
        yield lambda c: own is None or c.shelf is own or used_bytes[c.shelf] > here

    def _candidates(self, among: Collection[Shelf]) -> Iterator[_Candidate]:
        taken = {id(stray) for _, stray in self.strays if isinstance(stray, Part)}
        names = {(shelf, stray) for shelf, stray in self.strays if isinstance(stray, bytes)}
        for shelf in among:
            for used_at, stray in shelf.strays(self._kept(shelf)):
                if id(stray) not in taken and (shelf, stray) not in names:
                    yield _Candidate(shelf, stray, used_at)
            attended = shelf.attended
            for fingerprint in shelf.fingerprints:
                if self._may_go(shelf, fingerprint):
                    used = shelf.used_at(fingerprint)
                    yield _Candidate(shelf, fingerprint, used, fingerprint in attended)

    def _may_go(self, shelf: Shelf, fingerprint: str) -> bool:
        newcomer = self._newcomer
        if newcomer is not None and (shelf, fingerprint) == (newcomer.shelf, newcomer.fingerprint):
            return False
        return (
            fingerprint not in self.models.get(shelf, ())
            and (shelf.device, fingerprint) not in self._busy
        )

    def _take(self, candidate: _Candidate) -> int:
        """Have it go; how many bytes that frees."""
        shelf, what = candidate.shelf, candidate.what
        if isinstance(what, str):
            going = self.models.setdefault(shelf, [])
            before_bytes = self._freed(shelf)
            going.append(what)
            freed_bytes = self._freed(shelf) - before_bytes
        else:
            self.strays.append((shelf, what))
            freed_bytes = (
                what.budget_bytes if isinstance(what, Part) else shelf.blobs[what].size_bytes
            )
        self._used_bytes[shelf] -= freed_bytes
        return freed_bytes

    def _freed(self, shelf: Shelf) -> int:
        blobs, parts = shelf.doomed(self.models[shelf], self._kept(shelf))
        return (
            sum(shelf.blobs[name].size_bytes for name in blobs)
            + sum(part.budget_bytes for part in parts)
            + shelf.unbegun_bytes(self.models[shelf])
        )

    def _kept(self, shelf: Shelf) -> Collection[bytes]:
        newcomer = self._newcomer
        return newcomer.names if newcomer is not None and newcomer.shelf is shelf else ()
