"""What stands between a transport and its protocol, and hands on what it does not look at."""

from __future__ import annotations

import asyncio


class Between(asyncio.BaseProtocol):
    """Everything but what comes in and how it begins."""

    _inner: asyncio.Protocol | asyncio.BufferedProtocol

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()
