"""The public API for programs without an event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

import torch

from ionn_client.config import Options
from ionn_client.machine.query import QueryResult
from ionn_client.offload import Offload, connect
from ionn_client.profiled import Profiled
from ionn_client.status import Status
from ionn_client.stream import DEFAULT_TOKENS, StreamResult


class SyncOffload:
    """An Offload for programs without an event loop: the same calls, blocking."""

    def __init__(self, offload: Offload) -> None:
        self._offload = offload
        self._loop: asyncio.AbstractEventLoop | None = None

    def __enter__(self) -> SyncOffload:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=_run, args=(self._loop, self._offload.threads), name="ionn", daemon=True
        )
        self._thread.start()
        try:
            self._wait(self._offload.__aenter__())
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._wait(self._offload.__aexit__(kind, error, trace))
        finally:
            self._stop()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._wait(self._offload(*args, **kwargs))

    def query(
        self,
        *args: Any,
        deadline_s: float | None = None,
        precision: str | None = None,
        **kwargs: Any,
    ) -> QueryResult:
        result: QueryResult = self._wait(
            self._offload.query(*args, deadline_s=deadline_s, precision=precision, **kwargs)
        )
        return result

    def stream(self, source: Iterable[Any], tokens: int = DEFAULT_TOKENS) -> Iterator[StreamResult]:
        results = self._offload.stream(source, tokens)

        async def following() -> StreamResult | None:
            return await anext(results, None)

        try:
            while (result := self._wait(following())) is not None:
                yield result
        finally:
            self._wait(results.aclose())

    def forget(self) -> None:
        self._wait(self._offload.forget())

    def uploaded(self, timeout_s: float | None = None) -> None:
        self._wait(self._offload.uploaded(timeout_s))

    @property
    def status(self) -> Status:
        async def read() -> Status:
            return self._offload.status

        status: Status = self._wait(read())
        return status

    def _wait(self, awaitable: Any) -> Any:
        if self._loop is None:
            awaitable.close()
            raise RuntimeError("this is for use inside `with connect_sync(...) as net:`")
        return asyncio.run_coroutine_threadsafe(awaitable, self._loop).result()

    def _stop(self) -> None:
        loop, self._loop = self._loop, None
        assert loop is not None
        loop.call_soon_threadsafe(loop.stop)
        self._thread.join()
        loop.close()


def connect_sync(
    model: torch.nn.Module | Profiled,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    edge: str,
    options: Options | None = None,
) -> SyncOffload:
    """`connect` for programs without an event loop."""
    return SyncOffload(connect(model, args, kwargs, edge=edge, options=options))


def _run(loop: asyncio.AbstractEventLoop, threads: int) -> None:
    # As in the thread that runs ranges: what is brief runs here (see LocalRunner).
    torch.set_num_threads(threads)
    loop.run_forever()
