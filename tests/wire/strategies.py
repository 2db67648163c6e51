"""Hypothesis strategies for every message within the default limits (but small)."""

from __future__ import annotations

import math

from hypothesis import strategies as st

import wire
from wire.limits import MAX_COUNT, MAX_LAYER, MAX_PLANE, MAX_THREADS, MAX_VERSION, MAX_WEIGHT_BYTES

counts = st.integers(0, MAX_COUNT)
weights = st.integers(0, wire.DEFAULT_LIMITS.max_weights - 1)
weight_bytes = st.integers(0, MAX_WEIGHT_BYTES)
elements_there = st.integers(1, MAX_WEIGHT_BYTES)
planes = st.integers(0, MAX_PLANE)
precisions = st.sampled_from(wire.PRECISIONS)
seconds = st.floats(0.0, allow_nan=False, allow_infinity=False)
# Printable: no control, format or unassigned characters, and of separators only the space.
printable = st.characters(exclude_categories=("C", "Z"), include_characters=" ")
names = st.text(printable, min_size=1, max_size=40).filter(str.isprintable)
payloads = st.binary(min_size=1, max_size=64).map(memoryview)

plain_scalars = (
    st.none()
    | st.booleans()
    | st.integers(-MAX_COUNT, MAX_COUNT)
    | st.floats(allow_nan=False, allow_infinity=False)
    | names
)
# 3 levels inside the outermost map, below the limit of 8.
plain_maps = st.dictionaries(
    names,
    st.recursive(
        plain_scalars,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
        max_leaves=6,
    ),
    max_size=4,
)


@st.composite
def tensors(draw: st.DrawFn) -> wire.Tensor:
    dtype = draw(st.sampled_from(sorted(wire.DTYPE_BYTES)))
    shape = tuple(draw(st.lists(st.integers(0, 3), max_size=4)))
    order = tuple(draw(st.permutations(range(len(shape)))))
    size = wire.DTYPE_BYTES[dtype] * math.prod(shape)
    data = draw(st.binary(min_size=size, max_size=size))
    if dtype == "bool":
        data = bytes(byte & 1 for byte in data)
    if size and draw(st.booleans()):
        # Coded: any bytes, as long as they are fewer.
        coding = draw(st.sampled_from(wire.TENSOR_CODINGS[1:]))
        data = draw(st.binary(max_size=size - 1))
        return wire.Tensor(dtype, shape, order, memoryview(data), coding)
    return wire.Tensor(dtype, shape, order, memoryview(data))


@st.composite
def haves(draw: st.DrawFn) -> wire.Have:
    """Runs in turn, and rows in order for some of the weights that they count."""
    runs = draw(st.lists(st.integers(1, 9), max_size=20))
    if runs and draw(st.booleans()):
        runs[0] = 0
    places = st.tuples(st.integers(0, sum(runs) - 1), st.integers(0, MAX_PLANE))
    rows = sorted(draw(st.sets(places, max_size=8))) if sum(runs) else []
    counts = draw(st.lists(elements_there, min_size=len(rows), max_size=len(rows)))
    partial = [wire.Partial(*place, count) for place, count in zip(rows, counts, strict=True)]
    return wire.Have(draw(names), draw(names), tuple(runs), tuple(partial))


tensor_tuples = st.lists(tensors(), max_size=3).map(tuple)
ranges = st.tuples(st.integers(0, MAX_LAYER - 1), st.integers(1, 100)).map(
    lambda pair: (pair[0], min(pair[0] + pair[1], MAX_LAYER))
)
model_loads = st.builds(
    lambda name, sizes, clients, queries: wire.ModelLoad(name, *sorted(sizes), clients, queries),
    names,
    st.tuples(counts, counts),
    counts,
    counts,
)
versions = st.tuples(st.integers(1, MAX_VERSION), st.integers(1, MAX_VERSION))

MESSAGES: dict[type, st.SearchStrategy] = {
    wire.Hello: st.builds(lambda pair, agent: wire.Hello(*sorted(pair), agent), versions, names),
    wire.Welcome: st.builds(
        wire.Welcome,
        st.integers(1, MAX_VERSION),
        names,
        names,
        names,
        st.integers(1, MAX_THREADS),
        counts,
        st.integers(1, MAX_COUNT),
        st.integers(1, MAX_COUNT),
        plain_maps,
        names,
        seconds,
    ),
    wire.Join: st.builds(wire.Join, names),
    wire.Joined: st.just(wire.Joined()),
    wire.Offer: st.builds(wire.Offer, names, st.just(memoryview(b"")) | payloads),
    wire.Unknown: st.builds(wire.Unknown, names),
    wire.Have: haves(),
    wire.Segment: st.builds(
        wire.Segment,
        weights,
        planes,
        st.integers(0, MAX_WEIGHT_BYTES - (1 << 20)),
        st.integers(1 << 16, 1 << 20),
        st.sampled_from(wire.SEGMENT_CODINGS),
        st.integers(1, 1 << 20),
    ),
    wire.Chunk: st.builds(wire.Chunk, payloads),
    wire.ChunkAck: st.builds(wire.ChunkAck, seconds),
    wire.Held: st.builds(wire.Held, weights, planes, weight_bytes, st.booleans()),
    wire.Execute: st.builds(
        lambda query, span, *rest: wire.Execute(query, *span, *rest),
        counts,
        ranges,
        st.none() | seconds,
        precisions,
        st.sampled_from(wire.TENSOR_CODINGS),
        tensor_tuples,
    ),
    wire.Result: st.builds(
        lambda query, span, *rest: wire.Result(query, *span, *rest),
        counts,
        ranges,
        precisions,
        seconds,
        seconds,
        seconds,
        tensor_tuples,
    ),
    wire.Cancel: st.builds(wire.Cancel, counts),
    wire.Ping: st.builds(wire.Ping, counts),
    wire.Pong: st.builds(wire.Pong, counts, seconds),
    wire.GetLoad: st.just(wire.GetLoad()),
    wire.Load: st.builds(
        wire.Load,
        counts,
        counts,
        counts,
        st.floats(1.0, allow_infinity=False),
        counts,
        counts,
        st.lists(model_loads, max_size=3).map(tuple),
    ),
    wire.Evicted: st.builds(wire.Evicted, names, names),
    wire.Error: st.builds(
        wire.Error,
        st.sampled_from(sorted(wire.ERROR_CODES)),
        st.just("") | names,
        st.none() | counts,
    ),
    wire.Bye: st.builds(wire.Bye, names),
}  # fmt: skip

messages = st.one_of(*MESSAGES.values())
