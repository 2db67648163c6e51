"""A captured model as one file: safetensors, with the graph as text beside the weights.

Data only, nothing that can run: torch's own archives hold pickles, and are never opened.
"""

from __future__ import annotations

import base64
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from layergraph.errors import InvalidGraph, InvalidInput
from layergraph.graph import LayerGraph
from layergraph.nodes import Weight
from layergraph.symbols import spec_of
from layergraph.weights import apart, weight_digest

_ARCHIVE = b"PK\x03\x04"


def save_captured(path: str | Path, graph: LayerGraph, weights: Mapping[str, torch.Tensor]) -> None:
    """Writes what `capture` gave, all of it or nothing: `save_captured(path, *capture(...))`.

    Raises InvalidInput.
    """
    path = Path(path)
    tensors = apart({weight.name: weights[weight.name] for weight in graph.weights})
    try:
        write_safetensors(path, tensors, graph)
    except (OSError, SafetensorError) as error:
        raise InvalidInput(f"the model cannot be written to {path}: {error}") from error


def read_graph(path: str | Path) -> LayerGraph:
    """The graph of a captured model; whether it may run is for `check_graph` to say.

    Raises InvalidInput where the file is none, InvalidGraph where its graph is not well formed.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            if file.read(len(_ARCHIVE)) == _ARCHIVE:
                raise InvalidInput(
                    f"{path} is an archive of torch's, which holds pickles: reading it would run"
                    " code. Load and capture it where you trust it, and layergraph.save_captured it"
                )
        with safe_open(path, framework="pt") as tensors:
            text = (tensors.metadata() or {}).get("graph")
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror or error}") from error
    except SafetensorError as error:
        raise InvalidInput(f"{path} is no captured model: {error}") from error
    if text is None:
        raise InvalidInput(f"{path} has weights and no graph: layergraph.save_captured writes both")
    return graph_from_text(text)


def read_weights(path: str | Path, graph: LayerGraph) -> Iterator[tuple[Weight, torch.Tensor]]:
    """The weights of a captured model, one after the other: no more of them is in memory.

    Raises InvalidInput where the file lacks one, InvalidGraph where one has not the graph's shape,
    element type or digest.
    """
    path = Path(path)
    try:
        with safe_open(path, framework="pt") as tensors:
            there = set(tensors.keys())
            for weight in graph.weights:
                if weight.name not in there:
                    raise InvalidInput(f"{path} has no weight {weight.name}")
                shape = tuple(tensors.get_slice(weight.name).get_shape())
                if shape != weight.spec.shape:
                    raise InvalidGraph(f"{path}: weight {weight.name} is {shape}")
                tensor = tensors.get_tensor(weight.name)
                if spec_of(tensor) != weight.spec or weight_digest(tensor) != weight.digest:
                    raise InvalidGraph(f"{path}: weight {weight.name} is not the graph's")
                yield weight, tensor
    except (OSError, SafetensorError) as error:
        raise InvalidInput(f"{path} cannot be read: {error}") from error


def write_safetensors(path: Path, tensors: dict[str, torch.Tensor], graph: LayerGraph) -> None:
    """These tensors with the graph, whole or not at all. Raises OSError, SafetensorError."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".part")
    os.close(handle)
    try:
        save_file(tensors, temporary, metadata={"graph": graph_to_text(graph)})
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def graph_to_text(graph: LayerGraph) -> str:
    """The graph as JSON."""
    plain = graph.to_plain()
    plain["weights"] = [
        [n, spec, digest.hex(), *rest] for n, spec, digest, *rest in plain["weights"]
    ]
    plain["constants"] = [
        [spec, base64.b64encode(data).decode()] for spec, data in plain["constants"]
    ]
    return json.dumps(plain)


def graph_from_text(text: str) -> LayerGraph:
    """The graph that `graph_to_text` wrote. Raises InvalidGraph."""
    try:
        plain = json.loads(text)
        plain["weights"] = [
            [n, spec, bytes.fromhex(digest), *rest] for n, spec, digest, *rest in plain["weights"]
        ]
        plain["constants"] = [[spec, base64.b64decode(data)] for spec, data in plain["constants"]]
    except (TypeError, KeyError, ValueError, RecursionError) as error:
        raise InvalidGraph(f"not a stored graph: {error}") from None
    return LayerGraph.from_plain(plain)
