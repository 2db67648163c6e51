"""Hypothesis strategies for every message within the default limits (but small)."""

from __future__ import annotations

import math

from hypothesis import strategies as st

import wire
from wire.limits import MAX_COUNT, MAX_LAYER, MAX_THREADS, MAX_VERSION, MAX_WEIGHT_BYTES

counts = st.integers(0, MAX_COUNT)
weights = st.integers(0, wire.DEFAULT_LIMITS.max_weights - 1)
weight_bytes = st.integers(0, MAX_WEIGHT_BYTES)
seconds = st.floats(0.0, allow_nan=False, allow_infinity=False)
names = st.text(min_size=1, max_size=40).filter(str.isprintable)
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
    return wire.Tensor(dtype, shape, order, memoryview(data))


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
        seconds,
    ),
    wire.Offer: st.builds(wire.Offer, names, payloads),
    wire.Have: st.builds(
        wire.Have, names, names, st.lists(weight_bytes, max_size=100).map(tuple)
    ),
    wire.Chunk: st.builds(
        wire.Chunk, weights, st.integers(0, MAX_WEIGHT_BYTES - 64), payloads
    ),
    wire.ChunkAck: st.builds(wire.ChunkAck, weights, weight_bytes, st.booleans(), seconds),
    wire.Execute: st.builds(
        lambda query, span, deadline_s, live: wire.Execute(query, *span, deadline_s, live),
        counts,
        ranges,
        st.none() | seconds,
        tensor_tuples,
    ),
    wire.Result: st.builds(
        lambda query, span, queue_s, compute_s, live: wire.Result(
            query, *span, queue_s, compute_s, live
        ),
        counts,
        ranges,
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
