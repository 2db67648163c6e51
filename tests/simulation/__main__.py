"""Many seeds, on all processors: `python -m tests.simulation --seeds 10000`.

Prints what failed, with its faults and its last events, and how often each fault and each pair of
them happened. `--seed N --trace` runs one again and prints all of it.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations
from multiprocessing import get_context

from tests.simulation.faults import FAULTS
from tests.simulation.seeds import Outcome, settle_memory, simulate

PRINTED = 5
TELL_EVERY = 1000


def _outcomes(seeds: range, processes: int) -> Iterator[Outcome]:
    if processes == 1:
        yield from map(simulate, seeds)
        return
    with get_context("spawn").Pool(processes, settle_memory) as pool:
        yield from pool.imap_unordered(simulate, seeds, chunksize=20)


def _tell(outcome: Outcome) -> None:
    print(f"\nseed {outcome.seed} ({', '.join(outcome.faults) or 'no faults'}):")
    print("\n".join(outcome.events))
    print(outcome.problem)
    print(f"again: python -m tests.simulation --seed {outcome.seed} --trace", flush=True)


def _happened(outcome: Outcome) -> list[str]:
    return sorted(name for name in FAULTS if outcome.counts[f"fault {name}"])


def _report(outcomes: Iterable[Outcome], began: float) -> list[int]:
    """Print what became of them all; the seeds that failed."""
    counts, faults, pairs = Counter[str](), Counter[str](), Counter[tuple[str, str]]()
    failed: list[int] = []
    total = virtual_s = 0.0
    for outcome in outcomes:
        total += 1
        virtual_s += outcome.virtual_s
        happened = _happened(outcome)
        counts.update({k: n for k, n in outcome.counts.items() if not k.startswith("fault ")})
        faults.update(happened)
        pairs.update(combinations(happened, 2))
        if outcome.problem is not None:
            failed.append(outcome.seed)
            if len(failed) <= PRINTED:
                _tell(outcome)
        if total % TELL_EVERY == 0:
            rate = total / (time.monotonic() - began)
            print(f"{total:.0f} seeds, {len(failed)} failed, {rate:.1f} a second", flush=True)
    _summary(total, virtual_s, time.monotonic() - began, counts)
    _coverage(faults, pairs)
    return sorted(failed)


def _summary(total: float, virtual_s: float, took_s: float, counts: Counter[str]) -> None:
    print(f"\n{total:.0f} seeds in {took_s:.0f} s ({total / took_s:.1f} a second),", end=" ")
    print(f"{virtual_s:.0f} s of their time")
    seen = {name: count for name, count in sorted(counts.items()) if name.startswith("saw ")}
    print(_counted({name: count for name, count in sorted(counts.items()) if name not in seen}))
    print(_counted(seen))


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def _coverage(faults: Counter[str], pairs: Counter[tuple[str, str]]) -> None:
    print(_counted({name: faults[name] for name in FAULTS}))
    possible = list(combinations(sorted(FAULTS), 2))
    seen = [pair for pair in possible if pairs[pair]]
    least = min(possible, key=lambda pair: pairs[pair])
    print(
        f"{len(seen)} of {len(possible)} pairs of faults;"
        f" the rarest, {' and '.join(least)}, {pairs[least]} times"
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=500, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--seed", type=int, help="only this one")
    parser.add_argument("--trace", action="store_true", help="print every event")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--faults", help="with --seed: these instead, with commas between them")
    args = parser.parse_args()
    if args.seed is not None:
        faults = None if args.faults is None else [each for each in args.faults.split(",") if each]
        outcome = simulate(args.seed, args.trace, faults)
        _tell(outcome) if outcome.problem else print(f"seed {args.seed}: all held")
        return int(outcome.problem is not None)
    began = time.monotonic()
    seeds = range(args.first, args.first + args.seeds)
    failed = _report(_outcomes(seeds, args.processes), began)
    print(f"{len(failed)} failed" + (f": {', '.join(map(str, failed[:50]))}" if failed else ""))
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
