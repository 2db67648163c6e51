"""An edge over loopback, talked to message by message by a client written by hand."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import signal
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import msgpack
import pytest
import torch
import zstandard

from ionn_edge import box as box_module
from ionn_edge import link, served
from ionn_edge.cache import forget
from ionn_edge.doors.devices import LOOPBACK, Device
from ionn_edge.storage import writing
from ionn_edge.storage.parts import Part
from ionn_edge.storage.places import Place
from ionn_edge.storage.secret import cache_secret
from ionn_edge.workers.engine import Worker
from ionn_edge.workers.nursery import Nursery
from layergraph import LayerGraph, tensor_to_buffer
from layergraph import execute as execute_here
from layergraph.nodes import Layer, Node, Ref, TensorSpec, Weight, WeightRef
from tests.ionn_edge.conftest import Serve
from tests.ionn_edge.peer import (
    Peer,
    blobs,
    chain,
    execute,
    lacking,
    offer,
    partial,
    segment,
    tensors_of,
)
from wire import TENSOR_CODINGS, Encoder, hello, messages
from wire.activations import decode_tensor, encode_tensor
from wire.planes import WHOLE

pytestmark = pytest.mark.asyncio(loop_scope="session")

GRAPH, WEIGHTS = chain(3)
BLOBS = blobs(GRAPH, WEIGHTS)
X = torch.linspace(-1, 1, 8).reshape(1, 8)


# Conversation.


async def test_a_box_says_what_it_is(serve: Serve) -> None:
    async with serve(memory_bytes=1 << 20) as (_, url), aiohttp.ClientSession() as http:
        async with http.get(url.removesuffix("/ionn")) as response:
            said = await response.json()
        assert said["what"] == "an IONN edge box"
        assert said["protocol"] == {"path": "/ionn", "oldest": 2, "newest": 2}
        assert (said["paired_only"], said["fingerprint"]) == (False, None)
        assert "clients" not in said
        async with http.get(url) as response:
            assert response.status == 426
            assert "WebSocket" in await response.text()


async def test_a_browser_is_not_talked_to(serve: Serve) -> None:
    async with serve() as (_, url), aiohttp.ClientSession() as http:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
            await http.ws_connect(url, origin="https://example.com")
        assert refusal.value.status == 403


async def test_hello_is_answered_with_what_the_box_is_and_takes(serve: Serve) -> None:
    async with serve(memory_bytes=12345) as (box, url), Peer(url) as peer:
        welcome = await peer.greet()
        assert (welcome.version, welcome.device, welcome.threads) == (2, "cpu", 1)
        assert welcome.memory_bytes == 12345
        assert welcome.epoch == box.epoch(LOOPBACK.id)
        async with Peer(url) as other:
            lane = (await other.greet()).lane
        assert len(lane) == 32
        assert lane != welcome.lane


async def test_an_unknown_version_is_refused_with_both_ranges(serve: Serve) -> None:
    async with serve() as (_, url), Peer(url) as peer:
        text = await peer.fails_with("version", messages.Hello(7, 9, "future"))
        assert "the client speaks versions 7 to 9, the edge version 2" in text


@pytest.mark.parametrize(
    ("frame", "text"),
    [
        (msgpack.packb([99]), "unknown message kind 99"),
        (b"\xff\xff", "short list"),
        (b"", "short list"),
        (msgpack.packb([1, 1, 1]), "3 fields, not 2"),
        (msgpack.packb([5, 1 << 30]), "Chunk.payload"),
    ],
    ids=["unknown kind", "junk", "empty", "too few fields", "chunk too large"],
)
async def test_what_is_no_message_is_answered_with_the_reason(
    serve: Serve, frame: bytes, text: str
) -> None:
    async with serve() as (_, url), Peer(url) as peer:
        await peer.greet()
        await peer.socket.send_bytes(frame)
        assert text in await peer.fails_with("malformed")


async def test_what_follows_a_bad_message_is_not_looked_at(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    async with serve() as (_, url), Peer(url) as peer:
        await peer.greet()
        connection = peer.socket._response.connection
        assert connection is not None
        assert connection.transport is not None
        # All at once, so that more of them than the first are read: masked frames of 3 bytes.
        connection.transport.write(b"\x82\x83\0\0\0\0abc" * 50)
        assert (await peer.hear(messages.Error)).code == "malformed"
        assert await peer.heard_close() == 1000
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_a_text_frame_is_answered_with_the_reason(serve: Serve) -> None:
    async with serve() as (_, url), Peer(url) as peer:
        await peer.greet()
        await peer.socket.send_str("hello")
        assert "text frame" in await peer.fails_with("malformed")


async def test_a_frame_beyond_every_limit_is_cut_off_unread(serve: Serve) -> None:
    async with serve() as (box, url), Peer(url) as peer:
        await peer.greet()
        # The edge hangs up as soon as it sees the length, so that much of it is never sent.
        with contextlib.suppress(ConnectionError):
            await peer.socket.send_bytes(bytes(box.config.limits.max_frame_bytes + 1))
        assert await peer.heard_close() in (1006, 1009)
        async with Peer(url) as other:
            await other.greet()


async def test_a_message_cut_off_harms_nobody(serve: Serve) -> None:
    async with serve() as (box, url):
        async with Peer(url) as peer:
            await peer.greet()
            await peer.offer(GRAPH)
            announced, chunk, *_ = segment(0, BLOBS[0], 0, 25)
            await peer.send(announced)
            header, _ = Encoder(inline_bytes=0).encode(chunk)
            await peer.socket.send_bytes(header)
        async with Peer(url) as peer:
            await peer.open(GRAPH, WEIGHTS)
        assert not await _left(box)


async def _left(box: Any) -> set[Any]:
    """The box's clients, once those that said goodbye are gone."""
    box.drain()
    async with asyncio.timeout(60):
        await box.empty.wait()
    clients: set[Any] = box.clients
    return clients


async def test_one_client_too_many_is_told_so(serve: Serve) -> None:
    async with serve(max_clients=1) as (_, url), Peer(url) as first, Peer(url) as second:
        await first.greet()
        assert "at most 1 clients" in await second.fails_with("overloaded", hello("t"))


# Offers.


def altered(**changes: Any) -> messages.Offer:
    """GRAPH's offer with some of its plain form changed, under its true fingerprint."""
    plain = {**GRAPH.to_plain(), **changes}
    try:
        fingerprint = LayerGraph.from_plain(plain).fingerprint
    except Exception:
        fingerprint = GRAPH.fingerprint
    return messages.Offer(fingerprint, msgpack.packb(plain))


PLAIN = GRAPH.to_plain()
BAD_OFFERS = {
    "junk": (messages.Offer("f", b"\xc1junk"), "not msgpack"),
    "unknown operator": (
        altered(nodes=[["aten.system.default", *node[1:]] for node in PLAIN["nodes"]]),
        "aten.system.default",
    ),
    "cycle": (
        altered(nodes=[[node[0], [["v", 3], *node[1][1:]], *node[2:]] for node in PLAIN["nodes"]]),
        "dangling reference or a cycle",
    ),
    "dangling reference": (altered(outputs=[["v", 77]]), "value 77"),
    "wrong shape": (
        altered(
            weights=[[name, ["float32", [9, 9]], *rest] for name, _, *rest in PLAIN["weights"]]
        ),
        "linear",
    ),
    "wrong fingerprint": (messages.Offer("0" * 64, offer(GRAPH).graph), "fingerprint"),
}


@pytest.mark.parametrize("name", BAD_OFFERS)
async def test_a_graph_that_must_not_run_is_refused_with_the_reason(
    serve: Serve, name: str
) -> None:
    bad, reason = BAD_OFFERS[name]
    async with serve() as (_, url), Peer(url) as peer:
        await peer.greet()
        assert reason in await peer.fails_with("graph", bad)


async def test_a_model_larger_than_the_budget_is_refused_with_both_sizes(serve: Serve) -> None:
    async with serve(memory_bytes=700) as (_, url), Peer(url) as peer:
        await peer.greet()
        text = await peer.fails_with("memory", offer(GRAPH))
        assert "take 768 bytes" in text
        assert "budget is 700 bytes" in text


async def test_a_weight_declared_with_another_size_than_its_blob_is_refused(serve: Serve) -> None:
    async with serve() as (_, url):
        async with Peer(url) as peer:
            await peer.open(GRAPH, WEIGHTS)
        narrow, _ = chain(1)
        plain = narrow.to_plain()
        digest = GRAPH.weights[1].digest
        plain["inputs"], plain["weights"] = (
            [["float32", [1, 4]]],
            [["w", ["float32", [8, 4]], digest, False]],
        )
        liar = LayerGraph.from_plain(plain)
        async with Peer(url) as peer:
            await peer.greet()
            assert "declared with 128 bytes" in await peer.fails_with("graph", offer(liar))


# Uploads.


async def test_layers_run_one_by_one_as_their_weights_arrive(serve: Serve) -> None:
    async with serve() as (_, url), Peer(url) as peer:
        await peer.greet()
        have = await peer.offer(GRAPH)
        assert (have.runs, have.partial) == ((3,), ())
        live: tuple[torch.Tensor, ...] = (X,)
        await peer.upload(1, BLOBS[1])
        await peer.send(execute(1, 0, 3, live))
        refused = await peer.hear(messages.Error)
        assert (refused.code, refused.query) == ("not-uploaded", 1)
        await peer.upload(0, BLOBS[0])
        result, live = await peer.run(2, 0, 3, live)
        assert result.stop == 2
        assert torch.equal(live[0], execute_here(GRAPH, WEIGHTS, 0, 2, (X,))[0])
        await peer.upload(2, BLOBS[2])
        result, live = await peer.run(3, 2, 3, live)
        assert torch.equal(live[0], execute_here(GRAPH, WEIGHTS, 0, 3, (X,))[0])
        assert result.compute_s > 0


async def test_every_chunk_is_acknowledged_with_the_edges_clock(serve: Serve) -> None:
    async with serve() as (_, url), Peer(url) as peer:
        welcome = await peer.greet()
        await peer.offer(GRAPH)
        said = segment(0, BLOBS[0], 0, 64, chunk_bytes=50)
        await peer.send(*said)
        acks = [await peer.hear(messages.ChunkAck) for _ in range(6)]
        clocks = [welcome.clock_s, *(ack.clock_s for ack in acks)]
        assert clocks == sorted(clocks)
        assert await peer.hear(messages.Held) == messages.Held(0, WHOLE, 64, True)


@pytest.mark.parametrize(
    ("said", "code", "text"),
    [
        (segment(0, BLOBS[0], 25, 10), "unexpected", "at 25, expected 0"),
        ([messages.Segment(0, WHOLE, 0, 65, "raw", 260)], "malformed", "65 of 64 elements"),
        ([messages.Segment(9, WHOLE, 0, 1, "raw", 4)], "malformed", "the model has 3"),
        ([messages.Chunk(b"x")], "unexpected", "of no segment"),
    ],
    ids=["out of order", "too long", "no such weight", "unannounced"],
)
async def test_a_segment_that_does_not_fit_is_refused_with_the_reason(
    serve: Serve, said: list[messages.Message], code: str, text: str
) -> None:
    async with serve() as (_, url), Peer(url) as peer:
        await peer.greet()
        await peer.offer(GRAPH)
        assert text in await peer.fails_with(code, said[0])


async def ends_with(peer: Peer, code: str, said: list[messages.Message]) -> str:
    """Say a segment whose last chunk ends the connection; the error's text."""
    await peer.send(*said)
    for _ in said[1:]:
        await peer.hear(messages.ChunkAck)
    return await peer.fails_with(code)


async def test_a_client_faster_than_the_disk_is_not_read_from(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "MAX_UNSTORED_BYTES", 100 + writing.SEGMENT_BYTES)
    written, go_on = threading.Event(), threading.Event()
    at_once = Part.store

    def slowly(part: Part, *what: Any) -> None:
        written.set()
        assert go_on.wait(60)
        at_once(part, *what)

    monkeypatch.setattr(Part, "store", slowly)
    async with serve() as (_, url), Peer(url) as peer:
        await peer.greet()
        await peer.offer(GRAPH)
        said = [each for at in range(0, 64, 16) for each in segment(0, BLOBS[0], at, 16)]
        await peer.send(*said, messages.Ping(7))
        # Two segments are more than may wait, and the third is not listened to.
        for _ in range(4):
            await peer.hear(messages.ChunkAck)
        await asyncio.to_thread(written.wait, 20)
        async with Peer(url) as other:
            await other.greet()
        go_on.set()
        heard: list[messages.Message] = []
        while messages.Held(0, WHOLE, 64, True) not in heard:
            heard.append(await peer.hear(messages.ChunkAck | messages.Held | messages.Pong))
        assert heard[0] == messages.Held(0, WHOLE, 16, False)
        assert sum(isinstance(each, messages.ChunkAck) for each in heard) == 4


async def test_a_devices_connections_keep_one_thread_with_what_they_store(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, other_weights = chain(2, seed=5)
    storing, crowded, at_once = threading.Semaphore(1), threading.Event(), Part.store

    def alone(part: Part, *what: Any) -> None:
        if not storing.acquire(blocking=False):
            crowded.set()
        else:
            # Long enough for the other's, which is there.
            crowded.wait(0.05)
            storing.release()
        at_once(part, *what)

    monkeypatch.setattr(Part, "store", alone)
    async with serve() as (_, url), Peer(url) as first, Peer(url) as second:
        await asyncio.gather(first.open(GRAPH, WEIGHTS), second.open(other, other_weights))
        assert not crowded.is_set()


async def test_wrong_bytes_are_dropped_and_everything_else_is_kept(serve: Serve) -> None:
    async with serve() as (_, url):
        async with Peer(url) as peer:
            await peer.greet()
            await peer.offer(GRAPH)
            await peer.upload(0, BLOBS[0])
            wrong = memoryview(bytes(BLOBS[1])[::-1])
            text = await ends_with(peer, "digest", segment(1, wrong, 0, 64))
            assert "do not match its digest" in text
        async with Peer(url) as peer:
            await peer.greet()
            have = await peer.offer(GRAPH)
            assert (have.runs, have.partial) == ((0, 1, 2), ())
            await peer.upload(1, BLOBS[1])
            result, _ = await peer.run(1, 0, 2, (X,))
            assert result.stop == 2


async def test_an_upload_goes_on_at_the_segment_where_the_connection_broke(serve: Serve) -> None:
    async with serve() as (_, url):
        async with Peer(url) as peer:
            await peer.greet()
            await peer.offer(GRAPH)
            await peer.upload(0, BLOBS[0], stop=19)
            # Announced, and never complete.
            await peer.send(*segment(0, BLOBS[0], 19, 20)[:-1])
            await peer.hear(messages.ChunkAck)
        async with Peer(url) as peer:
            await peer.greet()
            have = await peer.offer(GRAPH)
            assert (lacking(have), partial(have)) == ({0, 1, 2}, [(0, WHOLE, 19)])
            assert (await peer.upload(0, BLOBS[0], start=19)).complete


async def test_a_full_disk_is_told_and_what_arrived_is_kept(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serve() as (_, url):
        async with Peer(url) as peer:
            await peer.greet()
            await peer.offer(GRAPH)
            await peer.upload(0, BLOBS[0], stop=19)
            with monkeypatch.context() as patched:
                patched.setattr(os, "pwritev", _disk_full)
                text = await ends_with(peer, "storage", segment(0, BLOBS[0], 19, 5))
            assert "no space left on device" in text
        async with Peer(url) as peer:
            await peer.greet()
            assert partial(await peer.offer(GRAPH)) == [(0, WHOLE, 19)]


def _disk_full(*_: object) -> int:
    raise OSError(28, "No space left on device")


async def test_weights_of_an_earlier_run_are_verified_and_used(
    serve: Serve, tmp_path: Path
) -> None:
    async with serve() as (_, url), Peer(url) as peer:
        await peer.open(GRAPH, WEIGHTS)
    secret = cache_secret(tmp_path / "state")
    there = Place.of_device(tmp_path / "store", secret, LOOPBACK.id)
    damaged = there.blob(GRAPH.weights[1].digest)
    assert damaged.stat().st_size == 256
    damaged.write_bytes(bytes(256))
    async with serve() as (_, url), Peer(url) as peer:
        await peer.greet()
        assert (await peer.offer(GRAPH)).runs == (0, 1, 1, 1)
        await peer.upload(1, BLOBS[1])
        _, live = await peer.run(1, 0, 3, (X,))
        assert torch.equal(live[0], execute_here(GRAPH, WEIGHTS, 0, 3, (X,))[0])


# Queries.


async def test_bad_tensors_and_ranges_are_that_querys_error(serve: Serve) -> None:
    async with serve() as (_, url), Peer(url) as peer:
        await peer.open(GRAPH, WEIGHTS)
        for query, bad in enumerate(
            (execute(0, 0, 3, ()), execute(1, 0, 3, (X.double(),)), execute(2, 2, 4, (X,)))
        ):
            await peer.send(bad)
            error = await peer.hear(messages.Error)
            assert (error.code, error.query) == ("input", query)
        await peer.run(3, 0, 3, (X,))


@pytest.mark.parametrize("coding", TENSOR_CODINGS)
async def test_tensors_cross_in_every_coding_and_come_back_as_asked(
    serve: Serve, coding: str
) -> None:
    rows, row_weights = wide()
    x = torch.linspace(-1, 1, 64 * 64).reshape(64, 64).relu()
    async with serve() as (_, url), Peer(url) as peer:
        await peer.open(rows, row_weights)
        raw = messages.Tensor(*tensor_to_buffer(x))
        sent = encode_tensor(raw, coding)
        await peer.send(messages.Execute(1, 0, 1, None, "exact", coding, (sent,)))
        result = await peer.hear(messages.Result)
        (answer,) = result.tensors
        assert answer.coding in {coding, "planes", "raw"}
        (seen,) = tensors_of(replace(result, tensors=(decode_tensor(answer),)))
        (exact,) = execute_here(rows, row_weights, 0, 1, (x,))
        # 8 bits of a value's range, in and out.
        lost = 0.05 if coding.startswith("affine8") else 1e-2 if coding == "float16" else 0.0
        assert torch.allclose(seen, exact, rtol=0.0, atol=lost * float(exact.abs().max()))
        assert result.queue_s >= 0
        assert result.coding_s > 0


def wide() -> tuple[LayerGraph, dict[str, torch.Tensor]]:
    """One ReLU of a matrix that is worth coding, and a weight of one element to add."""
    spec, one = TensorSpec("float32", (64, 64)), torch.zeros(1)
    digest = hashlib.sha256(bytes(4)).digest()
    node = Node("aten.add.Tensor", (Ref(0), WeightRef(0)), (), (spec,), "add")
    return LayerGraph(
        (spec,),
        (Weight("one", TensorSpec("float32", (1,)), digest),),
        (),
        (node,),
        (Layer("add", 0, 1, (0,)),),
        (Ref(1),),
    ), {"one": one}


@pytest.mark.parametrize("coding", ["planes", "float16", "affine8", "affine8-png"])
async def test_a_coded_tensor_cut_short_or_blown_up_is_that_querys_error(
    serve: Serve, coding: str
) -> None:
    rows, row_weights = wide()
    x = torch.linspace(-1, 1, 64 * 64).reshape(64, 64).relu()
    sound = encode_tensor(messages.Tensor(*tensor_to_buffer(x)), coding)
    assert sound.coding == coding
    data = bytes(sound.data)
    bomb = zstandard.compress(bytes(40 << 20))
    async with serve() as (_, url), Peer(url) as peer:
        await peer.open(rows, row_weights)
        for query, bad in enumerate((data[:-1], data[: len(data) // 2], data[:9] + bomb, bomb)):
            tensor = replace(sound, data=bad)
            await peer.send(messages.Execute(query, 0, 1, None, "exact", "raw", (tensor,)))
            error = await peer.hear(messages.Error)
            assert (error.code, error.query) == ("input", query)
        await peer.send(messages.Execute(9, 0, 1, None, "exact", "raw", (sound,)))
        assert (await peer.hear(messages.Result)).query == 9


async def test_a_deadline_that_cannot_be_kept_is_told(serve: Serve) -> None:
    async with serve() as (_, url), Peer(url) as peer:
        await peer.open(GRAPH, WEIGHTS)
        await peer.send(execute(1, 0, 3, (X,), deadline_s=0.0))
        error = await peer.hear(messages.Error)
        assert (error.code, error.query) == ("deadline", 1)
        await peer.send(execute(2, 0, 3, (X,), deadline_s=60.0))
        assert (await peer.hear(messages.Result)).query == 2


async def test_a_cancelled_query_is_not_answered_once_it_waits(serve: Serve) -> None:
    async with serve() as (box, url), Peer(url) as peer:
        await peer.open(GRAPH, WEIGHTS)
        _stop_worker(box)
        await peer.send(
            *(execute(query, 0, 3, (X,)) for query in range(3)),
            messages.Cancel(1),
            messages.Ping(7),
        )
        await peer.hear(messages.Pong)
        _continue_worker(box)
        assert (await peer.hear(messages.Result)).query == 0
        assert (await peer.hear(messages.Result)).query == 2


async def test_too_many_open_queries_are_refused_one_by_one(serve: Serve) -> None:
    async with serve(max_queries=2) as (box, url), Peer(url) as peer:
        await peer.open(GRAPH, WEIGHTS)
        _stop_worker(box)
        await peer.send(*(execute(query, 0, 3, (X,)) for query in range(3)))
        error = await peer.hear(messages.Error)
        assert (error.code, error.query) == ("overloaded", 2)
        _continue_worker(box)
        assert [(await peer.hear(messages.Result)).query for _ in range(2)] == [0, 1]


def _worker(box: Any) -> Worker:
    (link,) = box.clients
    worker: Worker = link._served.worker
    return worker


def _stop_worker(box: Any) -> None:
    """Have the worker do nothing: whatever is asked of it stays under way."""
    os.kill(_worker(box).pid, signal.SIGSTOP)


def _continue_worker(box: Any) -> None:
    os.kill(_worker(box).pid, signal.SIGCONT)


async def test_a_killed_worker_costs_its_queries_and_is_replaced(serve: Serve) -> None:
    async with serve() as (box, url), Peer(url) as peer:
        await peer.open(GRAPH, WEIGHTS)
        _stop_worker(box)
        await peer.send(execute(1, 0, 3, (X,)), messages.Ping(1))
        await peer.hear(messages.Pong)
        os.kill(_worker(box).pid, signal.SIGKILL)
        error = await peer.hear(messages.Error)
        assert (error.code, error.query) == ("execution", 1)
        assert "SIGKILL" in error.text
        _, live = await peer.run(2, 0, 3, (X,))
        assert torch.equal(live[0], execute_here(GRAPH, WEIGHTS, 0, 3, (X,))[0])


async def test_a_range_that_never_ends_is_stopped(serve: Serve) -> None:
    async with serve() as (box, url), Peer(url) as peer:
        await peer.open(GRAPH, WEIGHTS)
        _stop_worker(box)
        (link,) = box.clients
        link.session.config = replace(box.config, range_timeout_s=0.25)
        await peer.send(execute(1, 0, 3, (X,)))
        error = await peer.hear(messages.Error)
        assert (error.code, error.query) == ("execution", 1)
        assert "0.25 s" in error.text
        link.session.config = box.config
        await peer.run(2, 0, 3, (X,))


# Several clients.


async def test_two_clients_at_once_get_their_own_answers(serve: Serve) -> None:
    other, other_weights = chain(2, seed=5)
    async with serve() as (_, url), Peer(url) as first, Peer(url) as second:
        await asyncio.gather(first.open(GRAPH, WEIGHTS), second.open(other, other_weights))
        for query in range(3):
            x = torch.randn(1, 8)
            (_, ours), (_, theirs) = await asyncio.gather(
                first.run(query, 0, 3, (x,)), second.run(query, 0, 2, (x,))
            )
            assert torch.equal(ours[0], execute_here(GRAPH, WEIGHTS, 0, 3, (x,))[0])
            assert torch.equal(theirs[0], execute_here(other, other_weights, 0, 2, (x,))[0])


async def test_what_one_client_uploads_another_of_the_same_model_can_run(serve: Serve) -> None:
    async with serve() as (_, url), Peer(url) as first, Peer(url) as second:
        await first.greet()
        await second.greet()
        assert (await first.offer(GRAPH)).partial == ()
        assert (await second.offer(GRAPH)).partial == ()
        await second.upload(0, BLOBS[0], stop=3)
        await first.upload(0, BLOBS[0])
        result, _ = await second.run(1, 0, 1, (X,))
        assert result.stop == 1
        # The rest of its own copy need not come, and does no harm.
        await second.send(*segment(0, memoryview(bytes(256)), 3, 1))
        await second.hear(messages.ChunkAck)
        assert await second.hear(messages.Held) == messages.Held(0, WHOLE, 64, True)


async def test_a_client_that_reconnects_takes_over_from_its_silent_old_self(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(box_module, "TAKEOVER_S", 0.0)
    async with serve() as (_, url), Peer(url) as old, Peer(url) as new:
        await old.greet()
        await old.offer(GRAPH)
        await old.upload(0, BLOBS[0], stop=19)
        await new.greet()
        assert partial(await new.offer(GRAPH)) == [(0, WHOLE, 19)]
        # Not dead after all: it learns what happened, and would resume in its turn.
        text = await ends_with(old, "unexpected", segment(0, BLOBS[0], 19, 5))
        assert "taken over" in text
        assert (await new.upload(0, BLOBS[0], start=19)).complete


@pytest.mark.parametrize("written", [False, True])
async def test_what_a_stalled_disk_takes_in_the_end_disturbs_nobody_who_took_over_meanwhile(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, written: bool
) -> None:
    monkeypatch.setattr(box_module, "TAKEOVER_S", 0.0)
    began, goes_on = threading.Event(), threading.Event()
    at_once = Part.store

    def stalls_once(part: Part, *what: Any) -> None:
        stalls = not began.is_set()
        if stalls and not written:
            began.set()
            assert goes_on.wait(60)
        at_once(part, *what)
        if stalls and written:
            began.set()
            assert goes_on.wait(60)

    async with serve() as (_, url), Peer(url) as old, Peer(url) as new:
        await old.greet()
        await old.offer(GRAPH)
        await old.upload(0, BLOBS[0], stop=19)
        monkeypatch.setattr(Part, "store", stalls_once)
        await old.send(*segment(0, BLOBS[0], 19, 5))
        await old.hear(messages.ChunkAck)
        assert await asyncio.to_thread(began.wait, 20)
        await new.greet()
        there = 24 if written else 19
        assert partial(await new.offer(GRAPH)) == [(0, WHOLE, there)]
        goes_on.set()
        assert "taken over" in await old.fails_with("unexpected")
        assert (await new.upload(0, BLOBS[0], start=there)).complete


async def test_a_client_that_does_not_read_does_not_hold_up_others(serve: Serve) -> None:
    async with serve(max_unsent_bytes=1000) as (_, url), Peer(url) as deaf, Peer(url) as other:
        await deaf.greet()
        for token in range(3000):
            await deaf.send(messages.Ping(token))
        await other.open(GRAPH, WEIGHTS)
        await other.run(1, 0, 3, (X,))


async def test_the_load_report_tells_models_clients_and_memory(serve: Serve) -> None:
    async with serve(memory_bytes=10_000) as (_, url), Peer(url) as peer, Peer(url) as other:
        await peer.open(GRAPH, WEIGHTS)
        await peer.run(1, 0, 3, (X,))
        await other.greet()
        await other.send(messages.GetLoad())
        load = await other.hear(messages.Load)
        assert (load.clients, load.running, load.queued) == (2, 0, 0)
        assert (load.used_bytes, load.memory_bytes) == (768, 10_000)
        assert load.slowdown >= 1
        assert load.models == (messages.ModelLoad(GRAPH.fingerprint, 768, 768, 1, 1),)


async def test_an_evicted_client_is_told_and_can_offer_again(serve: Serve) -> None:
    other, other_weights = chain(2, seed=5)
    async with serve(memory_bytes=1000) as (_, url), Peer(url) as first, Peer(url) as second:
        epoch = (await first.greet()).epoch
        await first.offer(GRAPH)
        await first.upload(0, BLOBS[0])
        await second.open(other, other_weights)
        evicted = await first.hear(messages.Evicted)
        assert evicted.fingerprint == GRAPH.fingerprint
        assert evicted.epoch != epoch
        # Said before it heard of the eviction.
        await first.send(*segment(1, BLOBS[1], 0, 64), execute(4, 0, 1, (X,)))
        late = await first.hear(messages.Error)
        assert (late.code, late.query) == ("not-uploaded", 4)
        have = await first.offer(GRAPH)
        assert (have.runs, have.partial) == ((3,), ())
        assert have.epoch != evicted.epoch
        assert (await second.hear(messages.Evicted)).fingerprint == other.fingerprint
        await first.upload(0, BLOBS[0])
        await first.run(5, 0, 1, (X,))


async def test_what_waits_for_the_disk_is_forgotten_with_the_model(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, go_on = threading.Event(), threading.Event()
    at_once = Part.store

    def slowly(part: Part, *what: Any) -> None:
        written.set()
        assert go_on.wait(60)
        at_once(part, *what)

    monkeypatch.setattr(Part, "store", slowly)
    async with serve(memory_bytes=1000) as (_, url), Peer(url) as first, Peer(url) as second:
        await first.greet()
        await first.offer(GRAPH)
        await first.send(*(each for at in (0, 16, 32) for each in segment(0, BLOBS[0], at, 16)))
        for _ in range(2 * 3):
            await first.hear(messages.ChunkAck)
        await asyncio.to_thread(written.wait, 20)
        await second.greet()
        await second.offer(chain(2, seed=5)[0])
        await first.hear(messages.Evicted)
        go_on.set()
        await first.send(messages.Ping(7))
        assert (await first.hear(messages.Pong)).token == 7
        await first.offer(GRAPH)
        await first.upload(0, BLOBS[0])


async def test_a_model_that_is_executing_is_not_evicted(serve: Serve) -> None:
    other, _ = chain(2, seed=5)
    async with serve(memory_bytes=1000) as (box, url), Peer(url) as first:
        await first.open(GRAPH, WEIGHTS)
        _stop_worker(box)
        worker = _worker(box)
        await first.send(execute(1, 0, 3, (X,)), messages.Ping(1))
        await first.hear(messages.Pong)
        async with Peer(url) as second:
            await second.greet()
            assert "try later" in await second.fails_with("memory", offer(other))
        os.kill(worker.pid, signal.SIGCONT)
        assert tensors_of(await first.hear(messages.Result))


# Stopping.


async def test_draining_finishes_what_runs_and_says_goodbye(serve: Serve) -> None:
    async with serve() as (box, url), Peer(url) as busy, Peer(url) as idle:
        await idle.greet()
        await busy.open(GRAPH, WEIGHTS)
        (worker,) = (link._served.worker for link in box.clients if link._served.worker)
        os.kill(worker.pid, signal.SIGSTOP)
        await busy.send(execute(1, 0, 3, (X,)), messages.Ping(1))
        await busy.hear(messages.Pong)
        box.drain()
        assert (await idle.hear(messages.Bye)).reason == "draining"
        await busy.send(execute(2, 0, 3, (X,)))
        assert (await busy.hear(messages.Error)).code == "overloaded"
        os.kill(worker.pid, signal.SIGCONT)
        assert (await busy.hear(messages.Result)).query == 1
        assert (await busy.hear(messages.Bye)).reason == "draining"
        assert await busy.heard_close() == 1000
        async with Peer(url) as late:
            assert (await late.hear(messages.Bye)).reason == "draining"


async def test_a_bug_in_one_connection_ends_that_one_only(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with serve() as (box, url), Peer(url) as unlucky, Peer(url) as other:
        await other.open(GRAPH, WEIGHTS)
        await unlucky.greet()
        (link,) = (link for link in box.clients if link.session.model is None)
        monkeypatch.setattr(link.session, "_dispatch", _bug)
        await unlucky.send(messages.Ping(1))
        await unlucky.heard_close()
        await other.run(1, 0, 3, (X,))
        assert "error of our own" in caplog.text


async def test_a_model_evicted_while_its_connection_ends_leaves_no_worker_behind(
    serve: Serve,
) -> None:
    async with serve() as (box, url), Peer(url) as peer:
        await peer.open(GRAPH, WEIGHTS)
        (connection,) = box.clients
        assert isinstance(connection, link.Link)
        worker = connection._served.worker
        assert worker is not None
        # It waits for a goodbye, which this peer does not say yet.
        connection._failure.set_exception(ZeroDivisionError("a bug"))
        await asyncio.sleep(0.05)
        assert not connection._ended.is_set()
        forget(box, LOOPBACK.id)
        await peer.heard_close()
        await connection._ended.wait()
        await connection._served.close()
        assert worker.pid not in box.nursery._workers


def _bug(_: object) -> None:
    raise ZeroDivisionError("a bug")


async def test_answers_count_where_they_are_not_small(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serve() as (box, url), Peer(url) as peer:
        await peer.open(GRAPH, WEIGHTS)
        counted: list[float] = []

        def rest_s(device: Device, spent_s: float) -> float:
            assert device == LOOPBACK
            counted.append(spent_s)
            return 0.0

        monkeypatch.setattr(box, "rest_s", rest_s)
        monkeypatch.setattr(served, "SMALL_S", 0.0)
        monkeypatch.setattr(served, "TURN_S", 1e-9)
        monkeypatch.setattr(link, "TURN_S", 1e-9)
        for query in range(1, 6):
            await peer.run(query, 0, 3, (X,))
        # The last answer may be heard before it is counted.
        assert len(counted) >= 9
        assert min(counted) > 0


async def test_connections_leave_no_workers_behind(serve: Serve, nursery: Nursery) -> None:
    async with serve() as (box, url), Peer(url) as peer:
        await peer.open(GRAPH, WEIGHTS)
        pid = _worker(box).pid
        await peer.send(messages.Bye("done"))
        await peer.heard_close()
    assert "ended" in await nursery.exit_reason(pid)
