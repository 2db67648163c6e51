"""What the edge holds of one model's weights, and how exactly it can use them.

Pure bookkeeping, of what the edge has said. Weights with equal digests are one blob, under the
number of the first weight that has them.
"""

from __future__ import annotations

from math import prod
from typing import TypeAlias

from ionn_client.machine.inventory import Inventory
from layergraph import LayerGraph
from wire import DTYPE_BYTES, PRECISIONS
from wire.planes import COARSE, FINE, MIDDLE, WHOLE, progressive_planes

# A plane of a blob.
Item: TypeAlias = tuple[int, int]
# Of an element of a whole weight, in bytes, without coding.
PLANE_BYTES = {COARSE: 1.0, MIDDLE: 1.0, FINE: 2.0}
EXACT = PRECISIONS[-1]


class Holdings:
    """How many elements of each blob's planes are there. With `progressive`, blobs go by planes.

    blob_of: each weight's blob. complete: those that are there whole.
    adopted: those whose planes came over another connection, usable only when they are whole.
    """

    def __init__(self, graph: LayerGraph, *, progressive: bool) -> None:
        self._progressive = progressive
        first_by_digest: dict[bytes, int] = {}
        self.blob_of = tuple(
            first_by_digest.setdefault(weight.digest, index)
            for index, weight in enumerate(graph.weights)
        )
        specs = {blob: graph.weights[blob].spec for blob in first_by_digest.values()}
        self.dtypes = {blob: spec.dtype for blob, spec in specs.items()}
        self.elements = {blob: prod(spec.shape) for blob, spec in specs.items()}
        self._vectors = {blob for blob, spec in specs.items() if len(spec.shape) < 2}
        self.forget()

    def forget(self) -> None:
        """The edge holds nothing of this model any more."""
        self.planes = {
            blob: self._planes_of(blob) if self._progressive else (WHOLE,) for blob in self.dtypes
        }
        self.counts: dict[Item, int] = {}
        self.complete = {blob for blob, count in self.elements.items() if count == 0}
        self.adopted: set[int] = set()

    def _planes_of(self, blob: int) -> tuple[int, ...]:
        # Vectors (biases, normalisation) are short: as planes they would save nobody's time, and
        # what they scale and shift would lose much.
        return (WHOLE,) if blob in self._vectors else progressive_planes(self.dtypes[blob])

    def told(self, inventory: Inventory, *, own: bool) -> None:
        """The edge said what it holds.

        Unless it is the connection's `own`, an edge runs nothing on planes before they are whole.
        """
        adopted = self.adopted
        self.forget()
        self.complete |= inventory.held & self.dtypes.keys()
        self.adopted = (
            {weight for weight, plane in inventory.partial if plane != WHOLE}
            if not own
            else adopted
        )
        for (weight, plane), count in inventory.partial.items():
            if self.blob_of[weight] == weight:
                # What an edge has begun to receive whole goes on so, and planes as planes.
                whole = plane == WHOLE
                self.planes[weight] = (WHOLE,) if whole else progressive_planes(self.dtypes[weight])
                self.counts[weight, plane] = count

    def size(self, blob: int) -> int:
        """Of all of it, in bytes."""
        return self.elements[blob] * DTYPE_BYTES[self.dtypes[blob]]

    def bytes_of(self, blob: int) -> int:
        """Raw bytes that are there of it."""
        if blob in self.complete:
            return self.size(blob)
        counts = ((plane, self.counts.get((blob, plane), 0)) for plane in self.planes[blob])
        return max((self.raw_bytes(blob, plane, n) for plane, n in counts if n), default=0)

    def raw_bytes(self, blob: int, plane: int, count: int) -> int:
        """Bytes of the blob that are there with `count` elements of a plane, and all before it."""
        if plane == WHOLE:
            return count * DTYPE_BYTES[self.dtypes[blob]]
        before = sum(PLANE_BYTES[p] for p in self.planes[blob] if p < plane)
        return int(before * self.elements[blob] + PLANE_BYTES[plane] * count)

    def lacking(self, item: Item) -> int:
        """How many elements of it are not there."""
        blob, _ = item
        return 0 if blob in self.complete else self.elements[blob] - self.counts.get(item, 0)

    def has(self, item: Item) -> bool:
        """Whether all of it is there."""
        blob, _ = item
        return blob in self.complete or self.counts.get(item, 0) == self.elements[blob] > 0

    def precision_of(self, blob: int) -> int:
        """Index of the precision at which a blob can be used, -1 for none."""
        if blob in self.complete:
            return PRECISIONS.index(EXACT)
        if blob in self.adopted or not self.has((blob, COARSE)):
            return -1
        return int(self.has((blob, MIDDLE)))
