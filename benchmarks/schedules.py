"""Schedules under limits: what an integer programme takes, and what LARAC misses.

For every network of `layergraph.networks` on an Odroid XU4 beside a GTX 1080 (IONN's, from the
profiles of `ionn_client/devices`; nothing is run or timed but the planners), over the 3G, 4G and
Wi-Fi of the papers. First the CPU time of the integer programme, building included, in both forms:
without a limit; with a battery budget; with a limit on the edge's time and a deadline besides; and
with a deadline out of reach, telling by how much included. The papers give 45 ms for AlexNet. Then
LARAC under battery budgets from the least possible to what the fastest schedule takes: how often
it is the optimum, how far from it and from its own bound at the most. Then one training step of
each network, and models of up to 1,000 layers.

`python benchmarks/schedules.py [--quick] [--json FILE]` exits 1 when AlexNet takes more than 45 ms,
or when a programme without a limit is not the shortest path, or LARAC's bound does not hold.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from papers_figures.costs import costs_on, graphs
from planning_time import repeat_layers

from ionn_client.devices import load_device
from layergraph.networks import NETWORKS
from planner import (
    LATENCY,
    LINKS,
    RADIOS,
    Infeasible,
    LayerCosts,
    Limit,
    Link,
    Power,
    battery,
    cheapest_path,
    deadline,
    edge_time,
    energy_prices,
    ilp_placement,
    larac_path,
    latency_prices,
    mobile_energy,
    training_costs,
    training_placement,
)

QUICK = ("lenet", "alexnet")
KINDS = ("no limit", "battery", "three limits", "out of reach")
BATCH = 64  # inputs of a training step
FORMS = ("glsvlsi", "jointdnn")
ALLOWED_s = 45e-3
LEVELS = np.linspace(0, 1, 11)[:-1]
DEPTHS = (50, 200, 1000)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help=f"only {', '.join(QUICK)}, once")
    parser.add_argument("--networks", nargs="+", help="only these")
    parser.add_argument("--repeats", type=int, default=5, help="times each programme is solved")
    parser.add_argument("--client", default="odroid-xu4", help="a profile of ionn_client/devices")
    parser.add_argument("--edge", default="gtx-1080")
    parser.add_argument("--json", type=Path, help="write all rows here")
    options = parser.parse_args()
    repeats = 1 if options.quick else options.repeats
    names = options.networks or (QUICK if options.quick else list(NETWORKS))
    client, edge = load_device(options.client), load_device(options.edge)
    power = {radio: client.power(RADIOS[radio]) for radio in LINKS}
    tables = {name: costs_on(graph, client, edge) for name, graph in graphs(names)}
    deepest = DEPTHS[:1] if options.quick else DEPTHS
    report = {
        "programmes": list(programmes(tables, power, repeats)),
        "larac": list(larac_rows(tables, power)),
        "training": list(training_rows(tables, power)),
        "depth": list(depth_rows(tables, power, deepest)),
    }
    if options.json:
        options.json.write_text(json.dumps(report, indent=1))
    return 0 if verdict(report) else 1


def programmes(
    tables: dict[str, LayerCosts], power: dict[str, Power], repeats: int
) -> Iterator[dict[str, Any]]:
    """CPU time of the integer programme: network x form x limits x radio; medians are printed."""
    print("CPU time of the integer programme in ms, building included: median, and the most")
    print(f"{'network':14}{'layers':>8}{'form':>10}" + "".join(f"{kind:>18}" for kind in KINDS))
    ilp_placement(latency_prices(next(iter(tables.values())), LINKS["4g"]))  # HiGHS wakes up
    for name, costs in tables.items():
        for form in FORMS:
            cells = []
            for kind in KINDS:
                samples = []
                for radio, link in LINKS.items():
                    limits = limits_for(kind, costs, link, power[radio])
                    spent, relative = solve(costs, link, limits, form, repeats)
                    samples += spent
                    yield {
                        "network": name, "layers": len(costs), "radio": radio, "limits": kind,
                        "form": form, "cpu_s": spent, "relative_to_path": relative,
                    }  # fmt: skip
                cells.append(f"{ms(statistics.median(samples)):>10}{ms(max(samples)):>8}")
            print(f"{name:14}{len(costs):>8}{form:>10}" + "".join(cells), flush=True)


def limits_for(kind: str, costs: LayerCosts, link: Link, power: Power) -> list[Limit]:
    """Limits that bind: half of what could be saved on the fastest schedule must be.

    The three can all be kept, because one schedule that draws even less keeps them. Out of reach
    is a deadline sooner than LARAC's bound under the battery budget.
    """
    if kind == "no limit":
        return []
    seconds, joules = latency_prices(costs, link), energy_prices(costs, link, power)
    fastest = cheapest_path(seconds)[1]
    budget = battery(costs, link, power, between(joules, fastest, 0.5))
    if kind == "battery":
        return [budget]
    if kind == "out of reach":
        return [budget, deadline(costs, link, 0.9 * larac_path(seconds, budget).at_least)]
    witness = larac_path(seconds, battery(costs, link, power, between(joules, fastest, 0.25)))
    busy = edge_time(costs, 0.0).prices.along(witness.placement)
    return [budget, edge_time(costs, busy), deadline(costs, link, 1.05 * witness.price)]


def between(prices: Any, fastest: Sequence[Any], level: float) -> float:
    """From the least that a schedule can draw (0) to what the fastest draws (1)."""
    least = cheapest_path(prices)[0]
    return least + level * (max(least, prices.along(fastest)) - least)


def solve(
    costs: LayerCosts, link: Link, limits: Sequence[Limit], form: Any, repeats: int
) -> tuple[list[float], float | None]:
    """CPU seconds of each repeat, and the price over the unlimited one (None: infeasible)."""
    prices, samples, relative = latency_prices(costs, link), [], None
    for _ in range(repeats):
        began = time.process_time()
        try:
            placement = ilp_placement(prices, limits, form=form)
        except Infeasible:
            placement = None
        samples.append(time.process_time() - began)
        if placement is not None:
            relative = prices.along(placement) / cheapest_path(prices)[0]
    return samples, relative


def compare_larac(costs: LayerCosts, link: Link, power: Power, level: float) -> dict[str, Any]:
    """LARAC beside the optimum for one battery budget, `level` of the way to the fastest's."""
    prices, joules = latency_prices(costs, link), energy_prices(costs, link, power)
    limit = battery(costs, link, power, between(joules, cheapest_path(prices)[1], level))
    near, larac_s = timed(lambda: larac_path(prices, limit))
    placement, ilp_s = timed(lambda: ilp_placement(prices, [limit]))
    optimum = prices.along(placement)
    return {
        "level": level,
        "missed": max(0.0, near.price / optimum - 1),
        "bound": near.gap,
        "holds": near.at_least <= optimum * (1 + 1e-9) <= near.price * (1 + 1e-6),
        "larac_s": larac_s,
        "ilp_s": ilp_s,
    }


def larac_rows(tables: dict[str, LayerCosts], power: dict[str, Power]) -> Iterator[dict[str, Any]]:
    print(f"\nLARAC under {len(LEVELS)} battery budgets on each of 3 radios, beside the optimum")
    print(f"{'network':14}{'optimal':>9}{'missed, most':>14}{'own bound, most':>17}", end="")
    print(f"{'LARAC, ms':>12}{'programme, ms':>15}")
    for name, costs in tables.items():
        rows = [
            {"network": name, "radio": radio}
            | compare_larac(costs, link, power[radio], float(level))
            for radio, link in LINKS.items()
            for level in LEVELS
        ]
        yield from rows
        optimal = sum(row["missed"] < 1e-9 for row in rows)
        times = (statistics.median(row[key] for row in rows) for key in ("larac_s", "ilp_s"))
        print(
            f"{name:14}{f'{optimal}/{len(rows)}':>9}{max(row['missed'] for row in rows):>14.2%}"
            f"{max(row['bound'] for row in rows):>17.2%}"
            + "".join(f"{ms(s):>{width}}" for s, width in zip(times, (12, 15), strict=True)),
            flush=True,
        )


def training_rows(
    tables: dict[str, LayerCosts], power: dict[str, Power]
) -> Iterator[dict[str, Any]]:
    """One training step: where it runs, exactly, and what the programme takes."""
    print(f"\nOne training step of {BATCH} inputs as 2N layers: layers on the edge, both ways")
    print(f"{'network':14}{'2N':>6}{'radio':>7}{'edge':>12}{'over client':>13}", end="")
    print(f"{'path, ms':>10}{'programme, ms':>15}{'with a battery':>16}")
    for name, costs in tables.items():
        step = training_costs(of_batch(costs))
        for radio, link in LINKS.items():
            prices = step.prices(link, LATENCY)
            (price, placement), path_s = timed(lambda prices=prices: training_placement(prices))
            found, ilp_s = timed(lambda prices=prices: ilp_placement(prices))
            joules = step.prices(link, mobile_energy(power[radio]))
            at_most = 0.5 * (training_placement(joules)[0] + joules.along(placement))
            limit = Limit("battery", joules, at_most)
            limited, limited_s = timed(lambda p=prices, x=limit: ilp_placement(p, [x]))
            n = len(costs)
            row = {
                "network": name,
                "radio": radio,
                "edge": [placement[:n].count("edge"), placement[n:].count("edge")],
                "over_client": price / prices.along(["client"] * 2 * n),
                "same": abs(prices.along(found) / price - 1) < 1e-6,
                "limited_over_free": prices.along(limited) / price,
                "path_s": path_s,
                "ilp_s": ilp_s,
                "limited_s": limited_s,
            }
            yield row
            print(
                f"{name:14}{2 * n:>6}{radio:>7}{'{} + {}'.format(*row['edge']):>12}"
                f"{row['over_client']:>13.3f}{ms(path_s):>10}{ms(ilp_s):>15}{ms(limited_s):>16}",
                flush=True,
            )


def of_batch(costs: LayerCosts) -> LayerCosts:
    """The same for `BATCH` inputs, whose times and tensors add up."""
    return replace(
        costs,
        client_s=BATCH * costs.client_s,
        edge_s=BATCH * costs.edge_s,
        cut_up_bytes=BATCH * costs.cut_up_bytes,
        cut_down_bytes=BATCH * costs.cut_down_bytes,
    )


def depth_rows(
    tables: dict[str, LayerCosts], power: dict[str, Power], depths: Sequence[int]
) -> Iterator[dict[str, Any]]:
    print("\nCPU time in ms over all networks' layers, repeated to so many: median, and the most")
    print(f"{'layers':>8}" + "".join(f"{kind:>22}" for kind in KINDS))
    for depth in depths:
        cells = []
        for kind in KINDS:
            samples = []
            for name, costs in tables.items():
                deep = repeat_layers(costs, depth)
                limits = limits_for(kind, deep, LINKS["wifi"], power["wifi"])
                (seconds,), found = solve(deep, LINKS["wifi"], limits, "glsvlsi", 1)
                samples.append(seconds)
                yield {
                    "network": name, "layers": depth, "limits": kind, "cpu_s": seconds,
                    "relative_to_path": found,
                }  # fmt: skip
            cells.append(f"{ms(statistics.median(samples)):>13}{ms(max(samples)):>9}")
        print(f"{depth:>8}" + "".join(cells), flush=True)


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    began = time.process_time()
    return work(), time.process_time() - began


def ms(seconds: float) -> str:
    return f"{1e3 * seconds:,.1f}" if seconds >= 1e-4 else f"{1e3 * seconds:,.3f}"


def verdict(report: dict[str, list[dict[str, Any]]]) -> bool:
    free = [row for row in report["programmes"] if row["limits"] == "no limit"]
    same = all(abs(row["relative_to_path"] - 1) < 1e-6 for row in free)
    same &= all(row["same"] for row in report["training"])
    holds = all(row["holds"] for row in report["larac"])
    print(f"\nwithout a limit, the programmes are {'' if same else 'NOT '}the shortest paths")
    print(f"LARAC's bound holds {'everywhere' if holds else 'NOT everywhere'}")
    alexnet = [row for row in report["programmes"] if row["network"] == "alexnet"]
    if not alexnet:
        return same and holds
    slowest_s = max(statistics.median(row["cpu_s"]) for row in alexnet)
    fast = slowest_s <= ALLOWED_s
    print(
        f"AlexNet takes {ms(slowest_s)} ms at the most (median of repeats, all forms, limits and"
        f" radios); {'within' if fast else 'NOT within'} {ms(ALLOWED_s)} ms"
    )
    return same and holds and fast


if __name__ == "__main__":
    sys.exit(main())
