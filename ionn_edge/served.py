"""The model that one connection offered, and the worker that runs it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from typing import Any, Protocol

from ionn_edge.box import Box, Client
from ionn_edge.config import format_bytes
from ionn_edge.doors.devices import LOOPBACK
from ionn_edge.machine import events
from ionn_edge.machine.turns import SMALL_S, TURN_S
from ionn_edge.storage.admission import admit, whole_weights
from ionn_edge.storage.blobs import StorageError
from ionn_edge.storage.opening import NONSENSE, Refused, check_of, known_graph, worker_for
from ionn_edge.storage.store import NoRoom, WrongSize
from ionn_edge.workers import jobs
from ionn_edge.workers.engine import Worker, WorkerGone
from wire.messages import Buffer

log = logging.getLogger("ionn_edge")


class Connection(Client, Protocol):
    """Whose model it is."""

    address: str

    def post(self, event: events.Event) -> None: ...
    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]: ...


class Served:
    """At most one model at a time, and at most one worker. What happens is posted."""

    def __init__(self, box: Box, connection: Connection) -> None:
        self.worker: Worker | None = None
        self._box = box
        self._connection = connection
        self._device = connection.device
        self._listening: asyncio.Task[None] | None = None
        self._range: events.RunRange | None = None
        self._asked_at = 0.0
        self._graph = jobs.Check("", b"", "")
        self._weights: tuple[tuple[bytes, int, str], ...] = ()
        # Made once somebody asks for it.
        self._weights_of: dict[bytes, list[int]] | None = None
        # Completed since it was last looked at what is whole.
        self._late: set[bytes] = set()
        # Workers that were stopped. None is left behind where its connection ends meanwhile.
        self._endings: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        if self.worker is not None:
            await self.worker.close()
        if self._endings:
            await asyncio.wait(self._endings)

    def completed(self, digest: bytes) -> None:
        """All of a blob is there, by whomever."""
        self._late.add(digest)
        if self.worker is not None:
            self._tell_late(self.worker)

    def _tell_late(self, worker: Worker) -> None:
        late, self._late = self._late, set()
        weights = tuple(i for digest in late for i in self._numbers.get(digest, ()))
        if weights:
            worker.send(jobs.Ready(weights, "exact", 0))

    def prepared(self, model: events.Model, digest: bytes, precision: str, number: int) -> None:
        """Planes of a blob that this client sends are complete. Nobody else is to use them."""
        weights = (i for i in self._numbers.get(digest, ()) if model.weights[i][2] == "float32")
        ready = tuple(weights)
        if ready and self.worker is not None:
            self.worker.send(jobs.Ready(ready, precision, number))

    def run(self, asked: events.RunRange) -> None:
        self._range, self._asked_at = asked, self._box.clock()
        assert self.worker is not None
        self.worker.send(
            jobs.Run(
                *(asked.query, asked.start, asked.stop, asked.precision),
                *(asked.reply_coding, asked.tensors),
            )
        )

    def open(self, fingerprint: str, graph: Buffer) -> Coroutine[Any, Any, None]:
        """To be awaited: check what is offered, and keep room for it."""
        self._graph = check_of(self._box, self._device.id, fingerprint, graph)
        return self._open()

    async def _open(self) -> None:
        try:
            # As long as its earlier offers kept the others waiting for too long.
            await asyncio.sleep(self._box.opening_rest_s(self._device))
            # One after the other: a check takes a processor, and others need one too.
            async with self._box.turn_to_check(self._device):
                worker, model = await self._offered_model()
            try:
                self._late.clear()
                here = await admit(self._box, model, self._connection)
            except BaseException:
                if worker is not None:
                    await worker.close()
                raise
        except Refused as refusal:
            if refusal.code == "unknown":
                self._connection.post(events.ModelUnknown())
            else:
                self._connection.post(events.ModelRefused(refusal.code, str(refusal)))
        except NoRoom as error:
            self._connection.post(events.ModelRefused("memory", str(error)))
        except StorageError as error:
            self._connection.post(events.ModelRefused("storage", str(error)))
        except WrongSize as error:
            self._connection.post(events.ModelRefused("graph", str(error)))
        else:
            began_s = time.thread_time()
            if worker is not None:
                self._use(worker, model, here.whole)
            epoch = self._box.epoch(self._device.id)
            self._connection.post(events.ModelOpened(model, epoch, here.held, worker is not None))
            if worker is None:
                self._connection.start(self.restart())
            held_bytes = sum(
                {model.weights[i][0]: model.weights[i][1] for i in here.whole}.values()
            )
            self._box.opening_rest_s(self._device, time.thread_time() - began_s)
            log.info(
                "%s offers model %s with %s of weights, %s of them here",
                *(self._connection.address, model.fingerprint[:12]),
                *(format_bytes(model.total_bytes), format_bytes(held_bytes)),
            )

    async def _offered_model(self) -> tuple[Worker | None, events.Model]:
        """What is offered, and a worker for it unless what is known of it does for now."""
        box, check = self._box, self._graph
        graphs = box.store.shelf(self._device.id).graphs
        if check.graph:
            worker, model = await worker_for(box, check)
            graphs.keep_beside(box.writers, model.fingerprint, check.graph)
        else:
            self._graph, known = await known_graph(box, self._device.id, check)
            if known is not None:
                return None, known
            try:
                worker, model = await worker_for(box, self._graph)
            except Refused as refusal:
                if refusal.code != "graph":
                    raise
                graphs.drop(check.fingerprint)
                raise Refused("unknown") from refusal
        graphs.learned(model)
        return worker, model

    async def restart(self) -> None:
        """A worker in the place of one that is gone."""
        model = self._connection.session.model
        try:
            worker, checked = await worker_for(self._box, self._graph)
        except Refused as refusal:
            self._connection.post(events.WorkerLost(str(refusal)))
            return
        whole: tuple[int, ...] = ()
        if model == checked:
            try:
                self._late.clear()
                whole = await whole_weights(self._box, checked, self._connection)
            except BaseException:
                await worker.close()
                raise
        # Evicted meanwhile, and perhaps offered again, which brings a worker of its own.
        if model is None or self._connection.session.model is not model or self.worker is not None:
            await worker.close()
        elif checked != model:
            await worker.close()
            self._connection.post(events.WorkerLost(NONSENSE))
        else:
            self._use(worker, model, whole)
            self._connection.post(events.WorkerRestarted())

    def _use(self, worker: Worker, model: events.Model, whole: tuple[int, ...]) -> None:
        """whole: numbers of the weights that were when it was last looked at all of them."""
        self.worker = worker
        worker.work_for(None if self._device is LOOPBACK else self._device.id, model.total_bytes)
        self._weights, self._weights_of = model.weights, None
        if whole:
            worker.send(jobs.Ready(whole, "exact", 0))
        self._tell_late(worker)
        for part in self._box.store.shelf(self._device.id).owned(self._connection):
            if part.precision is not None:
                self.prepared(model, part.digest, part.precision, part.number)
        self._listening = self._connection.start(self._listen(worker, model))

    @property
    def _numbers(self) -> dict[bytes, list[int]]:
        """Of each blob, the weights that it is."""
        if self._weights_of is None:
            self._weights_of = {}
            for number, (digest, _, _) in enumerate(self._weights):
                self._weights_of.setdefault(digest, []).append(number)
        return self._weights_of

    async def _listen(self, worker: Worker, model: events.Model) -> None:
        spent_s = 0.0
        try:
            while True:
                answer = await worker.receive()
                began_s = time.thread_time()
                if worker is self.worker:
                    self._answered(answer, model)
                # Small ones are in what questions count.
                spent_s += max(time.thread_time() - began_s - SMALL_S, 0.0)
                if spent_s >= TURN_S:
                    rest_s, spent_s = self._box.rest_s(self._device, spent_s), 0.0
                    await asyncio.sleep(rest_s)
        except WorkerGone as error:
            if worker is self.worker:
                self.worker = self._listening = None
                await worker.close()
                self._connection.post(events.WorkerLost(str(error)))

    def _answered(self, answer: jobs.Job, model: events.Model) -> None:
        """Raises WorkerGone for what was not asked: it may be the client's own code by now."""
        asked, self._range = self._range, None
        match answer:
            case jobs.Ran(query, stop, precision, began_s, coding_s, compute_s, tensors) if (
                asked is not None and asked.query == query and asked.start < stop <= asked.stop
            ):
                # Others are told of the load: no more is believed of it than can be so.
                compute_s = min(compute_s, self._box.clock() - self._asked_at)
                self._connection.post(
                    events.RangeRan(query, stop, precision, began_s, coding_s, compute_s, tensors)
                )
                self._box.ran(self._device, model.fingerprint, asked.start, stop, compute_s)
            case jobs.Failed(query, code, text) if asked is not None and asked.query == query:
                self._connection.post(events.RangeFailed(query, code, text))
            case _:
                raise WorkerGone("its worker talks nonsense: an answer to nothing")

    def stop(self) -> None:
        """No model any more."""
        worker, listening = self.worker, self._listening
        self.worker = self._listening = None
        if worker is not None and listening is not None:
            ending = asyncio.create_task(_end(worker, listening))
            self._endings.add(ending)
            ending.add_done_callback(self._endings.discard)


async def _end(worker: Worker, listening: asyncio.Task[None]) -> None:
    # First nobody reads from the socket any more, then it is closed.
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)
    await worker.close()
