"""A worker's tensors: what planes give costs memory once, and only until there is better."""

from __future__ import annotations

import gc
from pathlib import Path

import msgpack
import numpy
import pytest
import torch

from ionn_edge.settings import WorkerSettings
from ionn_edge.storage.places import Place
from ionn_edge.storage.weights import Weights, mapped
from ionn_edge.workers import jobs
from ionn_edge.workers.worker import SETTLE_S, _Worker
from layergraph import weight_digest
from layergraph.nodes import TensorSpec, Weight
from tests.support import blobs, chain
from wire.planes import COARSE, MIDDLE
from wire.segments import decode_segment, encode_segment

VALUES = torch.linspace(-3, 3, 4096)
DIGEST = weight_digest(VALUES)
FLAT = Weight("flat", TensorSpec("float32", (4096,)), DIGEST)
SQUARE = Weight("square", TensorSpec("float32", (64, 64)), DIGEST)
RANKS = ("float8", "bfloat16", "exact")
NOWHERE = Place(Path("nowhere"), b"")
WORST = (2**-4, 2**-8, 0.0)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A directory with planes of the blob, as part 7, and the blob itself."""
    blob = VALUES.numpy().tobytes()
    stored = None
    for plane, kind in ((COARSE, "coarse"), (MIDDLE, "middle")):
        coded = encode_segment("float32", plane, blob, 0, VALUES.numel(), "raw")
        stored = decode_segment("float32", plane, VALUES.numel(), "raw", coded, stored)
        Place(tmp_path, b"").part(DIGEST, 7, kind).write_bytes(stored)
    Place(tmp_path, b"").blob(DIGEST).write_bytes(blob)
    return tmp_path


def settled(weights: Weights) -> None:
    """What was announced is there and taken, without a query."""
    weights._loader.submit(int).result()
    weights.settle()
    assert not weights.loading


def difference(tensor: torch.Tensor) -> float:
    return float((tensor.flatten() - VALUES).abs().max() / VALUES.abs().max())


def test_what_is_loaded_is_taken_without_a_query_and_what_it_replaces_is_gone(
    store: Path,
) -> None:
    replaced: list[str] = []
    weights = Weights(Place(store, b""), NOWHERE, "cpu", replaced.append)
    for rank, precision in enumerate(RANKS):
        weights.load(FLAT, precision, 7)
        assert weights.loading
        settled(weights)
        assert difference(weights.tensors["flat"]) <= WORST[rank]
        assert weights.rank("flat", rank) == rank
        assert weights.rank("flat", rank + 1) is None
        gc.collect()
        # One buffer made of planes, and none beside the mapped file.
        assert len(weights._rough) == (precision != "exact")
    assert replaced == ["flat"] * 2


def test_planes_that_became_whole_before_they_were_read_are_read_whole(store: Path) -> None:
    for kind in ("coarse", "middle"):
        Place(store, b"").part(DIGEST, 7, kind).unlink()
    weights = Weights(Place(store, b""), NOWHERE, "cpu", lambda _: None)
    weights.load(FLAT, "bfloat16", 7)
    settled(weights)
    assert weights.rank("flat", RANKS.index("exact")) == RANKS.index("exact")
    assert difference(weights.tensors["flat"]) == 0.0


def test_equal_weights_share_what_is_made_of_their_planes(store: Path) -> None:
    weights = Weights(Place(store, b""), NOWHERE, "cpu", lambda _: None)
    for each in (FLAT, SQUARE):
        weights.load(each, "bfloat16", 7)
    settled(weights)
    flat, square = weights.tensors["flat"], weights.tensors["square"]
    assert flat.data_ptr() == square.data_ptr()
    assert (flat.shape, square.shape) == ((4096,), (64, 64))
    weights.load(FLAT, "exact", 0)
    settled(weights)
    assert difference(weights.tensors["flat"]) == 0
    assert 0 < difference(weights.tensors["square"]) <= WORST[1]


def test_weights_of_products_are_bfloat16_until_they_are_exact(store: Path) -> None:
    weights = Weights(Place(store, b""), NOWHERE, "cpu", lambda _: None, {"square"})
    for rank, precision in enumerate(RANKS[:-1]):
        for each in (FLAT, SQUARE):
            weights.load(each, precision, 7)
        settled(weights)
        flat, square = weights.tensors["flat"], weights.tensors["square"]
        assert (flat.dtype, square.dtype) == (torch.float32, torch.bfloat16)
        assert square.shape == (64, 64)
        # Where the middle of what is known is no bfloat16, it is rounded to an even one.
        assert torch.equal(square.flatten(), flat.bfloat16())
        assert difference(square) <= 2 * WORST[rank]
    weights.load(SQUARE, "exact", 0)
    settled(weights)
    assert weights.tensors["square"].dtype is torch.float32
    assert difference(weights.tensors["square"]) == 0


@pytest.mark.parametrize(("kind", "precision"), [("coarse", "float8"), ("middle", "bfloat16")])
def test_planes_that_are_gone_or_cut_short_are_not_there(
    store: Path, kind: str, precision: str
) -> None:
    path = Place(store, b"").part(DIGEST, 7, kind)
    weights = Weights(Place(store, b""), NOWHERE, "cpu", lambda _: None)
    path.write_bytes(numpy.zeros(1000, numpy.uint8).tobytes())
    weights.load(FLAT, precision, 7)
    settled(weights)
    path.unlink()
    whole = Place(store, b"").blob(DIGEST)
    blob = whole.read_bytes()
    whole.unlink()
    weights.load(FLAT, precision, 7)
    assert weights.rank("flat", 0) is None
    whole.write_bytes(blob)
    # And may be announced again.
    weights.load(FLAT, "exact", 0)
    assert weights.rank("flat", 2) == 2


def test_a_worker_that_has_nothing_to_do_looks_what_was_loaded(store: Path) -> None:
    graph, tensors = chain(1)
    (blob,) = blobs(graph, tensors)
    weight = graph.weights[0]
    Place(store, b"").blob(weight.digest).write_bytes(blob)
    worker = _Worker(WorkerSettings("cpu", 1))
    assert worker.idle_s is None
    check = jobs.Check(graph.fingerprint, msgpack.packb(graph.to_plain()), str(store))
    assert isinstance(worker.answer(check), jobs.Checked)
    assert worker.idle_s is None
    # Not all of a model at once, which would be a reason to warm up.
    assert worker._model is not None
    worker._model.weights.load(weight, "exact", 0)
    assert worker.idle_s == SETTLE_S
    worker._model.weights._loader.submit(int).result()
    worker.use_idle_time()
    assert worker.idle_s is None
    assert torch.equal(worker._model.weights.tensors[weight.name], tensors[weight.name])


def test_exact_weights_are_the_file_and_cannot_be_written_to(store: Path) -> None:
    path = Place(store, b"").blob(DIGEST)
    read = torch.frombuffer(mapped(path), dtype=torch.float32)
    gc.collect()
    assert torch.equal(read, VALUES)
    (pages,) = (row for row in Path("/proc/self/maps").read_text().splitlines() if path.name in row)
    assert pages.split()[1] == "r--p"
    assert int(pages.partition("-")[0], 16) == read.data_ptr()
