"""Layers that took longer than all others let expect, measured again.

What else a machine does makes times longer, for a moment or for seconds, and is gone when a
layer's turn comes again. What takes long by itself takes as long again.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ionn_edge.calibration.probes import Probe
from planner.predictor import Predictor, Sample

if TYPE_CHECKING:
    from ionn_edge.calibration.measure import Measured

# Over what is expected; the fit explains most calm layers better than this.
LONGER = 1.2
# Of all layers: what is slow more often is the rule.
MOST_AGAIN = 0.2


def remeasured(
    layers: Sequence[tuple[Probe, Measured]], measured: Callable[[Probe], Measured]
) -> list[Measured]:
    """What the layers took, of which those that took unexpectedly long are `measured` once more.

    The shorter time counts. Raises ValueError without any layer.
    """
    kept = [layer for _, layer in layers]
    expected = Predictor.fit(Sample(layer.work, layer.seconds) for layer in kept)
    longer = [layer.seconds / expected.cost(layer.work) for layer in kept]
    most = math.ceil(MOST_AGAIN * len(kept))
    slowest = heapq.nlargest(most, range(len(kept)), key=longer.__getitem__)
    for index in slowest:
        if longer[index] > LONGER:
            again = measured(layers[index][0])
            kept[index] = min(kept[index], again, key=lambda layer: layer.seconds)
    return kept
