"""One whole conversation that uses every kind of message: the golden bytes and the example
in docs/protocol.md are this."""

from __future__ import annotations

import struct

from wire import (
    Bye,
    Cancel,
    Chunk,
    ChunkAck,
    Error,
    Evicted,
    Execute,
    GetLoad,
    Have,
    Hello,
    Load,
    Message,
    ModelLoad,
    Offer,
    Ping,
    Pong,
    Result,
    Role,
    Tensor,
    Welcome,
)

MODEL = "9a3c" * 16
GRAPH = bytes.fromhex("81a6666f726d617401")  # {"format": 1}: a graph's first entry
WEIGHT = struct.pack("<2f", 1.0, -2.0)

CLIENT, EDGE = Role.CLIENT, Role.EDGE


def floats(*values: float) -> Tensor:
    data = struct.pack(f"<{len(values)}f", *values)
    return Tensor("float32", (1, len(values)), (0, 1), memoryview(data))


EXCHANGE: list[tuple[Role, Message, str]] = [
    (CLIENT, Hello(1, 1, "ionn 0.1.0"), "The client speaks version 1 only."),
    (
        EDGE,
        Welcome(
            1, "ionn 0.1.0", "7d20", "cpu", 2, 4 << 30, 64 << 20, 1 << 20,
            {"linear": [1e-05, 2e-10]}, 10.0,
        ),
        "So does the edge.",
    ),
    (CLIENT, Offer(MODEL, memoryview(GRAPH)), "The graph, whole (here, its first entry only)."),
    (EDGE, Have(MODEL, "7d20", (0, 4)), "Nothing of weight 0; 4 leading bytes of weight 1."),
    (CLIENT, Chunk(0, 0, memoryview(WEIGHT)), "All 8 bytes of weight 0."),
    (EDGE, ChunkAck(0, 8, True, 10.5), "They match the digest: layer 0 may be executed."),
    (CLIENT, Execute(1, 0, 1, 0.5, (floats(1.0, 2.0),)), "Layer 0, within half a second."),
    (EDGE, Result(1, 0, 1, 0.001, 0.002, (floats(3.0),)), "It waited 1 ms and ran for 2 ms."),
    (CLIENT, Execute(2, 1, 2, None, (floats(3.0),)), "Layer 1 needs weight 1."),
    (EDGE, Error("not-uploaded", "layer 1 needs weight 1", 2), "An answer; all goes on."),
    (CLIENT, Ping(7), "Are you there?"),
    (EDGE, Pong(7, 11.0), "At 11 s of the edge's clock."),
    (CLIENT, Execute(3, 0, 1, None, (floats(1.0, 2.0),)), "Once more."),
    (CLIENT, Cancel(3), "The answer is no longer wanted."),
    (CLIENT, GetLoad(), "How busy is the edge?"),
    (
        EDGE,
        Load(1, 0, 0, 1.25, 12, 4 << 30, (ModelLoad(MODEL, 12, 16, 1, 2),)),
        "One client, one model, 12 of its 16 bytes.",
    ),
    (EDGE, Evicted(MODEL, "7d21"), "The memory was needed: offer again."),
    (EDGE, Bye("draining"), "The edge stops."),
]  # fmt: skip
