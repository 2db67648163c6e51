"""Calls every operator of the table with mutated arguments: see `fuzz_operators.py --help`.

From valid calls (operator_seeds.py), for each operator, so many mutations: shapes, element types,
strides, numbers at their extremes, indices out of range in arguments and in data. What the graph's
check refuses is refused; what it accepts runs for real, in a forked process, on tensors that lie
against forbidden pages. A finding is

    crash, hang      the process died, or computed for more than some seconds
    memory           it wanted more than the graph's budget allows
    canary           it wrote to its input, beside it, or (half of the calls: glibc's malloc check)
                     beside its result
    secret           its result holds memory that nobody wrote (the other half)
    shape            it made something else than was declared: what follows is unchecked
    alias, holds     its result keeps memory that the budget takes for free
    seed             a valid call was refused: the fuzz would be vacuous

The script prints each with what repeats it, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import mmap
import os
import random
import resource
import signal
import struct
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

from layergraph.ops import OPERATORS
from tests.guarded_memory import Memory
from tests.operator_mutation import mutated
from tests.operator_seeds import Call, seeds
from tests.operator_trial import BUDGET, OUTCOMES, Finding, accepted, judge, stored

# Beside what the budget allows: both runs' results, kernels made at run time, Python's own.
SLACK_BYTES = 160 << 20
CPU_S = 5
MAX_FINDINGS = 12
# Of one process: torch keeps kernels that it made for shapes, and its limit counts them.
CALLS_A_CHILD = 1000
CHECKED_MALLOC = {"LD_PRELOAD": "libc_malloc_debug.so.0", "GLIBC_TUNABLES": "glibc.malloc.check=3"}


def case(name: str, seed: int, number: int) -> Call:
    """The call with this number: the seeds as they are, then mutations of them."""
    known = seeds(name)
    if number < len(known):
        return known[number]
    rng = random.Random(f"{name} {seed} {number}")
    return mutated(rng, OPERATORS[name], rng.choice(known))


# Case at hand, then how many ended in which outcome.
_PROGRESS = struct.Struct("=4q")


def explore(name: str, seed: int, start: int, stop: int, progress: mmap.mmap) -> Iterator[str]:
    """Runs cases [start, stop) in this process, and yields what it finds."""
    memory, tally = Memory([]), Counter[str]()
    _limit()
    for number in range(start, stop):
        _PROGRESS.pack_into(progress, 0, number, *(tally[outcome] for outcome in OUTCOMES))
        signal.setitimer(signal.ITIMER_PROF, CPU_S)
        call = case(name, seed, number)
        try:
            outcome = judge(OPERATORS[name], call, memory, seed + number)
        except Finding as finding:
            yield f"{finding}\n    {call}"
            outcome = "ran"
        if number < len(seeds(name)) and outcome != "ran":
            yield f"seed: {outcome} {call}"
        tally[outcome] += 1
    signal.setitimer(signal.ITIMER_PROF, 0)
    _PROGRESS.pack_into(progress, 0, stop, *(tally[outcome] for outcome in OUTCOMES))


def _limit() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * mmap.PAGESIZE + BUDGET.live_bytes + SLACK_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def fuzz(name: str, seed: int, calls: range) -> tuple[Counter[str], list[str]]:
    """How the operator's calls of these numbers ended, and the findings."""
    progress = mmap.mmap(-1, _PROGRESS.size)
    outcomes, findings, start = Counter[str](), list[str](), calls.start
    while start < calls.stop and len(findings) < MAX_FINDINGS:
        stop = min(start + CALLS_A_CHILD, calls.stop)
        status, told = _in_child(name, seed, start, stop, progress)
        findings += told
        reached, *counts = _PROGRESS.unpack_from(progress, 0)
        outcomes.update(dict(zip(OUTCOMES, counts, strict=True)))
        start = reached + 1 if status else stop
        if status:
            hung = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGPROF
            kind = "hang" if hung else f"crash (status {status})"
            outcomes["ran"] += 1
            findings.append(f"{kind}: {name} seed {seed} number {reached}\n    "
                            f"{case(name, seed, reached)}")  # fmt: skip
    return outcomes, findings


def _in_child(
    name: str, seed: int, start: int, stop: int, progress: mmap.mmap
) -> tuple[int, list[str]]:
    _PROGRESS.pack_into(progress, 0, start, 0, 0, 0)
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(read)
        status = 1
        try:
            for finding in explore(name, seed, start, stop, progress):
                number = _PROGRESS.unpack_from(progress, 0)[0]
                os.write(write, f"{name} seed {seed} number {number}: {finding}\0".encode()[:3000])
            status = 0
        except BaseException as error:
            os.write(write, f"{name} seed {seed}: {error!r}\0".encode()[:3000])
        finally:
            os._exit(status)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        told = pipe.read().decode(errors="replace").split("\0")
    return os.waitpid(child, 0)[1], [text for text in told if text]


def replay(path: Path) -> int:
    """Runs stored calls, here and now; a crash ends this process."""
    memory, found = Memory([]), 0
    _limit()
    for name, call in stored(path):
        signal.setitimer(signal.ITIMER_PROF, CPU_S)
        print(f"{name} {call}", flush=True)
        for seed in (0, 1):
            try:
                print(f"  {judge(OPERATORS[name], call, memory, seed)}", flush=True)
            except Finding as finding:
                print(f"  {finding}")
                found = 1
    return found


def _both_halves(names: list[str], calls: int, seed: int) -> int:
    """The same script twice, once in a process whose malloc notices writes beyond what it gave."""
    chosen = [argument for name in names for argument in ("--only", name)]
    command = [sys.executable, __file__, f"--calls={calls}", f"--seed={seed}", *chosen]
    halves = (("malloc", {**os.environ, **CHECKED_MALLOC}), ("plain", dict(os.environ)))
    return max(
        subprocess.run([*command, f"--half={half}"], env=environment, check=False).returncode
        for half, environment in halves
    )


def main() -> int:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("--calls", type=int, default=10_000, help="of each operator (10,000)")
    parser.add_argument("--seed", type=int, default=None, help="repeat a run (random)")
    parser.add_argument("--only", action="append", help="an operator's name; repeatable")
    parser.add_argument("--half", choices=("plain", "malloc"), help="one half of the calls")
    parser.add_argument("--number", type=int, help="one call only, in this process")
    parser.add_argument("--replay", type=Path, help="run the calls of a file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if options.replay:
        return replay(options.replay)
    seed = random.randrange(1 << 32) if options.seed is None else options.seed
    names = options.only or list(OPERATORS)
    if options.number is not None:
        call = case(names[0], seed, options.number)
        print(call, flush=True)
        print(judge(OPERATORS[names[0]], call, Memory([]), seed + options.number))
        return 0
    if options.half is None:
        return _both_halves(names, options.calls, seed)
    middle = options.calls // 2
    calls = range(middle) if options.half == "plain" else range(middle, options.calls)
    return report(names, seed, calls)


def report(names: list[str], seed: int, calls: range) -> int:
    """Fuzzes the operators and prints how it went; 1 where there is a finding."""
    began, total, found = time.monotonic(), Counter[str](), 0
    # Imported once here, and not in every child.
    accepted(OPERATORS["aten.relu.default"], seeds("aten.relu.default")[0])
    for name in names:
        outcomes, findings = fuzz(name, seed, calls)
        total += outcomes
        found += len(findings)
        counts = "".join(f"{outcomes[outcome]:>8,} {outcome}" for outcome in OUTCOMES)
        print(f"{name:46}{counts}", flush=True)
        for finding in findings:
            print(f"  {finding}", file=sys.stderr, flush=True)
    took_s = time.monotonic() - began
    counts = ", ".join(f"{total[outcome]:,} {outcome}" for outcome in OUTCOMES)
    print(f"{len(names)} operators, {sum(total.values()):,} calls of seed {seed} in {took_s:.0f} s:"
          f" {counts}, {found} findings")  # fmt: skip
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
