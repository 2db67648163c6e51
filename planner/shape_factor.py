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
# Knots at powers of four; beyond the last, and those that samples reach, all is as there.
KNOTS, KNOT_BITS = 15, 2.0
# Logarithms: of one knot as stored, and of the whole factor.
MOST_HUNDREDTHS, LARGEST_LOG = 100, 1.2
SMOOTHNESS, SHRINKAGE = 1.0, 0.3
ROUNDS, NOISE = 6, 0.1


@dataclass(frozen=True, slots=True)
class Curve:
    """Hundredths of logarithms at the knots from `first` on; none where nothing is known."""

    first: int = 0
    hundredths: tuple[int, ...] = ()

    def at(self, size: float) -> float:
        knot, share = _place(size)
        below, above = (
            self.hundredths[min(max(each - self.first, 0), len(self.hundredths) - 1)]
            for each in (knot, knot + 1)
        )
        return (1 - share) * below + share * above


Table = tuple[Curve, ...]


@dataclass(frozen=True, slots=True)
class ShapeFactor:
    """A curve per dimension of `DIMENSIONS`."""

    table: Table

    @classmethod
    def fit(cls, works: Sequence[Work], ratios: Sequence[float]) -> ShapeFactor:
        """The factor nearest to measured over predicted costs, in absolute logarithms."""
        target = np.clip(np.log(np.asarray(ratios)), -LARGEST_LOG, LARGEST_LOG)
        basis = np.array([_basis(work) for work in works])
        reached = _reached(basis.reshape(len(works), -1, KNOTS))
        basis *= reached.ravel()
        smooth = _smoothing(reached)
        zeros = np.zeros(len(smooth))
        weight = np.ones(len(target))
        found = zeros
        for _ in range(ROUNDS):
            rows = np.vstack((basis * weight[:, None], smooth))
            found = np.linalg.lstsq(rows, np.concatenate((target * weight, zeros)), rcond=None)[0]
            # Absolute errors, because a disturbed sample is far off.
            weight = np.sqrt(NOISE / np.maximum(np.abs(target - basis @ found), NOISE))
        hundredths = np.clip(np.rint(100 * found), -MOST_HUNDREDTHS, MOST_HUNDREDTHS)
        return cls(tuple(map(_curve, hundredths.reshape(-1, KNOTS), reached)))

    def at(self, work: Work) -> float:
        """The factor for one operator."""
        total = 0.0
        for curve, dimension in zip(self.table, DIMENSIONS, strict=True):
            if curve.hundredths:
                total += curve.at(dimension(work))
        return math.exp(max(-LARGEST_LOG, min(LARGEST_LOG, total / 100)))

    def to_plain(self) -> list[list[int]]:
        """Per dimension whole numbers: the first knot, and the hundredths from there."""
        return [
            [curve.first, *curve.hundredths] if curve.hundredths else [] for curve in self.table
        ]

    @classmethod
    def from_plain(cls, kind: str, plain: object) -> ShapeFactor:
        """The inverse of `to_plain`. Raises ValueError, naming the kind, for anything else."""
        if not isinstance(plain, list | tuple) or len(plain) != len(DIMENSIONS):
            raise ValueError(f"the factor of {kind!r} has {len(DIMENSIONS)} dimensions")
        return cls(tuple(_curve_from_plain(kind, numbers) for numbers in plain))


def _reached(basis: Floats) -> NDArray[np.bool_]:
    """Per dimension the knots between which samples lie; none where they do not differ.

    What all samples have alike explains nothing, and would take a share of their mean.
    """
    reached = basis.max(axis=0) > 0
    onwards = np.logical_or.accumulate(reached, axis=1)
    back = np.logical_or.accumulate(reached[:, ::-1], axis=1)[:, ::-1]
    differs = np.ptp(basis, axis=0).max(axis=1) > 0
    found: NDArray[np.bool_] = onwards & back & differs[:, None]
    return found


def _curve(hundredths: Floats, reached: NDArray[np.bool_]) -> Curve:
    if not hundredths[reached].any():
        return Curve()
    first, last = np.flatnonzero(reached)[[0, -1]].tolist()
    return Curve(first, tuple(int(value) for value in hundredths[first : last + 1]))


def _curve_from_plain(kind: str, numbers: object) -> Curve:
    if not isinstance(numbers, list | tuple) or len(numbers) > 1 + KNOTS:
        raise ValueError(f"the factor of {kind!r} has {KNOTS} knots in a dimension, or fewer")
    for number in numbers:
        if type(number) is not int or abs(number) > MOST_HUNDREDTHS:
            raise ValueError(f"the factor of {kind!r} has whole numbers to {MOST_HUNDREDTHS}")
    if not numbers:
        return Curve()
    first, *hundredths = numbers
    if not 0 <= first <= KNOTS - len(hundredths) < KNOTS:
        raise ValueError(f"the factor of {kind!r} has values at knots 0 to {KNOTS - 1}")
    return Curve(first, tuple(hundredths))


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


def _smoothing(reached: NDArray[np.bool_]) -> Floats:
    """Rows that cost something where neighbouring knots differ, and where a knot is not 0.

    Neighbours count where samples reach both.
    """
    step = np.kron(np.eye(len(DIMENSIONS)), np.diff(np.eye(KNOTS), axis=0))
    step = step[(step[:, ~reached.ravel()] == 0).all(axis=1)]
    drawn = np.eye(len(DIMENSIONS) * KNOTS)
    return np.vstack((step * math.sqrt(SMOOTHNESS), drawn * math.sqrt(SHRINKAGE)))
