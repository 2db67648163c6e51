"""Workers that know a client's graph, and graphs that are known before a client asks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from ionn_edge import jobs
from ionn_edge.box import Box
from ionn_edge.engine import EngineError, Worker, WorkerGone
from ionn_edge.events import Model
from wire import DTYPE_BYTES

NONSENSE = "the graph made its worker talk nonsense"
# Of the graphs that earlier runs checked, so many are loaded at the start.
MOST_LEARNED = 32


class Refused(Exception):
    """The model is not taken. `code` is an error's, or "unknown" where only a name was offered."""

    def __init__(self, code: str, text: str = "") -> None:
        super().__init__(text)
        self.code = code


async def worker_for(box: Box, check: jobs.Check) -> tuple[Worker, Model]:
    """A worker that knows the graph, and what it says about it. Raises Refused."""
    try:
        worker = await box.nursery.fork()
    except EngineError as error:
        raise Refused("overloaded", str(error)) from error
    try:
        return worker, await _checked(worker, check, box.config.range_timeout_s)
    except BaseException:
        await worker.close()
        raise


async def known_graph(box: Box, check: jobs.Check) -> tuple[jobs.Check, Model | None]:
    """An offer by name alone, with the graph, and with the model if it is known well enough.

    Raises Refused("unknown").
    """
    loop = asyncio.get_running_loop()
    graph = await loop.run_in_executor(box.writers, box.graphs.load, check.fingerprint)
    if graph is None:
        raise Refused("unknown")
    found = jobs.Check(check.fingerprint, graph, check.store, True)
    return found, box.graphs.known(check.fingerprint)


async def learn_graphs(box: Box) -> None:
    """Load what earlier runs checked, so that no client has to wait for that."""
    fingerprints = [each for each in box.graphs.kept() if box.graphs.known(each) is None]
    if not fingerprints:
        return
    with contextlib.suppress(EngineError):
        worker = await box.nursery.fork()
        try:
            for fingerprint in fingerprints[:MOST_LEARNED]:
                await _learn(box, worker, fingerprint)
        finally:
            await worker.close()


async def _learn(box: Box, worker: Worker, fingerprint: str) -> None:
    store = str(box.store.directory)
    with contextlib.suppress(Refused):
        check, _ = await known_graph(box, jobs.Check(fingerprint, b"", store))
        try:
            box.graphs.learned(await _checked(worker, check, box.config.range_timeout_s))
        except Refused as refusal:
            if refusal.code == "graph":
                box.graphs.drop(fingerprint)


async def _checked(worker: Worker, check: jobs.Check, timeout_s: float) -> Model:
    worker.send(check)
    try:
        async with asyncio.timeout(timeout_s):
            answer = await worker.receive()
    # Not "graph", which is final: a box short of memory or time may check it later.
    except WorkerGone as error:
        raise Refused("overloaded", f"the graph cannot be checked: {error}") from error
    except TimeoutError as error:
        text = f"checking the graph took more than {timeout_s:g} s"
        raise Refused("overloaded", text) from error
    match answer:
        case jobs.Checked(layers, weights) if _sound(weights):
            return Model(check.fingerprint, layers, weights)
        case jobs.Refused(code, text):
            raise Refused(code, text)
    raise Refused("graph", NONSENSE)


def _sound(weights: Sequence[tuple[bytes, int, str]]) -> bool:
    """Whether a worker speaks of weights: it is believed as little as the graph's owner."""
    try:
        return all(
            type(digest) is bytes and size >= 0 and size % DTYPE_BYTES[dtype] == 0
            for digest, size, dtype in weights
        )
    except (TypeError, ValueError, KeyError):
        return False
