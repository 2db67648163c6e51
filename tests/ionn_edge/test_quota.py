"""How much one device may ask, over all of its connections."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from ionn_edge import config
from ionn_edge.config import Config
from ionn_edge.machine.quota import Quota
from ionn_edge.workers.nursery import Nursery
from tests.ionn_edge.peer import Peer, chain, execute
from tests.ionn_edge.visitors import Paired, two_devices
from wire import messages


@dataclass(eq=False)
class Asker:
    running: int
    queued: int
    waiting_bytes: int = 0
    worker_ready: bool = True

    @property
    def could_run(self) -> bool:
        return self.worker_ready and not self.running and self.queued > 0

    def run(self) -> None:
        self.running, self.queued = 1, self.queued - 1


def test_a_device_asks_a_burst_and_then_so_many_a_second() -> None:
    quota = Quota(Config(device_queries_per_s=10.0, device_burst=3))
    assert [quota.refusal(5.0) for _ in range(3)] == [None] * 3
    assert quota.refusal(5.0) == ("this device may ask 10 queries a second; ask again in 0.100 s")
    assert quota.refusal(5.05) is not None
    assert quota.refusal(5.101) is None
    assert quota.refusal(5.101) is not None
    # However long nothing is asked, no more than a burst comes of it.
    assert [quota.refusal(1e6) is None for _ in range(4)] == [True, True, True, False]


def test_a_clock_that_goes_back_gives_nothing_away() -> None:
    quota = Quota(Config(device_queries_per_s=10.0, device_burst=1))
    assert quota.refusal(100.0) is None
    assert quota.refusal(50.0) is not None
    assert quota.refusal(50.05) is not None


def test_open_queries_of_all_connections_count() -> None:
    quota = Quota(Config(device_queries=5))
    first, second = Asker(1, 2), Asker(1, 0)
    quota.sessions |= {first, second}
    assert quota.refusal(0.0) is None
    second.queued = 1
    assert quota.refusal(0.0) == "this device has 5 queries open already; wait for their answers"
    quota.sessions.discard(first)
    assert quota.refusal(0.0) is None


def test_tensors_that_wait_count_over_all_connections() -> None:
    quota = Quota(Config(max_waiting_bytes=100))
    assert quota.refusal(0.0, 1000) is None, "one may be any size"
    quota.sessions |= {Asker(0, 1, 40), Asker(0, 1, 40)}
    assert quota.refusal(0.0, 20) is None
    assert quota.refusal(0.0, 21) == "this device's open queries hold 80 bytes of tensors already"


def standing(config: Config, devices: int, askers: int) -> tuple[Quota, list[Asker]]:
    quota = Quota(config, lambda: devices)
    made = [Asker(0, 2) for _ in range(askers)]
    quota.sessions |= set(made)
    return quota, made


def test_a_device_that_is_alone_runs_all_that_it_asks() -> None:
    quota, askers = standing(Config(), 1, 8)
    for asker in askers:
        assert quota.may_run(asker)
        asker.run()


@pytest.mark.parametrize(("devices", "at_once"), [(2, 4), (3, 2), (8, 1), (64, 1)])
def test_beside_others_a_device_has_its_part_of_the_processors(
    monkeypatch: pytest.MonkeyPatch, devices: int, at_once: int
) -> None:
    monkeypatch.setattr(config, "usable_threads", lambda: 16)
    quota, askers = standing(Config(threads=2), devices, 8)
    for asker in askers:
        if quota.may_run(asker):
            asker.run()
    assert [asker.running for asker in askers] == [1] * at_once + [0] * (8 - at_once)


def test_turns_to_run_go_round() -> None:
    quota, (first, second, third) = standing(Config(threads=1024), 2, 3)
    order = []
    for _ in range(6):
        asker = next(each for each in (first, second, third) if quota.may_run(each))
        asker.run()
        order.append(asker)
        assert not any(quota.may_run(each) for each in (first, second, third) if each.could_run)
        assert quota.next_to_run() == []
        asker.running = 0
    assert [order.count(each) for each in (first, second, third)] == [2, 2, 2]
    assert set(map(id, order[:3])) == {id(first), id(second), id(third)}
    assert quota.next_to_run() == []


def test_who_cannot_run_keeps_nobody_waiting() -> None:
    quota, (first, second, third) = standing(Config(threads=1024), 2, 3)
    assert quota.may_run(first)
    first.run()
    assert not quota.may_run(second)
    assert not quota.may_run(third)
    first.running = first.queued = 0
    assert quota.next_to_run() == [second]
    # Its worker is lost; then its connection.
    second.worker_ready = False
    assert quota.next_to_run() == [third]
    second.worker_ready = True
    assert not quota.may_run(second), "behind the third now"
    quota.sessions.discard(third)
    assert quota.next_to_run() == [second]


def test_who_stands_in_line_runs_once_the_others_are_gone() -> None:
    devices = [2]
    quota = Quota(Config(threads=1024), lambda: devices[0])
    askers = [Asker(1, 0), Asker(0, 1), Asker(0, 1)]
    quota.sessions |= set(askers)
    assert [quota.may_run(asker) for asker in askers[1:]] == [False, False]
    devices[0] = 1
    assert quota.next_to_run() == askers[1:]


def test_open_queries_of_all_devices_count_but_for_a_devices_first() -> None:
    config = Config(box_queries=4, device_queries=100)
    quotas: list[Quota] = []
    greedy, modest = (Quota(config, everybody=lambda: quotas) for _ in range(2))
    quotas += [greedy, modest]
    greedy.sessions |= {Asker(1, 1), Asker(1, 1)}
    assert greedy.refusal(0.0) == "this edge has 4 queries open already; wait for their answers"
    assert modest.refusal(0.0) is None, "nobody is kept out by others"
    modest.sessions.add(Asker(1, 0))
    assert modest.refusal(0.0) is not None
    greedy.sessions.clear()
    assert modest.refusal(0.0) is None


def test_waiting_tensors_of_all_devices_count_too() -> None:
    config = Config(box_waiting_bytes=100, max_waiting_bytes=1000)
    quotas: list[Quota] = []
    greedy, modest = (Quota(config, everybody=lambda: quotas) for _ in range(2))
    quotas += [greedy, modest]
    greedy.sessions.add(Asker(0, 1, 90))
    modest.sessions.add(Asker(0, 1, 5))
    assert modest.refusal(0.0, 5) is None
    assert modest.refusal(0.0, 6) == "this edge's open queries hold 95 bytes of tensors already"


GRAPH, WEIGHTS = chain(3)
X = torch.zeros(1, 8)


async def refusal(peer: Peer) -> str:
    error = await peer.hear(messages.Error)
    assert error.code == "overloaded"
    return error.text


@pytest.mark.asyncio(loop_scope="session")
async def test_a_box_with_512_open_queries_takes_one_of_who_has_none(
    tmp_path: Path, nursery: Nursery
) -> None:
    most = Config().box_queries
    assert most == 512
    async with (
        two_devices(tmp_path, nursery, max_queries=600, device_queries=600) as (at, glasses, watch),
        Paired(glasses, at) as greedy,
        Paired(watch, at) as modest,
    ):
        for peer in (greedy, modest):
            await peer.open(GRAPH, WEIGHTS)
        workers = [link._served.worker.pid for link in at.box.clients]  # type: ignore[attr-defined]
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)
        try:
            for query in range(most + 1):
                await greedy.send(execute(query, 0, 3, (X,)))
                if query % 64 == 63:
                    # Heard so far: hundreds of small records that wait to be read are a flood.
                    await greedy.send(messages.Ping(query))
                    assert (await greedy.hear(messages.Pong)).token == query
            assert await refusal(greedy) == (
                "this edge has 512 queries open already; wait for their answers"
            )
            await modest.send(execute(1, 0, 3, (X,)), execute(2, 0, 3, (X,)))
            assert "has 512 queries" in await refusal(modest)
        finally:
            for pid in workers:
                os.kill(pid, signal.SIGCONT)
        assert (await modest.hear(messages.Result)).query == 1
        assert (await greedy.hear(messages.Result)).query == 0
