"""A few questions to a box, beside any session: what it says of itself, and how it answers.

Judges nothing of what it hears but that it is an answer to what was asked.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import aiohttp

from ionn_client.boxes.access import Access
from ionn_client.boxes.connection import conversing
from ionn_client.errors import EdgeRejected, VersionMismatch
from wire import (
    DEFAULT_LIMITS,
    Decoder,
    Encoder,
    RemoteProtocolError,
    check_welcome,
    hello,
    messages,
)

TIMEOUT_S = 3.0
DESCRIPTION_PATH, ABOUT_PATH = "/", "/about"
MAX_ANSWER_BYTES = 1 << 16
# What goes wrong with a box, or with the way to it.
TROUBLES = (
    *(aiohttp.ClientError, OSError, TimeoutError, ValueError),
    *(RemoteProtocolError, EdgeRejected),
)
_Answer = TypeVar("_Answer", bound=messages.Message)


class Ended(ConnectionError):
    """The box has ended the conversation."""


@dataclass(slots=True)
class Inquiry:
    """Questions and answers in turn, on a connection of its own."""

    socket: aiohttp.ClientWebSocketResponse
    decoder: Decoder = field(default_factory=lambda: Decoder(DEFAULT_LIMITS))

    async def greet(self, agent: str) -> messages.Welcome:
        """The first question. Raises as `ask` does, and for a version that is not spoken here."""
        welcome = await self.ask(hello(agent), messages.Welcome)
        check_welcome(welcome)
        return welcome

    async def ask(self, question: messages.Message, kind: type[_Answer]) -> _Answer:
        """The answer of that kind; a Load that comes unasked is passed over.

        Raises EdgeRejected for a refusal, Ended, and RemoteProtocolError for anything else.
        """
        for frame in Encoder(DEFAULT_LIMITS).encode(question):
            # Any buffer will do; aiohttp's annotation knows only bytes.
            await self.socket.send_bytes(cast(bytes, frame))
        while True:
            message = await self._heard()
            if isinstance(message, kind):
                return message
            if isinstance(message, messages.Error):
                refusal = VersionMismatch if message.code == "version" else EdgeRejected
                raise refusal(message.text, message.code)
            if isinstance(message, messages.Bye):
                raise Ended(f"it ends the conversation ({message.reason})")
            if message is not None and not isinstance(message, messages.Load):
                raise RemoteProtocolError(f"it answers {type(message).__name__}")

    async def _heard(self) -> messages.Message | None:
        """The next message, None while only part of it is there."""
        heard = await self.socket.receive()
        if heard.type is aiohttp.WSMsgType.BINARY:
            return self.decoder.feed(heard.data)
        if heard.type is aiohttp.WSMsgType.TEXT:
            raise RemoteProtocolError("it sends text")
        raise Ended("it ends the conversation")


@asynccontextmanager
async def inquiring(access: Access) -> AsyncIterator[Inquiry]:
    """All questions inside together take TIMEOUT_S at most. Raises one of TROUBLES."""
    async with asyncio.timeout(TIMEOUT_S), conversing(access) as socket:
        yield Inquiry(socket)


async def described(access: Access) -> dict[str, Any]:
    """What it says of itself to anybody. Raises one of TROUBLES; ValueError for what is no edge."""
    told = await _plain(access, DESCRIPTION_PATH, {})
    if told is None or told.get("what") != "an IONN edge box":
        raise ValueError("it does not say that it is an edge")
    return told


async def about(access: Access) -> dict[str, Any] | None:
    """What it says to devices that it serves; None if it says no such thing. Raises TROUBLES."""
    try:
        return await _plain(access, ABOUT_PATH, access.headers)
    except aiohttp.ClientResponseError as error:
        # Of a version from before there was such a question.
        if error.status == 404:
            return None
        raise


async def _plain(access: Access, path: str, headers: dict[str, str]) -> dict[str, Any] | None:
    """An answer in JSON; None for anything but a map. Raises one of TROUBLES."""
    async with (
        asyncio.timeout(TIMEOUT_S),
        access.http() as http,
        http.get(
            access.url(path), headers=headers, ssl=access.tls, allow_redirects=False
        ) as answer,
    ):
        body = bytearray()
        async for part in answer.content.iter_chunked(4096):
            body += part
            if len(body) > MAX_ANSWER_BYTES:
                raise ValueError("it says too much: that is no edge")
        answer.raise_for_status()
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return told if isinstance(told, dict) else None
