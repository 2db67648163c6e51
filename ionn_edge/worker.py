"""A worker process: one client's model, its weights mapped from the store, its ranges.

The only part of the edge that imports torch. It reads jobs from its socket, in order, and ends
when the socket does. What it is given to run is a stranger's; what it says is believed as
little (see jobs).
"""

from __future__ import annotations

import contextlib
import hashlib
import select
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgpack
import torch

from ionn_edge import escapes, jobs, sandbox
from ionn_edge.allocator import keep_freed_memory
from ionn_edge.places import Place
from ionn_edge.settings import WorkerSettings
from ionn_edge.weights import Weights
from layergraph import (
    Budget,
    Executor,
    GraphError,
    InvalidGraph,
    InvalidInput,
    LayerGraph,
    check_graph,
    tensor_from_buffer,
    tensor_from_weight_bytes,
    tensor_to_buffer,
)
from layergraph.nodes import Layer, Node, Ref, TensorSpec
from layergraph.symbols import DTYPES
from wire.activations import decode_tensor, encode_tensor
from wire.errors import RemoteProtocolError
from wire.limits import DEFAULT_LIMITS
from wire.messages import PRECISIONS, TENSOR_CODINGS, Buffer, Tensor

# While weights are being loaded, what is there is looked at so often.
SETTLE_S = 0.02
_NO_BYTES = hashlib.sha256().digest()
_Live = tuple[torch.Tensor, ...]


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
    worker, restricted = _Worker(settings), False
    with contextlib.suppress(ConnectionError):
        for job in _received(pipe, worker):
            # Before the first byte of a graph is looked at. What calibrates gets to see none.
            if not restricted and isinstance(job, jobs.Check | jobs.TryEscapes):
                _restrict(job, settings)
                restricted = True
            # Starts threads, which have to be as restricted as this one.
            if torch.get_num_threads() != settings.threads:
                torch.set_num_threads(settings.threads)
            answer = worker.answer(job)
            if answer is not None:
                for piece in jobs.encode(answer):
                    pipe.sendall(piece)


def _restrict(job: jobs.Check | jobs.TryEscapes, settings: WorkerSettings) -> None:
    published = job.published if isinstance(job, jobs.Check) else ""
    files = [Path(each) for each in (job.store, published) if each]
    sandbox.restrict_files(files, settings.device)


class _Worker:
    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._model: _Model | None = None

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
            graph = _graph_from(job.graph)
            if graph.fingerprint != job.fingerprint:
                raise InvalidGraph(
                    f"the graph's fingerprint is {graph.fingerprint[:16]}, "
                    f"it was offered as {job.fingerprint[:16]}"
                )
            rows = _weight_rows(graph)
            if not job.known:
                check_graph(graph, _budget(self._settings))
            self._model = _Model(graph, _places(job), self._settings.device)
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
            _check_described(model.graph, job.start, job.tensors)
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
        excess = _excess(tensors)
        if excess is not None:
            return jobs.Failed(job.query, "execution", excess)
        tensors = tuple(encode_tensor(tensor, job.reply_coding) for tensor in tensors)
        coding_s = decoded_s - began_s + time.monotonic() - ran_s
        return jobs.Ran(
            *(job.query, stop, PRECISIONS[rank], began_s, coding_s, ran_s - decoded_s, tensors)
        )

    def _execute(self, executor: Executor, start: int, stop: int, live: _Live) -> _Live:
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
        from ionn_edge.measure import measure

        return jobs.Calibrated(*measure(self._settings.device, seconds, energy))


class _Model:
    """A graph that may run, with what is here of its weights."""

    def __init__(self, graph: LayerGraph, places: tuple[Place, Place], device: str) -> None:
        self.graph = graph
        self.weights = Weights(*places, device, self._replaced)
        for weight in graph.weights:
            if not weight.spec.nbytes:
                self.weights.put(weight, tensor_from_weight_bytes(b"", weight.spec))
        self.executor = Executor(graph, self.weights.tensors, device)
        # Where to warm up next. Only where all is there at once: uploads bring queries meanwhile.
        self.cold_layer: int | None = None
        self._cold_live: _Live = ()

    def load(self, weights: Sequence[int], precision: str, number: int) -> None:
        for index in weights:
            self.weights.load(self.graph.weights[index], precision, number)
        if precision == "exact" and len(weights) == len(self.graph.weights):
            self.cold_layer = 0

    def warm_up(self, device: str) -> None:
        layer = self.cold_layer
        assert layer is not None
        if not layer:
            self._cold_live = tuple(
                torch.zeros(spec.shape, dtype=DTYPES[spec.dtype], device=device)
                for spec in self.graph.cut_specs(0)
            )
        for index in self.graph.layers[layer].weights:
            self.weights.rank(self.graph.weights[index].name, len(PRECISIONS) - 1)
        self._cold_live = self.executor.run(layer, layer + 1, self._cold_live)
        self.cold_layer = layer + 1
        if self.cold_layer == len(self.graph.layers):
            self.cold_layer, self._cold_live = None, ()

    def reachable(self, job: jobs.Run) -> tuple[int, int]:
        """How far the range can run with the weights that are here, and their least precision."""
        least, lowest = PRECISIONS.index(job.precision), len(PRECISIONS) - 1
        for layer in range(job.start, job.stop):
            names = (self.graph.weights[index].name for index in self.graph.layers[layer].weights)
            ranks = [self.weights.rank(name, least) for name in names]
            present = [rank for rank in ranks if rank is not None]
            if len(present) < len(ranks):
                return layer, lowest
            lowest = min([lowest, *present])
        return job.stop, lowest

    def _replaced(self, name: str) -> None:
        self.executor.rebind(name)


def _places(job: jobs.Check) -> tuple[Place, Place]:
    """Where files of the worker's device are, and those of all devices."""
    own, public = Place(Path(job.store), job.key), Place(Path(job.published), job.published_key)
    return own, public


def _budget(settings: WorkerSettings) -> Budget:
    return Budget(
        live_bytes=settings.memory_bytes, flops=settings.graph_flops, nodes=settings.graph_nodes
    )


def _graph_from(packed: bytes) -> LayerGraph:
    try:
        plain = msgpack.unpackb(packed, max_ext_len=0)
    except (ValueError, msgpack.UnpackException) as error:
        raise InvalidGraph(f"the graph is not msgpack: {error}") from None
    return LayerGraph.from_plain(plain)


def _weight_rows(graph: LayerGraph) -> tuple[tuple[bytes, int, str], ...]:
    """(digest, bytes, dtype) of each weight. Raises InvalidGraph where they contradict."""
    if len(graph.weights) > DEFAULT_LIMITS.max_weights:
        raise InvalidGraph(f"{len(graph.weights)} weights; this edge takes 65,536")
    if len({weight.name for weight in graph.weights}) < len(graph.weights):
        raise InvalidGraph("two weights have the same name")
    sizes: dict[bytes, int] = {}
    for weight in graph.weights:
        size = weight.spec.nbytes
        if sizes.setdefault(weight.digest, size) != size:
            raise InvalidGraph(
                f"weight {weight.name} has {size} bytes, and the digest of one with"
                f" {sizes[weight.digest]}"
            )
        if not size and weight.digest != _NO_BYTES:
            raise InvalidGraph(f"weight {weight.name} has no bytes, and a digest of some")
    return tuple((each.digest, each.spec.nbytes, each.spec.dtype) for each in graph.weights)


def _check_described(graph: LayerGraph, cut: int, tensors: Sequence[Tensor]) -> None:
    """Raise InvalidInput unless they are what the cut takes: before a few bytes become many."""
    specs = graph.cut_specs(cut)
    if len(tensors) != len(specs):
        raise InvalidInput(f"cut {cut} takes {len(specs)} tensors; got {len(tensors)}")
    for number, (spec, tensor) in enumerate(zip(specs, tensors, strict=True)):
        if (tensor.dtype, tuple(tensor.shape)) != (spec.dtype, tuple(spec.shape)):
            raise InvalidInput(
                f"tensor {number} of cut {cut} is {spec}; got {tensor.dtype}{list(tensor.shape)}"
            )


def _excess(tensors: tuple[Tensor, ...]) -> str | None:
    """Why the wire would not carry this result."""
    sizes = [memoryview(tensor.data).nbytes for tensor in tensors]
    limits = DEFAULT_LIMITS
    if len(sizes) > limits.max_tensors:
        return f"the result has {len(sizes)} tensors; the limit is {limits.max_tensors}"
    total = sum(sizes) + limits.max_header_bytes
    if max(sizes, default=0) > limits.max_buffer_bytes or total > limits.max_message_bytes:
        return f"the result has {sum(sizes)} bytes; the limit is {limits.max_message_bytes}"
    return None


def _received(pipe: socket.socket, worker: _Worker) -> Iterator[jobs.Job]:
    while True:
        while (wait_s := worker.idle_s) is not None and not _comes(pipe, wait_s):
            worker.use_idle_time()
        prefix = _exactly(pipe, jobs.LENGTH.size, bytearray)
        header = _exactly(pipe, jobs.header_bytes(prefix), bytearray)
        kind, plain, sizes = jobs.decode_header(header)
        yield jobs.decode(kind, plain, [_exactly(pipe, size, _aligned) for size in sizes])


def _comes(pipe: socket.socket, within_s: float) -> bool:
    return bool(select.select([pipe], (), (), within_s)[0])


def _exactly(pipe: socket.socket, size: int, allocate: Callable[[int], Buffer]) -> memoryview:
    view = memoryview(allocate(size))
    position = 0
    while position < size:
        count = pipe.recv_into(view[position:])
        if not count:
            raise ConnectionError("the server is gone")
        position += count
    return view


def _aligned(size: int) -> memoryview:
    """Memory as torch allocates it: kernels may round otherwise elsewhere."""
    array: Any = torch.empty(size, dtype=torch.uint8).numpy()
    return memoryview(array)


def _one_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:400]
