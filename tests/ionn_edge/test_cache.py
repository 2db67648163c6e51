"""The cache as devices, and the operator, see it: by what a real box answers."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgpack
import pytest
import torch
from typer.testing import CliRunner

from ionn_edge.cache import cache_rows, forget, prune
from ionn_edge.cli import app
from ionn_edge.doors.control import ControlError
from ionn_edge.doors.devices import LOOPBACK
from ionn_edge.storage import admission
from ionn_edge.storage.graphs import Graphs
from ionn_edge.storage.opening import learn_graphs
from ionn_edge.storage.publishing import publish_from, unpublish
from ionn_edge.workers.nursery import Nursery
from layergraph import execute as execute_here
from tests.ionn_edge.conftest import Serve
from tests.ionn_edge.peer import Peer, chain, execute, lacking, segment
from tests.ionn_edge.visitors import Paired, house, two_devices
from tests.support import blobs
from wire import messages

pytestmark = pytest.mark.asyncio(loop_scope="session")
GRAPH, WEIGHTS = chain(3)
NAME = GRAPH.fingerprint
BLOBS = blobs(GRAPH, WEIGHTS)
X = torch.linspace(-1, 1, 8).reshape(1, 8)


async def _runs(peer: Peer) -> None:
    _, (live,) = await peer.run(1, 0, 3, (X,))
    assert torch.equal(live, execute_here(GRAPH, WEIGHTS, 0, 3, (X,))[0])


async def _upload(peer: Peer) -> None:
    """All weights of a model that was offered and of which nothing was there."""
    for weight, blob in enumerate(BLOBS):
        await peer.upload(weight, blob)


async def test_what_one_device_has_here_no_other_is_told(tmp_path: Path, nursery: Nursery) -> None:
    async with two_devices(tmp_path, nursery) as (at, glasses, watch):
        async with Paired(watch, at) as before:
            welcome = await before.greet()
            await before.send(messages.GetLoad())
            load = await before.hear(messages.Load)
        async with Paired(glasses, at) as peer, Paired(watch, at) as other:
            await peer.open(GRAPH, WEIGHTS)
            await _runs(peer)
            assert (await other.greet()).epoch == welcome.epoch
            assert await other.ask(GRAPH) == messages.Unknown(NAME)
            await other.send(messages.GetLoad())
            assert (await other.hear(messages.Load)).models == load.models == ()
            assert lacking(await other.offer(GRAPH)) == {0, 1, 2}
            # Its own afterwards, and twice on the disk.
            await _upload(other)
            await _runs(other)
            assert at.box.store.used_bytes == 2 * 768


async def test_one_device_that_evicts_itself_ends_nobody_elses_epoch(
    tmp_path: Path, nursery: Nursery
) -> None:
    other_graph, other_weights = chain(2, seed=5)
    async with (
        two_devices(tmp_path, nursery, device_disk_bytes=1000) as (at, glasses, watch),
        Paired(watch, at) as bystander,
        Paired(glasses, at) as first,
        Paired(glasses, at) as second,
    ):
        epochs = [at.box.epoch(each.id) for each in (glasses, watch)]
        await bystander.open(GRAPH, WEIGHTS)
        await first.open(GRAPH, WEIGHTS)
        await second.open(other_graph, other_weights)
        assert (await first.hear(messages.Evicted)).epoch != epochs[0]
        assert at.box.epoch(watch.id) == epochs[1]
        await _runs(bystander)


async def test_after_a_restart_a_device_has_what_it_had_and_no_other(
    tmp_path: Path, nursery: Nursery
) -> None:
    async with two_devices(tmp_path, nursery) as (at, glasses, watch), Paired(glasses, at) as peer:
        await peer.open(GRAPH, WEIGHTS)
    async with house(tmp_path, nursery, announce=False) as at:
        await learn_graphs(at.box)
        assert at.box.store.shelf(glasses.id).graphs.known(NAME) is not None
        assert at.box.store.shelf(watch.id).graphs.known(NAME) is None
        async with Paired(watch, at) as other:
            await other.greet()
            assert await other.ask(GRAPH) == messages.Unknown(NAME)
        async with Paired(glasses, at) as peer:
            await peer.greet()
            have = await peer.ask(GRAPH)
            assert isinstance(have, messages.Have)
            assert not lacking(have)
            await _runs(peer)


async def test_a_published_model_is_there_for_a_device_that_never_came_before(
    tmp_path: Path, nursery: Nursery
) -> None:
    async with two_devices(tmp_path, nursery) as (at, glasses, watch):
        ask = at.questions
        async with Paired(glasses, at) as peer, Paired(watch, at) as other:
            await peer.greet()
            await peer.offer(GRAPH)
            with pytest.raises(ControlError, match="3 of the model's 3 weights are not here"):
                await ask["publish from"]({"device": "glasses", "model": NAME[:8]})
            await _upload(peer)
            async with Paired(watch, at) as amid:
                await amid.greet()
                await amid.offer(GRAPH)
                await amid.upload(0, BLOBS[0], stop=10)
                await publish_from(at.box, glasses.id, NAME)
                # It need not even know yet.
                await _runs(amid)
                await amid.send(*segment(0, BLOBS[0], 10, 5))
                await amid.hear(messages.ChunkAck)
                held = await amid.hear(messages.Held)
                assert (held.count, held.complete) == (64, True)
            done = await ask["publish from"]({"device": "glasses", "model": NAME[:8]})
            assert done == {"fingerprint": NAME, "total_bytes": 768}
            await other.greet()
            have = await other.ask(GRAPH)
            assert isinstance(have, messages.Have)
            assert not lacking(have)
            for each in (other, peer):
                await _runs(each)
            assert at.box.store.used_bytes == at.box.store.published.used_bytes == 768
            await ask["unpublish"]({"model": NAME[:8]})
            for each in (other, peer):
                assert (await each.hear(messages.Evicted)).fingerprint == NAME
            assert lacking(await peer.offer(GRAPH)) == {0, 1, 2}


async def test_a_published_model_is_there_after_a_restart(tmp_path: Path, nursery: Nursery) -> None:
    async with two_devices(tmp_path, nursery) as (at, glasses, watch), Paired(glasses, at) as peer:
        await peer.open(GRAPH, WEIGHTS)
    # By what is on the disk, too, without anybody having offered it since.
    async with house(tmp_path, nursery, announce=False) as at:
        await publish_from(at.box, glasses.id, NAME)
    async with house(tmp_path, nursery, announce=False) as at, Paired(watch, at) as other:
        await other.greet()
        have = await other.ask(GRAPH)
        assert isinstance(have, messages.Have)
        assert not lacking(have)
        await _runs(other)


async def test_publishing_waits_for_the_graph_to_be_written(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, keep = threading.Event(), Graphs.keep

    def late(graphs: Graphs, fingerprint: str, graph: bytes) -> None:
        written.wait(60)
        keep(graphs, fingerprint, graph)

    monkeypatch.setattr(Graphs, "keep", late)
    async with serve() as (box, url), Peer(url) as peer:
        await peer.open(GRAPH, WEIGHTS)
        graphs = box.store.shelf(LOOPBACK.id).graphs
        publishing = asyncio.create_task(publish_from(box, LOOPBACK.id, NAME))
        await _runs(peer)
        assert not publishing.done()
        assert graphs.load(NAME) is None
        written.set()
        assert (await publishing).fingerprint == NAME


@pytest.mark.parametrize("name", ["", "abc", "0" * 64, "g" * 8])
async def test_a_model_that_is_not_here_is_not_published(serve: Serve, name: str) -> None:
    async with serve() as (box, url), Peer(url) as peer:
        await peer.open(GRAPH, WEIGHTS)
        with pytest.raises(ControlError, match="no model here is called"):
            await publish_from(box, LOOPBACK.id, name)
        with pytest.raises(ControlError, match="no model here is called"):
            unpublish(box, name)


async def test_a_device_that_is_forgotten_has_its_queries_answered_and_nothing_left(
    tmp_path: Path, nursery: Nursery
) -> None:
    async with (
        two_devices(tmp_path, nursery) as (at, glasses, watch),
        Paired(glasses, at) as peer,
        Paired(watch, at) as other,
    ):
        await peer.open(GRAPH, WEIGHTS)
        await other.open(GRAPH, WEIGHTS)
        epoch = at.box.epoch(glasses.id)
        (worker,) = (link._served.worker for link in at.box.clients if link.device.id == glasses.id)
        os.kill(worker.pid, signal.SIGSTOP)
        await peer.send(execute(1, 0, 3, (X,)), execute(2, 0, 3, (X,)), messages.Ping(1))
        await peer.hear(messages.Pong)
        freed = await at.questions["cache forget"]({"device": "glasses"})
        assert freed["freed_bytes"] >= 768
        for query in (1, 2):
            error = await peer.hear(messages.Error)
            assert (error.code, error.query) == ("not-uploaded", query)
        evicted = await peer.hear(messages.Evicted)
        assert (evicted.fingerprint, evicted.epoch != epoch) == (NAME, True)
        shelf = at.box.store.shelf(glasses.id)
        assert list(shelf.place.directory.iterdir()) == []
        # It may come again, as if for the first time.
        assert await peer.ask(GRAPH) == messages.Unknown(NAME)
        await peer.open_offered(GRAPH, WEIGHTS)
        for each in (peer, other):
            await _runs(each)


async def test_a_device_that_is_forgotten_while_it_offers_begins_anew(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    resume, forgotten = admission._resume, list[int]()

    async with serve() as (box, url):
        async with Peer(url) as peer:
            await peer.greet()
            await peer.offer(GRAPH)
            await peer.upload(0, BLOBS[0], stop=19)

        def interrupted(parts: Any) -> None:
            resume(parts)
            if not forgotten:
                forgotten.append(forget(box, LOOPBACK.id))

        monkeypatch.setattr(admission, "_resume", interrupted)
        async with Peer(url) as peer:
            await peer.greet()
            have = await peer.offer(GRAPH)
            assert (lacking(have), have.partial) == ({0, 1, 2}, ())
            assert forgotten
            await _upload(peer)
            await _runs(peer)


async def test_what_is_there_can_be_listed_and_pruned(serve: Serve) -> None:
    async with serve() as (box, url):
        async with Peer(url) as peer:
            await peer.open(GRAPH, WEIGHTS)
            rows = cache_rows(box)
            (device,) = rows["devices"]
            assert (device["id"], device["weights"]) == (LOOPBACK.id, 3)
            assert device["models"] == [
                {"fingerprint": NAME, "held_bytes": 768, "total_bytes": 768, "clients": 1}
            ]
            assert json.loads(json.dumps(rows)) == rows
            assert prune(box, 10_000) == 0
            assert prune(box, 0) == 768
            assert (await peer.hear(messages.Evicted)).fingerprint == NAME
        assert cache_rows(box)["used_bytes"] == 0


async def test_a_stopped_boxs_files_can_be_listed_pruned_and_forgotten(
    serve: Serve, tmp_path: Path
) -> None:
    async with serve() as (_, url), Peer(url) as peer:
        await peer.open(GRAPH, WEIGHTS)
    (tmp_path / "store" / ("0" * 64)).mkdir()
    (tmp_path / "store" / ("0" * 64) / ("1" * 64)).write_bytes(bytes(50))
    rows = _command(tmp_path, "ls")
    (device,) = rows["devices"]
    assert (device["name"], device["id"], device["weights"]) == ("this machine", LOOPBACK.id, 3)
    assert device["models"] == [{"fingerprint": NAME, "held_bytes": None, "total_bytes": None}]
    assert (rows["used_bytes"], rows["strange_bytes"]) == (768 + 50, 50)
    assert _command(tmp_path, "prune", "--to", "600") == {"freed_bytes": 256 + 50}
    assert _command(tmp_path, "forget", LOOPBACK.id)["freed_bytes"] > 512
    assert _command(tmp_path, "ls")["devices"] == []
    assert [path.name for path in (tmp_path / "store").glob("*/*")] == []


async def test_files_of_a_running_box_are_left_to_it(serve: Serve, tmp_path: Path) -> None:
    async with serve():
        pruned = CliRunner().invoke(app, _options(tmp_path, "prune"))
        dropped = CliRunner().invoke(app, ["unpublish", "0123456789ab", *_options(tmp_path)[1:]])
    for said in (pruned, dropped):
        assert said.exit_code == 1
        assert "a box that runs has the store" in said.output
        assert "stop it first if it is unpaired" in said.output


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["forget", "nobody"], 1, "no paired device is called"),
        (["prune", "--to", "lots"], 2, "a size looks like 512M"),
        (["ls"], 1, "there is no store in"),
    ],
)
async def test_what_cannot_be_done_is_one_line(
    tmp_path: Path, arguments: list[str], code: int, text: str
) -> None:
    if arguments[0] != "ls":
        (tmp_path / "store").mkdir()
    said = CliRunner().invoke(app, _options(tmp_path, *arguments))
    assert said.exit_code == code
    assert text in " ".join(said.output.split())


def _command(directory: Path, *arguments: str) -> Any:
    said = CliRunner().invoke(app, _options(directory, *arguments, "--json"))
    assert said.exit_code == 0, said.output
    return json.loads(said.output)


def _options(directory: Path, *arguments: str) -> list[str]:
    places = ["--state", str(directory / "state"), "--store", str(directory / "store")]
    return ["cache", *arguments, *places]


async def test_what_a_devices_worker_said_of_its_graph_is_published_of_nobody(serve: Serve) -> None:
    async with serve() as (box, url), Peer(url) as peer:
        await peer.open(GRAPH, WEIGHTS)
        graphs = box.store.shelf(LOOPBACK.id).graphs
        await graphs.all_kept()
        truth = graphs.known(NAME)
        assert truth is not None
        graphs.learned(replace(truth, layers=truth.layers + 7))
        assert await publish_from(box, LOOPBACK.id, NAME) == truth
        assert box.store.published.models == {NAME: truth}
        unpublish(box, NAME)
        # A graph of another name than it was offered by.
        other, _ = chain(2, seed=7)
        graphs.keep("a" * 64, msgpack.packb(other.to_plain()))
        graphs.learned(replace(truth, fingerprint="a" * 64))
        with pytest.raises(ControlError, match="fingerprint"):
            await publish_from(box, LOOPBACK.id, "a" * 64)
        assert box.store.published.models == {}
