"""What announcements make of a box that is known, and what becomes of a pairing that has changed
while a device was away: where it connects, and what the person hears."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ionn_client import cli
from ionn_client.boxes.access import Access
from ionn_client.boxes.address import EdgeAddress
from ionn_client.boxes.connection import Connection
from ionn_client.boxes.known_boxes import KnownBoxes
from ionn_client.boxes.pair import Attempt, pair
from ionn_client.commands.discover import follow
from ionn_edge.doors.announce import announced
from tests.ionn_edge.visitors import House, house, once_announced


def address(at: House) -> EdgeAddress:
    return EdgeAddress("127.0.0.1", at.port)


def by_code(at: House) -> Attempt:
    return Attempt.by_code(address(at), at.desk.code or "")


@pytest.fixture
def client(tmp_path: Path) -> Path:
    return tmp_path / "client"


def ionn(*args: str) -> str:
    found = CliRunner().invoke(cli.app, list(args))
    assert found.exit_code == 0, found.output
    return " ".join(found.output.split())


# Where it is.


async def test_a_box_that_moved_is_followed_once_it_proves_who_it_is(
    tmp_path: Path, client: Path
) -> None:
    async with house(tmp_path) as at:
        box = await pair(by_code(at), client)
    boxes = KnownBoxes(client)
    async with house(tmp_path) as moved, house(tmp_path / "another") as other:
        liars = [address(other), EdgeAddress("127.0.0.1", 9)]
        await follow(box, liars, boxes)
        assert boxes.all() == [box]
        await follow(box, [*liars, address(moved)], boxes)
        access = Access.to("hall", client)
        async with access.http() as http:
            await Connection.open(http, access)


async def test_a_box_that_is_still_there_is_followed_to_nobody_who_passes_on_what_it_says(
    tmp_path: Path, client: Path
) -> None:
    async with house(tmp_path) as at, relay(at.port) as between:
        box = await pair(by_code(at), client)
        assert await Access(between, box).answers_guests(), "the certificate is the box's own"
        await follow(box, [between], KnownBoxes(client))
        assert KnownBoxes(client).all() == [box]


@contextlib.asynccontextmanager
async def relay(port: int) -> AsyncIterator[EdgeAddress]:
    """Somebody in between, who passes all on to that port."""

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to, back = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pass_on(reader, back), pass_on(to, writer))

    async with await asyncio.start_server(serve, "127.0.0.1") as server:
        yield EdgeAddress("127.0.0.1", server.sockets[0].getsockname()[1])


async def test_what_somebody_else_announces_is_not_shown_as_the_box(
    tmp_path: Path, client: Path
) -> None:
    state = ("--state", str(client))
    async with house(tmp_path) as at, house(tmp_path / "another") as other:
        await pair(by_code(at), client)
        async with announced("hall 2", "127.0.0.1", other.port, at.guard.identity.fingerprint):
            look = ("discover", "--seconds", "1.5", *state)
            there = str(address(other))
            found = json.loads(await once_announced(there, *look, "--json"))
            assert [box["paired_as"] for box in found if box["address"] == there] == [None]


# Whether it still knows this device.


async def test_a_session_goes_on_with_a_token_that_was_got_meanwhile(
    tmp_path: Path, client: Path
) -> None:
    async with house(tmp_path) as at:
        await pair(by_code(at), client)
        access = Access.to("hall", client)
        await pair(by_code(at), client)
        async with access.http() as http:
            with pytest.raises(ConnectionError, match="paired anew"):
                await Connection.open(http, access)
            await Connection.open(http, access)


async def test_a_person_is_told_to_pair_again(tmp_path: Path, client: Path) -> None:
    run = ("run", "--edge", "hall", "--network", "lenet", "--queries", "1", "--interval", "0",
           "--state", str(client))  # fmt: skip
    async with house(tmp_path) as at:
        await pair(by_code(at), client)
        await at.questions["unpair"]({"device": at.guard.registry.all()[0].device.id})
        said = await asyncio.to_thread(ionn, *run)
        for words in ("hall", "unpaired there", "pair again", "`ionn pair`"):
            assert words in said
