"""Workers that know a client's graph, and graphs that are known before a client asks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import replace

from ionn_edge.box import Box
from ionn_edge.config import Config
from ionn_edge.machine.events import Model
from ionn_edge.storage.graphs import Graphs
from ionn_edge.workers import jobs
from ionn_edge.workers.engine import EngineError, Worker, WorkerGone
from wire.messages import Buffer

NONSENSE = "the graph made its worker talk nonsense"
# Of the graphs that earlier runs checked, so many of each device are loaded at the start.
MOST_LEARNED = 32
# A device that nobody is: its own place is empty.
NOBODY = ""


class Refused(Exception):
    """The model is not taken. `code` is an error's, or "unknown" where only a name was offered."""

    def __init__(self, code: str, text: str = "") -> None:
        super().__init__(text)
        self.code = code


async def worker_for(box: Box, check: jobs.Check) -> tuple[Worker, Model]:
    """A worker that knows the graph, and what it says about it. Raises Refused."""
    try:
        # A device is its directory.
        worker = await box.nursery.fork(check.store)
    except EngineError as error:
        raise Refused("overloaded", str(error)) from error
    try:
        return worker, await _checked(worker, check, box.config)
    except BaseException:
        await worker.close()
        raise


def check_of(box: Box, device: str, fingerprint: str, graph: Buffer) -> jobs.Check:
    """What a worker is told of a device's graph, and of where its weights are."""
    own, public = box.store.shelf(device).place, box.store.published.place
    return jobs.Check(
        *(fingerprint, graph, str(own.directory), False),
        *(own.key, str(public.directory), public.key),
    )


async def known_graph(box: Box, device: str, check: jobs.Check) -> tuple[jobs.Check, Model | None]:
    """An offer by name alone, with the graph, and with the model if it is known well enough.

    Known is what the device has offered before, and what is published. Raises
    Refused("unknown").
    """
    loop = asyncio.get_running_loop()
    for graphs in (box.store.published.graphs, box.store.shelf(device).graphs):
        graph = await loop.run_in_executor(box.writers, graphs.load, check.fingerprint)
        if graph is not None:
            return replace(check, graph=graph, known=True), graphs.known(check.fingerprint)
    raise Refused("unknown")


async def learn_graphs(box: Box) -> None:
    """Load what earlier runs checked, so that no client has to wait for that."""
    shelves = [(shelf.device, shelf.graphs) for shelf in box.store.shelves]
    for device, graphs in ((NOBODY, box.store.published.graphs), *shelves):
        fingerprints = [each for each in graphs.kept() if graphs.known(each) is None]
        if fingerprints:
            with contextlib.suppress(EngineError):
                await learn(box, device, graphs, fingerprints[:MOST_LEARNED])


async def learn(box: Box, device: str, graphs: Graphs, fingerprints: Sequence[str]) -> None:
    """Load some of a device's graphs, by a worker that has seen no other's. Raises EngineError."""
    worker = await box.nursery.fork()
    try:
        for fingerprint in fingerprints:
            with contextlib.suppress(Refused):
                check = check_of(box, device, fingerprint, b"")
                check, _ = await known_graph(box, device, check)
                try:
                    graphs.learned(await _checked(worker, check, box.config))
                except Refused as refusal:
                    if refusal.code == "graph":
                        graphs.drop(fingerprint)
    finally:
        await worker.close()


async def _checked(worker: Worker, check: jobs.Check, config: Config) -> Model:
    worker.send(check)
    timeout_s = config.range_timeout_s
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
        case jobs.Checked(layers, weights) if len(weights) <= config.graph_weights:
            return Model(check.fingerprint, layers, weights)
        case jobs.Refused(code, text):
            raise Refused(code, text)
    raise Refused("graph", NONSENSE)
