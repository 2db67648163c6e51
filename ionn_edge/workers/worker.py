"""A worker process: one client's model, its weights mapped from the store, its ranges.

The only part of the edge that imports torch. It reads jobs from its socket, in order, and ends
when the socket does. What it is given to run is a stranger's; what it says is believed as
little (see jobs).
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ionn_edge.settings import WorkerSettings
from ionn_edge.workers import escapes, jobs, sandbox
from ionn_edge.workers.allocator import keep_freed_memory
from ionn_edge.workers.loaded import Live, LoadedModel, places_of
from ionn_edge.workers.offered import check_described, excess_of, graph_from, weight_rows
from ionn_edge.workers.precedence import behind_all
from ionn_edge.workers.read_ahead import ROOM_BYTES, ReadAhead
from ionn_edge.workers.rounding import bfloat16_pays
from layergraph import (
    Budget,
    Executor,
    GraphError,
    InvalidGraph,
    InvalidInput,
    LayerGraph,
    check_graph,
    tensor_from_buffer,
    tensor_to_buffer,
)
from layergraph.nodes import Layer, Node, Ref, TensorSpec
from wire.activations import decode_tensor, encode_tensor
from wire.errors import RemoteProtocolError
from wire.messages import PRECISIONS, TENSOR_CODINGS, Buffer, Tensor

# While weights are being loaded, what is there is looked at so often.
SETTLE_S = 0.02


def warm_up() -> None:
    """Do what a worker cannot do any more, or every one would have to do again.

    The first check of a graph imports half of torch. Which processors there are, libraries look
    up in files when they first need to know. Images are decoded by what the first one imports.
    """
    sandbox.prepare()
    # Nothing here may start threads: a fork would lose them.
    torch.set_num_threads(1)
    torch.backends.nnpack.is_available()  # type: ignore[no-untyped-call]
    # Kernels are chosen by what is read of the processor now: later, there are no files.
    torch.relu(torch.zeros(1))
    bfloat16_pays()
    row = TensorSpec("float32", (1, 4))
    node = Node("aten.relu.default", (Ref(0),), (), (row,), "")
    check_graph(LayerGraph((row,), (), (), (node,), (Layer("", 0, 1, ()),), (Ref(1),)))
    image = Tensor(*tensor_to_buffer(torch.zeros(1, 3, 32, 32)))
    for coding in TENSOR_CODINGS:
        decode_tensor(encode_tensor(image, coding))


def serve(pipe: socket.socket, settings: WorkerSettings) -> None:
    """Answer jobs until the server closes the socket."""
    keep_freed_memory()
    # An answer off by a thousandth, as TF32 makes it, looks like a lie to who computes it again.
    torch.backends.cudnn.allow_tf32 = False
    worker, restricted, incoming = _Worker(settings), False, _Incoming(pipe)
    with contextlib.suppress(ConnectionError):
        for header in _announced(incoming, worker):
            # Before the first byte of a graph is there. What calibrates gets to see none.
            if not restricted and header.of in (jobs.Check, jobs.TryEscapes):
                sandbox.restrict_files(header.directories, settings.device)
                restricted = incoming.ahead.allowed = True
            # Starts threads, which have to be as restricted as this one.
            if torch.get_num_threads() != settings.threads:
                torch.set_num_threads(settings.threads)
            take = partial(_answer, incoming, worker, header)
            # Whoever brings a graph that takes long must keep nobody waiting.
            answer = behind_all(take) if header.of is jobs.Check else take()
            if answer is not None:
                _say(pipe, answer)


def _say(pipe: socket.socket, answer: jobs.Job) -> None:
    pieces = jobs.encode(answer)
    if sum(memoryview(piece).nbytes for piece in pieces) <= ROOM_BYTES:
        # At once: the server would wake for the header, to wait for what it announces.
        pieces = [b"".join(pieces)]
    for piece in pieces:
        pipe.sendall(piece)


@dataclass(frozen=True, slots=True)
class _Header:
    """A job whose buffers are still to come."""

    kind: int
    plain: list[Any]
    sizes: list[int]

    @property
    def of(self) -> type[jobs.Job]:
        return jobs.KINDS[self.kind]

    @property
    def directories(self) -> list[Path]:
        said = dict(zip(jobs.NAMES[self.of], self.plain, strict=True))
        return [Path(said[each]) for each in ("store", "published") if said.get(each)]


def _answer(incoming: _Incoming, worker: _Worker, header: _Header) -> jobs.Job | None:
    buffers = [incoming.exactly(size, _aligned) for size in header.sizes]
    return worker.answer(jobs.decode(header.kind, header.plain, buffers))


class _Worker:
    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._model: LoadedModel | None = None

    def answer(self, job: jobs.Job) -> jobs.Job | None:
        match job:
            case jobs.Check():
                return self._check(job)
            case jobs.TryEscapes(directory, _):
                return jobs.Escapes(*escapes.attempted(Path(directory)))
            case jobs.Ready(weights, precision, number):
                assert self._model is not None
                self._model.load(weights, precision, number)
                return None
            case jobs.Run():
                return self._run(job)
            case jobs.Probe():
                return self._probe()
            case jobs.Calibrate(seconds, energy):
                return self._calibrate(seconds, energy)
        raise AssertionError(f"{type(job).__name__} is not for a worker")

    def _check(self, job: jobs.Check) -> jobs.Job:
        try:
            graph = graph_from(job.graph)
            if graph.fingerprint != job.fingerprint:
                raise InvalidGraph(
                    f"the graph's fingerprint is {graph.fingerprint[:16]}, "
                    f"it was offered as {job.fingerprint[:16]}"
                )
            rows = weight_rows(graph, self._settings.graph_weights)
            if not job.known:
                check_graph(graph, _budget(self._settings))
            self._model = LoadedModel(graph, places_of(job), self._settings.device)
        except GraphError as error:
            return jobs.Refused("graph", str(error))
        # Checks run torch's own shape functions on hostile arguments: whatever they raise, this
        # graph does not run, and the client is told instead of seeing a worker die.
        except Exception as error:
            return jobs.Refused("graph", f"the graph cannot be checked: {_one_line(error)}")
        return jobs.Checked(len(graph.layers), rows)

    def _run(self, job: jobs.Run) -> jobs.Job:
        began_s = time.monotonic()
        model = self._model
        assert model is not None
        stop, rank = model.reachable(job)
        if stop == job.start:
            name = model.graph.layers[job.start].name
            text = f"the weights of layer {job.start} ({name}) are not there"
            if job.precision != PRECISIONS[0]:
                text += f" with precision {job.precision}"
            return jobs.Failed(job.query, "not-uploaded", text)
        try:
            check_described(model.graph, job.start, job.tensors)
            raw = tuple(map(decode_tensor, job.tensors))
            live = tuple(tensor_from_buffer(t.dtype, t.shape, t.order, t.data) for t in raw)
        except (InvalidInput, RemoteProtocolError) as error:
            return jobs.Failed(job.query, "input", str(error))
        decoded_s = time.monotonic()
        try:
            result = self._execute(model.executor, job.start, stop, live)
            ran_s = time.monotonic()
            tensors = tuple(Tensor(*tensor_to_buffer(tensor)) for tensor in result)
        # The model's own failure, of whatever type torch raises: out of memory, a bad index.
        except Exception as error:
            return jobs.Failed(job.query, "execution", _one_line(error))
        excess = excess_of(tensors)
        if excess is not None:
            return jobs.Failed(job.query, "execution", excess)
        tensors = tuple(encode_tensor(tensor, job.reply_coding) for tensor in tensors)
        coding_s = decoded_s - began_s + time.monotonic() - ran_s
        return jobs.Ran(
            *(job.query, stop, PRECISIONS[rank], began_s, coding_s, ran_s - decoded_s, tensors)
        )

    def _execute(self, executor: Executor, start: int, stop: int, live: Live) -> Live:
        if self._settings.device == "cpu":
            return executor.run(start, stop, live)
        result = executor.run(start, stop, tuple(t.to(self._settings.device) for t in live))
        return tuple(tensor.cpu() for tensor in result)

    @property
    def idle_s(self) -> float | None:
        """How long to wait for a job before `use_idle_time`; None for as long as it takes."""
        if self._model is None:
            return None
        if self._model.cold_layer is not None:
            return 0.0
        return SETTLE_S if self._model.weights.loading else None

    def use_idle_time(self) -> None:
        """Let go of weights that have better ones; run a layer that never ran.

        On zeros: a first run finds algorithms and memory, and takes longer.
        """
        assert self._model is not None
        self._model.weights.settle()
        if self._model.cold_layer is None:
            return
        # What does not run now says so when a query asks for it.
        try:
            self._model.warm_up(self._settings.device)
        except Exception:
            self._model.cold_layer = None

    def _probe(self) -> jobs.Job:
        if self._settings.device == "cpu":
            return jobs.Probed("cpu")
        if not torch.cuda.is_available():
            text = f"there is no CUDA device here (torch {torch.__version__}); use --device cpu"
            return jobs.Refused("device", text)
        return jobs.Probed(f"cuda ({torch.cuda.get_device_name()})")

    def _calibrate(self, seconds: float, energy: bool) -> jobs.Calibrated:
        # Imported by the one worker that needs it.
        from ionn_edge.calibration.measure import measure

        return jobs.Calibrated(*measure(self._settings.device, seconds, energy))


def _budget(settings: WorkerSettings) -> Budget:
    return Budget(
        live_bytes=settings.memory_bytes, flops=settings.graph_flops, nodes=settings.graph_nodes
    )


def _announced(incoming: _Incoming, worker: _Worker) -> Iterator[_Header]:
    while True:
        while (wait_s := worker.idle_s) is not None and not incoming.comes(wait_s):
            worker.use_idle_time()
        prefix = incoming.exactly(jobs.LENGTH.size, bytearray)
        header = incoming.exactly(jobs.header_bytes(prefix), bytearray)
        yield _Header(*jobs.decode_header(header))


class _Incoming:
    """What the server sends."""

    def __init__(self, pipe: socket.socket) -> None:
        self.ahead = ReadAhead(allowed=False)
        self._pipe = pipe

    def comes(self, within_s: float) -> bool:
        return bool(self.ahead or select.select([self._pipe], (), (), within_s)[0])

    def exactly(self, size: int, allocate: Callable[[int], Buffer]) -> memoryview:
        view = memoryview(allocate(size))
        position = self.ahead.give(view)
        while position < size:
            rest = view[position:]
            count = self._pipe.recv_into(self.ahead.place(rest))
            if not count:
                raise ConnectionError("the server is gone")
            position += self.ahead.came(count, rest)
        return view


def _aligned(size: int) -> memoryview:
    """Memory as torch allocates it: kernels may round otherwise elsewhere."""
    array: Any = torch.empty(size, dtype=torch.uint8).numpy()
    return memoryview(array)


def _one_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:400]
