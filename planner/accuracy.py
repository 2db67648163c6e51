"""How good a predictor is: per type R^2 and RMSE, as in IONN's Table 3, and relative errors."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from planner.predictor import Sample

CLOSE = 0.1
FOLDS = 5


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Of `count` layers of a type: their median cost, and how far predictions are from it.

    `r_squared` is 1 - residual / total sum of squares, `rmse` in the costs' unit, `error` the
    median of |predicted / measured - 1|, and `close` the share of layers whose error is at most
    a tenth.
    """

    type: str
    count: int
    median: float
    r_squared: float
    rmse: float
    error: float
    close: float


def accuracy(type: str, predicted: ArrayLike, measured: ArrayLike) -> Accuracy:
    """Raises ValueError for no costs, other lengths, or a measured cost that is not positive."""
    guess, truth = (np.asarray(each, dtype=np.float64) for each in (predicted, measured))
    if guess.shape != truth.shape or not guess.size:
        raise ValueError(f"predicted has shape {guess.shape}, measured {truth.shape}")
    if not (np.isfinite(guess).all() and np.isfinite(truth).all() and (truth > 0).all()):
        raise ValueError("costs are finite, and measured ones positive")
    residual = ((guess - truth) ** 2).sum()
    total = ((truth - truth.mean()) ** 2).sum()
    errors = np.abs(guess / truth - 1)
    return Accuracy(
        type,
        len(truth),
        float(np.median(truth)),
        float(1 - residual / total) if total else float(residual == 0),
        float(np.sqrt(residual / len(truth))),
        float(np.median(errors)),
        float((errors <= CLOSE).mean()),
    )


def by_type(samples: Iterable[Sample], predict: Callable[[Sample], float]) -> list[Accuracy]:
    """One row per type of layer, in alphabetical order."""
    rows: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
    for sample in samples:
        rows[sample.type].append((predict(sample), sample.cost))
    return [accuracy(type, *np.array(pairs).T) for type, pairs in sorted(rows.items())]


def cross_validated(
    samples: Sequence[Sample],
    fit: Callable[[Sequence[Sample]], Callable[[Sample], float]],
    folds: int = FOLDS,
) -> list[float]:
    """Each sample's cost as predicted by a fit to the other folds. Raises ValueError for few."""
    if not 2 <= folds <= len(samples):
        raise ValueError(f"{folds} folds of {len(samples)} samples")
    fold: NDArray[np.int_] = np.random.default_rng(0).permutation(len(samples)) % folds
    guesses = [0.0] * len(samples)
    for held_out in range(folds):
        predict = fit([s for s, number in zip(samples, fold, strict=True) if number != held_out])
        for index in np.flatnonzero(fold == held_out).tolist():
            guesses[index] = predict(samples[index])
    return guesses
