"""Real worker processes: born quickly, checked, running, dying."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import signal
from dataclasses import replace
from pathlib import Path

import msgpack
import pytest
import torch
import zstandard
from PIL import Image

from ionn_edge.settings import WorkerSettings
from ionn_edge.storage.places import Place
from ionn_edge.workers import jobs
from ionn_edge.workers.engine import EngineError, Worker, WorkerGone
from ionn_edge.workers.nursery import Nursery
from ionn_edge.workers.worker import _Worker
from layergraph import LayerGraph, execute, tensor_from_buffer, tensor_to_buffer
from layergraph.nodes import Layer, Node, Ref, TensorSpec, Weight, WeightRef
from tests.support import WIDTH, blobs, chain
from wire.activations import decode_tensor, encode_tensor
from wire.messages import Tensor
from wire.planes import COARSE, MIDDLE, approximate
from wire.segments import decode_segment, encode_segment

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.fixture
def stored(tmp_path: Path) -> tuple[LayerGraph, dict[str, torch.Tensor]]:
    """A model whose weights are in the store."""
    graph, weights = chain(3)
    for weight, blob in zip(graph.weights, blobs(graph, weights), strict=True):
        Place(tmp_path, b"").blob(weight.digest).write_bytes(blob)
    return graph, weights


def check(graph: LayerGraph, store: Path) -> jobs.Check:
    return jobs.Check(graph.fingerprint, msgpack.packb(graph.to_plain()), str(store))


def run(
    query: int,
    start: int,
    stop: int,
    *live: torch.Tensor,
    precision: str = "exact",
    reply_coding: str = "raw",
) -> jobs.Run:
    tensors = tuple(Tensor(*tensor_to_buffer(t)) for t in live)
    return jobs.Run(query, start, stop, precision, reply_coding, tensors)


def ready(*weights: int) -> jobs.Ready:
    return jobs.Ready(weights, "exact", 0)


def tensors(ran: jobs.Job) -> tuple[torch.Tensor, ...]:
    assert isinstance(ran, jobs.Ran), ran
    return tuple(tensor_from_buffer(t.dtype, t.shape, t.order, t.data) for t in ran.tensors)


async def asked(worker: Worker, job: jobs.Job) -> jobs.Job:
    worker.send(job)
    async with asyncio.timeout(60):
        return await worker.receive()


async def test_a_worker_runs_what_is_ready_bitwise_as_here(
    nursery: Nursery, stored: tuple[LayerGraph, dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    graph, weights = stored
    worker = await nursery.fork()
    try:
        checked = await asked(worker, check(graph, tmp_path))
        assert checked == jobs.Checked(3, tuple((w.digest, 256, "float32") for w in graph.weights))
        x = torch.randn(1, 8)
        missing = await asked(worker, run(1, 0, 3, x))
        assert isinstance(missing, jobs.Failed)
        assert (missing.query, missing.code) == (1, "not-uploaded")
        assert "fc0" in missing.text
        worker.send(ready(0, 1))
        partly = await asked(worker, run(2, 0, 3, x))
        assert isinstance(partly, jobs.Ran)
        assert (partly.query, partly.stop) == (2, 2)
        (live,) = tensors(partly)
        assert torch.equal(live, execute(graph, weights, 0, 2, (x,))[0])
        worker.send(ready(2))
        (last,) = tensors(await asked(worker, run(3, 2, 3, live)))
        assert torch.equal(last, execute(graph, weights, 0, 3, (x,))[0])
    finally:
        await worker.close()


async def test_a_range_runs_at_the_best_precision_that_its_weights_have(
    nursery: Nursery, stored: tuple[LayerGraph, dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    graph, weights = stored
    planes = [_write_planes(tmp_path, graph, weights, index) for index in range(2)]
    x = torch.randn(1, 8)
    worker = await nursery.fork()
    try:
        await asked(worker, check(graph, tmp_path))
        worker.send(jobs.Ready((0, 1), "float8", 7))
        worker.send(ready(2))
        coarse = {name: approximate(COARSE, each[0]) for name, each in planes}
        await _runs_with(worker, graph, weights, coarse, x, "float8")
        for precision in ("bfloat16", "exact"):
            refused = await asked(worker, run(2, 0, 3, x, precision=precision))
            assert isinstance(refused, jobs.Failed)
            assert refused.code == "not-uploaded"
            assert precision in refused.text
        # Better ones replace what the same ranges ran with.
        worker.send(jobs.Ready((0, 1), "bfloat16", 7))
        both = {name: approximate(MIDDLE, each[1]) for name, each in planes}
        await _runs_with(worker, graph, weights, both, x, "bfloat16")
        worker.send(ready(0))
        await _runs_with(worker, graph, weights, dict([both.popitem()]), x, "bfloat16")
        worker.send(ready(1))
        await _runs_with(worker, graph, weights, {}, x, "exact")
    finally:
        await worker.close()


async def _runs_with(
    worker: Worker,
    graph: LayerGraph,
    weights: dict[str, torch.Tensor],
    instead: dict[str, memoryview],
    x: torch.Tensor,
    precision: str,
) -> None:
    used = {
        name: torch.frombuffer(instead[name], dtype=torch.float32).reshape(8, 8)
        if name in instead
        else tensor
        for name, tensor in weights.items()
    }
    ran = await asked(worker, run(1, 0, 3, x, precision=precision))
    assert isinstance(ran, jobs.Ran), ran
    assert (ran.stop, ran.precision) == (3, precision)
    assert torch.equal(tensors(ran)[0], execute(graph, used, 0, 3, (x,))[0])


def _write_planes(
    directory: Path, graph: LayerGraph, weights: dict[str, torch.Tensor], index: int
) -> tuple[str, tuple[memoryview, memoryview]]:
    """The planes of a weight, as files of part 7 and as they are."""
    weight = graph.weights[index]
    blob = blobs(graph, weights)[index]
    planes: list[memoryview] = []
    for plane, kind in ((COARSE, "coarse"), (MIDDLE, "middle")):
        coded = encode_segment("float32", plane, blob, 0, 64, "raw")
        planes.append(decode_segment("float32", plane, 64, "raw", coded, *planes))
        Place(directory, b"").part(weight.digest, 7, kind).write_bytes(planes[-1])
    return weight.name, (planes[0], planes[1])


async def test_planes_that_are_gone_or_cut_short_are_not_ready(
    nursery: Nursery, stored: tuple[LayerGraph, dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    graph, weights = stored
    _write_planes(tmp_path, graph, weights, 0)
    place = Place(tmp_path, b"")
    place.part(graph.weights[0].digest, 7, "coarse").write_bytes(b"odd")
    # Whole, they would be read instead.
    whole = [place.blob(weight.digest) for weight in graph.weights[:2]]
    for path in whole:
        path.rename(path.with_suffix(".later"))
    worker = await nursery.fork()
    try:
        await asked(worker, check(graph, tmp_path))
        worker.send(jobs.Ready((0, 1), "float8", 7))
        for layer in range(2):
            job = run(layer, layer, layer + 1, torch.zeros(1, 8), precision="float8")
            failed = await asked(worker, job)
            assert isinstance(failed, jobs.Failed)
            assert failed.code == "not-uploaded"
        for path in whole:
            path.with_suffix(".later").rename(path)
        worker.send(ready(0, 1, 2))
        assert len(tensors(await asked(worker, run(3, 0, 3, torch.zeros(1, 8))))) == 1
    finally:
        await worker.close()


async def test_coded_tensors_are_decoded_and_answers_coded_as_asked(
    nursery: Nursery, stored: tuple[LayerGraph, dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    graph, weights = stored
    worker = await nursery.fork()
    try:
        await asked(worker, check(graph, tmp_path))
        worker.send(ready(0, 1, 2))
        zeros = encode_tensor(Tensor(*tensor_to_buffer(torch.zeros(1, 8))), "planes")
        assert zeros.coding == "planes"
        ran = await asked(worker, jobs.Run(1, 0, 3, "exact", "planes", (zeros,)))
        assert isinstance(ran, jobs.Ran), ran
        assert ran.coding_s > 0
        (answer,) = ran.tensors
        assert answer.coding == "planes"
        raw = decode_tensor(answer)
        live = tensor_from_buffer(raw.dtype, raw.shape, raw.order, raw.data)
        assert torch.equal(live, execute(graph, weights, 0, 3, (torch.zeros(1, 8),))[0])
    finally:
        await worker.close()


@pytest.mark.parametrize("coding", ["planes", "float16", "affine8", "affine8-png"])
async def test_a_tensor_that_does_not_decode_is_that_querys_error(
    coding: str,
    nursery: Nursery,
    stored: tuple[LayerGraph, dict[str, torch.Tensor]],
    tmp_path: Path,
) -> None:
    worker = await nursery.fork()
    try:
        await asked(worker, check(stored[0], tmp_path))
        worker.send(ready(0, 1, 2))
        for data in (b"", b"junk", zstandard.compress(bytes(1 << 20))[:30], _png(5000, 5000)):
            bad = Tensor("float32", (1, 8), (0, 1), data, coding)
            refused = await asked(worker, jobs.Run(1, 0, 3, "exact", "raw", (bad,)))
            assert isinstance(refused, jobs.Failed)
            assert refused.code == "input"
        assert len(tensors(await asked(worker, run(2, 0, 3, torch.zeros(1, 8))))) == 1
    finally:
        await worker.close()


def _png(width: int, height: int) -> bytes:
    """A few kilobytes that would become 25 MB: what a PNG bomb looks like."""
    buffer = io.BytesIO()
    Image.new("L", (width, height)).save(buffer, "png")
    return buffer.getvalue()


async def test_tensors_that_do_not_fit_the_cut_are_refused_before_they_run(
    nursery: Nursery, stored: tuple[LayerGraph, dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    worker = await nursery.fork()
    try:
        await asked(worker, check(stored[0], tmp_path))
        worker.send(ready(0, 1, 2))
        good = torch.zeros(1, 8)
        for live in ((), (good, good), (torch.zeros(2, 8),), (good.double(),)):
            refused = await asked(worker, run(1, 0, 3, *live))
            assert isinstance(refused, jobs.Failed)
            assert refused.code == "input"
            assert "cut 0" in refused.text
        huge = Tensor("uint8", (1 << 22,), (0,), b"not decoded", "planes")
        for few in ((huge,), (huge,) * 12):
            refused = await asked(worker, jobs.Run(1, 0, 3, "exact", "raw", few))
            assert isinstance(refused, jobs.Failed)
            assert "cut 0" in refused.text, "told by the description alone"
        assert len(tensors(await asked(worker, run(2, 0, 3, good)))) == 1
    finally:
        await worker.close()


async def test_a_blob_that_is_gone_or_cut_short_is_not_ready(
    nursery: Nursery, stored: tuple[LayerGraph, dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    graph, _ = stored
    Place(tmp_path, b"").blob(graph.weights[0].digest).unlink()
    Place(tmp_path, b"").blob(graph.weights[1].digest).write_bytes(b"")
    Place(tmp_path, b"").blob(graph.weights[2].digest).write_bytes(b"short")
    worker = await nursery.fork()
    try:
        await asked(worker, check(graph, tmp_path))
        worker.send(ready(0, 1, 2))
        for layer in range(3):
            failed = await asked(worker, run(layer, layer, layer + 1, torch.zeros(1, 8)))
            assert isinstance(failed, jobs.Failed)
            assert failed.code == "not-uploaded"
    finally:
        await worker.close()


def _broken(graph: LayerGraph, **changes: object) -> bytes:
    packed: bytes = msgpack.packb({**graph.to_plain(), **changes})
    return packed


async def test_a_graph_that_must_not_run_is_refused_with_the_reason(
    nursery: Nursery, tmp_path: Path
) -> None:
    graph, _ = chain(2)
    plain = graph.to_plain()
    first, second = plain["weights"]
    evil = [["aten.from_file.default", *node[1:]] for node in plain["nodes"]]
    wide = [[name, ["float32", [8, 9]], *rest] for name, _, *rest in plain["weights"]]
    twins = [["same", *rest] for _, *rest in plain["weights"]]
    torn = [first, ["b", ["float32", [8, 7]], *first[2:]]]
    empty = [[first[0], ["float32", [0, 8]], *first[2:]], second]
    offers = {
        b"\xc1": "not msgpack",
        msgpack.packb([1, 2]): "a graph is a map",
        _broken(graph, format=99): "format 99",
        _broken(graph, nodes=evil): "from_file",
        _broken(graph, weights=wide): "linear",
        _broken(graph, weights=twins): "same name",
        _broken(graph, weights=torn): "digest of one",
        _broken(graph, weights=empty): "has no bytes",
        _broken(graph, layers=[["l", 0, 1, [0]]]): "cover 1 of 2",
    }
    for packed, reason in offers.items():
        worker = await nursery.fork()
        try:
            fingerprint = _fingerprint(packed)
            refused = await asked(worker, jobs.Check(fingerprint, packed, str(tmp_path)))
            assert isinstance(refused, jobs.Refused), refused
            assert refused.code == "graph"
            assert reason in refused.text
        finally:
            await worker.close()


def _fingerprint(packed: bytes) -> str:
    try:
        return LayerGraph.from_plain(msgpack.unpackb(packed)).fingerprint
    except Exception:
        return "none"


async def test_a_graph_under_another_models_name_is_refused(
    nursery: Nursery, tmp_path: Path
) -> None:
    graph, _ = chain(2)
    worker = await nursery.fork()
    try:
        refused = await asked(worker, replace(check(graph, tmp_path), fingerprint="0" * 64))
        assert isinstance(refused, jobs.Refused)
        assert "fingerprint" in refused.text
    finally:
        await worker.close()


async def test_a_failure_while_running_is_that_querys_and_the_worker_lives_on(
    nursery: Nursery, tmp_path: Path
) -> None:
    graph = _embedding()
    worker = await nursery.fork()
    try:
        assert isinstance(await asked(worker, check(graph, tmp_path)), jobs.Checked)
        Place(tmp_path, b"").blob(graph.weights[0].digest).write_bytes(bytes(128))
        worker.send(ready(0))
        failed = await asked(worker, run(1, 0, 1, torch.tensor([99])))
        assert isinstance(failed, jobs.Failed)
        assert (failed.query, failed.code) == (1, "execution")
        assert "\n" not in failed.text
        assert len(tensors(await asked(worker, run(2, 0, 1, torch.tensor([3]))))) == 1
    finally:
        await worker.close()


def _embedding() -> LayerGraph:
    table = Weight("e", TensorSpec("float32", (4, 8)), hashlib.sha256(bytes(128)).digest())
    node = Node(
        *("aten.embedding.default", (WeightRef(0), Ref(0)), ()),
        *((TensorSpec("float32", (1, 8)),), "e"),
    )
    index = TensorSpec("int64", (1,))
    return LayerGraph((index,), (table,), (), (node,), (Layer("e", 0, 1, (0,)),), (Ref(1),))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
async def test_a_device_that_is_not_there_is_refused_with_the_way_out() -> None:
    refused = _Worker(WorkerSettings("cuda", 1)).answer(jobs.Probe())
    assert isinstance(refused, jobs.Refused)
    assert "no CUDA device here" in refused.text
    assert "--device cpu" in refused.text


async def test_a_killed_worker_is_reported_with_the_signal(nursery: Nursery) -> None:
    worker = await nursery.fork()
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(WorkerGone, match=r"killed by SIGKILL"):
        await worker.receive()
    await worker.close()


async def test_a_spare_worker_that_died_is_not_handed_out(
    nursery: Nursery, stored: tuple[LayerGraph, dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    await nursery._drop_spare()
    spare = nursery._spare = await nursery._new_worker()
    os.kill(spare.pid, signal.SIGKILL)
    await nursery.exit_reason(spare.pid)
    worker = await nursery.fork()
    try:
        assert worker.pid != spare.pid
        assert isinstance(await asked(worker, check(stored[0], tmp_path)), jobs.Checked)
    finally:
        await worker.close()


async def test_who_gives_up_while_a_worker_is_forked_harms_nobody(nursery: Nursery) -> None:
    await nursery._drop_spare()
    for turns in range(6):
        forking = asyncio.create_task(nursery.fork())
        # Wherever it is by then.
        for _ in range(turns):
            await asyncio.sleep(0)
        forking.cancel()
        await asyncio.gather(forking, return_exceptions=True)
    worker = await nursery.fork()
    assert isinstance(await asked(worker, jobs.Check("", b"", "")), jobs.Refused)
    await worker.close()


async def test_a_worker_is_ended_though_the_process_that_ends_it_was_late(
    nursery: Nursery,
) -> None:
    await nursery._drop_spare()
    worker, pid = await nursery.fork(), nursery.pid
    await nursery._drop_spare()
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        # No process has these numbers. More than its socket takes while it does not read.
        for number in range(5000):
            nursery.kill((1 << 22) + 1 + number)
        with pytest.raises(EngineError):
            await nursery._new_worker()
        nursery.kill(worker.pid)
    finally:
        os.kill(pid, signal.SIGCONT)
    async with asyncio.timeout(60):
        with pytest.raises(WorkerGone, match="SIGKILL"):
            await worker.receive()
    await worker.close()
    another = await nursery.fork()
    assert isinstance(await asked(another, jobs.Check("", b"", "")), jobs.Refused)
    await another.close()


async def test_a_nursery_that_dies_takes_its_workers_along_and_is_started_again() -> None:
    nursery = Nursery(WorkerSettings("cpu", 1))
    first = await nursery.fork()
    assert nursery.pid is not None
    os.kill(nursery.pid, signal.SIGKILL)
    with pytest.raises(WorkerGone):
        await first.receive()
    await first.close()
    second = await nursery.fork()
    assert isinstance(await asked(second, jobs.Check("", b"", "")), jobs.Refused)
    await nursery.close()
    with pytest.raises(WorkerGone):
        await second.receive()
    await second.close()


async def test_why_workers_cannot_be_had_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    killed = Nursery(WorkerSettings("cpu", 1))
    starting = asyncio.create_task(killed.start())
    while killed.pid is None:  # noqa: ASYNC110
        await asyncio.sleep(0)
    os.kill(killed.pid, signal.SIGKILL)
    with pytest.raises(EngineError, match=r"killed by SIGKILL before it was ready: .* memory"):
        await starting
    await killed.close()

    monkeypatch.setattr(Nursery, "MODULE", "ionn_edge.nowhere")
    missing = Nursery(WorkerSettings("cpu", 1))
    with pytest.raises(
        EngineError, match="ended with exit code 1 before it was ready: what it said"
    ):
        await missing.start()
    await missing.close()


async def test_a_nursery_that_was_late_once_is_started_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nursery = Nursery(WorkerSettings("cpu", 1))
    with monkeypatch.context() as impatient:
        impatient.setattr("ionn_edge.workers.nursery.START_TIMEOUT_S", 0.01)
        with pytest.raises(EngineError, match=r"not ready after 0\.01 s: try again"):
            await nursery.start()
    worker = await nursery.fork()
    assert isinstance(await asked(worker, jobs.Check("", b"", "")), jobs.Refused)
    await worker.close()
    await nursery.close()


async def test_what_a_socket_does_not_take_at_once_arrives_in_order(
    nursery: Nursery, stored: tuple[LayerGraph, dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    graph, weights = stored
    worker = await nursery.fork()
    try:
        await asked(worker, check(graph, tmp_path))
        worker.send(ready(0, 1, 2))
        live = torch.ones(1, WIDTH)
        for query in range(5):
            # More than a socket holds; what follows may not go past it.
            worker.send(ready(*[0] * 200_000))
            worker.send(run(query, 0, 3, live))
        for query in range(5):
            async with asyncio.timeout(60):
                answer = await worker.receive()
            assert isinstance(answer, jobs.Ran)
            assert answer.query == query
            assert torch.equal(tensors(answer)[0], execute(graph, weights, 0, 3, (live,))[0])
    finally:
        await worker.close()


async def test_a_nursery_may_be_closed_as_soon_as_it_has_started() -> None:
    nursery = Nursery(WorkerSettings("cpu", 1))
    await nursery.start()
    async with asyncio.timeout(60):
        await nursery.close()
