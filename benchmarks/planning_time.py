"""How long planning takes: CPU time of one thread, median, for models of 1,000 layers.

The layers are those of each network of `layergraph.networks` in turn, timed on this CPU (device
and edge as in benchmarks/plan.py), each made a little different. CPU time, because neighbours on
the machine are not the planner's cost. A route is what every query needs, an upload plan what a
change of the world needs, and a cached schedule what a device looks up that solved beforehand
(here for 1 to 400 Mbit/s each way, round trips of 1 to 100 ms, edges 1 to 10 times slower, and
joules of a Wi-Fi device worth up to a second).

`python benchmarks/planning_time.py [--quick] [--json FILE]` exits 1 when a median is not under
its bound. `--quick` takes made-up tables instead of networks, and only tells.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from cost_tables import made_up_tables, measured_tables
from plan import RATES_Mbit

from planner import RADIOS, LayerCosts, Link, Power, Region, ScheduleCache, route, upload_plan

LAYERS = 1000
BOUNDS_s = {"route": 1e-3, "upload plan": 50e-3, "cached schedule": 20e-6}

REGION = Region((125e3, 50e6), (125e3, 50e6), (0.001, 0.1), (1.0, 10.0), (0.0, 1.0))
POWER, REGRET, MOST_CELLS = Power(3.0, 1.0, RADIOS["wifi"]), 0.001, 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="made-up tables, no verdict")
    parser.add_argument("--networks", nargs="+", help="only these")
    parser.add_argument("--slowdown", type=float, default=20.0, help="device times over measured")
    parser.add_argument("--rtt-ms", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=3, help="times each layer is measured")
    parser.add_argument("--json", type=Path, help="write medians here")
    options = parser.parse_args()
    print(f"{'CPU time, median':20}" + "".join(f"{what:>18}" for what in BOUNDS_s), flush=True)
    medians_s = {}
    for name, costs in made_up_tables() if options.quick else measured_tables(options):
        medians_s[name] = planning_times_s(costs, options.rtt_ms / 1e3, 3 if options.quick else 15)
        cells = (f"{1e6 * medians_s[name][what]:>15,.1f} us" for what in BOUNDS_s)
        print(f"{name:20}" + "".join(cells), flush=True)
    if options.json:
        options.json.write_text(json.dumps({"layers": LAYERS, "medians_s": medians_s}, indent=1))
    kept = verdict(medians_s)
    return 0 if kept or options.quick else 1


def planning_times_s(costs: LayerCosts, rtt_s: float, repeats: int) -> dict[str, float]:
    """Per kind of planning, the median over the links and repeats, for `costs` made deep."""
    deep = repeat_layers(costs, LAYERS)
    links = [Link(rate * 125e3, rate * 125e3, rtt_s) for rate in RATES_Mbit]
    everything = frozenset(range(LAYERS))
    cache = ScheduleCache.solve(deep, REGION, POWER, regret=REGRET, most_cells=MOST_CELLS)
    return {
        "route": median_s(lambda link: route(deep, link, everything), links, repeats),
        "upload plan": median_s(lambda link: upload_plan(deep, link), links, repeats),
        "cached schedule": median_s(
            lambda link: cache.lookup(link, 2.0, 0.5), links, repeats, 1000
        ),
    }


def median_s(
    work: Callable[[Link], object], links: list[Link], repeats: int, calls: int = 1
) -> float:
    """CPU seconds of one call of `work`; `calls` of them are timed together."""
    samples = []
    for _ in range(repeats):
        for link in links:
            began = time.thread_time()
            for _ in range(calls):
                work(link)
            samples.append((time.thread_time() - began) / calls)
    return statistics.median(samples)


def repeat_layers(costs: LayerCosts, count: int) -> LayerCosts:
    """`count` layers: the weighted layers of `costs`, each made a little different, over again."""
    r = np.random.default_rng(0)
    picked = np.resize(np.array(costs.weighted), count)
    jitter = np.exp(r.normal(0, 0.2, (4, count)))
    cuts = np.append(costs.cut_up_bytes[picked] * jitter[3], costs.cut_down_bytes[-1])
    return LayerCosts(
        costs.client_s[picked] * jitter[0],
        costs.edge_s[picked] * jitter[1],
        costs.weight_bytes[picked] * jitter[2],
        cuts,
        cuts,
    )


def verdict(medians_s: dict[str, dict[str, float]]) -> bool:
    kept = True
    for what, bound_s in BOUNDS_s.items():
        worst = max(medians_s, key=lambda name: medians_s[name][what])
        worst_s = medians_s[worst][what]
        kept &= worst_s < bound_s
        print(
            f"{what}: {1e6 * worst_s:,.1f} us at the most ({worst}'s layers);"
            f" {'under' if worst_s < bound_s else 'NOT under'} {1e6 * bound_s:,.0f} us"
        )
    return kept


if __name__ == "__main__":
    sys.exit(main())
