"""A client that comes back: known by its model's name, and served at once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ionn_edge.box import Box
from ionn_edge.doors.devices import LOOPBACK
from ionn_edge.storage.graphs import Graphs
from ionn_edge.storage.opening import learn_graphs
from ionn_edge.workers.nursery import Nursery
from layergraph import execute as execute_here
from tests.ionn_edge.conftest import Serve
from tests.ionn_edge.peer import Peer, chain, lacking, offer
from wire import messages

pytestmark = pytest.mark.asyncio(loop_scope="session")

GRAPH, WEIGHTS = chain(3)


def _graphs(box: Box) -> Graphs:
    return box.store.shelf(LOOPBACK.id).graphs


X = torch.linspace(-1, 1, 8).reshape(1, 8)


async def test_a_client_that_comes_back_need_not_send_its_graph(serve: Serve) -> None:
    async with serve() as (box, url):
        async with Peer(url) as peer:
            await peer.greet()
            assert await peer.ask(GRAPH) == messages.Unknown(GRAPH.fingerprint)
            await peer.open_offered(GRAPH, WEIGHTS)
        await _runs_at_once(url)
        assert _graphs(box).known(GRAPH.fingerprint) is not None


async def test_nor_after_a_restart(serve: Serve) -> None:
    async with serve() as (_, url), Peer(url) as peer:
        await peer.open(GRAPH, WEIGHTS)
    async with serve() as (_, url):
        await _runs_at_once(url)


async def _runs_at_once(url: str) -> None:
    async with Peer(url) as peer:
        await peer.greet()
        have = await peer.ask(GRAPH)
        assert isinstance(have, messages.Have)
        assert not lacking(have)
        _, (live,) = await peer.run(1, 0, 3, (X,))
        assert torch.equal(live, execute_here(GRAPH, WEIGHTS, 0, 3, (X,))[0])


async def test_graphs_of_an_earlier_run_are_known_before_anybody_asks(serve: Serve) -> None:
    async with serve() as (_, url), Peer(url) as peer:
        await peer.open(GRAPH, WEIGHTS)
    async with serve() as (box, _):
        await learn_graphs(box)
        assert _graphs(box).known(GRAPH.fingerprint) is not None


@pytest.mark.parametrize("content", [b"", b"junk", offer(chain(2)[0]).graph])
async def test_a_cached_graph_with_other_content_is_dropped_and_asked_for_again(
    serve: Serve, content: bytes
) -> None:
    async with serve() as (box, url):
        # A sound file, under the wrong name: only the fingerprint tells.
        _graphs(box).keep(GRAPH.fingerprint, content)
        async with Peer(url) as peer:
            await peer.greet()
            assert await peer.ask(GRAPH) == messages.Unknown(GRAPH.fingerprint)
            assert _graphs(box).kept() == []
            await peer.open_offered(GRAPH, WEIGHTS)
        await _runs_at_once(url)


async def test_a_cached_graph_that_is_damaged_while_the_box_runs_is_asked_for_again(
    serve: Serve, tmp_path: Path
) -> None:
    async with serve() as (_, url), Peer(url) as peer:
        await peer.open(GRAPH, WEIGHTS)
    async with serve() as (box, url):
        await learn_graphs(box)
        (path,) = (tmp_path / "store").glob("*/*.graph")
        path.write_bytes(path.read_bytes()[:-5])
        async with Peer(url) as peer:
            await peer.greet()
            assert await peer.ask(GRAPH) == messages.Unknown(GRAPH.fingerprint)
            assert not lacking(await peer.offer(GRAPH))


@pytest.mark.parametrize("name", ["../lock", "0" * 64, "x"])
async def test_an_unknown_name_is_unknown_whatever_it_is(serve: Serve, name: str) -> None:
    async with serve() as (_, url), Peer(url) as peer:
        await peer.greet()
        await peer.send(messages.Offer(name, b""))
        assert await peer.hear(messages.Unknown) == messages.Unknown(name)
        await peer.open_offered(GRAPH, WEIGHTS)


async def test_a_worker_ahead_of_its_use_is_one_and_goes_with_the_nursery(
    nursery: Nursery,
) -> None:
    first = await nursery.fork()
    assert nursery._sparing is not None
    await nursery._sparing
    spare = nursery._spare
    assert spare is not None
    assert await nursery.fork() is spare
    for worker in (first, spare):
        await worker.close()
