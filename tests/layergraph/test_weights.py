"""Weights as bytes and files."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from layergraph import (
    InvalidGraph,
    InvalidInput,
    TensorSpec,
    load_weights,
    save_weights,
    tensor_from_weight_bytes,
    weight_bytes_view,
    weight_digest,
)
from tests.support import chain


def test_bytes_and_back_without_a_copy() -> None:
    tensor = torch.arange(6, dtype=torch.bfloat16).view(2, 3)
    view = weight_bytes_view(tensor)
    received = bytearray(view)
    back = tensor_from_weight_bytes(received, TensorSpec("bfloat16", (2, 3)))
    assert torch.equal(back, tensor)
    received[:] = bytes(12)
    assert torch.equal(back, torch.zeros_like(back))
    view[:2] = b"\0\0"
    assert tensor[0, 0] == 0


def test_the_digest_is_that_of_the_row_major_bytes() -> None:
    tensor = torch.arange(6, dtype=torch.float32).view(2, 3)
    expected = hashlib.sha256(tensor.T.contiguous().numpy().tobytes()).digest()
    assert weight_digest(tensor.T) == expected


def test_the_wrong_number_of_bytes() -> None:
    with pytest.raises(InvalidInput, match="needs 24 bytes; there are 20"):
        tensor_from_weight_bytes(bytes(20), TensorSpec("float32", (2, 3)))


def test_files(tmp_path: Path) -> None:
    graph, weights = chain()
    save_weights(tmp_path / "w.safetensors", weights)
    loaded = load_weights(tmp_path / "w.safetensors", graph)
    assert loaded.keys() == weights.keys()
    assert all(torch.equal(loaded[name], weights[name]) for name in weights)


def test_files_that_do_not_fit(tmp_path: Path) -> None:
    graph, weights = chain()
    path = tmp_path / "w.safetensors"
    with pytest.raises(InvalidInput, match="no readable safetensors"):
        load_weights(path, graph)
    path.write_bytes(b"\xff" * 100)
    with pytest.raises(InvalidInput, match="no readable safetensors"):
        load_weights(path, graph)
    save_weights(path, {name: t for name, t in weights.items() if name != "fc1.weight"})
    with pytest.raises(InvalidInput, match=r"has no weight fc1\.weight"):
        load_weights(path, graph)
    save_file({**weights, "fc1.weight": torch.zeros(2, 2)}, path)
    with pytest.raises(InvalidGraph, match=r"fc1\.weight is float32\[2, 2\], not float32\[8, 8\]"):
        load_weights(path, graph)
    save_file({**weights, "fc1.weight": torch.zeros(8, 8)}, path)
    with pytest.raises(InvalidGraph, match="other content"):
        load_weights(path, graph)
    with pytest.raises(InvalidInput, match="cannot be written"):
        save_weights(tmp_path / "nowhere" / "w.safetensors", weights)


def test_tied_content_is_written_twice_and_read_back(tmp_path: Path) -> None:
    graph, weights = chain(2)
    shared = {"fc0.weight": weights["fc0.weight"], "fc1.weight": weights["fc0.weight"]}
    digest = graph.weights[0].digest
    same = dataclasses.replace(
        graph, weights=tuple(dataclasses.replace(w, digest=digest) for w in graph.weights)
    )
    save_weights(tmp_path / "w.safetensors", shared)
    assert len(load_weights(tmp_path / "w.safetensors", same)) == 2
