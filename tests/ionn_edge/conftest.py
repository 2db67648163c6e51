"""One nursery of workers for all tests of the edge (torch takes seconds to import), and boxes
that listen on loopback within this process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from ionn_edge import box as box_module
from ionn_edge.box import Box
from ionn_edge.config import Config
from ionn_edge.server import bound, serving
from ionn_edge.settings import WorkerSettings
from ionn_edge.workers import nursery as nursery_module
from ionn_edge.workers.nursery import Nursery

Serve = Callable[..., AbstractAsyncContextManager[tuple[Box, str]]]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def nursery() -> AsyncIterator[Nursery]:
    nursery = Nursery(WorkerSettings("cpu", 1))
    with pytest.MonkeyPatch.context() as patient:
        # It imports torch behind all else, which takes minutes on a machine that has no time.
        patient.setattr(nursery_module, "START_TIMEOUT_S", 900.0)
        await nursery.start()
    yield nursery
    await nursery.close()


@pytest.fixture
def serve(nursery: Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Serve:
    """`async with serve(**options) as (box, url)`: an edge with these options of Config."""
    # On a machine that is busy with other things a test may say nothing for a second.
    monkeypatch.setattr(box_module, "TAKEOVER_S", 60.0)

    @asynccontextmanager
    async def serve(**options: Any) -> AsyncIterator[tuple[Box, str]]:
        here = {"store": tmp_path / "store", "state": tmp_path / "state", "port": 0}
        config = Config(**{**here, "threads": 1, "unpaired": True, **options})
        box = Box(config, nursery)
        box.open()
        listener = bound(config.bind, config.port)
        host, port = listener.getsockname()
        try:
            async with serving(box, listener):
                yield box, f"http://{host}:{port}/ionn"
        finally:
            box.close()

    return serve
