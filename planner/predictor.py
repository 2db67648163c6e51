"""How long an operator takes, from what it computes and moves.

One small linear model per kind of operator, as in Neurosurgeon (Y. Kang et al., ASPLOS 2017,
section 5.1), in variables that hold for every kind:

    seconds ~ launch_s + flops * s_per_flop + bytes * s_per_byte        all three >= 0

fitted by non-negative least squares on relative errors, so that a 20 microsecond layer counts as
much as a 20 millisecond one. The whole fits in a hello message.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from scipy.optimize import nnls

FORMAT = 1
MOST_KINDS = 256
LONGEST_KIND = 64
# Fewer measurements than coefficients say nothing about a kind; the pooled row serves it.
FEWEST_SAMPLES = 3

Row: TypeAlias = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Sample:
    """One measured operator: its kind, operations, bytes moved, and the seconds it took."""

    kind: str
    flops: float
    bytes: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Predictor:
    """Per kind (launch_s, s_per_flop, s_per_byte), and one row for kinds never measured."""

    rows: Mapping[str, Row]
    pooled: Row

    @classmethod
    def fit(cls, samples: Iterable[Sample]) -> Predictor:
        """The predictor with the least squared relative error on `samples`.

        Kinds with fewer than three samples are left to the pooled row, which is fitted to all.
        Raises ValueError without samples, or when one is negative, not finite, or took no time.
        """
        by_kind: defaultdict[str, list[Sample]] = defaultdict(list)
        for sample in samples:
            _check_sample(sample)
            by_kind[sample.kind].append(sample)
        if not by_kind:
            raise ValueError("a predictor needs at least one sample")
        rows = {
            kind: _fit_row(measured)
            for kind, measured in sorted(by_kind.items())
            if len(measured) >= FEWEST_SAMPLES
        }
        return cls(rows, _fit_row([s for measured in by_kind.values() for s in measured]))

    def predict(self, kind: str, flops: float, bytes: float) -> float:
        """Seconds for one operator; a kind never measured is priced by the pooled row."""
        launch_s, s_per_flop, s_per_byte = self.rows.get(kind, self.pooled)
        return launch_s + flops * s_per_flop + bytes * s_per_byte

    def layer_s(self, work: Iterable[tuple[str, float, float]]) -> float:
        """Seconds for a layer: the sum over its operators' (kind, flops, bytes)."""
        return sum(self.predict(kind, flops, bytes) for kind, flops, bytes in work)

    def to_plain(self) -> dict[str, Any]:
        """The predictor as dicts, lists, strings and numbers; `from_plain` is its inverse."""
        return {
            "format": FORMAT,
            "pooled": list(self.pooled),
            "rows": {kind: list(row) for kind, row in self.rows.items()},
        }

    @classmethod
    def from_plain(cls, plain: object) -> Predictor:
        """The predictor from what `to_plain` gave. Raises ValueError for anything else."""
        if not isinstance(plain, Mapping):
            raise ValueError(f"a predictor is a map, not {type(plain).__name__}")
        if type(plain.get("format")) is not int or plain["format"] != FORMAT:
            raise ValueError(f"predictor format {plain.get('format')!r:.40}; known is {FORMAT}")
        rows = plain.get("rows")
        if not isinstance(rows, Mapping) or len(rows) > MOST_KINDS:
            raise ValueError(f"a predictor's rows are a map of at most {MOST_KINDS} kinds")
        for kind in rows:
            if not isinstance(kind, str) or len(kind) > LONGEST_KIND:
                raise ValueError(f"a kind is a string of at most {LONGEST_KIND} characters")
        return cls(
            {kind: _row_from_plain(kind, row) for kind, row in rows.items()},
            _row_from_plain("pooled", plain.get("pooled")),
        )


def _check_sample(sample: Sample) -> None:
    numbers = (sample.flops, sample.bytes, sample.seconds)
    if not all(math.isfinite(number) and number >= 0 for number in numbers) or not sample.seconds:
        raise ValueError(f"a sample has finite work >= 0 and seconds > 0: {sample}")


def _fit_row(samples: Sequence[Sample]) -> Row:
    features = np.array([(1.0, s.flops, s.bytes) for s in samples])
    # Relative errors: divide each equation by its own seconds. Then scale the columns, because
    # operations count in billions and launches in ones.
    relative = features / np.array([s.seconds for s in samples])[:, None]
    scale = np.abs(relative).max(axis=0)
    scale[scale == 0] = 1.0
    solution, _ = nnls(relative / scale, np.ones(len(samples)))
    launch_s, s_per_flop, s_per_byte = (solution / scale).tolist()
    return launch_s, s_per_flop, s_per_byte


def _row_from_plain(kind: str, row: object) -> Row:
    if not isinstance(row, list | tuple) or len(row) != 3:
        raise ValueError(f"the row of {kind!r} has three numbers")
    for number in row:
        # Bounded, so that no sum of predictions overflows: nothing costs an hour per unit.
        if type(number) not in (int, float) or not 0 <= number <= 3600:
            raise ValueError(f"the row of {kind!r} has numbers from 0 to 3600")
    launch_s, s_per_flop, s_per_byte = map(float, row)
    return launch_s, s_per_flop, s_per_byte
