"""A model of worker processes: the real ones' rules, on the virtual clock and in this process.

Real: the jobs in and out, the checks of a graph and of what a query brings, the files of the
store from which weights are loaded, and the arithmetic. Modelled: how long anything takes, that
what a thread of a worker loads beside the queries is loaded in its turn, and death.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ionn_edge.storage.blobs import blob_path, part_path
from ionn_edge.storage.places import Place
from ionn_edge.workers import jobs
from ionn_edge.workers.engine import EngineError, WorkerGone
from ionn_edge.workers.offered import check_described, graph_from, weight_rows
from layergraph import GraphError, InvalidInput, LayerGraph, tensor_from_buffer, tensor_to_buffer
from layergraph.execute import Live
from tests.simulation.models import EXACT, Model, Poisoned
from wire import DEFAULT_LIMITS, PRECISIONS, RemoteProtocolError
from wire.activations import decode_tensor, encode_tensor
from wire.messages import Tensor
from wire.planes import COARSE, MIDDLE, approximate

if TYPE_CHECKING:
    from tests.simulation.edge import Life

_CHECKED: dict[bytes, tuple[str, jobs.Checked | jobs.Refused]] = {}


class Nursery:
    """Makes workers, as long as the box's machine can."""

    def __init__(self, life: Life) -> None:
        self._life = life

    async def start(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def fork(self, owner: str | None = None) -> Worker:  # noqa: ARG002
        await asyncio.sleep(self._life.rng.uniform(0.001, 0.03))
        if self._life.no_workers:
            raise EngineError("no worker can be started: out of memory")
        worker = Worker(self._life)
        self._life.workers.append(worker)
        return worker


@dataclass(slots=True)
class _Files:
    """Where a device's weights are."""

    check: jobs.Check

    def blob(self, digest: bytes) -> Path:
        check = self.check
        if not check.key:
            return blob_path(Path(check.store), digest)
        own = Place(Path(check.store), check.key).blob(digest)
        if own.exists() or not check.published:
            return own
        return Place(Path(check.published), check.published_key).blob(digest)

    def plane(self, digest: bytes, number: int, kind: str) -> Path:
        check = self.check
        if not check.key:
            return part_path(Path(check.store), digest, number, kind)
        return Place(Path(check.store), check.key).part(digest, number, kind)


class Worker:
    """One worker. Jobs are done in order; `receive` gives their answers in order."""

    def __init__(self, life: Life) -> None:
        self._life = life
        self._jobs: deque[jobs.Job] = deque()
        self._answers: asyncio.Queue[jobs.Job | None] = asyncio.Queue()
        self._busy: asyncio.TimerHandle | None = None
        self._gone = False
        self._graph: LayerGraph | None = None
        self._model: Model | None = None
        self._files = _Files(jobs.Check("", b"", ""))
        # Of each weight: the best rank that is there, and whether its bytes are what they ought.
        self._ranks: dict[int, int] = {}
        self._wrong: dict[int, bytes] = {}

    @property
    def alive(self) -> bool:
        return not self._gone

    def work_for(self, device: str | None, weights_bytes: int) -> None:
        pass

    def send(self, job: jobs.Job) -> None:
        self._jobs.append(job)
        self._go_on()

    async def receive(self) -> jobs.Job:
        answer = None if self._gone and self._answers.empty() else await self._answers.get()
        if answer is None:
            raise WorkerGone("its worker was killed by SIGKILL")
        return answer

    async def close(self) -> None:
        self.die()

    def die(self) -> None:
        if not self._gone:
            self._gone = True
            if self._busy is not None:
                self._busy.cancel()
            self._answers.put_nowait(None)
            if self in self._life.workers:
                self._life.workers.remove(self)

    def _go_on(self) -> None:
        if self._busy is None and self._jobs and not self._gone:
            job = self._jobs.popleft()
            began_s = self._life.loop.time()
            loop = asyncio.get_running_loop()
            self._busy = loop.call_later(self._takes_s(job), self._done, job, began_s)

    def _takes_s(self, job: jobs.Job) -> float:
        life = self._life
        if isinstance(job, jobs.Run):
            return life.compute_s(job.stop - job.start)
        return life.rng.uniform(0.0001, 0.005) * min(life.slowness, 300.0)

    def _done(self, job: jobs.Job, began_s: float) -> None:
        self._busy = None
        answer = self._answer(job, began_s)
        if answer is not None:
            self._answers.put_nowait(answer)
        self._go_on()

    def _answer(self, job: jobs.Job, began_s: float) -> jobs.Job | None:
        match job:
            case jobs.Check():
                return self._check(job)
            case jobs.Ready(weights, precision, number):
                for weight in weights:
                    self._load(weight, PRECISIONS.index(precision), number)
                return None
            case jobs.Run():
                return self._run(job, began_s)
        raise AssertionError(f"{type(job).__name__} is not for a worker here")

    def _check(self, job: jobs.Check) -> jobs.Job:
        if job.graph not in _CHECKED:
            _CHECKED[job.graph] = _checked(job)
        fingerprint, answer = _CHECKED[job.graph]
        if fingerprint != job.fingerprint:
            return jobs.Refused("graph", "it was offered under another fingerprint")
        self._files = _Files(job)
        self._model = self._life.models.get(job.fingerprint)
        return answer

    def _load(self, weight: int, rank: int, number: int) -> None:
        model = self._model
        assert model is not None
        if self._ranks.get(weight, -1) >= rank:
            return
        digest = model.graph.weights[weight].digest
        try:
            rank, data = self._read(digest, rank, number)
        except (OSError, ValueError):
            return  # Evicted since: queries say so.
        if len(data) != len(model.blobs[weight]):
            return
        self._ranks[weight] = rank
        self._wrong.pop(weight, None)
        if data != model.truths[rank][weight]:
            self._wrong[weight] = data
            self._life.loaded_wrong(weight, rank)

    def _read(self, digest: bytes, rank: int, number: int) -> tuple[int, bytes]:
        if rank < EXACT:
            plane, kind = ((COARSE, "coarse"), (MIDDLE, "middle"))[rank]
            try:
                words = self._files.plane(digest, number, kind).read_bytes()
                return rank, bytes(approximate(plane, words))
            except FileNotFoundError:
                pass  # It became whole meanwhile.
        return EXACT, self._files.blob(digest).read_bytes()

    def _run(self, job: jobs.Run, began_s: float) -> jobs.Job:
        model = self._model
        assert model is not None
        stop, ranks = self._reachable(model, job)
        if stop == job.start:
            text = f"the weights of layer {job.start} are not there"
            return jobs.Failed(job.query, "not-uploaded", text)
        try:
            check_described(model.graph, job.start, job.tensors)
            raw = tuple(map(decode_tensor, job.tensors))
            live = tuple(tensor_from_buffer(t.dtype, t.shape, t.order, t.data) for t in raw)
        except (InvalidInput, RemoteProtocolError) as error:
            return jobs.Failed(job.query, "input", str(error))
        try:
            result = self._compute(model, job.start, stop, live, ranks)
        except Poisoned as error:
            return jobs.Failed(job.query, "execution", str(error))
        tensors = tuple(Tensor(*tensor_to_buffer(tensor)) for tensor in result)
        tensors = tuple(encode_tensor(tensor, job.reply_coding) for tensor in tensors)
        took_s = self._life.loop.time() - began_s
        least = PRECISIONS[min(ranks, default=EXACT)]
        self._life.ran(model, job, stop, tuple(ranks))
        return jobs.Ran(job.query, stop, least, began_s, 0.1 * took_s, 0.9 * took_s, tensors)

    def _rank(self, model: Model, layer: int) -> int:
        ranks = [self._ranks.get(weight, -1) for weight in model.graph.layers[layer].weights]
        return min(ranks, default=EXACT)

    def _reachable(self, model: Model, job: jobs.Run) -> tuple[int, list[int]]:
        least, ranks = PRECISIONS.index(job.precision), []
        for layer in range(job.start, job.stop):
            rank = self._rank(model, layer)
            if rank < least:
                return layer, ranks
            ranks.append(rank)
        return job.stop, ranks

    def _compute(self, model: Model, start: int, stop: int, live: Live, ranks: list[int]) -> Live:
        if not self._wrong:
            return model.run(start, stop, live, tuple(ranks))
        # Memory as torch allocates it, as that of a real worker's tensors is.
        live = tuple(tensor.clone() for tensor in live)
        for layer, rank in zip(range(start, stop), ranks, strict=True):
            if self._wrong.keys() & set(model.graph.layers[layer].weights):
                live = model.run_with(layer, live, self._wrong)
            else:
                live = model.run(layer, layer + 1, live, (rank,))
        return live


def _checked(job: jobs.Check) -> tuple[str, jobs.Checked | jobs.Refused]:
    try:
        graph = graph_from(job.graph)
        return graph.fingerprint, jobs.Checked(
            len(graph.layers), weight_rows(graph, DEFAULT_LIMITS.max_weights)
        )
    except GraphError as error:
        return job.fingerprint, jobs.Refused("graph", str(error))
