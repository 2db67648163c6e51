"""A factor on predicted costs by shape: what linear terms leave, interpolated in log space.

Caches, prefetchers and register tiles make some shapes of an operator faster than its terms say.
The factor is a generalised additive model (Hastie and Tibshirani 1986): its logarithm is a sum of
one piecewise linear function per dimension, of the logarithm of that dimension, smoothed and drawn
to 0 where samples are few. Stored as whole hundredths of logarithms, so that it stays small.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.work import Work

Floats = NDArray[np.float64]

DIMENSIONS: tuple[Callable[[Work], float], ...] = (
    lambda w: w.batch,
    lambda w: w.rows,
    lambda w: w.inner,
    lambda w: w.columns,
    lambda w: w.read_bytes + w.made_bytes,
    lambda w: w.weight_bytes,
    lambda w: w.steps,
    lambda w: w.window,
    lambda w: w.stride,
)
# Knots at powers of eight; beyond the last all is as there.
KNOTS, KNOT_BITS = 10, 3.0
# Logarithms: of one knot as stored, and of the whole factor.
MOST_HUNDREDTHS, LARGEST_LOG = 100, 1.2
SMOOTHNESS, SHRINKAGE = 3.0, 1.0
ROUNDS, NOISE = 6, 0.03

Table = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class ShapeFactor:
    """Per dimension of `DIMENSIONS` the hundredths of logarithms at its knots, or none."""

    table: Table

    @classmethod
    def fit(cls, works: Sequence[Work], ratios: Sequence[float]) -> ShapeFactor:
        """The factor nearest to measured over predicted costs, in absolute logarithms."""
        target = np.clip(np.log(np.asarray(ratios)), -LARGEST_LOG, LARGEST_LOG)
        basis = np.array([_basis(work) for work in works])
        # What all samples have alike explains nothing, and would take a share of their mean.
        varies = np.ptp(basis.reshape(len(works), -1, KNOTS), axis=0).max(axis=1) > 0
        basis *= np.repeat(varies, KNOTS)
        smooth = _smoothing()
        zeros = np.zeros(len(smooth))
        weight = np.ones(len(target))
        found = zeros
        for _ in range(ROUNDS):
            rows = np.vstack((basis * weight[:, None], smooth))
            found = np.linalg.lstsq(rows, np.concatenate((target * weight, zeros)), rcond=None)[0]
            # Absolute errors, because a disturbed sample is far off.
            weight = np.sqrt(NOISE / np.maximum(np.abs(target - basis @ found), NOISE))
        hundredths = np.clip(np.rint(100 * found), -MOST_HUNDREDTHS, MOST_HUNDREDTHS)
        return cls(
            tuple(
                tuple(int(value) for value in values) if values.any() else ()
                for values in hundredths.reshape(-1, KNOTS)
            )
        )

    def at(self, work: Work) -> float:
        """The factor for one operator."""
        total = 0.0
        for values, dimension in zip(self.table, DIMENSIONS, strict=True):
            if values:
                knot, share = _place(dimension(work))
                total += (1 - share) * values[knot] + share * values[knot + 1]
        return math.exp(max(-LARGEST_LOG, min(LARGEST_LOG, total / 100)))

    def to_plain(self) -> list[list[int]]:
        """Lists of whole numbers."""
        return [list(values) for values in self.table]

    @classmethod
    def from_plain(cls, kind: str, plain: object) -> ShapeFactor:
        """The inverse of `to_plain`. Raises ValueError, naming the kind, for anything else."""
        if not isinstance(plain, list | tuple) or len(plain) != len(DIMENSIONS):
            raise ValueError(f"the factor of {kind!r} has {len(DIMENSIONS)} dimensions")
        return cls(tuple(_values_from_plain(kind, values) for values in plain))


def _values_from_plain(kind: str, values: object) -> tuple[int, ...]:
    if not isinstance(values, list | tuple) or len(values) not in (0, KNOTS):
        raise ValueError(f"the factor of {kind!r} has {KNOTS} knots in a dimension, or none")
    for value in values:
        if type(value) is not int or abs(value) > MOST_HUNDREDTHS:
            raise ValueError(f"the factor of {kind!r} has whole numbers to {MOST_HUNDREDTHS}")
    return tuple(values)


def _place(size: float) -> tuple[int, float]:
    """The knot at or below a size, and how far on it is to the next."""
    position = min(math.log2(max(size, 1.0)) / KNOT_BITS, KNOTS - 1.0)
    knot = min(int(position), KNOTS - 2)
    return knot, position - knot


def _basis(work: Work) -> Floats:
    basis = np.zeros((len(DIMENSIONS), KNOTS))
    for values, dimension in zip(basis, DIMENSIONS, strict=True):
        knot, share = _place(dimension(work))
        values[knot], values[knot + 1] = 1 - share, share
    return basis.ravel()


def _smoothing() -> Floats:
    """Rows that cost something where neighbouring knots differ, and where a knot is not 0."""
    step = np.diff(np.eye(KNOTS), axis=0) * math.sqrt(SMOOTHNESS)
    return np.vstack(
        (
            np.kron(np.eye(len(DIMENSIONS)), step),
            np.eye(len(DIMENSIONS) * KNOTS) * math.sqrt(SHRINKAGE),
        )
    )
