"""Layers as a loop of ranges against the eager module: what running in pieces costs.

Per network: the eager module, all layers as one range, and one range per layer, interleaved in
one process on one thread. The target: the loop takes at most 1.03 times the eager module's time
(median over the networks).

    python benchmarks/execute.py [--quick] [--networks alexnet,lenet] [--rounds 15] [--json]
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from layergraph import Executor, capture, flatten_inputs, slow_attention

TARGET = 1.03
QUICK = ("lenet", "pos")


def networks(names: list[str] | None) -> Iterator[tuple[str, nn.Module, tuple[Any, ...]]]:
    from layergraph.networks import NETWORKS, build

    for name in names or NETWORKS:
        yield name, build(name).eval(), NETWORKS[name].example()


def measure(
    model: nn.Module, args: tuple[Any, ...], rounds: int, seconds: float
) -> dict[str, list[float]]:
    """Seconds per run of each way, one run of each in turn, in an order that rotates."""
    graph, weights = capture(model, args)
    executor, count = Executor(graph, weights), len(graph.layers)
    live = flatten_inputs(graph, args)

    def loop() -> object:
        state = live
        for layer in range(count):
            state = executor.run(layer, layer + 1, state)
        return state

    ways: list[tuple[str, Callable[[], object]]] = [
        ("eager", lambda: model(*args)),
        ("whole", lambda: executor.run(0, count, live)),
        ("loop", loop),
    ]
    times: dict[str, list[float]] = {name: [] for name, _ in ways}
    with slow_attention(), torch.inference_mode():
        for _ in range(2):
            for _, way in ways:
                way()
        started = time.perf_counter()
        gc.disable()
        while len(times["eager"]) < rounds or time.perf_counter() - started < seconds:
            turn = len(times["eager"]) % 3
            for name, way in ways[turn:] + ways[:turn]:
                before = time.perf_counter()
                way()
                times[name].append(time.perf_counter() - before)
        gc.enable()
    return times


def ratio(times: dict[str, list[float]], way: str) -> tuple[float, float, float]:
    """Median of the rounds' ratios to eager, and their quartiles."""
    ratios = [a / b for a, b in zip(times[way], times["eager"], strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return middle, low, high


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two small networks, few rounds")
    parser.add_argument("--networks", help="comma-separated names; default: all")
    parser.add_argument("--rounds", type=int, default=15, help="at least so many of each")
    parser.add_argument("--seconds", type=float, default=2.0, help="and for at least so long")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    names = options.networks.split(",") if options.networks else None
    if options.quick:
        names, options.rounds, options.seconds = names or list(QUICK), 5, 0.2
    torch.set_num_threads(1)
    rows = []
    for name, model, args in networks(names):
        rows.append(row(name, measure(model, args, options.rounds, options.seconds)))
        if not options.json:
            print(line(rows[-1]), flush=True)
    report(rows, options.json)


def row(name: str, times: dict[str, list[float]]) -> dict[str, Any]:
    result: dict[str, Any] = {
        "network": name,
        "rounds": len(times["eager"]),
        "eager_s": statistics.median(times["eager"]),
    }
    for way in ("whole", "loop"):
        result[way], result[f"{way}_low"], result[f"{way}_high"] = ratio(times, way)
    return result


def line(row: dict[str, Any]) -> str:
    parts = [
        f"{way} {row[way]:.3f}x [{row[f'{way}_low']:.3f}, {row[f'{way}_high']:.3f}]"
        for way in ("whole", "loop")
    ]
    return (
        f"{row['network']:14} eager {row['eager_s'] * 1e3:9.2f} ms   {'   '.join(parts)}"
        f"   ({row['rounds']} rounds)"
    )


def report(rows: list[dict[str, Any]], as_json: bool) -> None:
    medians = {way: statistics.median(r[way] for r in rows) for way in ("whole", "loop")}
    if as_json:
        print(json.dumps({"networks": rows, "median": medians, "target": TARGET}))
        return
    print(
        f"median over {len(rows)} networks: whole {medians['whole']:.3f}x,"
        f" loop {medians['loop']:.3f}x of eager (target: loop at most {TARGET}x)"
    )


if __name__ == "__main__":
    main()
