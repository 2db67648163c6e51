"""Transcripts of hostile peers, replayed against a real edge, and against the client's session."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest

from ionn_client.machine import events as client_events
from tests.hostile.transcripts import DIRECTORY, SIDES, Text, Transcript, Until, transcripts
from tests.ionn_client.test_session import Bench, X
from tests.ionn_edge.conftest import nursery, serve  # noqa: F401
from tests.ionn_edge.peer import Peer
from tests.support import chain
from wire import Decoder, RemoteProtocolError, messages

CLIENTS, EDGES = (list(transcripts(side)) for side in SIDES)
TIMEOUT_S = 60.0


def test_every_file_is_replayed() -> None:
    assert len(CLIENTS) + len(EDGES) == len(list(DIRECTORY.glob("*.json")))


# Hostile clients.


class Replay:
    """One connection of a hostile client."""

    def __init__(self, link: aiohttp.ClientWebSocketResponse) -> None:
        self._link = link
        self._decoder = Decoder()
        self.errors: list[messages.Error] = []
        self.over = False

    async def say(self, frame: bytes | Text | Until) -> None:
        try:
            if isinstance(frame, Until):
                while not self.over and await self.hear() != frame.until:
                    pass
            elif isinstance(frame, Text):
                await self._link.send_str(frame.text)
            else:
                await self._link.send_bytes(frame)
        except (ConnectionError, aiohttp.ClientError):
            self.over = True

    async def hear(self) -> str:
        """The name of the edge's next message, "" while there is none."""
        frame = await self._link.receive()
        if frame.type is not aiohttp.WSMsgType.BINARY:
            self.over = True
            return ""
        heard = self._decoder.feed(frame.data)
        if isinstance(heard, messages.Error):
            self.errors.append(heard)
        return "" if heard is None else type(heard).__name__


async def replayed(url: str, transcript: Transcript) -> list[messages.Error]:
    """Every error that the edge answers with, up to its end or ours."""
    wanted = len(transcript.answers) + bool(transcript.code)
    ends = bool(transcript.code) or transcript.frames[-1:] == (BYE,)
    async with aiohttp.ClientSession() as http, http.ws_connect(url, compress=0) as link:
        replay = Replay(link)
        async with asyncio.timeout(TIMEOUT_S):
            for frame in transcript.frames:
                await replay.say(frame)
            # What it said before it closed is still to be read.
            while (ends or len(replay.errors) < wanted) and not link.closed:
                await replay.hear()
    return replay.errors


BYE = bytes.fromhex("9210a4646f6e65")


@pytest.mark.asyncio(loop_scope="session")
async def test_no_client_gets_more_than_an_error_or_harms_another(serve: Any) -> None:  # noqa: F811
    graph, weights = chain(seed=3)
    async with serve() as (box, url), Peer(url) as honest:
        await honest.open(graph, weights)
        for number, transcript in enumerate(CLIENTS):
            errors = await replayed(url, transcript)
            ended = [error.code for error in errors if error.query is None]
            answered = [error.code for error in errors if error.query is not None]
            expected = [transcript.code] if transcript.code else []
            assert ended == expected, (transcript.name, errors)
            assert tuple(answered) == transcript.answers, (transcript.name, errors)
            if number % 20 == 0:
                await honest.run(number, 0, 3, (X,))
        await honest.run(1000, 0, 3, (X,))
        assert len(box.clients) <= 2


# Hostile edges.


def heard(transcript: Transcript) -> list[messages.Message | str]:
    """What its frames say, and at the end why no more of them is understood."""
    decoder, said = Decoder(), list[messages.Message | str]()
    for frame in transcript.frames:
        if not isinstance(frame, bytes):
            return [*said, "a text frame"]
        try:
            message = decoder.feed(frame)
        except RemoteProtocolError as error:
            return [*said, str(error)]
        if message is not None:
            said.append(message)
    return said


@pytest.mark.parametrize("transcript", EDGES, ids=lambda transcript: transcript.name)
@pytest.mark.parametrize("asked_before", [0, 1, 3])
def test_whatever_an_edge_says_a_query_is_answered_here(
    transcript: Transcript, asked_before: int
) -> None:
    """The query is asked after so many of the edge's messages."""
    bench, commands = Bench(), []
    bench.step(client_events.Started())
    bench.step(client_events.Connected())
    for number, said in enumerate([*heard(transcript), None, None, None, None]):
        if number == asked_before:
            commands += bench.step(client_events.QueryAsked(0, (X,), None))
        if isinstance(said, str):
            commands += bench.step(client_events.ConnectionLost(said))
        elif said is not None and bench.session.phase not in ("connecting", "rejected"):
            commands += bench.hear(said, after_s=0.001)
    answer = run_out(bench, commands)
    assert answer.query == 0
    assert [tuple(tensor.shape) for tensor in answer.answer.live] == [(1, 8)]


def run_out(bench: Bench, commands: list[Any]) -> client_events.FinishQuery:
    """What runs here is run, and time passes, until the query has its answer."""
    for _ in range(100):
        for command in commands:
            if isinstance(command, client_events.FinishQuery):
                return command
        runs = [each for each in commands if isinstance(each, client_events.RunRange)]
        if runs:
            commands = [each for run in runs for each in bench.local(run)]
        else:
            commands = bench.step(client_events.TimePassed(), after_s=0.5)
    raise AssertionError("the query hangs")
