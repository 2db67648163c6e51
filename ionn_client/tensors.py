"""Live tensors as they cross the wire, and back, checked against the cut they belong to."""

from __future__ import annotations

from layergraph import LayerGraph, check_live, tensor_from_buffer, tensor_to_buffer
from layergraph.execute import Live
from wire import messages


def live_to_wire(live: Live) -> tuple[messages.Tensor, ...]:
    """The live tensors as messages' tensors, without copies where they are dense."""
    return tuple(messages.Tensor(*tensor_to_buffer(tensor)) for tensor in live)


def live_from_wire(tensors: tuple[messages.Tensor, ...], graph: LayerGraph, cut: int) -> Live:
    """The live tensors of `cut`. Raises InvalidInput if they do not fit it."""
    live = tuple(tensor_from_buffer(t.dtype, t.shape, t.order, t.data) for t in tensors)
    check_live(graph, cut, live)
    return live
