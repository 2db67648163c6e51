"""Models that the operator brings: all of one is everybody's, or nothing is."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgpack
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from ionn_edge.box import Box
from ionn_edge.cache import store_rows
from ionn_edge.cli import app
from ionn_edge.config import Config
from ionn_edge.doors.control import ControlError
from ionn_edge.doors.devices import LOOPBACK
from ionn_edge.storage import admission
from ionn_edge.storage import staging as staging_module
from ionn_edge.storage.blobs import StorageError, digest_of
from ionn_edge.storage.publishing import MOST_NAME, PublishingQuestions, publish, unpublish
from ionn_edge.storage.sealed import write_sealed
from ionn_edge.storage.staging import GRAPH as GRAPH_FILE
from ionn_edge.storage.staging import drop_staged, put, staged, staging
from ionn_edge.storage.store import Store
from ionn_edge.workers.nursery import Nursery
from layergraph import LayerGraph, save_captured
from layergraph import execute as execute_here
from tests.ionn_edge.conftest import Serve
from tests.ionn_edge.peer import Peer, chain, lacking, segment
from tests.ionn_edge.visitors import Paired, house, two_devices
from tests.support import blobs
from wire import messages

SESSION = pytest.mark.asyncio(loop_scope="session")
GRAPH, WEIGHTS = chain(3)
NAME = GRAPH.fingerprint
BLOBS = blobs(GRAPH, WEIGHTS)
X = torch.linspace(-1, 1, 8).reshape(1, 8)


def another(weight: int) -> tuple[LayerGraph, dict[str, torch.Tensor]]:
    """A model that differs in one weight."""
    name = GRAPH.weights[weight].name
    weights = {**WEIGHTS, name: WEIGHTS[name] + 1}
    digest = sha256(bytes(blobs(GRAPH, weights)[weight])).digest()
    rows = list(GRAPH.weights)
    rows[weight] = replace(rows[weight], digest=digest)
    return replace(GRAPH, weights=tuple(rows)), weights


def stage(directory: Path, graph: LayerGraph = GRAPH, weights: Any = WEIGHTS) -> None:
    put(directory / GRAPH_FILE, [msgpack.packb(graph.to_plain())])
    for weight, blob in zip(graph.weights, blobs(graph, weights), strict=True):
        put(directory / weight.digest.hex(), [blob])


async def bring(box: Box, graph: LayerGraph = GRAPH, weights: Any = WEIGHTS, name: str = "") -> str:
    with staging(box.store.directory, 0) as directory:
        stage(directory, graph, weights)
        return await publish(box, graph.fingerprint, name)


async def _runs(peer: Peer, graph: LayerGraph = GRAPH, weights: Any = WEIGHTS) -> None:
    _, (live,) = await peer.run(1, 0, 3, (X,))
    assert torch.equal(live, execute_here(graph, weights, 0, 3, (X,))[0])


def files(box: Box) -> list[str]:
    return [path.name for path in box.store.published.place.directory.iterdir()]


@SESSION
async def test_a_device_that_comes_afterwards_uploads_what_differs(
    tmp_path: Path, nursery: Nursery
) -> None:
    other_graph, other_weights = another(1)
    async with two_devices(tmp_path, nursery) as (at, glasses, watch):
        assert await bring(at.box) == NAME
        assert list(staged(at.box.store.directory).iterdir()) == []
        async with Paired(glasses, at) as peer, Paired(watch, at) as other:
            await peer.greet()
            have = await peer.ask(GRAPH)
            assert isinstance(have, messages.Have)
            assert not lacking(have)
            await _runs(peer)
            await other.greet()
            assert await other.ask(other_graph) == messages.Unknown(other_graph.fingerprint)
            assert lacking(await other.offer(other_graph)) == {1}
            await other.upload(1, blobs(other_graph, other_weights)[1])
            await _runs(other, other_graph, other_weights)
            assert at.box.store.shelf(watch.id).used_bytes == 256
        # Again changes nothing, and a box that starts again still has it.
        before = sorted(files(at.box))
        assert await bring(at.box) == NAME
        assert sorted(files(at.box)) == before
    async with house(tmp_path, nursery, announce=False) as at:
        said = {"fingerprint": NAME, "total_bytes": 768}
        assert (await at.questions["published"](said))["published"]


@SESSION
async def test_a_device_without_the_model_learns_nothing_of_it(
    tmp_path: Path, nursery: Nursery
) -> None:
    other_graph, _ = chain(2, seed=7)
    async with two_devices(tmp_path, nursery) as (at, glasses, _), Paired(glasses, at) as peer:
        before = await peer.greet()
        await peer.send(messages.GetLoad())
        load = await peer.hear(messages.Load)
        await bring(at.box)
        await peer.send(messages.GetLoad())
        after = await peer.hear(messages.Load)
        assert (after.memory_bytes, after.used_bytes) == (load.memory_bytes, load.used_bytes)
        assert after.models == ()
        async with Paired(glasses, at) as again:
            welcome = await again.greet()
            assert (welcome.epoch, welcome.memory_bytes) == (before.epoch, before.memory_bytes)
            assert await again.ask(other_graph) == messages.Unknown(other_graph.fingerprint)
            assert lacking(await again.offer(other_graph)) == {0, 1}


@SESSION
async def test_who_is_sending_it_need_send_no_more(serve: Serve) -> None:
    async with serve() as (box, url), Peer(url) as peer:
        await peer.greet()
        await peer.offer(GRAPH)
        await peer.upload(0, BLOBS[0], stop=10)
        await bring(box)
        await _runs(peer)
        await peer.send(*segment(0, BLOBS[0], 10, 5))
        await peer.hear(messages.ChunkAck)
        held = await peer.hear(messages.Held)
        assert (held.count, held.complete) == (64, True)


@SESSION
async def test_room_is_made_of_what_is_idle_and_never_of_what_runs(serve: Serve) -> None:
    other_graph, other_weights = chain(2, seed=5)
    async with serve(memory_bytes=1000) as (box, url), Peer(url) as peer:
        await peer.open(other_graph, other_weights)
        (client,) = box.clients
        box.opening[client] = other_graph.fingerprint
        with pytest.raises(ControlError, match="in use at the moment; try later"):
            await bring(box)
        assert files(box) == []
        del box.opening[client]
        await bring(box)
        assert (await peer.hear(messages.Evicted)).fingerprint == other_graph.fingerprint
        # What is left for devices is too little for that now: they are told so, and no figures.
        refused = await peer.fails_with("memory", *_offer(other_graph))
        assert "beside what its operator has published" in refused
        assert unpublish(box, NAME[:8]) == NAME
        assert files(box) == []


@SESSION
async def test_a_name_is_enough_to_unpublish_what_alone_has_it(serve: Serve) -> None:
    async with serve() as (box, _):
        for number in (1, 2):
            await bring(box, *another(number), name="faces")
        unnamed = await bring(box)
        with pytest.raises(ControlError, match="2 models are called 'faces'; give one's finger"):
            unpublish(box, "faces")
        with pytest.raises(ControlError, match="no model here is called ''"):
            unpublish(box, "")
        first = another(1)[0].fingerprint
        assert unpublish(box, first) == first
        assert unpublish(box, "faces") == another(2)[0].fingerprint
        assert list(box.store.published.models) == [unnamed]


def _offer(graph: LayerGraph) -> tuple[messages.Message, ...]:
    return (messages.Offer(graph.fingerprint, msgpack.packb(graph.to_plain())),)


@SESSION
async def test_what_the_budget_has_no_room_for_is_refused_before_it_is_written(
    serve: Serve,
) -> None:
    async with serve(memory_bytes=1000) as (box, _):
        ask = PublishingQuestions(box, lambda what: what).handlers()
        with pytest.raises(ControlError, match=r"take 10.7 GB, and the box's memory budget is"):
            await ask["published"]({"fingerprint": NAME, "total_bytes": 10 << 30})
        await bring(box)
        with pytest.raises(ControlError, match=r"256 bytes more, and .* with 768 bytes published"):
            await bring(box, *another(2))
        assert list(box.store.published.models) == [NAME]


@SESSION
async def test_what_is_on_its_way_stays_while_another_model_goes(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    other_graph, other_weights = another(1)
    hashing, may_go_on = threading.Event(), threading.Event()

    def slowly(path: Path) -> bytes | None:
        hashing.set()
        assert may_go_on.wait(60)
        return digest_of(path)

    async with serve() as (box, url):
        await bring(box)
        monkeypatch.setattr(admission, "digest_of", slowly)
        # It shares two weights with the first, which are there and not brought.
        bringing = asyncio.create_task(bring(box, other_graph, other_weights))
        assert await asyncio.to_thread(hashing.wait, 30)
        assert unpublish(box, NAME) == NAME
        may_go_on.set()
        assert await bringing == other_graph.fingerprint
        assert list(box.store.published.models) == [other_graph.fingerprint]
        assert box.store.published.used_bytes == 768
        async with Peer(url) as peer:
            await peer.greet()
            have = await peer.ask(other_graph)
            assert isinstance(have, messages.Have)
            assert not lacking(have)
            await _runs(peer, other_graph, other_weights)


@SESSION
async def test_what_was_on_its_way_goes_if_it_comes_to_nothing(serve: Serve) -> None:
    other_graph, other_weights = another(1)
    async with serve() as (box, _):
        await bring(box)
        with staging(box.store.directory, 0) as directory:
            stage(directory, other_graph, other_weights)
            path = directory / other_graph.weights[1].digest.hex()
            path.write_bytes(b"x" * 256)
            with pytest.raises(ControlError, match="not what its graph says"):
                await publish(box, other_graph.fingerprint)
        assert box.store.published.used_bytes == 768
        unpublish(box, NAME)
        assert (files(box), box.store.published.used_bytes) == ([], 0)


@SESSION
async def test_a_models_name_is_kept_and_terminals_obey_none(tmp_path: Path) -> None:
    def asked(box: Box) -> Any:
        return PublishingQuestions(box, lambda what: what).handlers()["publish"]

    def names(store: Store) -> list[str]:
        return [row["name"] for row in store_rows(store)["published"]]

    with opened_store(tmp_path) as box:
        with staging(box.store.directory, 0) as directory:
            stage(directory)
            name = "resnet\x1b[2J\n" + "x" * 1000
            await asked(box)({"fingerprint": NAME, "name": name})
        kept = "resnet[2J" + "x" * (MOST_NAME - 9)
        assert names(box.store) == [kept]
        await box.nursery.close()
    with opened_store(tmp_path) as box:
        assert names(box.store) == [kept]
        # As an earlier version wrote it.
        published = box.store.published
        (model,) = published.models.values()
        content = msgpack.packb([model.fingerprint, model.layers, model.weights])
        write_sealed(published._record(NAME), published.place, content)
    with opened_store(tmp_path) as box:
        assert names(box.store) == [""]


@contextlib.contextmanager
def opened_store(directory: Path) -> Iterator[Box]:
    box = Box(Config(store=directory / "store", state=directory / "state", threads=1))
    box.open()
    try:
        yield box
    finally:
        box.close()


HARMS: dict[str, tuple[Callable[[Path], object], str]] = {
    "another graph": (
        lambda at: (at / GRAPH_FILE).write_bytes(msgpack.packb(chain(2)[0].to_plain())),
        "offered as",
    ),
    "no msgpack": (lambda at: (at / GRAPH_FILE).write_bytes(b"\xc1" * 9), "not msgpack"),
    "a pickle": (lambda at: (at / GRAPH_FILE).write_bytes(b"\x80\x04."), "does not run this"),
    "no graph": (lambda at: (at / GRAPH_FILE).unlink(), "no such file"),
    "a long graph": (lambda at: os.truncate(at / GRAPH_FILE, 17 << 20), "more than 16.8 MB"),
    "other bytes": (lambda at: _weight(at).write_bytes(b"x" * 256), "not what its graph says"),
    "a short weight": (lambda at: os.truncate(_weight(at), 100), "not what its graph says"),
    "no weight": (lambda at: _weight(at).unlink(), "no such file"),
    "a directory": (lambda at: (_weight(at).unlink(), _weight(at).mkdir()), "is no file"),
    "a link": (lambda at: (_weight(at).unlink(), _weight(at).symlink_to("/etc/passwd")), "no file"),
}


def _weight(directory: Path) -> Path:
    return directory / GRAPH.weights[1].digest.hex()


@SESSION
@pytest.mark.parametrize("harm", HARMS)
async def test_what_is_not_right_is_not_published_at_all(serve: Serve, harm: str) -> None:
    do, text = HARMS[harm]
    async with serve() as (box, url):
        with staging(box.store.directory, 0) as directory:
            stage(directory)
            do(directory)
            with pytest.raises(ControlError, match=text):
                await publish(box, NAME)
        assert (files(box), box.store.published.blobs) == ([], {})
        # It can be brought again, and a device finds nothing until then.
        async with Peer(url) as peer:
            await peer.greet()
            assert await peer.ask(GRAPH) == messages.Unknown(NAME)
        assert await bring(box) == NAME


@SESSION
async def test_an_operator_outside_of_the_table_is_not_published(serve: Serve) -> None:
    node = replace(GRAPH.nodes[1], op="aten.system.default")
    graph = replace(GRAPH, nodes=(GRAPH.nodes[0], node, GRAPH.nodes[2]))
    async with serve() as (box, _):
        with pytest.raises(ControlError, match=r"does not run this model: .*aten\.system"):
            await bring(box, graph)
        assert files(box) == []


@SESSION
async def test_a_weight_that_was_damaged_is_published_again(serve: Serve) -> None:
    async with serve() as (box, _):
        await bring(box)
        path = box.store.published.place.blob(GRAPH.weights[0].digest)
    path.write_bytes(b"x" * 256)
    said = {"fingerprint": NAME, "total_bytes": 768}
    async with serve() as (box, url):
        ask = PublishingQuestions(box, lambda what: what).handlers()
        assert not (await ask["published"](said))["published"]
        await bring(box)
        assert (await ask["published"](said))["published"]
        async with Peer(url) as peer:
            await peer.greet()
            await peer.ask(GRAPH)
            await _runs(peer)


# Killed on the way.

_KILLED = """
import os, signal, sys
from pathlib import Path
from ionn_edge.storage.blobs import digest_of
from ionn_edge.machine.events import Model
from ionn_edge.storage.staging import put, staging
from ionn_edge.storage.store import Store
from hashlib import sha256

DATA = [name.encode() * 100 for name in "abc"]
MODEL = Model("f" * 64, 3, tuple((sha256(data).digest(), 100, "uint8") for data in DATA))
CALLS = [(os, "fsync"), (os, "pwritev"), (Path, "rename"), (os, "write"), (Path, "unlink")]

def counted(owner, name, left):
    real = getattr(owner, name)
    def call(*args, **kwargs):
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1
        return real(*args, **kwargs)
    setattr(owner, name, call)

def publish(store):
    with staging(store.directory, 300) as directory:
        for data in DATA:
            put(directory / sha256(data).hexdigest(), [data])
        store.published.take(MODEL, directory)
        for name in store.published.unverified():
            path = store.published.place.directory / name.hex()
            store.published.verified(name, digest_of(path))
        store.published.record(MODEL, b"graph", "a network")

def child(directory, steps):
    store = Store(directory, 1000)
    store.open(b"s" * 32)
    left = [steps]
    for owner, name in CALLS:
        counted(owner, name, left)
    publish(store)
    os._exit(0)

for steps in range(200):
    directory = Path(sys.argv[1]) / str(steps)
    pid = os.fork()
    if not pid:
        child(directory, steps)
    _, status = os.waitpid(pid, 0)
    store = Store(directory, 1000)
    store.open(b"s" * 32)
    there = sorted(path.name for path in store.published.place.directory.iterdir())
    left = list((directory / "publishing").iterdir()) if (directory / "publishing").exists() else []
    print(len(store.published.models), len(there), store.published.used_bytes, len(left))
    publish(store)
    assert not store.published.lacking(MODEL.sizes) and store.published.used_bytes == 300
    store.close()
    if not status:
        break
"""


def test_killed_at_any_step_all_of_it_is_published_or_nothing(tmp_path: Path) -> None:
    run = [sys.executable, "-c", _KILLED, str(tmp_path)]
    said = subprocess.run(run, capture_output=True, text=True, timeout=120)
    assert said.returncode == 0, said.stderr
    rows = [tuple(map(int, line.split())) for line in said.stdout.splitlines()]
    assert len(rows) > 15
    nothing, everything = (0, 0, 0, 0), (1, 5, 300, 0)
    # Whether the record has its name decides.
    assert rows == sorted(rows)
    assert set(rows) == {nothing, everything}


def test_one_publishes_at_a_time_and_what_a_killed_one_left_goes(tmp_path: Path) -> None:
    with staging(tmp_path, 0) as directory:
        put(directory / "a", [b"a"])
        with (
            pytest.raises(StorageError, match="another model is being published"),
            staging(tmp_path, 0),
        ):
            pass
        drop_staged(tmp_path)
        assert [path.name for path in directory.iterdir()] == ["a"]
    assert list(directory.iterdir()) == []
    (directory / "left").write_bytes(b"a")
    drop_staged(tmp_path)
    assert list(directory.iterdir()) == []


def test_a_full_disk_is_told_and_nothing_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        pytest.raises(StorageError, match=r"takes 1125.9 TB, and the disk of .* free"),
        staging(tmp_path, 1 << 50),
    ):
        pass

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(staging_module, "append", full)
    with (
        pytest.raises(StorageError, match="no space left on device"),
        staging(tmp_path, 10) as directory,
    ):
        put(directory / "a", [b"a"])
    assert list(directory.iterdir()) == []


# Commands.


def outside() -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    """A model with an operator that is in no table."""

    class Outside(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.linalg.cholesky(x @ x.mT)

    return Outside(), (torch.eye(3),)


def _command(directory: Path, *arguments: str) -> tuple[int, str]:
    places = ["--state", str(directory / "state"), "--store", str(directory / "store")]
    said = CliRunner().invoke(app, [*arguments, *places])
    assert not isinstance(said.exception, Exception), said.exception
    return said.exit_code, said.output


def test_a_stopped_box_publishes_a_file_when_it_starts(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_captured(path, GRAPH, WEIGHTS)
    code, said = _command(tmp_path, "publish", str(path), "--json")
    assert (code, json.loads(said)) == (
        0,
        {"fingerprint": NAME, "total_bytes": 768, "was_published": False},
    )
    code, said = _command(tmp_path, "publish", str(path))
    assert (code, "is published already: 768 bytes" in said) == (0, True)
    code, said = _command(tmp_path, "cache", "ls", "--json")
    rows = json.loads(said)
    assert (rows["published"], rows["used_bytes"]) == (
        [{"fingerprint": NAME, "name": "model.safetensors", "total_bytes": 768}],
        768,
    )
    code, said = _command(tmp_path, "cache", "ls")
    assert f"  model.safetensors ({NAME[:16]})  768 bytes\n" in said
    code, said = _command(tmp_path, "unpublish", "model.safetensors")
    assert (code, said) == (0, f"{NAME[:16]} is not published any more.\n")
    assert list((tmp_path / "store" / "published").iterdir()) == []


@pytest.mark.parametrize(
    ("status", "arguments", "text"),
    [
        (2, ["publish", "nosuchnet"], "there is no network 'nosuchnet'"),
        (2, ["publish", "no.such:factory"], "there is no module 'no.such' here"),
        (1, ["publish", "/no/such/model.safetensors"], "cannot be read: No such file"),
        (1, ["publish", "pickle.pt2"], "holds pickles: reading it would run code"),
        (1, ["publish", "short.safetensors"], "is no captured model"),
        (1, ["publish", "tests.ionn_edge.test_publishing:outside"], "not in the operator table"),
        (1, ["publish", "abcdef", "--from", "nobody"], "no paired device is called 'nobody'"),
        (1, ["publish", "abcdef", "--from", LOOPBACK.id], "no model here is called 'abcdef'"),
        (1, ["unpublish", "abcdef"], "no model here is called 'abcdef'"),
    ],
)
def test_what_cannot_be_published_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, arguments: list[str], text: str
) -> None:
    root = str(Path(__file__).parents[2])
    monkeypatch.syspath_prepend(root)
    monkeypatch.chdir(tmp_path)
    torch.save(outside()[1], "pickle.pt2")
    save_captured("whole", GRAPH, WEIGHTS)
    Path("short.safetensors").write_bytes(Path("whole").read_bytes()[:-1])
    code, said = _command(tmp_path, *arguments)
    assert (code, said.count("\n")) == (status, 1)
    assert said.startswith("ionn edge: ")
    assert text in said
    store = tmp_path / "store"
    assert [*store.glob("published/*"), *store.glob("publishing/*")] == []
