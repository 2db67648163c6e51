"""The parts of benchmarks/link.py that a wrong figure could come from."""

from __future__ import annotations

import asyncio
import math
import os
import socket
import struct
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import baselines
import delay
from isolated import ANSWER_BYTES, Isolated
from link_figures.figures import Figure, at_least, at_most, percentile
from link_figures.loaded import Round
from link_figures.path import Cell, cpu_s

from pairing.identity import Identity
from pairing.tls import server_context


@pytest.mark.parametrize(
    ("values", "share", "value"),
    [([3.0], 0.5, 3.0), ([4.0, 1.0, 3.0, 2.0], 0.5, 2.0), (list(range(1, 101)), 0.95, 95)],
)
def test_a_percentile_is_a_value_that_was_seen(
    values: list[float], share: float, value: float
) -> None:
    assert percentile(values, share) == value


def test_nothing_measured_keeps_no_bound() -> None:
    assert math.isnan(percentile([], 0.5))
    assert not at_most(1.0).holds(math.nan)
    assert not at_least(1.0).holds(math.nan)


def test_a_figure_says_whether_its_bound_holds() -> None:
    assert Figure("goodput", "ours", 0.97, "of capacity", at_least(0.97)).ok is True
    assert Figure("latency", "ours", 1.2, "x idle", at_most(1.15)).plain()["ok"] is False
    assert Figure("latency", "naive", 9.0, "x idle").ok is None


def test_a_cells_queue_is_its_time_of_the_rate_and_never_less_than_some_packets() -> None:
    assert Cell("80mbit", "40ms", "500ms").spec().queue_bytes == 5_000_000
    assert Cell("80kbit", "2ms", "50ms").spec().queue_bytes == 4 * 1_514
    assert Cell(None).name == "loopback, unshaped"


def test_an_upload_beside_large_queries_is_smaller_by_what_they_take() -> None:
    small, large = (Round.of(size, 30.0, 2.5e6) for size in (1_000, 150_000))
    assert 0.99 * 75e6 < small.upload_bytes < 75e6
    assert large.upload_bytes == pytest.approx(75e6 * 0.1 / (0.1 + 0.06), rel=0.01)


def test_processor_time_counts_what_the_children_used() -> None:
    assert 0 < cpu_s(os.getpid()) < 1e6
    assert cpu_s(2**22 + 1) == 0.0


@pytest.fixture
async def servers() -> AsyncIterator[dict[str, int]]:
    frames = await asyncio.start_server(baselines.serve_frames, "127.0.0.1", 0)
    ports = {"frames": frames.sockets[0].getsockname()[1]}
    async with frames:
        yield ports


@pytest.mark.parametrize("kind", [baselines.Echo, baselines.Naive])
async def test_a_baseline_answers_queries_of_every_size(servers: dict[str, int], kind: Any) -> None:
    contender = await kind.open("127.0.0.1", servers["frames"])
    for size in (1, 1_000, 300_000):
        await asyncio.wait_for(contender.query(bytes(size)), 60)
    await contender.close()


async def test_the_encrypted_echo_is_encrypted() -> None:
    tls = server_context(Identity.create("echo"), ())
    server = await asyncio.start_server(baselines.serve_frames, "127.0.0.1", 0, ssl=tls)
    async with server:
        echo = await baselines.EncryptedEcho.open(*server.sockets[0].getsockname())
        assert echo._writer.get_extra_info("cipher")[1] == "TLSv1.3"
        for size in (1, 300_000):
            await asyncio.wait_for(echo.query(bytes(size)), 60)
        await echo.close()


async def test_the_isolated_echo_answers_by_what_the_layer_makes_of_the_query() -> None:
    isolated = Isolated()
    try:
        for size in (1, 300_000):
            answer = await asyncio.wait_for(isolated.run(b"\x07" * size), 60)
            assert answer == struct.pack("f", 14.0).ljust(ANSWER_BYTES, b"\0")
    finally:
        await isolated.close()


async def test_the_naive_connection_uploads_everything_and_answers_meanwhile(
    servers: dict[str, int],
) -> None:
    naive = await baselines.Naive.open("127.0.0.1", servers["frames"])
    uploading = asyncio.ensure_future(naive.upload(3 * baselines.PIECE_BYTES + 1))
    await asyncio.wait_for(naive.query(b"x"), 60)
    await asyncio.wait_for(uploading, 60)
    await naive.close()


async def test_grpc_does_the_same() -> None:
    pytest.importorskip("grpc")
    server, port = await baselines.serve_grpc("127.0.0.1")
    contender = await baselines.Grpc.open("127.0.0.1", port)
    await asyncio.wait_for(contender.upload(2 * baselines.PIECE_BYTES + 1), 60)
    await asyncio.wait_for(contender.query(bytes(300_000)), 60)
    await contender.close()
    await server.stop(None)


async def test_pieces_are_the_whole_upload() -> None:
    size = 2 * baselines.PIECE_BYTES + 5
    assert sum([len(piece) async for piece in baselines._pieces(size)]) == size


def test_packets_leave_in_order_and_not_before_their_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(delay.time, "monotonic", lambda: now[0])
    (source, far), (sink, out) = (
        socket.socketpair(type=socket.SOCK_DGRAM) for _ in range(2)
    )  # fmt: skip
    for end in (source, far, sink, out):
        end.setblocking(False)
    way = delay.Way(source.fileno(), sink.fileno(), 0.02)
    far.send(b"first")
    way.take()
    now[0] += 0.01
    far.send(b"second")
    way.take()
    assert way.deliver() == pytest.approx(0.01)
    with pytest.raises(BlockingIOError):
        out.recv(100)
    now[0] += 0.011
    assert way.deliver() == pytest.approx(0.009)
    assert out.recv(100) == b"first"
    now[0] += 0.01
    assert way.deliver() is None
    assert out.recv(100) == b"second"
    for end in (source, far, sink, out):
        end.close()
