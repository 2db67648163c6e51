"""Feeds hostile inputs to what parses a stranger's bytes: `python -m tests.fuzz --help`.

Each target runs under atheris, guided by the branches that its inputs reach, in a process with a
bound on its memory and on the time of each input. Inputs that reached something new are kept in
out/fuzz and are where the next run begins. Prints how many inputs ran, for how long and how far;
a finding (an exception, a hang, too much memory) is printed with its file, and the exit status
is 1.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.target import PLACES, target

ROOT = Path(__file__).parents[2]
# Findings, as libFuzzer names their files.
FINDINGS = ("crash-*", "timeout-*", "oom-*", "leak-*")


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one target: inputs that ran, libFuzzer's branches and features, the findings' files."""

    target: str
    inputs: int
    seconds: float
    branches: int
    features: int
    peak_mb: int
    findings: tuple[Path, ...]
    output: str


def main() -> int:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("--inputs", type=int, default=1_000_000, help="of all targets (1,000,000)")
    parser.add_argument("--target", action="append", choices=sorted(PLACES), help="only this one")
    parser.add_argument("--seed", type=int, default=0, help="repeat a run (0: random)")
    parser.add_argument("--max-len", type=int, default=4096, help="bytes of an input (4,096)")
    parser.add_argument("--timeout", type=int, default=20, help="seconds of one input (20)")
    parser.add_argument("--memory", type=int, default=2048, help="megabytes of a process (2,048)")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "fuzz")
    options = parser.parse_args()
    chosen = options.target or list(PLACES)
    parts = sum(PLACES[name][1] for name in chosen)
    print(
        f"{'target':14} {'inputs':>11} {'seconds':>8} {'branches':>8} {'features':>8} {'peak':>8}"
    )
    outcomes = []
    for name in chosen:
        inputs = max(1, options.inputs * PLACES[name][1] // parts)
        outcomes.append(fuzz(name, inputs, options))
        show(outcomes[-1])
    total, seconds = sum(each.inputs for each in outcomes), sum(each.seconds for each in outcomes)
    findings = [file for each in outcomes for file in each.findings]
    print(f"{'total':14} {total:>11,} {seconds:>8.0f}   {len(findings)} findings")
    return 1 if findings else 0


def fuzz(name: str, inputs: int, options: argparse.Namespace) -> Outcome:
    """Run a target on so many inputs, in a process of its own."""
    home = options.out / name
    corpus, seeds, found = home / "corpus", home / "seeds", home / "findings"
    for directory in (corpus, seeds, found):
        directory.mkdir(parents=True, exist_ok=True)
    for seed in target(name).seeds():
        (seeds / hashlib.sha256(seed).hexdigest()[:40]).write_bytes(seed)
    before = _findings(found)
    command = [
        sys.executable, "-m", "tests.fuzz.drive", name, f"-runs={inputs}", f"-seed={options.seed}",
        f"-max_len={options.max_len}", f"-timeout={options.timeout}",
        f"-rss_limit_mb={options.memory}", "-print_final_stats=1", f"-artifact_prefix={found}/",
        str(corpus), str(seeds),
    ]  # fmt: skip
    began = time.monotonic()
    run = subprocess.run(
        command, cwd=ROOT, text=True, errors="replace", stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )  # fmt: skip
    seconds, new = time.monotonic() - began, _findings(found) - before
    if run.returncode and not new:
        raise SystemExit(f"{name} did not run (exit status {run.returncode}):\n{run.stdout}")
    return Outcome(
        name,
        _last(run.stdout, r"stat::number_of_executed_units:\s*(\d+)"),
        seconds,
        _last(run.stdout, r"\bcov: (\d+)"),
        _last(run.stdout, r"\bft: (\d+)"),
        _last(run.stdout, r"stat::peak_rss_mb:\s*(\d+)"),
        tuple(sorted(new)),
        run.stdout,
    )


def show(outcome: Outcome) -> None:
    print(
        f"{outcome.target:14} {outcome.inputs:>11,} {outcome.seconds:>8.0f} {outcome.branches:>8,}"
        f" {outcome.features:>8,} {outcome.peak_mb:>5} MB",
        flush=True,
    )
    for file in outcome.findings:
        print(_trace(outcome.output))
        print(f"{file}: {file.read_bytes().hex()}")
        print(f"again: python -m tests.fuzz.drive {outcome.target} {file}", flush=True)


def _trace(output: str) -> str:
    """What was raised, without the fuzzer's own lines before and after."""
    return re.split(r"^==\d+== ?", output.rpartition("=== ")[2], flags=re.MULTILINE)[0].strip()


def _findings(directory: Path) -> set[Path]:
    return {file for kind in FINDINGS for file in directory.glob(kind)}


def _last(text: str, pattern: str) -> int:
    found = re.findall(pattern, text)
    return int(found[-1]) if found else 0


if __name__ == "__main__":
    sys.exit(main())
