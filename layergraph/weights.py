"""Weights as bytes: digests, views, files."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from layergraph.buffers import Buffer, dense_bytes, tensor_from_buffer
from layergraph.errors import InvalidGraph, InvalidInput
from layergraph.graph import LayerGraph
from layergraph.nodes import TensorSpec
from layergraph.symbols import spec_of


def weight_bytes_view(tensor: torch.Tensor) -> memoryview:
    """The tensor's elements in row-major order as bytes; a copy only if it is not contiguous."""
    return dense_bytes(tensor.detach().contiguous())


def weight_digest(tensor: torch.Tensor) -> bytes:
    """SHA-256 of the tensor's contiguous bytes."""
    return hashlib.sha256(weight_bytes_view(tensor)).digest()


def tensor_from_weight_bytes(buffer: Buffer, spec: TensorSpec) -> torch.Tensor:
    """The tensor that these bytes are; shares memory with `buffer` where that is writable.

    Raises InvalidInput if the number of bytes is not the declared one.
    """
    return tensor_from_buffer(spec.dtype, spec.shape, range(len(spec.shape)), buffer)


def save_weights(path: str | Path, weights: Mapping[str, torch.Tensor]) -> None:
    """Writes the weights that `capture` gave as a safetensors file."""
    path = Path(path)
    try:
        save_file(apart(weights), path)
    except (OSError, SafetensorError) as error:
        raise InvalidInput(f"the weights cannot be written to {path}: {error}") from error


def apart(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights, contiguous and no two in the same memory, which safetensors refuses."""
    seen: set[int] = set()
    result = {}
    for name, tensor in weights.items():
        tensor = tensor.detach().contiguous()
        storage = tensor.untyped_storage().data_ptr()
        result[name] = tensor.clone() if storage in seen else tensor
        seen.add(storage)
    return result


def load_weights(path: str | Path, graph: LayerGraph) -> dict[str, torch.Tensor]:
    """The graph's weights from a safetensors file, by name.

    Raises InvalidInput if the file cannot be read or lacks a weight, InvalidGraph if a weight
    has not the graph's shape, element type or digest.
    """
    path = Path(path)
    try:
        stored = load_file(path)
    except (OSError, SafetensorError) as error:
        raise InvalidInput(f"{path} is no readable safetensors file: {error}") from error
    weights = {}
    for weight in graph.weights:
        if weight.name not in stored:
            raise InvalidInput(f"{path} has no weight {weight.name}")
        tensor = stored[weight.name]
        if spec_of(tensor) != weight.spec:
            raise InvalidGraph(
                f"{path}: weight {weight.name} is {spec_of(tensor)}, not {weight.spec}"
            )
        if weight_digest(tensor) != weight.digest:
            raise InvalidGraph(f"{path}: weight {weight.name} has other content than the graph's")
        weights[weight.name] = tensor
    return weights
