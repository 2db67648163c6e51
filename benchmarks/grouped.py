"""Consecutive layers are not the sum of layers: how well ranges are predicted, both ways.

JointDNN (TMC'19, Figure 3) measures every range of layers because their times do not add up. Here
each network of `layergraph.networks` is run on this CPU divided into ranges of lengths 1, 2, 4, ...
(`planner.range_tilings`), and, held out from the fit, at random cuts. Side by side: the errors of
the sum of layers that were measured alone, and of the grouped prediction (start-up + marginal
times, `planner.fit_ranges`), on the held-out ranges. One thread's own CPU time, medians, all
divisions in turn, so that both predictions saw the same machine.

`python benchmarks/grouped.py [--quick] [--json FILE]` exits 1 when the grouped prediction is not
the better one over all networks (median of the medians, and of the 90th percentiles). `--quick`
takes the smallest network and only tells.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path

from ionn_client.commands.ranges import as_plain
from ionn_client.local import GroupedProfile, profile_grouped
from layergraph import capture, flatten_inputs
from layergraph.networks import NETWORKS

PREDICTIONS = ("sum_of_layers", "grouped")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one small network, no verdict")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, help="only these")
    parser.add_argument("--runs", type=int, default=7, help="times each range is measured")
    parser.add_argument("--json", type=Path, help="write all measurements here")
    options = parser.parse_args()
    print_header()
    names = options.networks or (["lenet"] if options.quick else NETWORKS)
    profiles = {}
    for name in names:
        profiles[name] = measure(name, runs=2 if options.quick else options.runs)
        print_row(name, profiles[name])
    if options.json:
        report = {name: as_plain(profile) for name, profile in profiles.items()}
        options.json.write_text(json.dumps(report, indent=1))
    return 0 if verdict(profiles) or options.quick else 1


def measure(name: str, runs: int) -> GroupedProfile:
    network = NETWORKS[name]
    model, args = network.build(), network.example()
    graph, weights = capture(model, args)
    return profile_grouped(graph, weights, flatten_inputs(graph, args, {}), runs, threads=1)


def print_header() -> None:
    print(f"{'':36}{'whole model, ms':^20}{'sum of layers: error':^27}{'grouped: error':^27}")
    print(f"{'network':16}{'layers':>7}{'ranges':>7}{'start-up':>9}", end="")
    print(f"{'alone':>9}{'in one go':>11}", end="")
    print(f"{'median':>9}{'p90':>7}{'most':>8}" * 2 + f"{'held out':>10}", flush=True)


def print_row(name: str, profile: GroupedProfile) -> None:
    times, layers = profile.times, len(profile.times)
    alone_s = sum(times.seconds(layer, layer + 1) for layer in range(layers))
    print(
        f"{name:16}{layers:>7}{len(times.measured):>7}{times.startup_s * 1e6:>6.0f} us"
        f"{alone_s * 1e3:>9.2f}{times.seconds(0, layers) * 1e3:>11.2f}",
        end="",
    )
    summary = profile.errors.summary()
    for prediction in PREDICTIONS if summary else ():
        figures = [summary[prediction][each] for each in ("median", "p90", "largest")]
        print("{:>8.1%}{:>7.1%}{:>8.1%}".format(*figures), end=" ")
    print(f"{len(profile.errors.ranges):>9}", flush=True)


def verdict(profiles: dict[str, GroupedProfile]) -> bool:
    """Whether the grouped prediction has the smaller errors; False where nothing was held out."""
    summaries = [each for profile in profiles.values() if (each := profile.errors.summary())]
    if not summaries:
        print("no range was held out")
        return False
    typical = {
        prediction: [
            statistics.median(summary[prediction][figure] for summary in summaries)
            for figure in ("median", "p90")
        ]
        for prediction in PREDICTIONS
    }
    for prediction, (median, p90) in typical.items():
        print(f"{prediction:16} median error {median:.1%}, 90th percentile {p90:.1%}")
    better = all(a < b for a, b in zip(typical["grouped"], typical["sum_of_layers"], strict=True))
    print(f"the grouped prediction is {'the better one' if better else 'NOT the better one'}")
    return better


if __name__ == "__main__":
    sys.exit(main())
