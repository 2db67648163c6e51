"""What a worker holds a client's words against: its graph, its weights, a query's tensors."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgpack

from layergraph import InvalidGraph, InvalidInput, LayerGraph
from wire.limits import DEFAULT_LIMITS
from wire.messages import Buffer, Tensor

_NO_BYTES = hashlib.sha256().digest()


def graph_from(packed: Buffer) -> LayerGraph:
    try:
        plain = msgpack.unpackb(packed, max_ext_len=0)
    except (ValueError, msgpack.UnpackException) as error:
        raise InvalidGraph(f"the graph is not msgpack: {error}") from None
    return LayerGraph.from_plain(plain)


def weight_rows(graph: LayerGraph, most: int) -> tuple[tuple[bytes, int, str], ...]:
    """(digest, bytes, dtype) of each weight. Raises InvalidGraph where they contradict."""
    if len(graph.weights) > min(most, DEFAULT_LIMITS.max_weights):
        raise InvalidGraph(f"{len(graph.weights)} weights; this edge takes {most}")
    if len({weight.name for weight in graph.weights}) < len(graph.weights):
        raise InvalidGraph("two weights have the same name")
    sizes: dict[bytes, int] = {}
    for weight in graph.weights:
        size = weight.spec.nbytes
        if sizes.setdefault(weight.digest, size) != size:
            raise InvalidGraph(
                f"weight {weight.name} has {size} bytes, and the digest of one with"
                f" {sizes[weight.digest]}"
            )
        if not size and weight.digest != _NO_BYTES:
            raise InvalidGraph(f"weight {weight.name} has no bytes, and a digest of some")
    return tuple((each.digest, each.spec.nbytes, each.spec.dtype) for each in graph.weights)


def check_described(graph: LayerGraph, cut: int, tensors: Sequence[Tensor]) -> None:
    """Raise InvalidInput unless they are what the cut takes: before a few bytes become many."""
    specs = graph.cut_specs(cut)
    if len(tensors) != len(specs):
        raise InvalidInput(f"cut {cut} takes {len(specs)} tensors; got {len(tensors)}")
    for number, (spec, tensor) in enumerate(zip(specs, tensors, strict=True)):
        if (tensor.dtype, tuple(tensor.shape)) != (spec.dtype, tuple(spec.shape)):
            raise InvalidInput(
                f"tensor {number} of cut {cut} is {spec}; got {tensor.dtype}{list(tensor.shape)}"
            )


def excess_of(tensors: tuple[Tensor, ...]) -> str | None:
    """Why the wire would not carry this result."""
    sizes = [memoryview(tensor.data).nbytes for tensor in tensors]
    limits = DEFAULT_LIMITS
    if len(sizes) > limits.max_tensors:
        return f"the result has {len(sizes)} tensors; the limit is {limits.max_tensors}"
    total = sum(sizes) + limits.max_header_bytes
    if max(sizes, default=0) > limits.max_buffer_bytes or total > limits.max_message_bytes:
        return f"the result has {sum(sizes)} bytes; the limit is {limits.max_message_bytes}"
    return None
