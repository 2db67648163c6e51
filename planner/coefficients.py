"""Rows of coefficients as they cross to clients: few, and each in three bytes.

Coefficients are costs per unit of a term, from femtoseconds to an hour. What a prediction needs of
one is its relative size, so that it is a whole number of thousandths of logarithms below `LARGEST`,
half of which is 0.05%; no prediction, a sum of products that are not negative, is further off.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from planner.roofline import TERMS

# Bounded, so that no sum of predictions overflows: nothing costs an hour per unit.
LARGEST = 3600.0
STEPS = 1000
# Less is nothing: 1e-25 of a second.
MOST_STEPS = (1 << 16) - 1

Row: TypeAlias = tuple[float, ...]


def rounded(row: Iterable[float]) -> Row:
    """The row as its plain form keeps it."""
    return tuple(_coefficient(step) if (step := _step(c)) is not None else 0.0 for c in row)


def row_to_plain(row: Sequence[float]) -> list[int]:
    """Pairs, one after the other: the number of a term, and the steps of its coefficient."""
    steps = ((term, _step(coefficient)) for term, coefficient in enumerate(row))
    return [number for term, step in steps if step is not None for number in (term, step)]


def row_from_plain(kind: str, plain: object) -> Row:
    """The inverse, for `rounded` rows. Raises ValueError, naming the kind, for anything else."""
    if not isinstance(plain, list | tuple) or len(plain) % 2:
        raise ValueError(f"the row of {kind!r} is pairs of a term and its coefficient")
    row = [0.0] * len(TERMS)
    before = -1
    for term, step in zip(plain[::2], plain[1::2], strict=True):
        if type(term) is not int or not before < term < len(TERMS):
            raise ValueError(f"the row of {kind!r} has terms 0 to {len(TERMS) - 1}, in order")
        if type(step) is not int or not 0 <= step <= MOST_STEPS:
            raise ValueError(f"the row of {kind!r} has coefficients from 0 to {MOST_STEPS} steps")
        row[term], before = _coefficient(step), term
    return tuple(row)


def _step(coefficient: float) -> int | None:
    if coefficient <= 0:
        return None
    step = round(STEPS * math.log(LARGEST / min(coefficient, LARGEST)))
    return step if step <= MOST_STEPS else None


def _coefficient(step: int) -> float:
    return LARGEST * math.exp(-step / STEPS)
