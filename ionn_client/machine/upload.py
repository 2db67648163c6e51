"""Which part of which weight goes next, and which layers the edge can already run, how exactly.

Pure bookkeeping; what to upload in which order is planner's decision, how fast is the pacer's,
what is worth coding is the coder's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from ionn_client.machine.coded_sizes import CodedSizes
from ionn_client.machine.holdings import EXACT, Holdings, Item
from ionn_client.machine.inventory import Inventory
from layergraph import LayerGraph
from wire import PRECISIONS, RemoteProtocolError, messages
from wire.planes import COARSE, WHOLE
from wire.segments import segment_elements

# A layer up to a plane: WHOLE is all of it, a plane is all planes up to this one.
Step: TypeAlias = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Piece:
    """Elements [start, start + count) of one plane of a weight: what one segment carries."""

    weight: int
    plane: int
    start: int
    count: int

    @property
    def stop(self) -> int:
        return self.start + self.count


@dataclass(slots=True)
class _Announced:
    piece: Piece
    coded_bytes: int
    sent_bytes: int = 0

    @property
    def sent(self) -> bool:
        return self.sent_bytes == self.coded_bytes


class Upload:
    """One model's upload to one edge, across reconnections.

    Weights with equal digests are one blob: bytes are counted and sent once, under the number
    of the first weight that has them. With `precision` "progressive", a blob that has planes
    goes plane by plane. Layers that are `kept` here have nothing to upload.
    """

    def __init__(
        self, graph: LayerGraph, precision: str = EXACT, kept: frozenset[int] = frozenset()
    ) -> None:
        held = self._holdings = Holdings(graph, progressive=precision == "progressive")
        self.dtypes = held.dtypes
        self._blobs_of_layer = tuple(
            tuple(dict.fromkeys(held.blob_of[w] for w in layer.weights if index not in kept))
            for index, layer in enumerate(graph.layers)
        )
        self._wanted = {blob for blobs in self._blobs_of_layer for blob in blobs}
        self.total_bytes = sum(map(held.size, self._wanted))
        self.sent_bytes = 0
        self.resent_bytes = 0
        self.skipped_bytes = 0
        self.partitions: tuple[tuple[Step, ...], ...] = ()
        # Raw bytes of each blob that were ever sent or said to be there: sending them again is
        # resending, and being told of more is a gift.
        self._credited = dict.fromkeys(self.dtypes, 0)
        self._sizes = CodedSizes(self.dtypes)
        self.forget()

    def forget(self) -> None:
        """The edge holds nothing of this model any more."""
        self._holdings.forget()
        self._start_over()

    def _start_over(self) -> None:
        self._announced: dict[Item, int] = {}
        self._passed = dict.fromkeys(self.dtypes, 0)
        self._flight: deque[_Announced] = deque()
        self._order: list[Item] = []
        self._position = 0

    def renegotiated(self, inventory: Inventory, *, own: bool = False) -> int:
        """The edge said what it holds: continue from there, an unfinished segment from its start.

        Unless it is the connection's `own`, an edge runs nothing on planes before they are whole.
        Returns how many raw bytes that were sent it does not hold: they will be sent again.
        """
        passed = self._passed
        self._holdings.told(inventory, own=own)
        self._start_over()
        self._announced = dict(self._holdings.counts)
        lost_bytes = 0
        for blob in self.dtypes:
            held = self._passed[blob] = self._holdings.bytes_of(blob)
            lost_bytes += max(0, passed[blob] - held)
            self.skipped_bytes += max(0, held - self._credited[blob])
            self._credited[blob] = max(held, self._credited[blob])
        return lost_bytes

    def follow(self, partitions: Sequence[Sequence[Step]]) -> None:
        """Upload these steps, in this order, from now on. Layers not named stay here.

        A segment that has begun is finished first. Partitions of earlier plans that are there
        stay counted, so that progress only grows.
        """
        finished = [p for p in self.partitions if self._is_there(p)]
        self.partitions = (*finished, *map(tuple, partitions))
        steps = (step for partition in partitions for step in partition)
        items = dict.fromkeys(item for step in steps for item in self._items(step))
        self._order = [item for item in items if item[0] not in self._holdings.complete]
        self._position = 0

    def _items(self, step: Step) -> Iterator[Item]:
        layer, plane = step
        for blob in self._blobs_of_layer[layer]:
            for own in self._holdings.planes[blob]:
                if plane == WHOLE or own <= plane or blob in self._holdings.adopted:
                    yield blob, own

    def pieces(self) -> Iterator[Piece]:
        """What is to be announced next, in order, without end before the plan's."""
        while self._position < len(self._order):
            if self._unannounced(self._order[self._position]):
                break
            self._position += 1
        for item in self._order[self._position :]:
            start, stop = self._announced.get(item, 0), self._holdings.elements[item[0]]
            most = segment_elements(self.dtypes[item[0]], item[1])
            while start < stop:
                # Planes go block by block, wherever the edge's copy ends.
                count = min(most - start % most, stop - start)
                yield Piece(*item, start, count)
                start += count

    def elements(self, blob: int) -> int:
        """How many elements a blob has."""
        return self._holdings.elements[blob]

    def _unannounced(self, item: Item) -> bool:
        return self._announced.get(item, 0) < self._holdings.elements[item[0]]

    def announce(self, piece: Piece, coded_bytes: int) -> None:
        """The piece is sent next, as so many bytes; then `advance` until it is `sent`."""
        item = (piece.weight, piece.plane)
        self._announced[item] = piece.stop
        self._flight.append(_Announced(piece, coded_bytes))
        self._sizes.observe(item, coded_bytes, piece.count)

    def advance(self, size_bytes: int) -> None:
        """The next bytes of the segment announced last were sent."""
        segment = self._flight[-1]
        blob = segment.piece.weight
        before = self._passed[blob]
        segment.sent_bytes += size_bytes
        share = segment.sent_bytes / segment.coded_bytes
        start = self._holdings.raw_bytes(blob, segment.piece.plane, segment.piece.start)
        stop = self._holdings.raw_bytes(blob, segment.piece.plane, segment.piece.stop)
        after = self._passed[blob] = int(start + share * (stop - start))
        self.sent_bytes += size_bytes
        again = min(after, self._credited[blob]) - before
        # The rest of a segment that somebody else overtook was never there from us.
        if again > 0 and blob not in self._holdings.complete:
            self.resent_bytes += round(size_bytes * again / (after - before))
        self._credited[blob] = max(after, self._credited[blob])

    def held(self, held: messages.Held) -> None:
        """The edge stored the oldest segment that was sent, or has its weight from elsewhere.

        A weight that somebody else completed is told to be so at any of its segments; what was
        not announced of it is then not sent any more.

        Raises RemoteProtocolError where that is not what it says.
        """
        segment = self._flight[0] if self._flight else None
        if segment is None or not segment.sent:
            raise RemoteProtocolError(f"weight {held.weight} was not sent so far")
        piece = segment.piece
        whole = self._holdings.elements[piece.weight]
        stop = whole if held.complete else piece.stop
        if (held.weight, held.plane, held.count) != (piece.weight, piece.plane, stop):
            raise RemoteProtocolError(
                f"{held.count} elements of plane {held.plane} of weight {held.weight} are held,"
                f" where {piece.stop} of plane {piece.plane} of weight {piece.weight} were sent"
            )
        last = piece.plane == self._holdings.planes[piece.weight][-1] and piece.stop == whole
        if not held.complete and (last or piece.weight in self._holdings.complete):
            raise RemoteProtocolError(
                f"weight {held.weight} is there whole, and said not to be complete"
            )
        if held.complete and not last and piece.weight not in self._holdings.complete:
            self._overtaken(piece.weight)
        self._flight.popleft()
        self._holdings.counts[piece.weight, piece.plane] = stop
        if held.complete:
            self._holdings.complete.add(piece.weight)

    def _overtaken(self, blob: int) -> None:
        """Somebody else has completed it: nothing more of it is begun."""
        begun = max(
            self._holdings.raw_bytes(blob, each.piece.plane, each.piece.stop)
            for each in self._flight
            if each.piece.weight == blob
        )
        size = self._holdings.size(blob)
        self.skipped_bytes += max(0, size - max(begun, self._credited[blob]))
        self._credited[blob] = size
        self._order = [item for item in self._order if item[0] != blob]
        self._position = 0

    @property
    def held_bytes(self) -> int:
        """Raw bytes that the edge holds of what is uploaded."""
        return sum(map(self._holdings.bytes_of, self._wanted))

    @property
    def exposed_bytes(self) -> int:
        """Raw bytes that the edge holds of layers that are kept here: from an earlier visit."""
        return sum(map(self._holdings.bytes_of, self.dtypes.keys() - self._wanted))

    @property
    def pending_bytes(self) -> int:
        """Bytes that the current plan will still send and the edge acknowledge, as coded."""
        return sum(map(self._missing_of, self._order))

    def _missing_of(self, item: Item) -> int:
        """Bytes in which an item's missing elements will cross: coded as it was so far."""
        count = self._holdings.lacking(item)
        return self._sizes.expected_bytes(item, count) if count else 0

    def has(self, weight: int, plane: int) -> bool:
        """Whether all of a weight's plane is there."""
        return self._holdings.has((weight, plane))

    @property
    def in_flight(self) -> bool:
        """A segment was announced that the edge has not said that it holds."""
        return bool(self._flight)

    @property
    def owed(self) -> bool:
        """A segment was sent whole, and the edge has not said that it holds it."""
        return bool(self._flight) and self._flight[0].sent

    @property
    def done(self) -> bool:
        """Everything in the plan is there, verified."""
        # The last first, because it comes last: this is asked with every acknowledgement.
        return all(map(self._holdings.has, reversed(self._order)))

    def missing_bytes(self) -> tuple[int, ...]:
        """Bytes to cross that each layer still needs; of shared weights, only its first layer's."""
        return tuple(map(sum, self.missing_planes()))

    def missing_planes(self) -> tuple[tuple[int, int, int], ...]:
        """`missing_bytes` by plane: coarse, middle, fine.

        What the edge can use only whole counts as coarse.
        """
        counted: set[int] = set()
        missing = []
        for blobs in self._blobs_of_layer:
            sizes = [0, 0, 0]
            for blob in blobs:
                if blob not in counted:
                    for plane in self._holdings.planes[blob]:
                        whole = plane == WHOLE or blob in self._holdings.adopted
                        sizes[0 if whole else plane - COARSE] += self._missing_of((blob, plane))
            counted.update(blobs)
            missing.append((sizes[0], sizes[1], sizes[2]))
        return tuple(missing)

    def layers(self, precision: str = EXACT, *, whole_partitions: bool = False) -> frozenset[int]:
        """Weighted layers that the edge can run at `precision` or better, as far as acknowledged.

        With `whole_partitions` (as SoCC'18 has it) a layer counts only once all of its
        partition is there.
        """
        least = PRECISIONS.index(precision)
        present = frozenset(
            layer
            for layer, blobs in enumerate(self._blobs_of_layer)
            if blobs and all(self._holdings.precision_of(blob) >= least for blob in blobs)
        )
        if whole_partitions:
            for partition in self.partitions:
                named = {layer for layer, _ in partition}
                if not present.issuperset(named):
                    present -= named
        return present

    @property
    def partitions_done(self) -> int:
        return sum(map(self._is_there, self.partitions))

    def _is_there(self, partition: Sequence[Step]) -> bool:
        return all(self._holdings.has(item) for step in partition for item in self._items(step))
