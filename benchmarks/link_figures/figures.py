"""Figures with the bound that they must keep, and the statistics that they come from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Bound:
    """At most or at least `value`."""

    kind: Literal["at most", "at least"]
    value: float

    def holds(self, value: float) -> bool:
        if math.isnan(value):
            return False
        return value <= self.value if self.kind == "at most" else value >= self.value


def at_most(value: float) -> Bound:
    return Bound("at most", value)


def at_least(value: float) -> Bound:
    return Bound("at least", value)


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number. Without a bound it is there to compare with."""

    name: str
    who: str
    value: float
    unit: str
    bound: Bound | None = None
    detail: dict[str, Any] | None = None

    @property
    def ok(self) -> bool | None:
        return None if self.bound is None else self.bound.holds(self.value)

    def plain(self) -> dict[str, Any]:
        return {**asdict(self), "ok": self.ok}


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of all do not exceed; nan of none."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)]


def median(values: Sequence[float]) -> float:
    return percentile(values, 0.5)


def milliseconds(values: Sequence[float]) -> dict[str, Any]:
    """A sample of seconds, for the record."""
    return {
        "samples": len(values),
        "p50_ms": round(1e3 * percentile(values, 0.5), 3),
        "p95_ms": round(1e3 * percentile(values, 0.95), 3),
    }
