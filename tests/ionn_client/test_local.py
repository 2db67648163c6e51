"""Layer ranges on this processor: in a thread, or at once where that takes no time."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator

import pytest
import torch

from ionn_client import local
from ionn_client.emulate import SlowDevice
from ionn_client.local import LocalRunner
from layergraph import InvalidInput, execute
from tests.support import WIDTH, chain

ROW = torch.ones(1, WIDTH)


@pytest.fixture
def threads() -> Iterator[int]:
    """As many threads here as a runner has, whatever other tests left."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield 1
    torch.set_num_threads(before)


async def _wanted(runner: LocalRunner) -> None:
    ran = await runner.run(0, 3, (ROW,), lambda: True)
    assert ran is not None


async def test_a_range_that_was_brief_runs_at_once(
    threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "BRIEF_S", 60.0)
    graph, weights = chain(3)
    with LocalRunner(graph, weights, threads) as runner:
        assert runner.run_at_once(0, 3, (ROW,)) is None
        await _wanted(runner)
        ran = runner.run_at_once(0, 3, (ROW,))
        assert ran is not None
        live, seconds = ran
        assert torch.equal(live[0], execute(graph, weights, 0, 3, (ROW,))[0])
        assert seconds > 0
        # Of each range by itself.
        assert runner.run_at_once(0, 2, (ROW,)) is None


@pytest.fixture
async def brief(threads: int, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LocalRunner]:
    """One for which every range is brief, and that is wanted at once."""
    monkeypatch.setattr(local, "BRIEF_S", 60.0)
    graph, weights = chain(3)
    with LocalRunner(graph, weights, threads) as runner:
        await _wanted(runner)
        yield runner


async def test_one_that_was_long_once_goes_back_to_its_thread(
    brief: LocalRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "BRIEF_S", 0.0)
    assert brief.run_at_once(0, 3, (ROW,)) is not None
    assert brief.run_at_once(0, 3, (ROW,)) is None


async def test_nothing_runs_at_once_with_another_number_of_threads(
    brief: LocalRunner, threads: int
) -> None:
    torch.set_num_threads(threads + 1)
    assert brief.run_at_once(0, 3, (ROW,)) is None


async def test_nothing_runs_at_once_beside_a_range_that_runs(brief: LocalRunner) -> None:
    refused: list[bool] = []

    def meanwhile() -> bool:
        refused.append(brief.run_at_once(0, 3, (ROW,)) is None)
        return True

    await brief.run(0, 3, (ROW,), meanwhile)
    assert refused == [True]


async def test_a_slow_device_takes_its_time_for_all(
    threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "BRIEF_S", 60.0)
    graph, weights = chain(3)
    with LocalRunner(graph, weights, threads, SlowDevice(2.0, [1e-6] * 3)) as runner:
        await _wanted(runner)
        assert runner.run_at_once(0, 3, (ROW,)) is None


async def test_what_the_model_itself_raises_is_raised_at_once_too(brief: LocalRunner) -> None:
    with pytest.raises(InvalidInput):
        brief.run_at_once(0, 3, (ROW[:, 1:],))


async def test_usually_a_thread_of_its_own_runs_them(threads: int) -> None:
    graph, weights = chain(3)
    with LocalRunner(graph, weights, threads) as runner:
        await _wanted(runner)
        assert any(each.name.startswith("ionn-local") for each in threading.enumerate())
