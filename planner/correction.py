"""What the predictor gets wrong on this edge, learnt from the times that ranges really took."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from planner.costs import Floats

WEIGHT = 0.25  # of one observation
FIRST_WEIGHT = 0.5  # of the first: converges sooner, yet a cold first run does not decide alone
# A correction stays between 1 / LARGEST and LARGEST. Small layers take a thousand times as long on
# an edge whose processors others keep busy.
LARGEST = 1e4


class Correction:
    """A factor per layer on predicted edge times, following observed range times.

    An exponentially weighted mean of log(observed / predicted): errors are ratios, and one
    outlier must not flip a route. Layers never observed take the mean factor of those that were,
    because an edge that is slow on some layers is usually slow on all; otherwise routes would
    flee to layers that only look fast because nobody has tried them. `relax` lets factors fade
    while nothing is observed, because a route that avoids the edge learns nothing more about it.
    """

    def __init__(self, layers: int) -> None:
        self._log = np.zeros(layers)
        self._unseen = np.ones(layers, dtype=np.bool_)
        self._seen = 0
        self._factors: Floats | None = None  # of the logs, made when asked for
        self._filled: Floats | None = None  # the logs, with the mean where nothing was seen

    def observe(self, start: int, stop: int, predicted_s: float, observed_s: float) -> None:
        """Layers [start, stop) took `observed_s` where `predicted_s` was expected of the edge.

        `predicted_s` is the sum over the range as corrected when it was predicted, that is of
        `apply(edge_s)[start:stop]`. Times that are not positive and finite say nothing and are
        ignored. Raises ValueError for a range outside the model.
        """
        if not 0 <= start <= stop <= len(self._log):
            raise ValueError(f"no layers [{start}, {stop}) in a model of {len(self._log)}")
        if not all(math.isfinite(t) and t > 0 for t in (predicted_s, observed_s)):
            return
        step = math.log(observed_s / predicted_s)
        unseen, logs = self._unseen[start:stop], self._logs()[start:stop]
        weight: float | Floats = WEIGHT
        if self._seen < len(self._log):
            weight = np.where(unseen, FIRST_WEIGHT, WEIGHT)
            self._seen += int(np.count_nonzero(unseen))
            unseen[:] = False
        bound = math.log(LARGEST)
        self._log[start:stop] = np.maximum(np.minimum(logs + weight * step, bound), -bound)
        self._factors = self._filled = None

    def relax(self, weight: float = 0.02) -> None:
        """Bring every factor a little nearer to 1; for queries that ran nothing on the edge."""
        self._log *= 1.0 - weight
        self._factors = self._filled = None

    def apply(self, edge_s: ArrayLike) -> Floats:
        """Predicted edge times (n seconds) times each layer's factor."""
        times = np.asarray(edge_s, dtype=np.float64)
        if times.shape != self._log.shape:
            raise ValueError(f"edge_s has shape {times.shape}; {self._log.shape} is needed")
        if self._factors is None:
            self._factors = np.exp(self._logs())
        return times * self._factors

    def _logs(self) -> Floats:
        if not 0 < self._seen < len(self._log):
            return self._log
        if self._filled is None:
            self._filled = self._log.copy()
            # Those that were not seen are 0.
            self._filled[self._unseen] = np.add.reduce(self._log) / self._seen
        return self._filled
