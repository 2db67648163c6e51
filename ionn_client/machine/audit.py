"""A share of the edge's answers is computed here again, when this processor has nothing to do.

The caller has its answer by then: an audit finds a lying edge out, it does not wait for proof.
Why one lie is enough for doubt and two for a verdict: docs/decisions/0024. No I/O, no clock.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

import torch

from ionn_client.machine.events import AuditRange, Command, RangeAudited
from ionn_client.machine.hedging import Slices
from ionn_client.machine.rough import SLACK
from layergraph import LayerGraph
from layergraph.execute import Live
from layergraph.symbols import DTYPES
from wire import messages

# Of the answer's largest element, by the least precision of the weights used for it. Processors,
# thread counts and batches sum in different orders, which costs about 1e-6 in float32; whoever
# lies by less than a thousandth changes no answer that is worth it. Coarse weights are answered
# for by nothing closer than the size of the answer, unless what they explain is computed here too.
TOLERANCE = {"exact": 1e-3, "bfloat16": 0.25, "float8": 1.0}
# Of elements of fewer bits, so many of their roundings.
ROUNDINGS = 16
# Answers that may differ by more than this may name another class, say.
DISCRETE = 1e-2
# In one session, and the edge is not used any more.
LIES = 2


@dataclass(frozen=True, slots=True)
class Hop:
    """What the edge was given and what it says came of it: copies, which no caller changes.

    given: live tensors at cut `start`; coded: as they were sent, where that lost something.
    suspected: no chance drew it, but what the edge said.
    """

    start: int
    stop: int
    given: Live
    coded: tuple[messages.Tensor, ...]
    claimed: Live
    precision: str
    suspected: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """Of one audit. difference: relative to the answer's largest element."""

    hop: Hop
    difference: float
    tolerance: float

    @property
    def agrees(self) -> bool:
        return self.difference <= self.tolerance

    def __str__(self) -> str:
        if math.isinf(self.difference):
            how = "by more than any rounding"
        else:
            how = f"by {self.difference:.2g} of the largest element"
        return f"layers [{self.hop.start}, {self.hop.stop}) differ from what is computed here {how}"


class Audits:
    """At most one at a time; what comes meanwhile is not audited."""

    def __init__(
        self, graph: LayerGraph, slices: Slices, share: float, chance: random.Random
    ) -> None:
        self._slices = slices
        self._share = share
        self._chance = chance
        self._rounding = _rounding(graph)
        self._hop: Hop | None = None
        self._position = 0
        self._live: Live = ()
        self._number = 0
        self._running = False
        self._agreed_last = True
        self.done = self.failed = 0

    @property
    def doubted(self) -> bool:
        """The last audit failed: nothing the edge says is used before it was computed here."""
        return not self._agreed_last

    @property
    def convicted(self) -> bool:
        return self.failed >= LIES

    @property
    def suspects(self) -> bool:
        """What the edge said is to be computed here before it is asked anything more."""
        return self._hop is not None and self._hop.suspected

    def drawn(self) -> bool:
        """Whether the next answer is one of the share. Not known to the edge beforehand."""
        return self._share > 0 and self._chance.random() < self._share

    def begin(self, hop: Hop) -> None:
        if self._hop is None or (hop.suspected and not self._hop.suspected):
            self.drop()
            self._hop, self._position, self._live = hop, hop.start, hop.given
            self._number += 1

    def drop(self) -> None:
        """What is known now is not to be known any more."""
        self._hop, self._live, self._running = None, (), False

    def proceed(self, do: Callable[[Command], None]) -> None:
        """This processor has nothing else to do: the next slice."""
        hop = self._hop
        if hop is None or self._running:
            return
        self._running = True
        stop = min(self._slices.stop(self._position), hop.stop)
        do(
            AuditRange(
                *(self._number, self._position, stop, self._live),
                coded=hop.coded if self._position == hop.start else (),
                claimed=hop.claimed if stop == hop.stop else None,
                tolerance=self._tolerance(hop.precision),
                precision=hop.precision,
            )
        )

    def audited(self, event: RangeAudited) -> Verdict | None:
        """A slice is done; the verdict if it was the last."""
        hop = self._hop
        if hop is None or event.audit != self._number or not self._running:
            return None
        self._running = False
        if event.difference is None:
            self._position, self._live = event.stop, event.live
            return None
        self.drop()
        tolerance = self._tolerance(hop.precision)
        if event.explained is not None and math.isfinite(event.explained):
            tolerance = self._explained(tolerance, event.explained)
        return self._judge(Verdict(hop, event.difference, tolerance))

    def _tolerance(self, precision: str) -> float:
        return max(TOLERANCE[precision], ROUNDINGS * self._rounding)

    def _explained(self, tolerance: float, explained: float) -> float:
        """What is allowed where so much of a difference comes about without a lie."""
        # The edge names its precision, and with it what is allowed: no more than that explains.
        most = max(self._tolerance("exact"), SLACK * explained)
        # But one number that is nearly nothing may be off by more than the size of it.
        return min(max(tolerance, 2 * explained), most)

    def _judge(self, verdict: Verdict) -> Verdict:
        self.done += 1
        self.failed += not verdict.agrees
        self._agreed_last = verdict.agrees
        return verdict

    def not_audited(self, audit: int) -> None:
        """It could not be computed here, which says nothing about the edge."""
        if audit == self._number:
            self.drop()


def copied(live: Live) -> Live:
    """Live tensors that stay as they are, whatever becomes of the originals."""
    return tuple(tensor.detach().clone() for tensor in live)


def not_finite(live: Live) -> frozenset[int]:
    """Which of the tensors hold an infinity or a NaN, or nearly overflow."""
    return frozenset(
        number
        for number, tensor in enumerate(live)
        if tensor.numel()
        and _is_number(tensor)
        # One pass without a tensor in between: infinities and NaNs survive every sum.
        and not math.isfinite(abs(tensor.sum(dtype=_wide(tensor)).item()))
    )


def _wide(tensor: torch.Tensor) -> torch.dtype:
    return torch.complex128 if tensor.is_complex() else torch.float64


def difference(ours: Live, theirs: Live, tolerance: float = 0.0) -> float:
    """The largest difference of two answers, relative to the largest element of its tensor.

    0.0 where they are bitwise equal; infinite where one is finite and the other is not. Of
    integers and bools, the share of the elements that differ, for which of two nearly equal
    numbers is the larger is a matter of rounding; and nothing where the numbers that they came
    from may differ by more than DISCRETE, which is what `tolerance` is asked for.
    """
    pairs = zip(ours, theirs, strict=True)
    held = [(a, b) for a, b in pairs if tolerance <= DISCRETE or _is_number(a)]
    return max((_difference(a, b) for a, b in held), default=0.0)


def _is_number(tensor: torch.Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def _difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    if not ours.numel() or torch.equal(ours, theirs):
        return 0.0
    if not _is_number(ours):
        return float((ours != theirs).double().mean())
    wide = _wide(ours)
    a, b = ours.to(wide), theirs.to(wide)
    # The same infinities and NaNs, at the same places, are no difference.
    same = (a == b) | (a.isnan() & b.isnan())
    apart = torch.where(same, torch.zeros_like(a), a - b).abs()
    scale = torch.where(a.isfinite(), a, torch.zeros_like(a)).abs().max().clamp_min(1e-30)
    largest = float((apart / scale).max())
    return math.inf if math.isnan(largest) else largest


def _rounding(graph: LayerGraph) -> float:
    """The coarsest rounding of any weight or live tensor."""
    specs = {weight.spec.dtype for weight in graph.weights}
    specs.update(spec.dtype for cut in range(len(graph.cuts)) for spec in graph.cut_specs(cut))
    kinds = [DTYPES[name] for name in specs]
    return max((torch.finfo(k).eps for k in kinds if k.is_floating_point), default=0.0)
