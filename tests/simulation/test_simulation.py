"""Some seeds hold, a seed is the same run each time, and what is broken on purpose is found.

`make simulate SEEDS=10000` runs many more.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from ionn_client.machine.liveness import Liveness
from ionn_client.machine.queries import Queries
from ionn_client.machine.upload import Upload
from ionn_edge.box import Box
from ionn_edge.link import Link
from ionn_edge.machine.open_queries import OpenQueries
from ionn_edge.machine.quota import Quota
from ionn_edge.machine.session import Session as EdgeSession
from ionn_edge.served import Served
from ionn_edge.storage.holdings import Holdings
from ionn_edge.storage.parts import Part
from layergraph import check_graph
from tests.simulation.__main__ import main
from tests.simulation.faults import FAULTS
from tests.simulation.loop import VirtualLoop
from tests.simulation.models import NAMES, model
from tests.simulation.network import Way, connected
from tests.simulation.seeds import simulate
from wire import messages

FIRST = 5000


@pytest.mark.parametrize("seed", range(FIRST, FIRST + 8))
def test_whatever_happens_every_query_gets_its_answer(seed: int) -> None:
    outcome = simulate(seed)
    assert outcome.problem is None, (outcome.faults, outcome.problem, *outcome.events)


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_by_itself(fault: str) -> None:
    outcome = simulate(FIRST, faults=[fault, fault])
    assert outcome.problem is None, (outcome.problem, *outcome.events)


def test_a_seed_is_the_same_run_each_time() -> None:
    first, second = (simulate(FIRST + 1, faults=["edge killed", "cut", "drain"]) for _ in range(2))
    assert first == second
    assert first.counts["steps"] > 100


def _problem(faults: list[str], seeds: int = 60) -> str | None:
    outcomes = (simulate(seed, faults=faults) for seed in range(FIRST, FIRST + seeds))
    return next((each.problem for each in outcomes if each.problem is not None), None)


_worker_lost = EdgeSession._worker_lost


def _unanswered(self: EdgeSession, reason: str) -> None:
    self._open.drop()
    _worker_lost(self, reason)


def _done_at_once(self: EdgeSession, _: float) -> None:
    self._end(messages.Bye("draining"))


def _stopped_by_nobody(self: Served) -> None:
    worker, self.worker = self.worker, None
    if worker is not None:
        worker.close()  # type: ignore[unused-coroutine]


def _all_weighted(self: Upload, *_: Any, **__: Any) -> frozenset[int]:
    return frozenset(layer for layer, blobs in enumerate(self._blobs_of_layer) if blobs)


@pytest.mark.parametrize(
    ("where", "name", "instead", "faults", "text"),
    [
        (Upload, "layers", _all_weighted, [], "was not acknowledged"),
        (Liveness, "gone_at", lambda *_: None, ["half-open"] * 4, "nothing comes"),
        (Queries, "refused", lambda *_: None, [], "that owes nothing"),
        (Queries, "_cancel", lambda *_: None, ["slow edge"] * 2, "the edge was not told"),
        (Queries, "_expect", lambda *_: None, [], "waits for the edge without end"),
        (Queries, "edge_gone", lambda *_: None, ["reset"] * 4, "that owes nothing"),
        (OpenQueries, "cancel", lambda *_: None, ["slow edge"] * 2, ""),
        (EdgeSession, "_worker_lost", _unanswered, ["worker death"] * 2, "never be answered"),
        (EdgeSession, "_drain", _done_at_once, ["drain"] * 4, "it stops before its time"),
        (OpenQueries, "runs_since", lambda *_: None, ["slow edge"] * 4, "runs for more than"),
        (Liveness, "ponged", lambda *_: 0.0, [], "which was asked nothing"),
        (Quota, "refusal", lambda *_: None, [], ""),
        (Quota, "may_run", lambda *_: False, [], "could run, and do not"),
        (Served, "stop", lambda *_: None, ["forgotten"] * 4, "workers"),
        (Served, "stop", _stopped_by_nobody, ["forgotten"] * 2, "was never awaited"),
        (Holdings, "release", lambda *_: None, [], "weights wait for who is gone"),
        (Link, "completed", lambda *_: None, [], "cannot be executed"),
        (Box, "widen", lambda *_: None, [], "the store holds"),
        (Box, "forgot", lambda *_: None, ["pruned", "forgotten"], "was held in epoch"),
        (Part, "_check", lambda *_: None, ["corrupt chunks"] * 4, "wrong bytes"),
    ],
)
def test_what_is_broken_is_found(
    where: type,
    name: str,
    instead: Callable[..., Any],
    faults: list[str],
    text: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(where, name, instead)
    problem = _problem(faults)
    assert problem is not None
    assert text in problem


def test_it_tells_what_became_of_the_seeds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["simulation", "--first", str(FIRST), "--seeds", "2", "--processes", "1"]
    monkeypatch.setattr("sys.argv", arguments)
    assert main() == 0
    assert "0 failed" in capsys.readouterr().out
    monkeypatch.setattr(Upload, "layers", _all_weighted)
    assert main() == 1
    told = capsys.readouterr().out
    assert f"again: python -m tests.simulation --seed {FIRST // 100}" in told


@pytest.mark.parametrize("name", [*NAMES, "wide"])
def test_the_models_are_such_as_an_edge_takes(name: str) -> None:
    of = model(name)
    check_graph(of.graph)
    (answer,) = of.run(0, of.layers, of.input(1))
    # Whole numbers far below those that float32 rounds.
    assert answer.abs().max() < 2**20
    assert bool((answer == answer.round()).all())


def test_a_connection_keeps_its_order_and_breaks_after_any_byte() -> None:
    loop = VirtualLoop(turns=10_000)
    heard: list[bytes] = []

    async def talk() -> None:
        rng = random.Random(1)
        ways = [Way(1e6, 0.01, 0.05) for _ in range(2)]
        here, there = connected(loop, rng, *ways)
        for number in range(50):
            await here.send_bytes(bytes([number]) * 10)
        # Frames take 16 bytes of the stream each: the fifth from here on is incomplete.
        here.cut_at = here.sent_bytes + 4 * 16 + 7
        for number in range(50, 60):
            await here.send_bytes(bytes([number]) * 10)
        heard.extend([frame.data async for frame in there if isinstance(frame.data, bytes)])

    try:
        loop.run_until_complete(talk())
    finally:
        loop.close()
    assert heard == [bytes([number]) * 10 for number in range(54)]
