"""An edge that multiplies bfloat16 in less time does so below exact, and says what that is."""

from __future__ import annotations

from pathlib import Path

import msgpack
import numpy
import pytest
import torch
from torch import nn

from ionn_edge.settings import WorkerSettings
from ionn_edge.storage.places import Place
from ionn_edge.workers import jobs
from ionn_edge.workers.rounding import bfloat16_pays, rounded_weights
from ionn_edge.workers.worker import _Worker
from layergraph import Executor, capture, tensor_to_buffer, weight_bytes_view
from layergraph.bfloat16 import roundable_weights
from wire.messages import Tensor
from wire.planes import coarse_words

X = torch.linspace(-1, 1, 256).reshape(1, 256)


def test_only_on_processors_and_only_where_it_pays() -> None:
    torch.manual_seed(0)
    graph, _ = capture(nn.Linear(256, 256).eval(), (X,))
    assert rounded_weights(graph, "cuda") == {}
    (weight,) = roundable_weights(graph)
    names = {weight: graph.weights[weight].name}
    assert rounded_weights(graph, "cpu") == (names if bfloat16_pays() else {})


@pytest.mark.parametrize("precision", ["float8", "bfloat16", "exact"])
def test_answers_are_near_by_planes_and_exact_by_whole_weights(
    tmp_path: Path, precision: str
) -> None:
    torch.manual_seed(0)
    graph, tensors = capture(nn.Linear(256, 256).eval(), (X,))
    for weight in graph.weights:
        _store(Place(tmp_path, b""), weight.digest, weight_bytes_view(tensors[weight.name]))
    worker = _Worker(WorkerSettings("cpu", torch.get_num_threads()))
    check = jobs.Check(graph.fingerprint, msgpack.packb(graph.to_plain()), str(tmp_path))
    assert isinstance(worker.answer(check), jobs.Checked)
    worker.answer(jobs.Ready(list(range(len(graph.weights))), precision, 7))
    given = (Tensor(*tensor_to_buffer(X)),)
    ran = worker.answer(jobs.Run(1, 0, len(graph.layers), precision, "raw", given))
    assert isinstance(ran, jobs.Ran)
    assert ran.precision == precision
    answer = torch.frombuffer(bytearray(ran.tensors[0].data), dtype=torch.float32)
    (exact,) = Executor(graph, tensors).run(0, len(graph.layers), (X,))
    apart = float((answer - exact.flatten()).abs().max() / exact.abs().max())
    assert apart == 0 if precision == "exact" else 0 < apart < 0.1
    assert worker._model is not None
    (large,) = (weight for weight in graph.weights if weight.spec.shape == (256, 256))
    short = bfloat16_pays() and precision != "exact"
    kind = torch.bfloat16 if short else torch.float32
    assert worker._model.weights.tensors[large.name].dtype is kind


def _store(place: Place, digest: bytes, blob: memoryview) -> None:
    words = (numpy.frombuffer(blob, "<u4") >> 16).astype("<u2")
    place.part(digest, 7, "coarse").write_bytes(coarse_words(blob))
    place.part(digest, 7, "middle").write_bytes(words.data)
    place.blob(digest).write_bytes(blob)
