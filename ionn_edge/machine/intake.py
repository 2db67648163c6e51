"""The segments of a connection: which may come next, and the one that is coming.

No I/O: segments and chunks go in as they are heard, and come out as segments to store. Says
what of a client's upload is out of place, before anything of it touches the disk.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from copy import copy
from dataclasses import replace

from ionn_edge.machine.events import NOTHING, Model, Progress, StoreSegment
from wire import DTYPE_BYTES, RemoteProtocolError, messages
from wire.limits import Limits
from wire.planes import COARSE, FINE, MIDDLE, PLANE_NAMES, WHOLE, progressive_planes, stored_bytes

# Shorter chunks are put together: each would otherwise keep a frame and several objects.
SMALL_BYTES = 4 << 10


class Intake:
    """What is held of each blob of a model, counting every segment that has come entirely."""

    def __init__(self, model: Model, held: Iterable[Progress], limits: Limits) -> None:
        self._weights = model.weights
        self._held = {
            digest: each for (digest, _, _), each in zip(model.weights, held, strict=True)
        }
        self._limits = limits
        self._expect_segment()

    def _expect_segment(self) -> None:
        self._coming: messages.Segment | None = None
        self._payloads: list[messages.Buffer] = []
        self._missing_bytes = 0

    def beside(self) -> Intake:
        """For another connection of the same client: what is held is one, what comes its own."""
        other = copy(self)
        other._expect_segment()
        return other

    def announce(self, segment: messages.Segment) -> None:
        """A segment's chunks will follow. Raises RemoteProtocolError where it is out of place."""
        if self._coming is not None:
            raise RemoteProtocolError(
                f"a segment while {self._missing_bytes} bytes of the one before are to come",
                "unexpected",
            )
        if segment.weight >= len(self._weights):
            raise RemoteProtocolError(
                f"a segment of weight {segment.weight}; the model has {len(self._weights)}"
            )
        self._check_size(segment, self._weights[segment.weight][2])
        self._check_follows(segment)
        self._coming, self._missing_bytes = segment, segment.coded_bytes

    def take(self, payload: messages.Buffer) -> StoreSegment | None:
        """A chunk came; the segment that it completes. Raises RemoteProtocolError."""
        segment = self._coming
        if segment is None:
            raise RemoteProtocolError("a chunk of no segment", "unexpected")
        self._missing_bytes -= len(payload)
        if self._missing_bytes < 0:
            raise RemoteProtocolError(
                f"{-self._missing_bytes} bytes more than the {segment.coded_bytes} announced"
            )
        self._keep(payload)
        if self._missing_bytes:
            return None
        # Once more: another connection may have brought something since it was announced.
        self._check_follows(segment)
        complete = StoreSegment(segment, tuple(self._payloads))
        self._expect_segment()
        self._count(segment)
        return complete

    def ends_plane(self, held: messages.Held) -> bool:
        """Whether all of a plane is held, or of the weight."""
        _, size, dtype = self._weights[held.weight]
        return held.count * DTYPE_BYTES[dtype] == size

    def _keep(self, payload: messages.Buffer) -> None:
        before = self._payloads[-1] if self._payloads else None
        if before is None or len(payload) >= SMALL_BYTES:
            self._payloads.append(payload)
        elif isinstance(before, bytearray):
            before += payload
        else:
            self._payloads.append(bytearray(payload))

    def _check_follows(self, segment: messages.Segment) -> None:
        digest, size, dtype = self._weights[segment.weight]
        held = self._held[digest]
        _check_order(segment, held, size, dtype)
        _check_place(segment, held, size, dtype)

    def _check_size(self, segment: messages.Segment, dtype: str) -> None:
        if segment.plane != WHOLE and segment.plane not in progressive_planes(dtype):
            raise RemoteProtocolError(
                f"{_called(segment)}, which is {dtype}: only float32 has planes"
            )
        decoded_bytes = stored_bytes(dtype, segment.plane, segment.count)
        if decoded_bytes > self._limits.max_segment_bytes:
            raise RemoteProtocolError(
                f"{_called(segment)} of {decoded_bytes} bytes;"
                f" the limit is {self._limits.max_segment_bytes}"
            )
        raw = segment.coding == "raw" and segment.plane == WHOLE
        if raw and segment.coded_bytes != decoded_bytes:
            raise RemoteProtocolError(
                f"{_called(segment)} announces {segment.coded_bytes} bytes"
                f" for {segment.count} elements of {dtype}"
            )

    def _count(self, segment: messages.Segment) -> None:
        digest, _, dtype = self._weights[segment.weight]
        end, held = segment.start + segment.count, self._held[digest]
        if segment.plane == COARSE:
            held = replace(held, coarse=end)
        elif segment.plane == MIDDLE:
            held = replace(held, middle=end)
        else:
            held = replace(held, whole_bytes=end * DTYPE_BYTES[dtype])
        self._held[digest] = held


def have_of(model: Model, epoch: str, held: Iterable[Progress]) -> messages.Have:
    """What is held of each weight, as the client is told."""
    rows = list(zip(held, model.weights, strict=True))
    whole = [each.whole_bytes == size for each, (_, size, _) in rows]
    # Held ones have the odd places.
    runs = [0] if whole[:1] == [True] else []
    runs += [len(list(alike)) for _, alike in itertools.groupby(whole)]
    partial = [
        messages.Partial(number, plane, count)
        for number, (each, (_, _, dtype)) in enumerate(rows)
        if not whole[number] and each is not NOTHING
        for plane, count in _planes(each, dtype)
        if count
    ]
    return messages.Have(model.fingerprint, epoch, tuple(runs), tuple(partial))


def _planes(held: Progress, dtype: str) -> list[tuple[int, int]]:
    count = held.whole_bytes // DTYPE_BYTES[dtype]
    if not held.coarse:
        return [(WHOLE, count)]
    if dtype != "float32":
        # Equal bytes under another type; by planes they come as the float32 that they are too.
        return []
    return [(COARSE, held.coarse), (MIDDLE, held.middle), (FINE, count)]


def _check_order(segment: messages.Segment, held: Progress, size: int, dtype: str) -> None:
    """Planes come after each other, and not to a blob of which there is something whole."""
    if segment.plane == WHOLE:
        if held.coarse:
            raise RemoteProtocolError(f"{_called(segment)}, which came by planes", "unexpected")
        return
    if held.whole_bytes and not held.coarse:
        raise RemoteProtocolError(f"{_called(segment)}, which came whole", "unexpected")
    total = size // DTYPE_BYTES[dtype]
    for before, count in ((COARSE, held.coarse), (MIDDLE, held.middle)):
        if segment.plane > before and count < total:
            raise RemoteProtocolError(
                f"{_called(segment)} after {count} of {total} elements of {PLANE_NAMES[before]}",
                "unexpected",
            )


def _check_place(segment: messages.Segment, held: Progress, size: int, dtype: str) -> None:
    expected, left_over = divmod(held.whole_bytes, DTYPE_BYTES[dtype])
    if segment.plane == COARSE:
        expected = held.coarse
    elif segment.plane == MIDDLE:
        expected = held.middle
    elif left_over:
        raise RemoteProtocolError(
            f"{_called(segment)} after {held.whole_bytes} bytes under another type", "unexpected"
        )
    if segment.start != expected:
        raise RemoteProtocolError(
            f"{_called(segment)} at {segment.start}, expected {expected}", "unexpected"
        )
    end, total = segment.start + segment.count, size // DTYPE_BYTES[dtype]
    if end > total:
        raise RemoteProtocolError(f"{_called(segment)} up to {end} of {total} elements")


def _called(segment: messages.Segment) -> str:
    return f"a segment of weight {segment.weight} ({PLANE_NAMES[segment.plane]})"
