"""What a range of layers takes in one go, from a few measured ranges.

Consecutive layers are not the sum of layers (JointDNN, TMC'19, Figure 3): a range starts up once
instead of once per layer, and what one layer leaves in caches helps the next. JointDNN measures
all n (n + 1) / 2 ranges. Here runs tile the model with ranges of lengths 1, 2, 4, ...
(`range_tilings`): about 4 n ranges in 2 log2 n runs of the model. What was not measured comes from
the model

    seconds(start, stop) = startup + marginal(start) + ... + marginal(stop - 1)

fitted to all that was, with no term below zero. Marginal times are layer times that any planner
can add up; the start-up belongs to entering a range, so it can ride on the cut that is crossed to
enter it (`RangeTimes.on_client`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from random import Random
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
import scipy
from numpy.typing import ArrayLike

from planner.costs import Floats, LayerCosts, is_finite, numbers
from planner.jointdnn import range_sums

Span: TypeAlias = tuple[int, int]

LEAST_s = 1e-9  # what a clock shows as less took about this long
MOST_s = 1e9
LEAST_SHARE = 0.1  # of what a layer takes alone, that it adds to a range


@dataclass(frozen=True, eq=False)
class RangeTimes:
    """Seconds of every range [start, stop) of n layers on one device, run in one go.

    `measured`: ranges whose times were taken, and are told as they are. `startup_s` and
    `marginal_s` (n): the model for the others. Raises ValueError that names the field for ranges
    outside the model and numbers that are negative, infinite or NaN.
    """

    measured: Mapping[Span, float]
    startup_s: float
    marginal_s: Floats

    def __init__(
        self, measured: Mapping[Span, float], startup_s: float, marginal_s: ArrayLike
    ) -> None:
        object.__setattr__(self, "marginal_s", numbers("marginal_s", marginal_s, None))
        (startup,) = numbers("startup_s", [startup_s], 1)
        object.__setattr__(self, "startup_s", float(startup))
        checked = _checked(len(self.marginal_s), measured)
        object.__setattr__(self, "measured", MappingProxyType(checked))

    def __len__(self) -> int:
        return len(self.marginal_s)

    def __mul__(self, factor: float) -> RangeTimes:
        """The same on a device that is `factor` times slower. Raises ValueError unless > 0."""
        if not (is_finite(factor) and factor > 0):
            raise ValueError(f"a factor of times is a positive number, not {factor!r}")
        measured = {span: factor * seconds for span, seconds in self.measured.items()}
        return RangeTimes(measured, factor * self.startup_s, factor * self.marginal_s)

    __rmul__ = __mul__

    def seconds(self, start: int, stop: int) -> float:
        """Layers [start, stop) in one go: as measured, else as modelled; nothing takes nothing.

        Raises ValueError for a range outside the model.
        """
        if not 0 <= start <= stop <= len(self):
            raise ValueError(f"no layers [{start}, {stop}) in a model of {len(self)}")
        measured = self.measured.get((start, stop))
        return self.modelled(start, stop) if measured is None else measured

    def modelled(self, start: int, stop: int) -> float:
        """What the model says of a range, measured or not."""
        if start >= stop:
            return 0.0
        return self.startup_s + float(self.marginal_s[start:stop].sum())

    def matrix(self) -> Floats:
        """(n + 1, n + 1): [i, j] is `seconds(i, j)` where i < j, and 0 elsewhere.

        What the grouped execution nodes of JointDNN's graph cost.
        """
        result: Floats = np.triu(range_sums(self.marginal_s) + self.startup_s, 1)
        for span, seconds in self.measured.items():
            result[span] = seconds
        return result

    @property
    def layer_s(self) -> Floats:
        """(n) times that add up to a run of the whole model: marginal, start-up on the first."""
        result: Floats = self.marginal_s.copy()
        result[:1] += self.startup_s
        return result

    @property
    def entered_s(self) -> Floats:
        """(n + 1) what each way down costs more, because a range starts up where it ends."""
        result: Floats = np.zeros(len(self) + 1)
        result[1:-1] = self.startup_s
        return result

    def on_client(self, costs: LayerCosts) -> LayerCosts:
        """`costs` with this device as the client: what a range takes there is as modelled.

        Start-up is paid by layer 0 and by every way down into another layer, so sums along any
        placement are exact, and route, upload order and timeline need know nothing of ranges.
        Raises ValueError when `costs` has another number of layers.
        """
        if len(costs) != len(self):
            raise ValueError(f"costs of {len(costs)} layers, times of {len(self)}")
        entered_s = costs.cut_down_s + self.entered_s
        return replace(costs, client_s=self.layer_s, cut_down_s=entered_s)


def fit_ranges(layers: int, measured: Mapping[Span, float]) -> RangeTimes:
    """The model of `layers` layers that fits `measured` ((start, stop): seconds) best.

    Non-negative least squares (C. L. Lawson and R. J. Hanson, "Solving Least Squares Problems",
    1974, chapter 23) of relative errors. Layers measured alone are observations like longer
    ranges, and hold the others in place; none adds less to a range than a tenth of what it takes
    alone, so that none is free. Raises ValueError when `measured` has a range outside the model
    or a time that is negative, NaN or more than 10^9 seconds, or leaves out a layer.
    """
    _check_count("layers", layers)
    checked = _checked(layers, measured)
    covered = np.zeros(layers + 1)
    for start, stop in checked:
        covered[start] += 1
        covered[stop] -= 1
    if missing := [i for i, count in enumerate(accumulate(covered[:-1])) if not count]:
        raise ValueError(f"measured has no range with layer {missing[0]}")
    if not layers:
        return RangeTimes({}, 0.0, [])
    spans, times = list(checked), np.array(list(checked.values()))
    if times.max() > MOST_s:
        raise ValueError(f"measured has a range that takes {times.max():g} seconds")
    weight = 1 / np.maximum(times, LEAST_s)
    within = np.zeros((len(spans), layers + 1))
    for row, (start, stop) in enumerate(spans):
        within[row, start:stop] = weight[row]
    within[:, layers] = weight  # the start-up
    least = np.zeros(layers + 1)
    least[:-1] = [LEAST_SHARE * checked.get((i, i + 1), 0.0) for i in range(layers)]
    above, _ = scipy.optimize.nnls(within, weight * times - within @ least)
    fitted = least + above
    return RangeTimes(checked, float(fitted[-1]), fitted[:-1])


def range_tilings(
    layers: int, up_bytes: ArrayLike | None = None, down_bytes: ArrayLike | None = None
) -> tuple[tuple[int, ...], ...]:
    """Runs to measure: each the cuts 0 < ... < n at which one run of the whole model is divided.

    Ranges of length 1, of 2, of 4, ... and the whole; each length also shifted by half. With the
    bytes of the n + 1 cuts, in addition every cut where changing sides can pay when the edge is
    the faster: going up where fewer bytes are alive than at any cut before, coming down where
    fewer than at any cut after. Raises ValueError for arrays of another length.
    """
    _check_count("layers", layers)
    found = {tuple(range(layers + 1)): None}
    length = 2
    while length < layers:
        for shift in (0, length // 2):
            found[tuple(sorted({0, *range(shift, layers, length), layers}))] = None
        length *= 2
    found[0, layers] = None
    for cut in _least_so_far("up_bytes", up_bytes, layers):
        found[0, cut, layers] = None
    reverse = None if down_bytes is None else np.asarray(down_bytes)[::-1]
    for cut in _least_so_far("down_bytes", reverse, layers):
        found[0, layers - cut, layers] = None
    return tuple(found) if layers else ()


def random_tilings(layers: int, count: int, seed: int) -> tuple[tuple[int, ...], ...]:
    """`count` runs of the model divided at one to eight random cuts: to hold out, as a check.

    Raises ValueError for negative numbers.
    """
    _check_count("layers", layers)
    _check_count("count", count)
    if layers < 2:
        return ()
    random, inner = Random(seed), range(1, layers)
    counts = [min(len(inner), random.randint(1, 8)) for _ in range(count)]
    return tuple((0, *sorted(random.sample(inner, cuts)), layers) for cuts in counts)


def _least_so_far(name: str, given: ArrayLike | None, layers: int) -> Iterator[int]:
    """Cuts strictly inside the model that are smaller than every one before."""
    if given is None:
        return
    least = math.inf
    for cut, size in enumerate(numbers(name, given, layers + 1)[:-1].tolist()):
        if size < least and cut > 0:
            yield cut
        least = min(least, size)


@dataclass(frozen=True, slots=True)
class RangeErrors:
    """How well ranges that were not measured are predicted: relative errors, one per range.

    `sum_of_layers`: the sum of layers that were each measured alone. `grouped`: the model.
    """

    ranges: tuple[Span, ...]
    sum_of_layers: Floats
    grouped: Floats

    def summary(self) -> dict[str, dict[str, float]]:
        """Of both predictions: median, 90th percentile and largest size, share within 10%."""
        return {
            name: {
                "median": float(np.median(sizes)),
                "p90": float(np.quantile(sizes, 0.9)),
                "largest": float(sizes.max()),
                "within_10_percent": float((sizes <= 0.1).mean()),
            }
            for name, sizes in (
                ("sum_of_layers", abs(self.sum_of_layers)),
                ("grouped", abs(self.grouped)),
            )
            if len(sizes)
        }


def range_errors(times: RangeTimes, held_out: Mapping[Span, float]) -> RangeErrors:
    """Predictions against `held_out` measurements, signed: 0.1 is 10% too long.

    Ranges of one layer, those that `times` was fitted to, and times of 0 are left out. Raises
    ValueError as `fit_ranges`, and when a layer was not measured alone.
    """
    checked = _checked(len(times), held_out)
    spans = [
        (start, stop)
        for (start, stop), seconds in checked.items()
        if stop - start > 1 and (start, stop) not in times.measured and seconds > 0
    ]
    alone = [times.measured.get((i, i + 1), math.nan) for i in range(len(times))]
    if unknown := [i for i, seconds in enumerate(alone) if math.isnan(seconds)]:
        raise ValueError(f"layer {unknown[0]} was not measured alone")
    truth = np.array([checked[span] for span in spans])
    until = [0.0, *accumulate(alone)]
    summed = np.array([until[stop] - until[start] for start, stop in spans])
    grouped = np.array([times.modelled(*span) for span in spans])
    return RangeErrors(tuple(spans), summed / truth - 1, grouped / truth - 1)


def spans(tilings: Iterable[Sequence[int]]) -> set[Span]:
    """The ranges that occur in `tilings`."""
    return {span for tiling in tilings for span in pairwise(tiling)}


def _check_count(name: str, count: int) -> None:
    if not (isinstance(count, int) and count >= 0):
        raise ValueError(f"{name} is a number from 0, not {count!r}")


def _checked(layers: int, measured: Mapping[Span, float]) -> dict[Span, float]:
    for span in measured:
        match span:
            case (int(start), int(stop)) if 0 <= start < stop <= layers:
                continue
        raise ValueError(f"measured has {span!r}, which is no range of {layers} layers")
    seconds = numbers("measured", list(measured.values()), None).tolist()
    return dict(zip(measured, seconds, strict=True))
