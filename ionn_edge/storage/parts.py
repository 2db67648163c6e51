"""One blob on its way in, whole or by planes: its files, and how far each is.

What a process that dies has received survives it at any byte: files are appended to, and their
lengths tell. A power cut may leave other bytes in them; the blob's digest tells at the end.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from pathlib import Path

from ionn_edge.machine.events import NOTHING, Progress
from ionn_edge.storage.blobs import (
    Mismatch,
    append,
    cannot_store,
    hash_file,
    keep,
    part_path,
    read_at,
    remove,
)
from ionn_edge.storage.places import Place
from wire import DTYPE_BYTES, RemoteProtocolError
from wire.messages import Buffer, Segment
from wire.planes import COARSE, FINE, MIDDLE, merge, stored_bytes
from wire.segments import decode_segment

_KINDS = {COARSE: "coarse", MIDDLE: "middle"}


class Part:
    """A blob on its way in, with one writer at a time.

    `size_bytes` is None, and `digest` empty, for a part from an earlier run that nobody has
    claimed yet. `store` and `resume` run in a thread; the rest is the event loop's. A writer
    whose connection broke may still be in `store` when the next one comes to `resume`, hence the
    lock.
    """

    def __init__(
        self,
        place: Place,
        name: bytes,
        number: int,
        held: Progress | None = None,
    ) -> None:
        self.directory = place.directory
        self.name = name
        self.number = number
        self.digest = b""
        self.size_bytes: int | None = None
        self.held = held or NOTHING
        self.owner: object | None = None
        self.dropped = False
        # Before the first byte is written there are no files, which takes time to find out.
        self._has_files = held is not None
        self._place = place
        # Whether another than its owner began it: then nobody knows whose its planes are.
        self.adopted = False
        self.dtype = "uint8"
        # Whether there is room for planes beside the whole bytes.
        self.widened = self.held.coarse > 0
        self._hash: hashlib._Hash | None = None if self.held.whole_bytes else hashlib.sha256()
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<Part {self.name.hex()[:8]}: {self.held} of {self.size_bytes} bytes>"

    @property
    def path(self) -> Path:
        """Its file, while it has one."""
        return part_path(self.directory, self.name, self.number)

    @property
    def held_bytes(self) -> int:
        """Leading bytes of the blob itself."""
        return self.held.whole_bytes

    @property
    def on_disk_bytes(self) -> int:
        return self.held.whole_bytes + _planes_bytes(self.held)

    @property
    def budget_bytes(self) -> int:
        """What it counts for: all that it will become, and what planes take while they do."""
        if self.size_bytes is None:
            return self.on_disk_bytes
        rough_bytes = self.rough_bytes if self.widened else 0
        return self.size_bytes + self.planes_of(self.size_bytes) + rough_bytes

    @property
    def rough_bytes(self) -> int:
        """What its owner's worker takes to run on its planes: as much as an exact tensor.

        Nobody else's does, nor on planes that another began.
        """
        return 0 if self.owner is None or self.adopted else self.size_bytes or 0

    @property
    def by_planes(self) -> bool:
        """Whether it may still come by planes."""
        return self.dtype == "float32" and (self.held.coarse > 0 or not self.held.whole_bytes)

    def planes_of(self, size_bytes: int, widened: bool | None = None) -> int:
        """What planes of a blob of so many bytes take beside it; nothing unless `widened`."""
        if not (self.widened if widened is None else widened):
            return 0
        count = size_bytes // DTYPE_BYTES["float32"]
        return _planes_bytes(Progress(coarse=count, middle=count))

    @property
    def reach(self) -> int:
        """How far it has got, in bits."""
        held = self.held
        # FINE has the last 16 of an exact element's bits, where its planes are still needed.
        return (4 if held.coarse else 8) * held.whole_bytes + 8 * (held.coarse + held.middle)

    @property
    def full(self) -> bool:
        return self.held.whole_bytes == self.size_bytes

    @property
    def precision(self) -> str | None:
        """What its planes give its owner, of PRECISIONS; None before the first is complete.

        Nothing tells that planes are right but that who runs on them sent all of them.
        """
        if self.size_bytes is None or self.adopted or not self.held.coarse:
            return None
        count = self.size_bytes // DTYPE_BYTES["float32"]
        if self.held.middle == count:
            return "bfloat16"
        return "float8" if self.held.coarse == count else None

    def claim(self, digest: bytes, size_bytes: int, dtype: str, owner: object) -> None:
        """Somebody writes it from now on; `resume` comes first where something is held."""
        self.digest, self.size_bytes, self.dtype, self.owner = digest, size_bytes, dtype, owner
        self.adopted = self.on_disk_bytes > 0

    def resume(self) -> None:
        """Hash what an earlier connection or run left, so that segments can go on from there.

        What cannot be gone on with is given up. Raises StorageError, or Mismatch where all of
        it is there and wrong.
        """
        with self._lock:
            self._trim()
            if self._hash is None:
                try:
                    self._hash = hash_file(self.path, self.held.whole_bytes)
                except OSError as error:
                    raise cannot_store(self.directory, error) from error
            if self.full:
                self._check()

    def _trim(self) -> None:
        """To whole elements, and to planes that follow each other."""
        assert self.size_bytes is not None
        held, itemsize = self.held, DTYPE_BYTES[self.dtype]
        count = self.size_bytes // itemsize
        whole_bytes = held.whole_bytes // itemsize * itemsize
        coarse, middle = min(held.coarse, count), min(held.middle, count)
        if self.dtype != "float32" or (whole_bytes and not coarse == middle == count):
            coarse = middle = 0
        elif coarse < count:
            middle = 0
        if whole_bytes != held.whole_bytes:
            self._hash = None
        self.held = Progress(whole_bytes, coarse, middle)
        if not coarse:
            self.widened = False
            self._remove_planes()

    def store(
        self,
        segment: Segment,
        dtype: str,
        payloads: Sequence[Buffer],
        owner: object | None = None,
    ) -> None:
        """Decode a segment, whose bytes are `payloads` put together, and append it.

        Raises StorageError, or RemoteProtocolError where it does not decode or where `owner`, if
        given, does not own it any more, and keeps what was held. Raises Mismatch where the blob
        is complete and wrong, or its planes got lost.
        """
        pieces: Sequence[Buffer] = payloads
        if segment.coding != "raw" or segment.plane:
            payload = payloads[0] if len(payloads) == 1 else b"".join(payloads)
            pieces = (self._decoded(segment, dtype, payload),)
        with self._lock:
            if owner is not None and self.owner is not owner:
                # A disk that stalls comes to it only now: the next one was told how far it is.
                raise RemoteProtocolError("the blob is another's to write", "unexpected")
            self._has_files = True
            try:
                if segment.plane in _KINDS:
                    self._append_plane(segment, pieces)
                else:
                    self._append_whole(segment, dtype, pieces)
            except OSError as error:
                raise cannot_store(self.directory, error) from error
            if self.dropped:
                # Dropped meanwhile, and perhaps created anew by this very write.
                self.remove()
            elif self.full:
                self._check()

    def _decoded(self, segment: Segment, dtype: str, payload: Buffer) -> memoryview:
        plane, count, coding = segment.plane, segment.count, segment.coding
        if plane != MIDDLE:
            return decode_segment(dtype, plane, count, coding, payload)
        _expect(segment.start, self.held.middle)
        coarse = self._read(COARSE, segment)
        try:
            return decode_segment(dtype, plane, count, coding, payload, coarse)
        except RemoteProtocolError as error:
            if self.adopted:
                # What is not as it was left is not to be gone on with again and again.
                raise Mismatch(f"weight {self.digest.hex()[:16]}: {error}") from error
            raise

    def restart(self) -> None:
        """Nothing of it is held: what was there had the wrong bytes."""
        with self._lock:
            self.remove()
            self.held, self.widened, self._hash = Progress(), False, hashlib.sha256()

    @property
    def files(self) -> list[Path]:
        """Where any of its bytes may be."""
        if not self._has_files:
            return []
        kinds = ("part", *_KINDS.values())
        return [part_path(self.directory, self.name, self.number, kind) for kind in kinds]

    def remove(self) -> None:
        """Its files go."""
        if self._has_files:
            remove(self.path)
            self._remove_planes()

    def became_whole(self, path: Path) -> None:
        """It is the blob at `path` from now on. Raises OSError."""
        keep(path)
        self.path.rename(path)
        self._remove_planes()

    def _remove_planes(self) -> None:
        for kind in _KINDS.values():
            remove(part_path(self.directory, self.name, self.number, kind))

    def _append_whole(self, segment: Segment, dtype: str, pieces: Sequence[Buffer]) -> None:
        assert self._hash is not None
        assert self.size_bytes is not None
        held, itemsize = self.held, DTYPE_BYTES[dtype]
        _expect(segment.start * itemsize, held.whole_bytes)
        if segment.plane == FINE:
            pieces = (merge(self._read(MIDDLE, segment), pieces[0]),)
        append(self.path, held.whole_bytes, pieces, self.size_bytes)
        for piece in pieces:
            self._hash.update(piece)
        end = (segment.start + segment.count) * itemsize
        self.held = Progress(end, held.coarse, held.middle)

    def _append_plane(self, segment: Segment, pieces: Sequence[Buffer]) -> None:
        assert self.size_bytes is not None
        held, end = self.held, segment.start + segment.count
        _expect(segment.start, held.coarse if segment.plane == COARSE else held.middle)
        path = part_path(self.directory, self.name, self.number, _KINDS[segment.plane])
        count = self.size_bytes // DTYPE_BYTES["float32"]
        sizes = [stored_bytes("float32", segment.plane, each) for each in (segment.start, count)]
        append(path, sizes[0], pieces, sizes[1])
        if segment.plane == COARSE:
            self.held = Progress(held.whole_bytes, end, held.middle)
        else:
            self.held = Progress(held.whole_bytes, held.coarse, end)

    def _read(self, plane: int, segment: Segment) -> bytes:
        """What is stored of a plane of this segment's elements."""
        path = part_path(self.directory, self.name, self.number, _KINDS[plane])
        start = stored_bytes("float32", plane, segment.start)
        try:
            return read_at(path, start, stored_bytes("float32", plane, segment.count))
        except (EOFError, FileNotFoundError) as error:
            raise Mismatch(f"the planes of weight {self.digest.hex()[:16]} got lost") from error
        except OSError as error:
            raise cannot_store(self.directory, error) from error

    def _check(self) -> None:
        assert self._hash is not None
        if self._place.name(self._hash.digest()) != self.name:
            raise Mismatch(f"the bytes of weight {self.digest.hex()[:16]} do not match its digest")


def _planes_bytes(held: Progress) -> int:
    if not (held.coarse or held.middle):
        return 0
    coarse = stored_bytes("float32", COARSE, held.coarse)
    return coarse + stored_bytes("float32", MIDDLE, held.middle)


def _expect(start: int, held: int) -> None:
    if start != held:
        raise RemoteProtocolError(f"a segment at {start}, expected {held}", "unexpected")
