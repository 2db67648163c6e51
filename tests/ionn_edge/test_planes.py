"""Weights that come by planes, over real sockets: usable early, exact at the end, never lost."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ionn_edge.link import Link
from ionn_edge.storage import blobs as blobs_module
from layergraph import execute as execute_here
from tests.ionn_edge.conftest import Serve
from tests.ionn_edge.peer import (
    COARSE,
    FINE,
    MIDDLE,
    WHOLE,
    Peer,
    blobs,
    chain,
    execute,
    lacking,
    partial,
    segment,
)
from wire import DEFAULT_LIMITS, messages
from wire.planes import approximate
from wire.segments import decode_segment, encode_segment

pytestmark = pytest.mark.asyncio(loop_scope="session")

GRAPH, WEIGHTS = chain(3)
BLOBS = blobs(GRAPH, WEIGHTS)
X = torch.linspace(-1, 1, 8).reshape(1, 8)


def approximated(precision: str) -> dict[str, torch.Tensor]:
    """The weights as the edge has them before they are exact."""
    planes = (COARSE,) if precision == "float8" else (COARSE, MIDDLE)
    tensors = {}
    for weight, blob in zip(GRAPH.weights, BLOBS, strict=True):
        words = None
        for plane in planes:
            coded = encode_segment("float32", plane, blob, 0, 64, "raw")
            words = decode_segment("float32", plane, 64, "raw", coded, words)
        assert words is not None
        buffer = approximate(planes[-1], words)
        tensors[weight.name] = torch.frombuffer(buffer, dtype=torch.float32).reshape(8, 8)
    return tensors


async def ends_with(peer: Peer, code: str, said: list[messages.Message]) -> str:
    """Say a segment whose last chunk ends the connection; the error's text."""
    await peer.send(*said)
    for _ in said[1:]:
        await peer.hear(messages.ChunkAck)
    return await peer.fails_with(code)


async def opened(peer: Peer) -> messages.Have:
    await peer.greet()
    return await peer.offer(GRAPH)


@pytest.mark.parametrize("coding", ["raw", "planes"])
async def test_every_plane_makes_the_answer_better_until_it_is_exact(
    serve: Serve, tmp_path: Path, coding: str
) -> None:
    async with serve() as (box, url), Peer(url) as peer:
        await opened(peer)
        for plane, precision in ((COARSE, "float8"), (MIDDLE, "bfloat16"), (FINE, "exact")):
            for weight, blob in enumerate(BLOBS):
                held = await peer.upload(weight, blob, plane, coding=coding)
                assert held.complete == (plane == FINE)
            result, (live,) = await peer.run(1, 0, 3, (X,), precision)
            assert (result.stop, result.precision) == (3, precision)
            used = WEIGHTS if precision == "exact" else approximated(precision)
            assert torch.equal(live, execute_here(GRAPH, used, 0, 3, (X,))[0])
        assert (await peer.run(2, 0, 3, (X,), "float8"))[0].precision == "exact"
        assert box.store.used_bytes == 768
        assert not list((tmp_path / "store").glob("*/*.*.*"))


async def test_whole_weights_come_in_byte_planes_as_well(serve: Serve) -> None:
    async with serve() as (_, url), Peer(url) as peer:
        await opened(peer)
        for weight, blob in enumerate(BLOBS):
            await peer.upload(weight, blob, WHOLE, coding="planes")
        _, (live,) = await peer.run(1, 0, 3, (X,))
        assert torch.equal(live, execute_here(GRAPH, WEIGHTS, 0, 3, (X,))[0])


async def test_a_query_gets_the_precision_that_it_demands_or_fewer_layers(serve: Serve) -> None:
    async with serve() as (_, url), Peer(url) as peer:
        await opened(peer)
        await peer.upload(0, BLOBS[0])
        await peer.upload(1, BLOBS[1], COARSE)
        result, _ = await peer.run(1, 0, 3, (X,), "float8")
        assert (result.stop, result.precision) == (2, "float8")
        result, _ = await peer.run(2, 0, 3, (X,), "exact")
        assert (result.stop, result.precision) == (1, "exact")
        await peer.send(execute(3, 1, 3, (X,), precision="bfloat16"))
        refused = await peer.hear(messages.Error)
        assert (refused.code, refused.query) == ("not-uploaded", 3)


async def test_planes_go_on_after_a_broken_connection_and_after_a_restart(
    serve: Serve,
) -> None:
    async with serve() as (_, url):
        async with Peer(url) as peer:
            await opened(peer)
            await peer.upload(0, BLOBS[0], COARSE)
            await peer.upload(0, BLOBS[0], MIDDLE, stop=30)
            await peer.upload(1, BLOBS[1], COARSE, stop=10)
        async with Peer(url) as peer:
            have = await opened(peer)
            assert partial(have) == [(0, COARSE, 64), (0, MIDDLE, 30), (1, COARSE, 10)]
            await peer.upload(0, BLOBS[0], MIDDLE, start=30)
            await peer.upload(0, BLOBS[0], FINE, stop=7)
    async with serve() as (_, url), Peer(url) as peer:
        have = await opened(peer)
        assert lacking(have) == {0, 1, 2}
        assert partial(have) == [(0, COARSE, 64), (0, MIDDLE, 64), (0, FINE, 7), (1, COARSE, 10)]
        assert (await peer.upload(0, BLOBS[0], FINE, start=7)).complete
        _, (live,) = await peer.run(2, 0, 1, (X,))
        assert torch.equal(live, execute_here(GRAPH, WEIGHTS, 0, 1, (X,))[0])


@pytest.mark.parametrize("boots", [("a", "b"), (None, None)], ids=["reboot", "no boot id"])
async def test_planes_do_not_outlive_the_machine(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, boots: tuple[str | None, ...]
) -> None:
    monkeypatch.setattr(blobs_module, "_BOOT", _Boot(boots[0]))
    async with serve() as (_, url), Peer(url) as peer:
        await opened(peer)
        await peer.upload(0, BLOBS[0], COARSE)
        await peer.upload(0, BLOBS[0], MIDDLE)
        await peer.upload(0, BLOBS[0], FINE, stop=7)
        await peer.upload(1, BLOBS[1], COARSE, stop=10)
    monkeypatch.setattr(blobs_module, "_BOOT", _Boot(boots[1]))
    async with serve() as (_, url), Peer(url) as peer:
        # Exact bytes have the digest to tell in the end; they go on whole.
        assert partial(await opened(peer)) == [(0, WHOLE, 7)]
        assert (await peer.upload(0, BLOBS[0], WHOLE, start=7)).complete
        await peer.upload(1, BLOBS[1], COARSE)


class _Boot:
    def __init__(self, name: str | None) -> None:
        self._name = name

    def read_text(self) -> str:
        if self._name is None:
            raise FileNotFoundError("boot_id")
        return f"{self._name}\n"


async def test_more_beginnings_than_a_message_can_tell_of_are_given_up(serve: Serve) -> None:
    limits = replace(DEFAULT_LIMITS, max_weights=3)
    async with serve(limits=limits) as (_, url):
        async with Peer(url) as peer:
            await opened(peer)
            await peer.upload(2, BLOBS[2])
            for weight in (0, 1):
                await peer.upload(weight, BLOBS[weight], COARSE)
            await peer.upload(0, BLOBS[0], MIDDLE)
        async with Peer(url) as peer:
            assert len(partial(await opened(peer))) == 3
            await peer.upload(1, BLOBS[1], MIDDLE)
        async with Peer(url) as peer:
            have = await opened(peer)
            assert (have.runs, have.partial) == ((2, 1), ())
            await peer.upload(0, BLOBS[0], COARSE)


# What must not be.


@pytest.mark.parametrize(
    ("before", "said", "text"),
    [
        ((), (MIDDLE, 0), "0 of 64 elements of coarse"),
        ((), (FINE, 0), "0 of 64 elements of coarse"),
        ((COARSE,), (FINE, 0), "0 of 64 elements of middle"),
        ((COARSE,), (WHOLE, 0), "came by planes"),
        ((COARSE, MIDDLE), (FINE, 5), "at 5, expected 0"),
    ],
    ids=["middle first", "fine first", "fine before middle", "whole", "gap"],
)
async def test_a_plane_out_of_order_is_refused_and_nothing_is_lost(
    serve: Serve, before: tuple[int, ...], said: tuple[int, int], text: str
) -> None:
    async with serve() as (_, url):
        async with Peer(url) as peer:
            await opened(peer)
            for plane in before:
                await peer.upload(0, BLOBS[0], plane)
            announced = segment(0, BLOBS[0], said[1], 5, said[0])[0]
            assert text in await peer.fails_with("unexpected", announced)
        async with Peer(url) as peer:
            assert partial(await opened(peer)) == [(0, plane, 64) for plane in before]


async def test_a_plane_of_an_unknown_blob_is_refused_and_nothing_is_lost(serve: Serve) -> None:
    async with serve() as (_, url):
        async with Peer(url) as peer:
            await opened(peer)
            await peer.upload(0, BLOBS[0], COARSE)
            announced = messages.Segment(77, COARSE, 0, 5, "raw", 8)
            assert "the model has 3" in await peer.fails_with("malformed", announced)
        async with Peer(url) as peer:
            assert partial(await opened(peer)) == [(0, COARSE, 64)]


def _cut(payload: bytes) -> bytes:
    return payload[:-1]


def _flipped(payload: bytes) -> bytes:
    middle = len(payload) // 2
    return payload[:middle] + bytes([payload[middle] ^ 0xFF]) + payload[middle + 1 :]


def _longer(payload: bytes) -> bytes:
    return payload + b"\0"


def _bomb(_: bytes) -> bytes:
    import zstandard

    frame = zstandard.compress(bytes(10 << 20))
    return len(frame).to_bytes(4, "little") + frame + b"\0" * 40


@pytest.mark.parametrize("damage", [_cut, _longer, _bomb], ids=lambda damage: damage.__name__[1:])
@pytest.mark.parametrize("plane", [COARSE, MIDDLE, FINE, WHOLE])
async def test_a_segment_that_does_not_decode_is_refused_and_nothing_is_lost(
    serve: Serve, plane: int, damage: Callable[[bytes], bytes]
) -> None:
    # Exponents alike, so that zstd has something to do.
    blob = memoryview(torch.ones(64).numpy()).cast("B")
    async with serve() as (_, url):
        async with Peer(url) as peer:
            await opened(peer)
            for before in (COARSE, MIDDLE)[: plane - 1] if plane else ():
                await peer.upload(0, BLOBS[0], before)
            await peer.upload(0, BLOBS[0], plane, stop=10)
            payload = damage(bytes(encode_segment("float32", plane, blob, 10, 50, "planes")))
            said = [
                messages.Segment(0, plane, 10, 50, "planes", len(payload)),
                messages.Chunk(payload),
            ]
            assert "not decode" in await ends_with(peer, "coding", said)
        async with Peer(url) as peer:
            assert partial(await opened(peer))[-1] == (0, plane, 10)
            for rest in range(plane, FINE + 1) if plane else (WHOLE,):
                held = await peer.upload(0, BLOBS[0], rest, start=10 if rest == plane else 0)
            assert held.complete


async def test_planes_with_wrong_bits_are_found_out_at_the_end_and_dropped(serve: Serve) -> None:
    wrong = memoryview(_flipped(bytes(BLOBS[0])))
    async with serve() as (_, url):
        async with Peer(url) as peer:
            await opened(peer)
            await peer.upload(1, BLOBS[1], COARSE)
            await peer.upload(0, wrong, COARSE)
            await peer.upload(0, wrong, MIDDLE)
            text = await ends_with(peer, "digest", segment(0, wrong, 0, 64, FINE))
            assert "do not match its digest" in text
        async with Peer(url) as peer:
            assert partial(await opened(peer)) == [(1, COARSE, 64)]
            for plane in (COARSE, MIDDLE, FINE):
                held = await peer.upload(0, BLOBS[0], plane)
            assert held.complete


async def test_planes_that_got_lost_on_the_disk_are_told_and_can_be_sent_again(
    serve: Serve, tmp_path: Path
) -> None:
    async with serve() as (_, url):
        async with Peer(url) as peer:
            await opened(peer)
            await peer.upload(0, BLOBS[0], COARSE)
            (coarse,) = (tmp_path / "store").glob("*/*.0.coarse")
            os.truncate(coarse, 100)
            text = await ends_with(peer, "digest", segment(0, BLOBS[0], 0, 64, MIDDLE))
            assert "got lost" in text
        async with Peer(url) as peer:
            assert partial(await opened(peer)) == []
            for plane in (COARSE, MIDDLE, FINE):
                held = await peer.upload(0, BLOBS[0], plane)
            assert held.complete


@pytest.mark.parametrize("plane", [COARSE, MIDDLE, FINE])
async def test_a_full_disk_in_any_plane_is_told_and_what_is_held_stays(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, plane: int
) -> None:
    async with serve() as (_, url):
        async with Peer(url) as peer:
            await opened(peer)
            for before in range(COARSE, plane):
                await peer.upload(0, BLOBS[0], before)
            await peer.upload(0, BLOBS[0], plane, stop=10)
            with monkeypatch.context() as patched:
                patched.setattr(os, "pwritev", _disk_full)
                text = await ends_with(peer, "storage", segment(0, BLOBS[0], 10, 5, plane))
            assert "no space left on device" in text
        async with Peer(url) as peer:
            assert partial(await opened(peer))[-1] == (0, plane, 10)
            held = await peer.upload(0, BLOBS[0], plane, start=10)
            assert held.count == 64


def _disk_full(*_: object) -> int:
    raise OSError(28, "No space left on device")


async def test_planes_beyond_the_budget_are_refused_with_the_reason(serve: Serve) -> None:
    async with serve(memory_bytes=800) as (box, url):
        async with Peer(url) as peer:
            await opened(peer)
            text = await ends_with(peer, "memory", segment(0, BLOBS[0], 0, 64, COARSE))
            # Planes of 4 bytes and a tensor of 4 per element, of 3 x 64 elements.
            assert "needs 1.5 KB more" in text
        assert box.store.used_bytes <= 800
        async with Peer(url) as peer:
            await peer.open(GRAPH, WEIGHTS)


async def test_planes_of_one_client_are_not_another_clients_to_run(serve: Serve) -> None:
    async with serve() as (_, url), Peer(url) as first, Peer(url) as second:
        await opened(first)
        await opened(second)
        await first.upload(0, BLOBS[0], COARSE)
        await second.send(execute(1, 0, 1, (X,), precision="float8"))
        assert (await second.hear(messages.Error)).code == "not-uploaded"
        for plane in (MIDDLE, FINE):
            await first.upload(0, BLOBS[0], plane)
        # Exact ones are, since their digest was verified.
        result, _ = await second.run(2, 0, 1, (X,))
        assert result.precision == "exact"


async def test_planes_that_another_left_are_gone_on_with_and_not_run(serve: Serve) -> None:
    async with serve() as (_, url):
        async with Peer(url) as stranger:
            await opened(stranger)
            await stranger.upload(0, memoryview(_flipped(bytes(BLOBS[0]))), COARSE)
            await stranger.upload(1, BLOBS[1], COARSE, stop=10)
        async with Peer(url) as peer:
            assert partial(await opened(peer)) == [(0, COARSE, 64), (1, COARSE, 10)]
            await peer.upload(0, BLOBS[0], MIDDLE)
            await peer.upload(1, BLOBS[1], COARSE, start=10)
            await peer.upload(2, BLOBS[2], COARSE)
            for start in (0, 1):
                await peer.send(execute(start, start, 3, (X,), precision="float8"))
                assert (await peer.hear(messages.Error)).code == "not-uploaded"
            result, _ = await peer.run(2, 2, 3, (X,), "float8")
            assert result.precision == "float8", "all of these planes are its own"
            for plane in (MIDDLE, FINE):
                await peer.upload(1, BLOBS[1], plane)
            assert (await peer.run(3, 1, 2, (X,), "float8"))[0].precision == "exact"


async def test_planes_are_run_by_a_worker_that_was_started_again(serve: Serve) -> None:
    async with serve() as (box, url), Peer(url) as peer:
        await opened(peer)
        await peer.upload(0, BLOBS[0], COARSE)
        (link,) = box.clients
        assert isinstance(link, Link)
        assert link._served.worker is not None
        os.kill(link._served.worker.pid, signal.SIGKILL)
        while True:
            await peer.send(execute(1, 0, 1, (X,), precision="float8"))
            answer = await peer.hear(messages.Message)
            if isinstance(answer, messages.Result):
                break
        assert answer.precision == "float8"
