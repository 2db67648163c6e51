"""How well an edge predicts layers and networks that it has never run.

One process calibrates as `ionn edge calibrate` does, and, in turn with that, measures other layers
of the same types (held out) and asks for ranges of every network of `layergraph.networks` (never
measured in calibration), so that what else the machine does touches all alike. Each network runs in
a process of its own, as in a box's workers. Times are of one thread on the processor. Each layer
and range is visited at several times, spread over the whole run, and its calmest visit counts, by
the lower quartile of that visit's runs. What else a machine does, and other machines on the same
processor, only makes runs longer, for a moment or for seconds: the calmest visit is what a user
sees where the box has nothing else to do. Layers to learn from, layers held out, ranges and second
measurements are all told by this one figure, of 2, 6, 8 and half of 8 visits. Then, ours beside the
published regressions (planner/published_predictor.py):

- per type of layer, R^2 and RMSE on held-out layers, as in IONN's Table 3, beside what half of
  their visits says of the other half ("again"): no prediction can be told to be better than that,
  and where it explains nothing, R^2 says nothing of a predictor;
- per network, the share of ranges of at least 5 layers that are predicted within 10%, beside what
  summing the measured times of single layers gives, and ("again") beside half of the visits of the
  same ranges as a prediction of the other half;
- the regret of plans made from predicted edge times, priced with measured ones, on a client
  `--slowdown` times as slow. Neurosurgeon reports 98.5% of the optimum for its own regressions.

    python benchmarks/predict.py [--quick] [--networks alexnet lenet] [--json FILE]

A machine that is quiet for a minute now and then can be measured in parts: `--json part1.json
--seed 1 --rounds 1 --spread 14` and so on, and then `--rounds 0 --spread 0 --add part*.json`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from predict_figures.measuring import Layers, measure
from predict_figures.networks import Network, load
from predict_figures.regret import costs, regret

from ionn_edge.workers.allocator import keep_freed_memory
from layergraph.networks import NETWORKS
from layergraph.work import LayerWork
from planner import Link
from planner.accuracy import CLOSE, Accuracy, accuracy, by_type
from planner.predictor import Predictor
from planner.published_predictor import PublishedPredictor

RATES_Mbit, RTT_s = (5.85, 18.88, 80.0), 0.005
QUICK = ("lenet", "pos")
WANTED_CLOSE, WANTED_R2, WANTED_REGRET = 0.9, 0.95, 0.01
# The same layers, or ranges, measured a second time.
AGAIN = "measured again"


@dataclass
class Way:
    """One way to predict: its name, and the cost of a layer and of consecutive layers."""

    name: str
    layer: Callable[[LayerWork], float]
    entry_s: float = 0.0

    def range_s(self, layers: Iterable[LayerWork]) -> float:
        return self.entry_s + sum(map(self.layer, layers))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two small networks, few layers")
    parser.add_argument("--networks", nargs="+", help="only these")
    parser.add_argument("--ranges", type=int, default=10, help="of at least 5 layers, per network")
    parser.add_argument("--rounds", type=int, default=8, help="times each range is visited")
    parser.add_argument("--spread", type=int, default=84, help="rounds of layers to learn from")
    parser.add_argument("--seed", type=int, default=0, help="other layers for another number")
    parser.add_argument("--add", type=Path, nargs="+", default=[], help="and earlier --json FILEs")
    parser.add_argument("--slowdown", type=float, default=20.0, help="client over edge")
    parser.add_argument("--json", type=Path, help="write all results here")
    options = parser.parse_args()
    if options.quick:
        options.networks, options.spread = options.networks or list(QUICK), 8
    torch.set_num_threads(1)
    keep_freed_memory()
    networks = [load(name, options.ranges) for name in options.networks or NETWORKS]
    layers = Layers()
    for path in options.add:
        add(json.loads(path.read_text()), networks, layers)
    measure(networks, options.rounds, options.spread, options.seed, layers)
    if options.json:
        options.json.write_text(json.dumps(report(networks, layers)))
    if min((len(v) for n in networks for v in n.visits.values()), default=0) < 2 or not layers.seen:
        print("too little for figures: half of the visits is compared with the other half")
        return 0
    seen, entry_s = layers.seen, layers.entry_s
    ours = Predictor.fit(seen, entry_s)
    neurosurgeon = PublishedPredictor.fit(seen)
    ionn = PublishedPredictor.fit(seen, ("linear",))
    ways = [
        Way("ours", ours.cost, ours.entry),
        Way("Neurosurgeon's", neurosurgeon.cost),
        Way("IONN's", ionn.cost),
    ]
    size = len(msgpack.packb(ours.to_plain()))
    print(
        f"{len(seen)} layers measured, {len(layers.held_out)} held out; {size} bytes in the hello"
    )
    types = print_types(layers, ways)
    print_networks(networks, ways)
    regrets = print_regrets(networks, ways, options.slowdown)
    close = print_verdict(networks, types, regrets, ways)
    if options.json:
        figures = {
            "close": close,
            "types": {name: [asdict(row) for row in rows] for name, rows in types.items()},
            "regrets": regrets,
            "predictor": ours.to_plain(),
            "predicted": {
                n.name: {w.name: [w.range_s(n.work[slice(*r)]) for r in n.ranges] for w in ways}
                for n in networks
            },
        }
        options.json.write_text(json.dumps(report(networks, layers) | figures))
    return 0


def report(networks: Sequence[Network], layers: Layers) -> dict[str, Any]:
    """All that was measured, for `add`."""
    ranges = {n.name: [[*each, runs] for each, runs in n.visits.items()] for n in networks}
    return {"layers": layers.to_plain(), "ranges": ranges}


def add(earlier: dict[str, Any], networks: Sequence[Network], layers: Layers) -> None:
    """Take what an earlier run measured as measured in this one."""
    layers.add(earlier["layers"])
    for network in networks:
        for start, stop, visits in earlier["ranges"].get(network.name, ()):
            if (start, stop) in network.ranges:
                network.visits.setdefault((start, stop), []).extend(visits)


def print_types(layers: Layers, ways: Sequence[Way]) -> dict[str, list[Accuracy]]:
    """IONN's Table 3 on held-out layers."""
    held_out = [layer.sample() for layer in layers.held_out]
    tables = {way.name: by_type(held_out, lambda s, w=way: w.layer(s.work)) for way in ways}
    one, other = layers.twice
    guesses = iter(one)
    tables[AGAIN] = by_type(other, lambda _: next(guesses).cost)
    print("\nHeld-out layers: R^2, RMSE in ms, median error, share within 10%")
    print(f"{'type':18}{'n':>5}{'median, ms':>12}" + "".join(f"{name:>34}" for name in tables))
    for rows in zip(*tables.values(), strict=True):
        cells = "".join(
            f"{row.r_squared:>12.3f}{row.rmse * 1e3:>9.3f}{_percent(row.error):>7}{row.close:>6.0%}"
            for row in rows
        )
        print(f"{rows[0].type:18}{rows[0].count:>5}{rows[0].median * 1e3:>12.3f}{cells}")
    return tables


def _percent(value: float) -> str:
    return f"{value:.0%}" if value < 9.99 else ">999%"


def print_networks(networks: Sequence[Network], ways: Sequence[Way]) -> None:
    print("\nRanges of at least 5 layers: median error, share within 10%")
    print(f"{'network':14}{'ranges':>7}{'whole, ms':>11}{'quartiles':>16}", end="")
    names = (*(way.name for way in ways), "sum of layers", AGAIN)
    print("".join(f"{name:>18}" for name in names))
    for network in networks:
        whole = [1e3 * s for s in network.seconds((0, network.layers))]
        low, _, high = statistics.quantiles(whole, n=4)
        cells = [*(range_accuracy(network, way) for way in ways), of_sums(network), again(network)]
        print(
            f"{network.name:14}{len(network.long_ranges):>7}{statistics.median(whole):>11.2f}"
            f"{f'{low:.2f}-{high:.2f}':>16}"
            + "".join(f"{_percent(cell.error):>12}{cell.close:>6.0%}" for cell in cells)
        )


def range_accuracy(network: Network, way: Way) -> Accuracy:
    """Of the long ranges."""
    layers = network.work
    predicted = [way.range_s(layers[slice(*r)]) for r in network.long_ranges]
    return _against_costs(network, predicted)


def of_sums(network: Network) -> Accuracy:
    """Of the sums of measured single layers, as predictions of the long ranges."""
    layer_s = network.layer_s
    return _against_costs(network, [sum(layer_s[slice(*r)]) for r in network.long_ranges])


def _against_costs(network: Network, predicted: Sequence[float]) -> Accuracy:
    return accuracy(network.name, predicted, [network.cost_s(r) for r in network.long_ranges])


def again(network: Network) -> Accuracy:
    """Of half of the visits of the long ranges, as predictions of the other half: the ceiling."""
    halves = [network.halves_s(layers) for layers in network.long_ranges]
    return accuracy(network.name, *zip(*halves, strict=True))


def print_regrets(
    networks: Sequence[Network], ways: Sequence[Way], slowdown: float
) -> list[dict[str, Any]]:
    print(f"\nRegret of plans at {', '.join(map(str, RATES_Mbit))} Mbit/s, client {slowdown:g}x")
    print(f"{'network':14}" + "".join(f"{w.name + ' route, upload':>34}" for w in ways))
    rows: list[dict[str, Any]] = []
    for network in networks:
        layer_s = np.array(network.layer_s)
        measured = costs(network.graph, (slowdown * layer_s).tolist(), layer_s.tolist())
        cells = []
        for way in ways:
            found = [
                regret(measured, [way.layer(layer) for layer in network.work], link)
                for link in (Link(rate * 125e3, rate * 125e3, RTT_s) for rate in RATES_Mbit)
            ]
            rows += [
                {"network": network.name, "way": way.name, "Mbit": rate, **asdict(each)}
                for rate, each in zip(RATES_Mbit, found, strict=True)
            ]
            cells.append(
                f"{max(each.route for each in found):>24.2%}"
                f"{max(each.upload for each in found):>10.2%}"
            )
        print(f"{network.name:14}" + "".join(cells), flush=True)
    return rows


def print_verdict(
    networks: Sequence[Network],
    types: dict[str, list[Accuracy]],
    regrets: Sequence[dict[str, Any]],
    ways: Sequence[Way],
) -> dict[str, float]:
    """One line per way, over all networks, what a second measurement gives, and what was wanted."""
    print()
    closes = {}
    for way in ways:
        closes[way.name] = _close([range_accuracy(network, way) for network in networks])
        mine = [row for row in regrets if row["way"] == way.name]
        least = [100 / (1 + row["route"]) for row in mine]
        print(
            f"{way.name:15} {closes[way.name]:.1%} of ranges within {CLOSE:.0%};"
            f" {_good(types, way.name)}; regret of routes mean"
            f" {np.mean([r['route'] for r in mine]):.2%}, most {max(r['route'] for r in mine):.2%},"
            f" of uploads mean {np.mean([r['upload'] for r in mine]):.2%},"
            f" most {max(r['upload'] for r in mine):.2%}; {np.mean(least):.1f}% of the optimum"
        )
    closes["sum of layers"] = _close(list(map(of_sums, networks)))
    closes[AGAIN] = _close(list(map(again, networks)))
    print(f"sums of measured layers: {closes['sum of layers']:.1%} of ranges")
    print(f"{AGAIN}: {closes[AGAIN]:.1%} of ranges; {_good(types, AGAIN)}")
    print(
        f"wanted: {WANTED_CLOSE:.0%} of ranges, R^2 {WANTED_R2} for every type, regret"
        f" {WANTED_REGRET:.0%}; Neurosurgeon reports 98.5% of the optimum"
    )
    return closes


def _close(rows: Sequence[Accuracy]) -> float:
    return float(np.average([row.close for row in rows], weights=[row.count for row in rows]))


def _good(types: dict[str, list[Accuracy]], name: str) -> str:
    """For how many types R^2 is as wanted, of all and of those where measuring twice gets there."""
    pairs = list(zip(types[name], types[AGAIN], strict=True))
    good = [row.r_squared >= WANTED_R2 for row, _ in pairs]
    told = [ceiling.r_squared >= WANTED_R2 for _, ceiling in pairs]
    both = sum(g and t for g, t in zip(good, told, strict=True))
    return (
        f"R^2 of at least {WANTED_R2} for {sum(good)} of {len(pairs)} types, {both} of the"
        f" {sum(told)} where measuring twice reaches it"
    )


if __name__ == "__main__":
    sys.exit(main())
