"""Attacks an edge box while an honest neighbour asks it queries.

A real edge process, paired with both; the neighbour's weights are there, and it asks one query
after the other. In turn: quiet, attack, quiet, attack, ..., quiet. The attacks are those of
benchmarks/attacks.py, each from a process of its own.

Two things are judged. The neighbour's p99 in each attack over that of the quiet before and after,
which are as noisy as the machine is: the median of these ratios. And the most memory of the edge
(server, forkserver and workers; pages that they share counted once) against what it took before
the attack and what its operator grants one device: its weights, which are mapped, and its memory.
Strangers are granted what the door's limits permit: each connection that it keeps may have buffers
(GUEST_BYTES), and what was freed may stay with the allocator once (SLACK_BYTES). Each attack meets
an edge of its own, so that none is measured against what another left behind.

What is fair here. A real attacker and the neighbour's device bring processors of their own; all
share this machine's. Attackers therefore run on what nobody else wants of them (SCHED_IDLE: they
get all that is left, and the edge is attacked as fast as it reads). The neighbour's device runs
like any process, in quiet as in storm, so that what it computes for a query is in both figures.
What flatters the edge: an attacker with processors of its own could begin what it says sooner.
What does not: a kernel that does not preempt itself lets attackers finish a call, and their calls
count as the edge's delay. Of 500 queries in a part, five decide; whatever else the machine does in
these seconds is in both, and more in a storm, when no processor is idle. Memory is looked at in the
first seconds of each attack, and latency after these, in quiet as in storm: adding up all pages of
all processes takes tens of milliseconds, in which a process can change none of them, and would be
most of what the p99 shows. The neighbour asks throughout.

Run: python benchmarks/hostile.py [--attack NAME] [--rounds 3] [--seconds 6] [--quick] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import chain, pairwise
from pathlib import Path

from attacks import ATTACKS, STRANGERS, Talk, dense, talk, upload
from link_figures.figures import percentile
from memory_peak import now_bytes

from ionn_client.boxes.access import Access
from ionn_client.boxes.pair import Attempt, pair
from ionn_client.processes import EdgeProcess
from pairing.uri import PairingUri
from wire import messages
from wire.messages import Tensor

WIDTH, LAYERS = 1024, 4
PAUSE_S = 0.01
MIB = 1 << 20
# Of all models' weights; and one device's weights, and memory.
BUDGET, WEIGHTS, MEMORY = 512 * MIB, 256 * MIB, 1024 * MIB
# What must hold.
MOST_OF_QUOTA, MOST_RATIO = 1.1, 1.5
# Of a connection that is not admitted: encryption has 256 KiB each way, what it says 32 KiB, and
# the objects around it less than the rest.
GUESTS, GUEST_BYTES, SLACK_BYTES = 128, 640 << 10, 16 * MIB
# Of each attack, while memory is looked at.
WATCHED_S = 2.0


@dataclass(frozen=True, slots=True)
class Row:
    """One attack. `ratios`: of p99, attacked over quiet, of each round; `ratio_p99`: median."""

    attack: str
    quiet_p50_ms: float
    quiet_p99_ms: float
    attacked_p50_ms: float
    attacked_p99_ms: float
    ratio_p99: float
    ratios: list[float]
    queries: int
    lost: int
    idle_mb: float
    peak_mb: float
    quota_mb: float

    @property
    def holds(self) -> bool:
        # Of strangers the allowance is the bound: a tenth of what is idle is no attack's.
        most = 1.0 if self.attack in STRANGERS else MOST_OF_QUOTA
        fits = self.peak_mb <= most * self.quota_mb
        return fits and self.lost == 0 and self.ratio_p99 <= MOST_RATIO


class Watched:
    """The most memory that a process and its children take inside, as another process sees it."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.peak_bytes = 0

    def __enter__(self) -> Watched:
        script = Path(__file__).with_name("memory_peak.py")
        self._watcher = subprocess.Popen(
            [sys.executable, str(script), str(self._pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._watcher.stdout is not None
        self._watcher.stdout.readline()
        return self

    def __exit__(self, *_: object) -> None:
        self.peak_bytes = int(self._watcher.communicate()[0])


class Neighbour:
    """Asks one query after the other, and notes how long each took."""

    def __init__(self, talking: Talk) -> None:
        self._talking = talking
        self._row = Tensor("float32", (1, WIDTH), (0, 1), bytes(4 * WIDTH))
        self._number = 0
        self.lost = 0

    async def ask(self, seconds: float) -> list[float]:
        took: list[float] = []
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            self._number += 1
            asked = messages.Execute(self._number, 0, LAYERS, None, "exact", "raw", (self._row,))
            began = time.perf_counter()
            await self._talking.say(asked)
            while isinstance(answer := await self._talking.hear(), messages.Load | messages.Ping):
                if isinstance(answer, messages.Ping):
                    await self._talking.say(messages.Pong(answer.token, 0.0))
            took.append(time.perf_counter() - began)
            self.lost += not isinstance(answer, messages.Result)
            await asyncio.sleep(PAUSE_S)
        return took


async def measure(
    name: str,
    edge: EdgeProcess,
    homes: tuple[Path, Path],
    rounds: int,
    seconds: float,
) -> Row:
    pid = edge.process.pid
    graph, blobs = dense(LAYERS, WIDTH, seed=5)
    quiet: list[list[float]] = []
    attacked: list[list[float]] = []
    async with talk(Access.to(edge.address, homes[0])) as talking:
        await upload(talking, graph, blobs)
        neighbour = Neighbour(talking)
        await neighbour.ask(1.0)
        idle, peak = now_bytes(pid), 0
        for number in range(rounds + 1):
            quiet.append(await neighbour.ask(seconds))
            if number == rounds:
                break
            with attacking(name, edge, homes[1]):
                with Watched(pid) as watched:
                    await neighbour.ask(WATCHED_S)
                attacked.append(await neighbour.ask(seconds))
            peak = max(peak, watched.peak_bytes)
            # What the attack left behind is over before the next quiet is measured.
            await asyncio.sleep(1.0)
    calm, stormy = list(chain(*quiet)), list(chain(*attacked))
    still, storm = ([percentile(each, 0.99) for each in of] for of in (quiet, attacked))
    around = map(statistics.mean, pairwise(still))
    ratios = [after / before for before, after in zip(around, storm, strict=True)]
    granted = GUESTS * GUEST_BYTES + SLACK_BYTES if name in STRANGERS else WEIGHTS + MEMORY
    quota = idle + granted
    return Row(
        name,
        *(1e3 * percentile(values, share) for values in (calm, stormy) for share in (0.5, 0.99)),
        statistics.median(ratios),
        [round(ratio, 2) for ratio in ratios],
        len(calm) + len(stormy),
        neighbour.lost,
        *(idle / MIB, peak / MIB, quota / MIB),
    )


@contextmanager
def attacking(name: str, edge: EdgeProcess, home: Path) -> Iterator[None]:
    script = Path(__file__).with_name("attacks.py")
    attacker = subprocess.Popen(
        [sys.executable, str(script), name, edge.address, "--state", str(home)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert attacker.stdout is not None
        attacker.stdout.readline()
        yield
    finally:
        attacker.kill()
        attacker.wait()
        assert attacker.stdout is not None
        attacker.stdout.close()


def paired_too(pairings: Path) -> Path:
    """The state directory of another device that knows this box."""
    command = [sys.executable, "-m", "ionn_edge", "pair", "--json", "--state", f"{pairings}/edge"]
    shown = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    home = pairings / "attacker"
    asyncio.run(pair(Attempt.by_uri(PairingUri.parse(shown["uri"])), home))
    return home


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--attack", action="append", choices=sorted(ATTACKS), help="only this one")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each part of a round")
    parser.add_argument("--quick", action="store_true", help="one round of a second, no verdict")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds = 1, 1.0
    rows: list[Row] = []
    # This process looks for garbage while nobody waits.
    gc.freeze()
    for name in options.attack or ATTACKS:
        rows.append(attacked_edge(name, options.rounds, options.seconds))
        if not options.json:
            show(rows[-1], first=len(rows) == 1)
    if options.json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
    return 0 if options.quick else sum(not row.holds for row in rows)


def attacked_edge(name: str, rounds: int, seconds: float) -> Row:
    """An edge of its own for one attack."""
    quota = f"weights={WEIGHTS // MIB}M,memory={MEMORY // MIB}M"
    serve = ("--calibration", "off", "--memory", f"{BUDGET // MIB}M", "--quota", quota)
    with (
        tempfile.TemporaryDirectory(prefix="ionn-hostile-") as directory,
        EdgeProcess(options=serve, paired=True, pairings=directory) as edge,
    ):
        assert edge.state is not None
        homes = (edge.state, paired_too(Path(directory)))
        return asyncio.run(measure(name, edge, homes, rounds, seconds))


def show(row: Row, first: bool) -> None:
    if first:
        print(f"{'attack':12} {'quiet p50/p99':>16} {'attacked p50/p99':>18} {'p99 ratio':>10}"
              f" {'lost':>5} {'peak of quota':>18}")  # fmt: skip
    print(
        f"{row.attack:12} {row.quiet_p50_ms:>6.1f} / {row.quiet_p99_ms:>4.1f} ms"
        f" {row.attacked_p50_ms:>8.1f} / {row.attacked_p99_ms:>4.1f} ms {row.ratio_p99:>10.2f}"
        f" {row.lost:>5} {row.peak_mb:>8.0f} / {row.quota_mb:.0f} MB  {row.ratios}"
        f" {'' if row.holds else 'TOO MUCH'}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
