"""A captured model's file: what was written is read, and what is none is told apart."""

from __future__ import annotations

import json
import pickle
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from layergraph import GraphError, save_captured, save_weights
from layergraph.captured import graph_to_text, read_graph, read_weights
from tests.support import chain

GRAPH, WEIGHTS = chain(3)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    save_captured(path, GRAPH, {**WEIGHTS, "unused": torch.zeros(1)})
    return path


def test_what_is_written_is_read(path: Path) -> None:
    graph = read_graph(path)
    assert (graph, graph.fingerprint) == (GRAPH, GRAPH.fingerprint)
    read = {weight.name: tensor for weight, tensor in read_weights(path, graph)}
    assert read.keys() == WEIGHTS.keys()
    assert all(torch.equal(read[name], WEIGHTS[name]) for name in WEIGHTS)
    assert [each.name for each in path.parent.iterdir()] == [path.name]


class Hostile:
    """Unpickling it writes a file."""

    def __init__(self, canary: Path) -> None:
        self._canary = canary

    def __reduce__(self) -> object:
        return (Path.touch, (self._canary,))


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    canary, path = tmp_path / "canary", tmp_path / "model"
    torch.save(Hostile(canary), path)
    with pytest.raises(GraphError, match="pickles: reading it would run code"):
        read_graph(path)
    path.write_bytes(pickle.dumps(Hostile(canary)))
    with pytest.raises(GraphError, match="no captured model"):
        read_graph(path)
    assert not canary.exists()


def _declaring(size: int) -> bytes:
    header = json.dumps(
        {
            "__metadata__": {"graph": graph_to_text(GRAPH)},
            "fc0.weight": {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]},
        }
    ).encode()
    return struct.pack("<Q", len(header)) + header


@pytest.mark.parametrize(
    "content",
    [
        b"",
        bytes(8),
        b"\xff" * 64,
        struct.pack("<Q", 10 << 30),
        _declaring(10 << 30),
        _declaring(1 << 62),
    ],
    ids=["empty", "zeros", "ones", "long header", "10 GB", "most"],
)
def test_what_is_no_such_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model"
    path.write_bytes(content)
    with pytest.raises(GraphError, match="no captured model"):
        read_graph(path)


def test_a_file_cut_anywhere_is_refused(path: Path) -> None:
    whole = path.read_bytes()
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        with pytest.raises(GraphError):
            read_graph(path)


@pytest.mark.parametrize("text", ["", "[]", "{}", "[" * 100_000, '{"weights": 1}', "null", '"a"'])
def test_a_graph_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "model"
    save_file(WEIGHTS, path, metadata={"graph": text})
    with pytest.raises(GraphError):
        read_graph(path)


def test_weights_alone_are_no_model(tmp_path: Path) -> None:
    save_weights(tmp_path / "model", WEIGHTS)
    with pytest.raises(GraphError, match="has weights and no graph"):
        read_graph(tmp_path / "model")


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({}, "has no weight fc1.weight"),
        ({"fc1.weight": torch.zeros(8, 8)}, "is not the graph's"),
        ({"fc1.weight": torch.zeros(8, 8, dtype=torch.float64)}, "is not the graph's"),
        ({"fc1.weight": torch.zeros(1 << 20)}, r"fc1.weight is \(1048576,\)"),
    ],
)
def test_weights_are_the_graphs(tmp_path: Path, wrong: dict[str, torch.Tensor], text: str) -> None:
    path = tmp_path / "model"
    others = {name: each for name, each in WEIGHTS.items() if name != "fc1.weight"}
    save_file({**others, **wrong}, path, metadata={"graph": graph_to_text(GRAPH)})
    with pytest.raises(GraphError, match=text):
        list(read_weights(path, read_graph(path)))


def test_what_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match="cannot be written"):
        save_captured(tmp_path / "nowhere" / "model", GRAPH, WEIGHTS)
