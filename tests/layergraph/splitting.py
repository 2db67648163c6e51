"""Runs a model whole, layer by layer and split at its cuts, and wants the eager module's bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from layergraph import (
    Executor,
    LayerGraph,
    capture,
    check_graph,
    flatten_inputs,
    slow_attention,
    tensor_from_buffer,
    tensor_to_buffer,
    unflatten_outputs,
)

MAX_SPLITS = 40


def assert_splits_equal_eager(
    model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any] | None = None
) -> tuple[LayerGraph, dict[str, torch.Tensor]]:
    graph, weights = capture(model, args, kwargs)
    with slow_attention(), torch.inference_mode():
        eager = model(*args, **(kwargs or {}))
    # What the edge gets is the graph's plain form, without a signature.
    received = LayerGraph.from_plain(graph.to_plain())
    assert received == graph
    assert received.fingerprint == graph.fingerprint
    check_graph(received)
    client, edge = Executor(graph, weights), Executor(received, weights)
    count = len(graph.layers)
    inputs = flatten_inputs(graph, args, kwargs)
    assert_same(unflatten_outputs(graph, client.run(0, count, inputs)), eager)

    live, lives = inputs, [inputs]
    for layer in range(count):
        live = client.run(layer, layer + 1, live)
        lives.append(live)
    assert_same(unflatten_outputs(graph, live), eager)

    for cut in range(0, count + 1, max(1, (count + 1) // MAX_SPLITS)):
        end = edge.run(cut, count, across_the_wire(lives[cut]))
        assert_same(unflatten_outputs(graph, across_the_wire(end)), eager)
    return graph, weights


def across_the_wire(live: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """The tensors as the other side gets them: taken apart, their bytes copied, put together."""
    received = []
    for tensor in live:
        dtype, shape, order, data = tensor_to_buffer(tensor)
        received.append(tensor_from_buffer(dtype, shape, order, bytes(data)))
    return tuple(received)


def assert_same(got: Any, expected: Any) -> None:
    """The same structure with the same leaves, bit by bit."""
    got_leaves, got_spec = pytree.tree_flatten(got)
    leaves, spec = pytree.tree_flatten(expected)
    assert got_spec == spec
    for left, right in zip(got_leaves, leaves, strict=True):
        if isinstance(right, torch.Tensor):
            assert left.dtype == right.dtype
            assert left.shape == right.shape
            assert torch.equal(left, right)
        else:
            assert left == right
