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
import ctypes
import json
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
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

from layergraph import Budget, GraphError, LayerGraph
from layergraph.budget import is_view
from layergraph.check import check_arguments, made_by, symbol_value
from layergraph.graph import Layer, Node, Ref, Symbol, TensorSpec
from layergraph.ops import DTYPES, FIRST_RESULT_ONLY, OPERATORS, Operator
from tests.guarded_memory import ROOM, Memory, base_shape
from tests.operator_mutation import mutated
from tests.operator_seeds import Call, Given, seeds

BUDGET = Budget(live_bytes=32 << 20, tensor_bytes=ROOM, flops=10**8)
# Beside what the budget allows: both runs' results, kernels made at run time, Python's own.
SLACK_BYTES = 160 << 20
CPU_S = 5
MAX_FINDINGS = 12
CHECKED_MALLOC = {"LD_PRELOAD": "libc_malloc_debug.so.0", "GLIBC_TUNABLES": "glibc.malloc.check=3"}
OUTCOMES = ("refused", "failed", "ran")
_SCALAR = TensorSpec("float32", ())
_M_PERTURB = -6
_libc = ctypes.CDLL(None)


class Finding(Exception):
    """An accepted call did what none may do."""


def tensors_in(value: Any) -> Iterator[Given]:
    if isinstance(value, Given):
        yield value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from tensors_in(item)


def replaced(value: Any, tensor: Callable[[Given], Any], symbol: Callable[[Symbol], Any]) -> Any:
    """The argument with each tensor and each symbol replaced, in order."""
    if isinstance(value, Given):
        return tensor(value)
    if isinstance(value, Symbol):
        return symbol(value)
    if isinstance(value, tuple):
        return tuple(replaced(item, tensor, symbol) for item in value)
    return value


def graph_of(operator: Operator, call: Call, outputs: Iterable[TensorSpec | None]) -> LayerGraph:
    """A graph of this one call, that declares these results."""
    given = list(tensors_in((*call.args, *call.kwargs.values())))
    numbers = iter(range(len(given)))

    def ref(_: Given) -> Ref:
        return Ref(next(numbers))

    args = replaced(call.args, ref, lambda symbol: symbol)
    kwargs = tuple(
        (name, replaced(value, ref, lambda symbol: symbol)) for name, value in call.kwargs.items()
    )
    made = tuple(outputs)
    return LayerGraph(
        inputs=tuple(TensorSpec(each.dtype, each.shape) for each in given),
        weights=(),
        constants=(),
        nodes=(Node(operator.name, args, kwargs, made, "fuzz"),),
        layers=(Layer("fuzz", 0, 1, ()),),
        outputs=tuple(
            Ref(len(given) + number)
            for number, spec in enumerate(made)
            if spec is not None and not (number and operator.name in FIRST_RESULT_ONLY)
        ),
    )


def accepted(operator: Operator, call: Call) -> LayerGraph | None:
    """The graph that declares what the call makes, where the check accepts it."""
    try:
        guess = graph_of(operator, call, [_SCALAR])
        check_arguments(guess, BUDGET)
        # What an honest client would declare; with that, `check_graph` has nothing left to ask.
        graph = graph_of(operator, call, next(iter(made_by(guess))))
        check_arguments(graph, BUDGET)
    except GraphError:
        return None
    return graph


def judge(operator: Operator, call: Call, memory: Memory, seed: int) -> str:
    """One of OUTCOMES. Raises Finding."""
    graph = accepted(operator, call)
    if graph is None:
        return "refused"
    given = list(tensors_in((*call.args, *call.kwargs.values())))
    if any(_size(each) > ROOM for each in given):
        return "refused"
    first = _run(operator, call, graph, memory, seed, given, 0x55)
    if first is None:
        return "failed"
    second = _run(operator, call, graph, memory, seed, given, 0xAA)
    if "LD_PRELOAD" not in os.environ and first != second:
        raise Finding("secret: the result depends on memory that nobody wrote")
    return "ran"


def _size(given: Given) -> int:
    return TensorSpec(given.dtype, base_shape(given)).nbytes


def _run(
    operator: Operator,
    call: Call,
    graph: LayerGraph,
    memory: Memory,
    seed: int,
    given: list[Given],
    fill: int,
) -> list[bytes] | None:
    """The results' bytes; None where torch raised. Fresh memory is filled with `fill`."""
    tensors = memory.tensors(given, seed)
    turn = iter(tensors)
    real = [
        replaced(value, lambda _: next(turn), lambda s: symbol_value(s, torch.device("cpu")))
        for value in (*call.args, *call.kwargs.values())
    ]
    args = real[: len(call.args)]
    kwargs = dict(zip(call.kwargs, real[len(call.args) :], strict=True))
    _libc.mallopt(_M_PERTURB, fill)
    try:
        with torch.inference_mode():
            made = operator.call(*args, **kwargs)
    except MemoryError as error:
        raise Finding(f"memory: {error!r}") from None
    # Whatever torch raises is an answer that the client gets.
    except Exception as error:
        if "allocate memory" in str(error) or "bad_alloc" in str(error):
            raise Finding(f"memory: {str(error)[:200]}") from None
        made = None
    finally:
        _libc.mallopt(_M_PERTURB, 0)
    for damage in memory.damages(len(given)):
        raise Finding(f"canary: {damage}")
    if made is None:
        return None
    outputs = list(made) if operator.returns_many else [made]
    _check_outputs(operator, graph, memory, outputs)
    if operator.name in FIRST_RESULT_ONLY:
        outputs = outputs[:1]
    return [bytes(_flat(output)) for output in outputs if output is not None]


def _flat(tensor: torch.Tensor) -> Any:
    dense = torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor).view(-1)
    return dense.view(torch.uint8).numpy().tobytes() if dense.numel() else b""


def _check_outputs(
    operator: Operator, graph: LayerGraph, memory: Memory, outputs: list[Any]
) -> None:
    declared = graph.nodes[0].outputs
    if not all(output is None or isinstance(output, torch.Tensor) for output in outputs):
        raise Finding(f"shape: it makes {outputs!r:.80}")
    if operator.name in FIRST_RESULT_ONLY:
        outputs, declared = outputs[:1], declared[:1]
    got = tuple(None if t is None else (t.dtype, tuple(t.shape)) for t in outputs)
    if got != tuple(None if s is None else (DTYPES[s.dtype], s.shape) for s in declared):
        raise Finding(f"shape: it declares {[*map(str, declared)]}, and makes {got}")
    present = [output for output in outputs if output is not None]
    own = [output for output in present if not memory.shares(output)]
    if len(own) < len(present) and not is_view(operator):
        raise Finding("alias: a result is a view of an argument")
    kept = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in own}
    if sum(kept.values()) > 2 * sum(output.nbytes for output in present) + 4096:
        raise Finding(f"holds: {sum(kept.values())} bytes for results of {present}"[:200])


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
        status, told = _in_child(name, seed, start, calls.stop, progress)
        findings += told
        reached, *counts = _PROGRESS.unpack_from(progress, 0)
        outcomes.update(dict(zip(OUTCOMES, counts, strict=True)))
        start = reached + 1
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


def to_plain(value: Any) -> Any:
    """An argument as JSON."""
    if isinstance(value, Given):
        return {"tensor": [value.dtype, value.shape, value.below, value.layout, value.wild]}
    if isinstance(value, Symbol):
        return {"symbol": [value.kind, value.name]}
    return [to_plain(item) for item in value] if isinstance(value, tuple) else value


def from_plain(plain: Any) -> Any:
    """The argument that `to_plain` took apart."""
    if isinstance(plain, list):
        return tuple(map(from_plain, plain))
    if not isinstance(plain, dict):
        return plain
    if "symbol" in plain:
        return Symbol(*plain["symbol"])
    dtype, shape, below, layout, wild = plain["tensor"]
    return Given(dtype, tuple(shape), below, layout, wild)


def stored(path: Path) -> list[tuple[str, Call]]:
    """(operator, call) of each line of a file of regressions."""
    rows = [json.loads(line) for line in path.read_text().splitlines() if line]
    return [
        (row["operator"], Call(from_plain(row["args"]),
                               {name: from_plain(v) for name, v in row["kwargs"].items()}))
        for row in rows
    ]  # fmt: skip


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


def _with_checked_malloc(arguments: list[str]) -> int:
    """The same script, in a process whose malloc notices writes beyond what it gave."""
    command = [sys.executable, __file__, *arguments]
    return subprocess.run(command, env={**os.environ, **CHECKED_MALLOC}, check=False).returncode


def main() -> int:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("--calls", type=int, default=10_000, help="of each operator (10,000)")
    parser.add_argument("--seed", type=int, default=None, help="repeat a run (random)")
    parser.add_argument("--only", action="append", help="an operator's name; repeatable")
    parser.add_argument("--half", choices=("plain", "malloc"), help="one half of the calls")
    parser.add_argument("--save", type=Path, help="append each finding's call to this file")
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
        both = [a for a in sys.argv[1:] if not a.startswith("--seed")]
        arguments = [*both, f"--seed={seed}"]
        results = [_with_checked_malloc([*arguments, "--half", "malloc"])]
        own = [sys.executable, __file__, *arguments, "--half", "plain"]
        results.append(subprocess.run(own, check=False).returncode)
        return max(results)
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
