"""Live tensors as they cross the wire, and back, checked against the cut they belong to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from layergraph import LayerGraph, check_live, tensor_from_buffer, tensor_to_buffer
from layergraph.execute import Live
from wire import DEFAULT_LIMITS, Limits, RemoteProtocolError, messages
from wire.activations import LOSSY

# Asked without torch, which takes longer than the sum where nothing called it lately.
FEW_BYTES = 4096
_FLOATS: dict[str, Literal["f", "d"]] = {"float32": "f", "float64": "d"}


def live_to_wire(live: Live) -> tuple[messages.Tensor, ...]:
    """The live tensors as messages' tensors, without copies where they are dense."""
    return tuple(messages.Tensor(*tensor_to_buffer(tensor)) for tensor in live)


def live_from_wire(tensors: tuple[messages.Tensor, ...], graph: LayerGraph, cut: int) -> Live:
    """The live tensors of `cut`, from raw ones. Raises InvalidInput if they do not fit it."""
    live = tuple(tensor_from_buffer(t.dtype, t.shape, t.order, t.data) for t in tensors)
    check_live(graph, cut, live)
    return live


def check_answer(tensors: Sequence[messages.Tensor], graph: LayerGraph, cut: int) -> None:
    """Before they are decoded: raises RemoteProtocolError unless these may be an answer at `cut`.

    Nothing lossy is ever asked for in an answer.
    """
    specs = graph.cut_specs(cut)
    if len(tensors) != len(specs):
        raise RemoteProtocolError(f"{len(tensors)} tensors at cut {cut}, which has {len(specs)}")
    for tensor, spec in zip(tensors, specs, strict=True):
        if (tensor.dtype, tuple(tensor.shape)) != (spec.dtype, spec.shape):
            raise RemoteProtocolError(
                f"{tensor.dtype}{list(tensor.shape)} at cut {cut}, which has {spec}"
            )
        if tensor.coding in LOSSY:
            raise RemoteProtocolError(f"an answer as {tensor.coding}, which was not asked for")


def reply_limits(graph: LayerGraph) -> Limits:
    """What an edge may say about this model: no answer is larger than the largest cut."""
    cuts = [graph.cut_specs(cut) for cut in range(len(graph.cuts))]
    largest = max((spec.nbytes for cut in cuts for spec in cut), default=0)
    header = DEFAULT_LIMITS.max_header_bytes
    return replace(
        DEFAULT_LIMITS,
        max_buffer_bytes=min(largest, DEFAULT_LIMITS.max_buffer_bytes),
        max_message_bytes=min(header + max(graph.cut_bytes), DEFAULT_LIMITS.max_message_bytes),
    )


def wire_bytes(tensors: Sequence[messages.Tensor]) -> int:
    """Bytes of the tensors' data as coded."""
    return sum(memoryview(tensor.data).nbytes for tensor in tensors)


def surely_finite(tensors: Sequence[messages.Tensor]) -> bool:
    """Whether all numbers are finite; False also where finding out takes longer than of a few."""
    for tensor in tensors:
        code, data = _FLOATS.get(tensor.dtype), memoryview(tensor.data)
        if tensor.coding != "raw" or code is None or data.nbytes > FEW_BYTES:
            return False
        # Infinities and NaNs survive every sum.
        if not math.isfinite(sum(data.cast("B").cast(code))):
            return False
    return True


def is_raw(tensors: Sequence[messages.Tensor]) -> bool:
    """Whether none of the tensors needs decoding."""
    return all(tensor.coding == "raw" for tensor in tensors)
