"""What an edge has acknowledged to a client, kept by reading the messages only.

Independent of the client's own bookkeeping, which it is there to check.
"""

from __future__ import annotations

from collections import defaultdict
from math import prod

from tests.simulation.models import EXACT, Model
from wire import PRECISIONS, messages
from wire.planes import COARSE, MIDDLE, WHOLE

Item = tuple[int, int]


class Ledger:
    """One client's view of its edge, over any number of connections."""

    def __init__(self, model: Model) -> None:
        graph = model.graph
        self._layers = graph.layers
        first: dict[bytes, int] = {}
        self._blob = [first.setdefault(w.digest, i) for i, w in enumerate(graph.weights)]
        self._elements = [prod(weight.spec.shape) for weight in graph.weights]
        self.epoch = ""
        self._whole_by_epoch: dict[str, set[int]] = defaultdict(set)
        self._counts_by_epoch: dict[str, dict[Item, int]] = defaultdict(dict)
        self.lost()

    @property
    def lacking(self) -> list[int]:
        """Weights of which the edge has not said that they are whole."""
        return sorted(set(self._blob) - self._whole)

    def lost(self) -> None:
        """Nothing is agreed on with this connection."""
        self._whole: set[int] = set()
        self._counts: dict[Item, int] = {}
        self._adopted: set[int] = set()
        self._announced: dict[Item, int] = {}

    def have(self, have: messages.Have, *, own: bool) -> list[str]:
        """What Have tells; in an epoch that goes on, which promises it breaks."""
        adopted = self._adopted
        self.lost()
        self.epoch = have.epoch
        held, start = set(), 0
        for index, length in enumerate(have.runs):
            held.update(range(start, start + length) if index % 2 else ())
            start += length
        self._whole = {self._blob[weight] for weight in held}
        for row in have.partial:
            self._counts[self._blob[row.weight], row.plane] = row.count
        self._announced = dict(self._counts)
        planes = {weight for weight, plane in self._counts if plane != WHOLE}
        self._adopted = adopted if own else planes
        forgotten = self._whole_by_epoch[self.epoch] - self._whole
        self._whole_by_epoch[self.epoch] |= self._whole
        return [
            f"weight {weight} was held in epoch {self.epoch}, and is not" for weight in forgotten
        ]

    def held(self, held: messages.Held) -> None:
        blob = self._blob[held.weight]
        self._counts[blob, held.plane] = held.count
        counts = self._counts_by_epoch[self.epoch]
        counts[blob, held.plane] = max(held.count, counts.get((blob, held.plane), 0))
        if held.complete:
            self._whole.add(blob)
            self._whole_by_epoch[self.epoch].add(blob)

    def segment(self, segment: messages.Segment) -> tuple[str | None, bool]:
        """What is wrong with sending it now, and whether it sends again what was acknowledged."""
        blob = self._blob[segment.weight]
        item = (blob, segment.plane)
        again = blob in self._whole_by_epoch[self.epoch]
        again |= segment.start < self._counts_by_epoch[self.epoch].get(item, 0)
        if blob in self._whole:
            return f"weight {blob} is held whole, and is sent", again
        expected = self._announced.get(item, 0)
        self._announced[item] = segment.start + segment.count
        if segment.start != expected:
            return f"plane {segment.plane} of weight {blob} goes on at {expected}", again
        return None, again

    def unheld(self, execute: messages.Execute) -> int | None:
        """The first layer of the range whose weights were not acknowledged, as precise as asked."""
        least = PRECISIONS.index(execute.precision)
        for layer in range(execute.start, execute.stop):
            if any(self._rank(self._blob[w]) < least for w in self._layers[layer].weights):
                return layer
        return None

    def _rank(self, blob: int) -> int:
        if blob in self._whole:
            return EXACT
        elements = self._elements[blob]
        if blob in self._adopted or self._counts.get((blob, COARSE), 0) < elements:
            return -1
        return int(self._counts.get((blob, MIDDLE), 0) == elements)
