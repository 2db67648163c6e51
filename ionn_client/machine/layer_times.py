"""What each layer takes on one side: as predicted, corrected by what ranges really took."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from planner import Correction


class LayerTimes:
    """Seconds of each layer, which are not to be written to."""

    def __init__(self, predicted_s: Sequence[float]) -> None:
        self._predicted_s = np.asarray(predicted_s, dtype=float)
        self._correction = Correction(len(self._predicted_s))
        self._corrected_s: np.ndarray | None = None

    @property
    def predicted_s(self) -> np.ndarray:
        """Before any correction."""
        return self._predicted_s

    @property
    def corrected_s(self) -> np.ndarray:
        """Made once for all that ask between two observations."""
        if self._corrected_s is None:
            self._corrected_s = self._correction.apply(self._predicted_s)
        return self._corrected_s

    def range_s(self, start: int, stop: int) -> float:
        """Of layers [start, stop) together."""
        return float(self.corrected_s[start:stop].sum())

    def observe(self, start: int, stop: int, seconds: float) -> None:
        """Layers [start, stop) took so long."""
        self._correction.observe(start, stop, self.range_s(start, stop), seconds)
        self._corrected_s = None

    def relax(self) -> None:
        """Nothing was observed: let what was observed before fade."""
        self._correction.relax()
        self._corrected_s = None
