"""What is measured: layers of the spread, others held out, and ranges of networks, all in turn.

What else the machine does then touches all alike. Reports of several runs add up.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from itertools import chain, islice
from typing import Any

from ionn_edge.calibration.disturbed import remeasured
from ionn_edge.calibration.measure import VISITS, Bench, Measured, calmer
from ionn_edge.calibration.probes import Probe
from ionn_edge.calibration.spread import spread
from layergraph.work import LayerWork, NodeWork
from planner.predictor import Sample
from predict_figures.networks import Network

# One layer is held out for so many that are not; it is visited so many times as often.
HELD_OUT = 3


@dataclass(slots=True)
class HeldOut:
    """A layer that no predictor sees: its work, and the seconds of each visit."""

    type: str
    work: LayerWork
    visits: list[float]

    def sample(self, first: int = 0, step: int = 1) -> Sample:
        """The calmest of its visits, or of every so many of them."""
        return Sample(self.work, min(self.visits[first::step]), self.type)


@dataclass(slots=True)
class Layers:
    """Layers measured, others held out, and what it took to enter ranges."""

    seen: list[Sample] = field(default_factory=list)
    held_out: list[HeldOut] = field(default_factory=list)
    entries_s: list[float] = field(default_factory=list)

    @property
    def entry_s(self) -> float:
        return statistics.median(self.entries_s)

    @property
    def twice(self) -> tuple[list[Sample], list[Sample]]:
        """Held-out layers by half of their visits, and by the other half."""
        visited = [layer for layer in self.held_out if len(layer.visits) > 1]
        one, other = ([each.sample(first, 2) for each in visited] for first in (0, 1))
        return one, other

    def to_plain(self) -> dict[str, Any]:
        return {
            "seen": [[s.type, [astuple(w) for w in s.work], s.cost] for s in self.seen],
            "held_out": [[h.type, [astuple(w) for w in h.work], h.visits] for h in self.held_out],
            "entries_s": self.entries_s,
        }

    def add(self, plain: Mapping[str, Any]) -> None:
        """What `to_plain` gave, of another run."""
        self.seen += [Sample(_work(work), cost, type) for type, work, cost in plain["seen"]]
        self.held_out += [
            HeldOut(type, _work(work), visits) for type, work, visits in plain["held_out"]
        ]
        self.entries_s += plain["entries_s"]


def _work(plain: Sequence[Sequence[Any]]) -> LayerWork:
    return tuple(NodeWork(*each) for each in plain)


def measure(
    networks: Sequence[Network], rounds: int, spreads: int, seed: int, layers: Layers
) -> None:
    """Visit all ranges in `rounds` orders, and measure `spreads` rounds of layers into `layers`.

    Other seeds measure other layers of the same types.
    """
    ranges = [(network, each) for network in networks for each in network.ranges]
    plan: list[tuple[Network, tuple[int, int]]] = []
    for number in range(rounds):
        random.Random(1000 * seed + number).shuffle(ranges)
        plan += ranges
    turns, began = max(VISITS * spreads, 1), time.perf_counter()
    layer_turns = _layer_turns(spreads, seed, layers)
    for turn in range(turns):
        next(layer_turns, None)
        for network, each in plan[len(plan) * turn // turns : len(plan) * (turn + 1) // turns]:
            network.visit(each)
        if 4 * (turn + 1) // turns > 4 * turn // turns:
            taken_s = time.perf_counter() - began
            print(f"measured {(turn + 1) / turns:.0%}: {taken_s:.0f} s", flush=True)


def _layer_turns(spreads: int, seed: int, layers: Layers) -> Iterator[None]:
    """Every round to learn from in as many turns as calibration visits it, beside one held out."""
    bench = Bench("cpu")
    learned: list[list[tuple[Probe, Measured]]] = []
    others = list(islice(spread(2 * seed + 1), -(-spreads // HELD_OUT)))
    held_out: list[dict[Probe, HeldOut]] = [{} for _ in others]
    rounds = spread(2 * seed)
    for turn in range(VISITS * spreads):
        if turn < spreads:
            learned.append([(probe, bench.measured(probe)) for probe in next(rounds)])
        else:
            visited = learned[turn % spreads]
            learned[turn % spreads] = [(p, calmer(m, bench.measured(p))) for p, m in visited]
        for probe in others[turn % len(others)]:
            row = bench.measured(probe)
            found = held_out[turn % len(others)].setdefault(probe, HeldOut(row.type, row.work, []))
            found.visits.append(row.seconds)
        if turn == VISITS * spreads - 1:
            kept = remeasured(list(chain.from_iterable(learned)), bench.measured)
            layers.seen += [Sample(r.work, r.seconds, r.type) for r in kept]
            layers.held_out += [each for some in held_out for each in some.values()]
            layers.entries_s.append(bench.entry_s)
        yield
