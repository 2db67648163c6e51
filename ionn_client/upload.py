"""Which bytes of which weight go next, and which layers the edge can already run.

Pure bookkeeping; what to upload in which order is planner's decision, how fast is the pacer's.
"""

from __future__ import annotations

from collections.abc import Sequence

from layergraph import LayerGraph
from wire import messages


class Upload:
    """One model's upload to one edge, across reconnections.

    Weights with equal digests are one blob: bytes are counted and sent once, under the number
    of the first weight that has them.
    """

    def __init__(self, graph: LayerGraph, blobs: Sequence[memoryview]) -> None:
        self._graph = graph
        self._blobs = blobs
        first_by_digest: dict[bytes, int] = {}
        self._blob_of = tuple(
            first_by_digest.setdefault(weight.digest, index)
            for index, weight in enumerate(graph.weights)
        )
        self._sizes = {blob: graph.weights[blob].spec.nbytes for blob in first_by_digest.values()}
        self._blobs_of_layer = tuple(
            tuple(dict.fromkeys(self._blob_of[weight] for weight in layer.weights))
            for layer in graph.layers
        )
        self.total_bytes = sum(self._sizes.values())
        self.sent_bytes = 0
        self.resent_bytes = 0
        self.skipped_bytes = 0
        self.partitions: tuple[tuple[int, ...], ...] = ()
        self._highest_sent = dict.fromkeys(self._sizes, 0)
        self.forget()

    def forget(self) -> None:
        """The edge holds nothing of this model any more."""
        self._held = dict.fromkeys(self._sizes, 0)
        self._sent = dict.fromkeys(self._sizes, 0)
        self._complete = {blob for blob, size in self._sizes.items() if size == 0}
        self._order: list[int] = []
        self._position = 0

    def renegotiated(self, held_bytes: Sequence[int]) -> int:
        """The edge said how much of each weight it holds: continue from there.

        Returns how many bytes that were sent it does not hold: they will be sent again.
        """
        lost_bytes = sum(max(0, sent - held_bytes[blob]) for blob, sent in self._sent.items())
        self.forget()
        for blob, size in self._sizes.items():
            held = min(held_bytes[blob], size)
            self._held[blob] = self._sent[blob] = held
            self.skipped_bytes += max(0, held - self._highest_sent[blob])
            self._highest_sent[blob] = max(held, self._highest_sent[blob])
            if held == size:
                self._complete.add(blob)
        return lost_bytes

    def follow(self, partitions: Sequence[Sequence[int]]) -> None:
        """Upload these layers, in this order, from now on. Layers not named stay here.

        Partitions of earlier plans that are there stay counted, so that progress only grows.
        """
        finished = [p for p in self.partitions if self._is_there(p)]
        self.partitions = (*finished, *map(tuple, partitions))
        layers = (layer for partition in partitions for layer in partition)
        blobs = (blob for layer in layers for blob in self._blobs_of_layer[layer])
        self._order = [blob for blob in dict.fromkeys(blobs) if blob not in self._complete]
        self._position = 0

    def next_chunk(self, max_bytes: int) -> messages.Chunk | None:
        """The next chunk to send, which then counts as sent; None when all is on its way."""
        while self._position < len(self._order):
            blob = self._order[self._position]
            offset = self._sent[blob]
            stop = min(offset + max_bytes, self._sizes[blob])
            if stop > offset:
                self._sent[blob] = stop
                self.sent_bytes += stop - offset
                self.resent_bytes += max(0, min(stop, self._highest_sent[blob]) - offset)
                self._highest_sent[blob] = max(stop, self._highest_sent[blob])
                return messages.Chunk(blob, offset, self._blobs[blob][offset:stop])
            self._position += 1
        return None

    def acknowledged(self, blob: int, held_bytes: int, complete: bool) -> None:
        self._held[blob] = held_bytes
        if complete:
            self._complete.add(blob)

    def knows(self, blob: int) -> bool:
        return blob in self._sizes

    @property
    def held_bytes(self) -> int:
        return sum(self._held.values())

    @property
    def pending_bytes(self) -> int:
        """Bytes of the current plan that the edge has not acknowledged."""
        return sum(self._sizes[blob] - self._held[blob] for blob in self._order)

    @property
    def done(self) -> bool:
        """Everything in the plan is there, verified."""
        return all(blob in self._complete for blob in self._order)

    def missing_bytes(self) -> tuple[int, ...]:
        """Bytes that each layer still needs; of shared weights, only its first layer's."""
        counted: set[int] = set()
        missing = []
        for blobs in self._blobs_of_layer:
            new = [b for b in blobs if b not in self._complete and b not in counted]
            counted.update(new)
            missing.append(sum(self._sizes[b] - self._held[b] for b in new))
        return tuple(missing)

    def layers(self, *, whole_partitions: bool) -> frozenset[int]:
        """Weighted layers that the edge can run, as far as acknowledged.

        With `whole_partitions` (as SoCC'18 has it) a layer counts only once all of its
        partition is there.
        """
        present = frozenset(
            layer
            for layer, blobs in enumerate(self._blobs_of_layer)
            if blobs and self._complete.issuperset(blobs)
        )
        if not whole_partitions:
            return present
        for partition in self.partitions:
            if not present.issuperset(partition):
                present -= set(partition)
        return present

    @property
    def partitions_done(self) -> int:
        return sum(map(self._is_there, self.partitions))

    def _is_there(self, partition: Sequence[int]) -> bool:
        return all(self._complete.issuperset(self._blobs_of_layer[layer]) for layer in partition)
