"""What an operator costs, from the work that it is: seconds, or joules by the same regression.

Per kind of operator a row of coefficients, none negative, on the terms of `planner.roofline`:

    cost ~ factor(shape) * sum over terms of coefficient * term

Kinds are split where other algorithms run ("conv/1x1"), which makes the whole piecewise. Each row
minimises squared logarithms of predicted over measured, so that a 20 microsecond layer counts as
much as one of 20 milliseconds, with outliers counting less. Where there are samples enough, a
factor by shape (`planner.shape_factor`) follows what is left. All of it fits into a hello message:
coefficients cross as whole numbers, thousandths of logarithms (`planner.coefficients`).
The published regressions are in `planner.published_predictor`.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

import numpy as np
import scipy
from numpy.typing import NDArray

from planner.coefficients import LARGEST, Row, rounded, row_from_plain, row_to_plain
from planner.roofline import TERMS, terms
from planner.shape_factor import ShapeFactor
from planner.work import SIZES, Work, is_size

FORMAT = 6
UNITS = ("s", "J")
MOST_KINDS = 256
LONGEST_KIND = 64
# Fewer measurements say nothing about a kind; the row of its family, or of all, serves it.
FEWEST_SAMPLES = 3
# And fewer than this nothing of how their shapes matter.
FEWEST_FOR_FACTOR = 20
# Of what a sample of several operators took, the one in question has at least this share.
LEAST_SHARE = 0.2

Unit: TypeAlias = Literal["s", "J"]
Floats: TypeAlias = NDArray[np.float64]
_Pairs: TypeAlias = Sequence[tuple[Work, float]]


@dataclass(frozen=True, slots=True)
class Sample:
    """One measured layer: its operators' work, and what they cost together.

    `cost` is in seconds or in joules: a predictor predicts in its samples' unit. `type` is the
    layer's usual name, for tables.
    """

    work: tuple[Work, ...]
    cost: float
    type: str = ""


@dataclass(frozen=True, slots=True)
class Predictor:
    """Per kind a row of coefficients, and one for kinds never measured; factors by shape.

    `entry` is what it costs to enter a range of layers, however many they are. `unit` is that of
    all costs: "s" or "J".
    """

    rows: Mapping[str, Row]
    pooled: Row
    entry: float = 0.0
    unit: Unit = "s"
    factors: Mapping[str, ShapeFactor] = field(default_factory=dict)

    @classmethod
    def fit(cls, samples: Iterable[Sample], entry: float = 0.0, unit: Unit = "s") -> Predictor:
        """The predictor with the least squared relative errors on `samples`.

        A family ("pool" of "pool/max") gets the row of all of its kinds, unless it is a kind
        itself. Kinds with fewer than three samples have no row. Raises ValueError without
        samples, or when one is negative, not finite, or cost nothing.
        """
        given = list(samples)
        if not given:
            raise ValueError("a predictor needs at least one sample")
        for sample in given:
            _check_sample(sample)
        by_kind: defaultdict[str, list[tuple[Work, float]]] = defaultdict(list)
        for sample in given:
            if len(sample.work) == 1:
                by_kind[sample.work[0].kind].append((sample.work[0], sample.cost))
        if not by_kind:
            raise ValueError("no sample is of a single operator")
        ordinary = _fit_row([pair for pairs in by_kind.values() for pair in pairs])
        alone = _fitted(by_kind, ordinary)
        for work, cost in _separated(given, alone):
            by_kind[work.kind].append((work, cost))
        families: defaultdict[str, list[tuple[Work, float]]] = defaultdict(list)
        for kind, pairs in by_kind.items():
            families[kind.partition("/")[0]] += pairs
        plain = cls(_fitted({**families, **by_kind}, ordinary), ordinary, entry, unit)
        return replace(plain, factors=plain._factors(by_kind))

    def _factors(self, by_kind: Mapping[str, _Pairs]) -> dict[str, ShapeFactor]:
        found = {}
        for kind, pairs in sorted(by_kind.items()):
            predicted = [self.predict(work) for work, _ in pairs]
            # A row of zeros has nothing that a factor could change.
            if len(pairs) >= FEWEST_FOR_FACTOR and min(predicted) > 0:
                ratios = [cost / p for (_, cost), p in zip(pairs, predicted, strict=True)]
                found[kind] = ShapeFactor.fit([work for work, _ in pairs], ratios)
        return found

    def predict(self, work: Work) -> float:
        """The cost of one operator."""
        row = self.rows.get(work.kind)
        if row is None:
            row = self.rows.get(work.kind.partition("/")[0], self.pooled)
        cost = sum(c * term for c, term in zip(row, terms(work), strict=True) if c)
        factor = self.factors.get(work.kind)
        return cost if factor is None else cost * factor.at(work)

    def cost(self, work: Iterable[Work]) -> float:
        """The cost of a layer, which is that of its operators."""
        return sum(map(self.predict, work))

    def layer_s(self, work: Iterable[Work]) -> float:
        """Seconds for a layer. Raises ValueError where the unit is another."""
        if self.unit != "s":
            raise ValueError(f"this predictor gives {self.unit}, not seconds")
        return self.cost(work)

    def range_cost(self, layers: Iterable[Iterable[Work]]) -> float:
        """The cost of consecutive layers that run in one go."""
        return self.entry + sum(map(self.cost, layers))

    def to_plain(self) -> dict[str, Any]:
        """The predictor as dicts, lists, strings and numbers; `from_plain` is its inverse."""
        return {
            "format": FORMAT,
            "unit": self.unit,
            "entry": self.entry,
            "pooled": row_to_plain(self.pooled),
            "kinds": {
                kind: [row_to_plain(row), factor.to_plain()]
                if (factor := self.factors.get(kind))
                else [row_to_plain(row)]
                for kind, row in self.rows.items()
            },
        }

    @classmethod
    def from_plain(cls, plain: object) -> Predictor:
        """The predictor from what `to_plain` gave. Raises ValueError for anything else."""
        if not isinstance(plain, Mapping):
            raise ValueError(f"a predictor is a map, not {type(plain).__name__}")
        if type(plain.get("format")) is not int or plain["format"] != FORMAT:
            raise ValueError(f"predictor format {plain.get('format')!r:.40}; known is {FORMAT}")
        unit = plain.get("unit")
        if unit != "s" and unit != "J":
            raise ValueError(f"a predictor's unit is one of {UNITS}, not {unit!r:.40}")
        rows, factors = _kinds_from_plain(plain.get("kinds"))
        pooled = row_from_plain("pooled", plain.get("pooled"))
        return cls(rows, pooled, _number("entry", plain.get("entry")), unit, factors)


def _kinds_from_plain(plain: object) -> tuple[dict[str, Row], dict[str, ShapeFactor]]:
    if not isinstance(plain, Mapping) or len(plain) > MOST_KINDS:
        raise ValueError(f"a predictor's kinds are a map of at most {MOST_KINDS}")
    rows, factors = {}, {}
    for kind, parts in plain.items():
        if not isinstance(kind, str) or len(kind) > LONGEST_KIND:
            raise ValueError(f"a kind is a string of at most {LONGEST_KIND} characters")
        if not isinstance(parts, list | tuple) or len(parts) not in (1, 2):
            raise ValueError(f"the kind {kind!r} has a row, and a factor or none")
        rows[kind] = row_from_plain(kind, parts[0])
        if len(parts) == 2:
            factors[kind] = ShapeFactor.from_plain(kind, parts[1])
    return rows, factors


def _check_sample(sample: Sample) -> None:
    given = [getattr(work, size) for work in sample.work for size in SIZES]
    fine = all(map(is_size, (*given, sample.cost)))
    # What is finite may still have a product that is not.
    fine = fine and all(is_size(term) for work in sample.work for term in terms(work))
    if not sample.work or not fine or not sample.cost:
        raise ValueError(f"a sample has finite work >= 0 and a cost > 0: {sample}")


def _separated(samples: Sequence[Sample], rows: Mapping[str, Row]) -> Iterable[tuple[Work, float]]:
    """Of samples with several operators, what the one of a kind not measured alone has cost."""
    known = Predictor(rows, (0.0,) * len(TERMS))
    for sample in samples:
        unknown = [work for work in sample.work if work.kind not in rows]
        if len(sample.work) > 1 and len(unknown) == 1:
            others = known.cost(work for work in sample.work if work.kind in rows)
            yield unknown[0], max(sample.cost - others, LEAST_SHARE * sample.cost)


def _fitted(by_kind: Mapping[str, _Pairs], ordinary: Row) -> dict[str, Row]:
    return {
        kind: _fit_row(pairs, ordinary)
        for kind, pairs in sorted(by_kind.items())
        if len(pairs) >= FEWEST_SAMPLES
    }


ROUNDS = 8
# Errors up to this are noise; larger ones count less and less as squares.
NOISE = 0.05
# In samples: what it counts against a term to be all of its largest sample more, or less, than of
# an ordinary operator. Terms of few samples must not follow them wherever they are.
PENALTY = 0.1
# And more where a term matters to fewer samples than this together, or than this share of all.
FEW, FEW_OF_ALL = 10, 0.125
ORDINARY_TERMS = ("launch", "operations", "bytes read", "bytes of weights", "bytes made")
_ORDINARY = np.array([term in ORDINARY_TERMS for term in TERMS])


def _fit_row(pairs: _Pairs, ordinary: Row | None = None) -> Row:
    """Drawn to the row of an ordinary operator; without one, only of the terms that those have."""
    features = np.array([terms(work) for work, _ in pairs])
    if ordinary is None:
        features *= _ORDINARY
    costs = np.array([cost for _, cost in pairs])
    features, towards = _told_apart(features, np.array(ordinary or (0.0,) * len(TERMS)))
    few = min(FEW, FEW_OF_ALL * len(pairs))
    predicted, least = costs, 0.3 * costs.min()
    solution = towards
    # Dividing by what was measured would favour too little, and by what is predicted too much;
    # by the mean of both is, to first order, the squared logarithm.
    for number in range(ROUNDS):
        weight = 1.0 / np.sqrt(costs * predicted)
        if number > 1:
            errors = np.abs(np.log(predicted / costs))
            weight *= np.maximum(errors / NOISE, 1.0) ** -0.35
        weighted = features * weight[:, None]
        # Operations count in billions and launches in ones.
        scale = weighted.max(axis=0)
        scale[scale == 0] = 1.0
        matters = np.maximum((weighted / scale).sum(axis=0), 1.0)
        draw = np.diag(math.sqrt(PENALTY) * np.maximum(few / matters, 1.0))
        wanted = draw @ np.minimum(towards * scale, 1.0)
        equations = np.vstack((weighted / scale, draw))
        solution = (
            scipy.optimize.nnls(equations, np.concatenate((costs * weight, wanted)))[0] / scale
        )
        predicted = np.maximum(features @ solution, least)
    return rounded(solution.tolist())


def _told_apart(features: Floats, towards: Floats) -> tuple[Floats, Floats]:
    """Without terms that are another one's multiple in all samples, as where nothing has steps.

    What coefficients are drawn `towards` is the other one's then.
    """
    features, towards = features.copy(), towards.copy()
    largest = features.max(axis=0)
    shapes = features / np.where(largest > 0, largest, 1.0)
    first: dict[bytes, int] = {}
    for term in np.flatnonzero(largest).tolist():
        kept = first.setdefault(shapes[:, term].round(9).tobytes(), term)
        if kept != term:
            towards[kept] += towards[term] * largest[term] / largest[kept]
            features[:, term] = towards[term] = 0.0
    return features, towards


def _number(what: str, number: object) -> float:
    if type(number) not in (int, float) or not 0 <= number <= LARGEST:  # type: ignore[operator]
        raise ValueError(f"{what} is a number from 0 to {LARGEST}")
    return float(number)  # type: ignore[arg-type]
