"""Which weights the box holds, for which device, under a budget and a quota for each.

Bookkeeping for the event loop; what takes long (hashing, writing) is `parts`, called by others
from threads. Every device has a shelf of its own, which shares nothing with others but what the
operator has published. Models are evicted whole (see eviction). What an earlier run left belongs
to no model until one claims it, and goes first.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import logging
import os
import re
from collections.abc import Collection, Iterable, Set
from dataclasses import replace
from pathlib import Path

from ionn_edge.config import format_bytes
from ionn_edge.machine.events import Model
from ionn_edge.storage.blobs import StorageError, StoreInUse
from ionn_edge.storage.claims import Claims
from ionn_edge.storage.eviction import Eviction, Newcomer
from ionn_edge.storage.holdings import WrongSize
from ionn_edge.storage.leftovers import Strange, drop_files, drop_planes
from ionn_edge.storage.places import Place
from ionn_edge.storage.published import Published
from ionn_edge.storage.room import NoRoom, check_total, fit_disk
from ionn_edge.storage.shelf import Shelf
from ionn_edge.storage.staging import drop_staged
from pairing.private import StateError, own_directory
from wire import reason

__all__ = ["NoRoom", "Store", "WrongSize"]
_DIRECTORY = re.compile(r"[0-9a-f]{64}")
log = logging.getLogger("ionn_edge")


class Store:
    """The weights under one directory, which only one edge may use at a time.

    budget_bytes: for everything; quota_bytes: for each device of what the budget has beside what
    is published.
    """

    published: Published

    def __init__(self, directory: Path, budget_bytes: int, quota_bytes: int | None = None) -> None:
        self.directory = directory
        self.budget_bytes = budget_bytes
        self.quota_bytes = budget_bytes if quota_bytes is None else quota_bytes
        self.strange: list[Strange] = []
        self._secret = b""
        self._shelves: dict[str, Shelf] = {}
        self._uses = itertools.count(1)
        self._lock: int | None = None

    def open(self, secret: bytes, devices: Iterable[str] = ()) -> None:
        """Create or scan the directory, in which these devices may have something.

        secret: 32 bytes that name everything in it. Raises StorageError where it cannot be used.
        """
        self._secret = secret
        self.published = Published(Place.of_all(self.directory, secret))
        try:
            own_directory(self.directory)
            self._take_lock()
            self._scan(devices)
        except BlockingIOError:
            self.close()
            raise StoreInUse(
                f"another edge uses the store {self.directory}: stop that one, or give this one"
                " another --store"
            ) from None
        except StateError as error:
            raise StorageError(str(error)) from error
        except OSError as error:
            self.close()
            text = f"the store {self.directory} cannot be used: {reason(error)}"
            raise StorageError(text) from error

    def close(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @property
    def shelves(self) -> list[Shelf]:
        return list(self._shelves.values())

    @property
    def used_bytes(self) -> int:
        """Of all devices, and what is published."""
        strange_bytes = sum(each.size_bytes for each in self.strange)
        shelves_bytes = sum(shelf.used_bytes for shelf in self.shelves)
        return self.published.used_bytes + shelves_bytes + strange_bytes

    def quota(self) -> int:
        """Bytes that a device may have at the most, if nothing is published: that is not told."""
        return min(self.quota_bytes, self.budget_bytes)

    @property
    def devices_bytes(self) -> int:
        """What the budget leaves to all devices beside what is published."""
        return max(self.budget_bytes - self.published.used_bytes, 0)

    def shelf(self, device: str) -> Shelf:
        """The device's own."""
        shelf = self._shelves.get(device)
        if shelf is None:
            place = Place.of_device(self.directory, self._secret, device)
            shelf = self._shelves[device] = Shelf(device, place, self.published, self._uses)
            self.strange = [each for each in self.strange if each.directory != place.directory]
            try:
                shelf.open()
            except OSError as error:
                # The device hears of it when it writes.
                log.warning("%s cannot be used: %s", place.directory, error.strerror)
        return shelf

    def admit(
        self,
        device: str,
        model: Model,
        owner: object,
        busy: Collection[tuple[str, str]] = (),
        silent: Collection[object] = (),
        claims: Claims | None = None,
    ) -> list[tuple[str, str]]:
        """Make room for a device's model and give its missing blobs to `owner` to write.

        Partial blobs that nobody writes, or an owner in `silent`, are its to continue. Returns
        (device, fingerprint) of the models evicted for it; never one in `busy`. Raises NoRoom,
        WrongSize, or StorageError where the disk has not the space.
        claims: what the model lacks, as far as that was found out by the device's shelf.
        """
        shelf = self.shelf(device)
        if claims is None:
            with shelf.claims(model) as claims:
                return self.admit(device, model, owner, busy, silent, claims)
        for _ in claims.look():
            pass
        check_total(claims.total_bytes, self)
        sources = claims.settle(silent)
        busy = {*busy, *((device, each) for each in sources)}
        newcomer = Newcomer(shelf, model.fingerprint, claims.sizes.keys(), claims.growth_bytes)
        evicted = self._make_room(newcomer, claims.missing_bytes, busy)
        its_busy = {fingerprint for its, fingerprint in busy if its == device}
        thinned = shelf.thin(model.fingerprint, claims, its_busy)
        shelf.take(model.fingerprint, claims, owner)
        return [*evicted, *((device, each) for each in thinned)]

    def widen(
        self, device: str, owner: object, busy: Collection[tuple[str, str]] = ()
    ) -> list[tuple[str, str]]:
        """Make room for the planes of every blob that `owner` writes, beside the blobs.

        On the disk for the planes, in the budget also for the tensors that are made of them.
        Returns the models evicted for it, as `admit` does. Raises NoRoom, or StorageError.
        """
        shelf = self.shelf(device)
        fingerprint, unbegun = shelf.offered(owner), shelf.unbegun(owner)
        assert fingerprint is not None
        parts = [p for p in shelf.owned(owner) if p.by_planes and not p.widened]
        planes_bytes = sum(part.planes_of(part.size_bytes or 0, True) for part in parts)
        growth_bytes = planes_bytes + sum(part.rough_bytes for part in parts)
        if not unbegun.widened:
            planes_bytes += unbegun.planes_bytes
            growth_bytes += replace(unbegun, widened=True).budget_bytes - unbegun.budget_bytes
        newcomer = Newcomer(shelf, fingerprint, shelf.sizes(fingerprint).keys(), growth_bytes)
        evicted = self._make_room(newcomer, planes_bytes, busy)
        unbegun.widened = True
        for part in parts:
            part.widened = True
        return evicted

    def prune(self, limit_bytes: int, busy: Collection[tuple[str, str]]) -> list[tuple[str, str]]:
        """Evict until devices use so little, or what they use is busy. Returns as `admit` does."""
        self._drop_strange(limit_bytes - sum(shelf.used_bytes for shelf in self.shelves))
        eviction = Eviction(self.shelves, busy)
        eviction.fit(self.shelves, limit_bytes)
        return eviction.carry_out()

    def make_way(
        self, growth_bytes: int, busy: Collection[tuple[str, str]]
    ) -> list[tuple[str, str]]:
        """Evict until so much more can be published. Returns as `admit` does. Raises NoRoom."""
        published_bytes = self.published.used_bytes
        limit_bytes = self.budget_bytes - published_bytes - growth_bytes
        growth, budget = format_bytes(growth_bytes), format_bytes(self.budget_bytes)
        if limit_bytes < 0:
            raise NoRoom(
                f"the model's weights take {growth} more, and the box's memory budget is {budget},"
                f" with {format_bytes(published_bytes)} published (ionn edge serve --memory)"
            )
        eviction = Eviction(self.shelves, busy)
        if not eviction.fit(self.shelves, limit_bytes):
            raise NoRoom(
                f"the model's weights take {growth} more, and too much of the box's memory budget"
                f" of {budget} is in use at the moment; try later"
            )
        self._drop_strange(limit_bytes - eviction.left_bytes)
        return eviction.carry_out()

    def unpublish(self, fingerprint: str) -> list[tuple[str, str]]:
        """Drop a published model, and what relies on its weights. Returns as `admit` does."""
        return self._evict_relying(self.published.unpublish(fingerprint))

    def drop_unpublished(self) -> list[tuple[str, str]]:
        """Drop what was taken for a model that is not published after all, likewise."""
        return self._evict_relying(self.published.drop_coming())

    def _evict_relying(self, names: Set[bytes]) -> list[tuple[str, str]]:
        lost = [(shelf, shelf.relying_on(names)) for shelf in self.shelves]
        for shelf, going in lost:
            shelf.evict(going)
        return [(shelf.device, each) for shelf, going in lost for each in going]

    def _make_room(
        self, newcomer: Newcomer, missing_bytes: int, busy: Collection[tuple[str, str]]
    ) -> list[tuple[str, str]]:
        """Evict until quota and budget have room for its growth, the disk for the missing."""
        budget_bytes = self.devices_bytes
        devices_bytes = sum(shelf.used_bytes for shelf in self.shelves)
        self._drop_strange(budget_bytes - devices_bytes - newcomer.growth_bytes)
        eviction = Eviction(self.shelves, busy, newcomer)
        fits = eviction.fit([newcomer.shelf], self.quota_bytes)
        if not (fits and eviction.fit(self.shelves, budget_bytes)):
            growth = format_bytes(newcomer.growth_bytes)
            if not fits:
                raise NoRoom(
                    f"the model needs {growth} more, and of the {format_bytes(self.quota_bytes)}"
                    " that one device may have on this edge the rest is in use; try later"
                )
            raise NoRoom(
                f"the model needs {growth} more, and of the edge's memory budget of"
                f" {format_bytes(self.budget_bytes)} the rest is in use; try later"
            )
        fit_disk(eviction, missing_bytes, self)
        return eviction.carry_out()

    # Directories.

    def _take_lock(self) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._lock = os.open(self.directory / "lock", flags, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _scan(self, devices: Iterable[str]) -> None:
        # What older versions kept for all devices together.
        drop_files(self.directory)
        drop_staged(self.directory)
        found = [
            Path(entry.path)
            for entry in os.scandir(self.directory)
            if _DIRECTORY.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False)
        ]
        drop_planes(found, self.directory)
        self.published.open()
        for device in devices:
            self.shelf(device)
        known = {shelf.place.directory for shelf in self.shelves}
        self.strange = [Strange.of(directory) for directory in found if directory not in known]
        for shelf in self.shelves:
            within = Eviction([shelf])
            within.fit([shelf], self.quota_bytes)
            within.carry_out()
        self.prune(self.devices_bytes, ())
        if self.published.used_bytes > self.budget_bytes:
            log.warning(
                "what is published takes %s, more than the memory budget of %s: devices have no"
                " room for models of their own",
                *(format_bytes(self.published.used_bytes), format_bytes(self.budget_bytes)),
            )

    def _drop_strange(self, limit_bytes: int) -> None:
        """Drop directories of nobody known, the longest unused first, to this size together."""
        excess_bytes = sum(each.size_bytes for each in self.strange) - max(limit_bytes, 0)
        for each in sorted(self.strange, key=lambda each: each.used_at):
            if excess_bytes > 0:
                excess_bytes -= each.size_bytes
                self.drop_strange(each)

    def drop_strange(self, strange: Strange) -> None:
        """Drop what is in it, and leave what is not ours."""
        self.strange.remove(strange)
        drop_files(strange.directory)
        with contextlib.suppress(OSError):
            strange.directory.rmdir()
