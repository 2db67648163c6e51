"""Captured graphs on disk: the same model and inputs are exported once.

A file holds plain data and tensors, nothing that can run. It is a hint: a hit counts only
after one inference through it equals the eager module's, and a damaged file is replaced.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import inspect
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from torch.utils import _pytree as pytree

from layergraph.buffers import stride_order
from layergraph.capture import capture
from layergraph.captured import graph_from_text, write_safetensors
from layergraph.errors import GraphError
from layergraph.execute import Executor
from layergraph.export import slow_attention
from layergraph.graph import FORMAT, LayerGraph
from layergraph.signature import sign, unflatten_outputs
from layergraph.weights import apart, weight_digest

Captured = tuple[LayerGraph, dict[str, torch.Tensor]]
_MAX_DEPTH = 6


def capture_cached(
    model: nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    directory: str | Path | None = None,
) -> Captured:
    """What `capture` gives, from disk where the same model was captured for inputs like these.

    `directory` is by default `ionn/graphs` under $XDG_CACHE_HOME or ~/.cache. The key is made
    of the modules' sources and attributes, the content of the weights, the inputs' structure,
    shapes and element types, and torch's version. Raises what `capture` raises.
    """
    kwargs = dict(kwargs or {})
    model.eval()
    try:
        folder = Path(directory) if directory is not None else _default_directory()
    except RuntimeError:  # This user has no home directory, and so no cache.
        return capture(model, args, kwargs)
    path = folder / f"{_key(model, args, kwargs)}.safetensors"
    stored = _load(path, model, args, kwargs)
    if stored is not None:
        return stored
    graph, weights = capture(model, args, kwargs)
    # The cache is only a convenience: a full or read-only disk must not stop a capture.
    with contextlib.suppress(OSError, SafetensorError):
        _store(path, model, graph, weights)
    return graph, weights


def _default_directory() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "ionn" / "graphs"


def _key(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    digest = hashlib.sha256()
    for part in _identity(model, args, kwargs):
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def _identity(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[bytes]:
    yield f"{FORMAT} {torch.__version__}".encode()
    sources: set[type] = set()
    for name, module in model.named_modules(remove_duplicate=False):
        yield f"{name} {type(module).__module__}.{type(module).__qualname__}".encode()
        if type(module) not in sources:
            sources.add(type(module))
            yield _source(type(module)).encode()
        for key, value in sorted(vars(module).items()):
            if key.endswith("_hooks") and isinstance(value, dict):
                # Hooks are numbered by a counter of the whole process.
                value = list(value.values())
            if key not in ("_parameters", "_buffers", "_modules"):
                yield f"{key}={_describe(value)}".encode()
    for name, tensor in _state(model).items():
        yield f"{name} {tensor.dtype} {tuple(tensor.shape)} {tensor.stride()}".encode()
        yield f"{tensor.requires_grad}".encode()
        yield weight_digest(tensor)
    leaves, spec = pytree.tree_flatten((tuple(args), dict(kwargs)))
    yield str(spec).encode()
    for leaf in leaves:
        if isinstance(leaf, torch.Tensor):
            yield f"{leaf.dtype} {tuple(leaf.shape)} {leaf.stride()}".encode()
        else:
            yield _describe(leaf).encode()


def _source(kind: type) -> str:
    parts = []
    for cls in kind.__mro__:
        if cls.__module__.startswith("torch.") or cls is object:
            continue
        try:
            parts.append(inspect.getsource(cls))
        except (OSError, TypeError):
            parts.append(cls.__qualname__)
    return "\n".join(parts)


def _describe(value: Any, depth: int = 0) -> str:
    """A text that is the same in every process for equal values, never with an address."""
    match value:
        case None | bool() | int() | float() | str() | bytes() | torch.dtype() | torch.device():
            return repr(value)
        case torch.Tensor():
            return weight_digest(value).hex()
        case nn.Module():
            return type(value).__qualname__
        case list() | tuple() | set() | frozenset() if depth < _MAX_DEPTH:
            items = [_describe(item, depth + 1) for item in value]
            return f"{type(value).__name__}{sorted(items) if isinstance(value, set) else items}"
        case dict() if depth < _MAX_DEPTH:
            pairs = [(_describe(k, depth + 1), _describe(v, depth + 1)) for k, v in value.items()]
            return f"{type(value).__name__}{pairs}"
    name = getattr(value, "__qualname__", type(value).__qualname__)
    attributes = getattr(value, "__dict__", None)
    if depth < _MAX_DEPTH and isinstance(attributes, dict) and not callable(value):
        return f"{name}{_describe(attributes, depth + 1)}"
    return str(name)


def _state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }


def _as_stored(tensor: torch.Tensor) -> torch.Tensor:
    tensor = tensor.detach()
    permuted = tensor.permute(stride_order(tensor))
    return permuted if permuted.is_contiguous() else tensor.contiguous()


def _store(path: Path, model: nn.Module, graph: LayerGraph, weights: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    state = _state(model)
    # The model has its own weights at hand; only what capture computed goes into the file.
    computed = apart({n: tensor for n, tensor in weights.items() if n not in state})
    write_safetensors(path, computed, graph)


def _load(
    path: Path, model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Captured | None:
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            graph = graph_from_text((file.metadata() or {}).get("graph", ""))
            computed = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        state = _state(model)
        weights = {
            weight.name: computed[weight.name]
            if weight.name in computed
            else _as_stored(state[weight.name])
            for weight in graph.weights
        }
        return _verified(graph, weights, model, args, kwargs)
    except (OSError, SafetensorError, ValueError, KeyError, GraphError):
        return None


def _verified(
    graph: LayerGraph,
    weights: dict[str, torch.Tensor],
    model: nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
) -> Captured | None:
    with slow_attention(), torch.inference_mode():
        expected, out_spec = pytree.tree_flatten(model(*args, **kwargs))
    if len(graph.outputs) != len(expected):
        return None
    signed = dataclasses.replace(graph, signature=sign(graph, args, kwargs, out_spec))
    live = signed.signature.flatten(args, kwargs)
    run = Executor(signed, weights).run(0, len(graph.layers), live)
    got = pytree.tree_leaves(unflatten_outputs(signed, run))
    same = all(map(_equal, got, expected))
    return (signed, weights) if same else None


def _equal(left: Any, right: Any) -> bool:
    if isinstance(left, torch.Tensor) and isinstance(right, torch.Tensor):
        return left.dtype == right.dtype and torch.equal(
            torch.nan_to_num(left), torch.nan_to_num(right)
        )
    return bool(left == right)
