"""What is said in records of one byte: heard, counted, and ended where it is a flood."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import torch

from ionn_edge.doors.arrivals import MOST_RECORDS, RECORD_HEADER_BYTES, RECORD_S, Records
from ionn_edge.doors.pace import Pace
from ionn_edge.workers.nursery import Nursery
from tests.ionn_edge.peer import Peer, chain
from tests.ionn_edge.test_frames import frame
from tests.ionn_edge.visitors import Paired, two_devices
from wire import encode, messages

SESSION = pytest.mark.asyncio(loop_scope="session")
GRAPH, WEIGHTS = chain(3)
X = torch.linspace(-1, 1, 8).reshape(1, 8)
RECORD = b"\x17\x03\x03" + (18).to_bytes(2, "big") + bytes(18)


def test_records_are_counted_up_to_a_limit_and_no_further() -> None:
    records, size = Records(), len(RECORD)
    assert records.follow(memoryview(RECORD * 3 + RECORD[:2])) == (3 * size + 2, True)
    assert (records.waiting, records.missing_bytes) == (3, 0)
    assert records.follow(memoryview(RECORD[2:])) == (size - 2, True)
    assert records.waiting == 4
    assert size == RECORD_HEADER_BYTES + 18
    assert records.follow(memoryview(RECORD * 9), 8) == (4 * size, True)
    assert records.follow(memoryview(RECORD * 9), 8) == (0, False)
    records.follow(memoryview(RECORD * 100_000))
    assert records.waiting == MOST_RECORDS + 1


def says(peer: Peer, data: bytes) -> None:
    """Each byte in a record of its own."""
    transport: Any = peer.socket._response.connection.transport  # type: ignore[union-attr]
    for at in range(len(data)):
        transport.write(data[at : at + 1])


@SESSION
async def test_a_message_in_records_of_one_byte_is_heard_and_counted(
    tmp_path: Path, nursery: Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    spent: list[float] = []
    received = Pace.buffer_updated

    def noted(self: Pace, nbytes: int) -> None:
        before = self._spent_s
        received(self, nbytes)
        spent.append(self._spent_s - before)

    monkeypatch.setattr(Pace, "buffer_updated", noted)
    async with two_devices(tmp_path, nursery) as (at, glasses, _), Paired(glasses, at) as peer:
        await peer.greet()
        spent.clear()
        ping = frame(b"".join(encode(messages.Ping(7))))
        says(peer, ping)
        assert (await peer.hear(messages.Pong)).token == 7
        assert sum(spent) >= 0.999 * len(ping) * RECORD_S


@SESSION
async def test_a_flood_of_them_keeps_no_neighbour_waiting(tmp_path: Path, nursery: Nursery) -> None:
    async with two_devices(tmp_path, nursery) as (at, glasses, watch):
        async with Paired(glasses, at) as peer, Paired(watch, at) as other:
            await other.open(GRAPH, WEIGHTS)
            await peer.greet()
            # A large frame, which nobody could count before it is whole.
            says(peer, b"\x82\xff" + (1 << 20).to_bytes(8, "big") + bytes(40 * MOST_RECORDS))
            for query in range(20):
                await other.run(query, 0, 3, (X,))
        async with Paired(glasses, at) as again:
            await again.greet()


@SESSION
async def test_a_stranger_has_a_request_and_no_more(
    tmp_path: Path, nursery: Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "ionn_edge")
    async with two_devices(tmp_path, nursery) as (at, glasses, _), glasses.http(at) as http:
        async with http.ws_connect(at.url("/pair")) as desk:
            transport: Any = desk._response.connection.transport  # type: ignore[union-attr]
            for _ in range(40 * MOST_RECORDS):
                transport.write(b"\x82")
            ended = (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)
            assert (await desk.receive(20.0)).type in ended
        assert "next to nothing" in caplog.text
