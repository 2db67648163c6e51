"""Which cuts a message can hold, and what crossing each one weighs."""

from __future__ import annotations

from collections.abc import Sequence

from layergraph import LayerGraph
from planner import CutCoding
from wire import DEFAULT_LIMITS

# Larger than any link could carry: a cut that no message can hold is never chosen.
NEVER_BYTES = 1 << 60


class SendableCuts:
    """Of one graph, for an edge that takes messages of so many bytes."""

    def __init__(self, graph: LayerGraph, max_message_bytes: int) -> None:
        self._fit = [_fits(graph, cut, max_message_bytes) for cut in range(len(graph.cuts))]

    def bytes(self, chosen: Sequence[CutCoding]) -> list[float]:
        """Of each cut in its coding; NEVER_BYTES where no message can hold it."""
        return [
            option.bytes if fits else NEVER_BYTES
            for option, fits in zip(chosen, self._fit, strict=True)
        ]


def _fits(graph: LayerGraph, cut: int, max_message_bytes: int) -> bool:
    sizes = [spec.nbytes for spec in graph.cut_specs(cut)]
    # Leave room for the header.
    most = min(max_message_bytes, DEFAULT_LIMITS.max_message_bytes)
    most -= DEFAULT_LIMITS.max_header_bytes
    return len(sizes) <= DEFAULT_LIMITS.max_tensors and sum(sizes) <= most
