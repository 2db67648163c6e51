"""One whole conversation that uses every kind of message, and the connection that joins it: the
golden bytes and the example in docs/protocol.md are this."""

from __future__ import annotations

import struct

from wire import (
    COARSE,
    MIDDLE,
    WHOLE,
    Bye,
    Cancel,
    Chunk,
    ChunkAck,
    Error,
    Evicted,
    Execute,
    GetLoad,
    Have,
    Held,
    Hello,
    Join,
    Joined,
    Load,
    Message,
    ModelLoad,
    Offer,
    Partial,
    Ping,
    Pong,
    Result,
    Role,
    Segment,
    Tensor,
    Unknown,
    Welcome,
    encode_segment,
)

MODEL = "9a3c" * 16
LANE = "5be1" * 8
GRAPH = bytes.fromhex("81a6666f726d617401")  # {"format": 1}: a graph's first entry
WEIGHT = struct.pack("<2f", 1.0, -2.0)
OTHER = struct.pack("<3f", 0.15625, -3.0, 1e-3)

CLIENT, EDGE = Role.CLIENT, Role.EDGE


def floats(*values: float) -> Tensor:
    data = struct.pack(f"<{len(values)}f", *values)
    return Tensor("float32", (1, len(values)), (0, 1), memoryview(data))


COARSE_REST = encode_segment("float32", COARSE, OTHER, 1, 2, "raw")
MIDDLE_ALL = encode_segment("float32", MIDDLE, OTHER, 0, 3, "planes")

EXCHANGE: list[tuple[Role, Message, str]] = [
    (CLIENT, Hello(2, 2, "ionn 0.1.0"), "The client speaks version 2 only."),
    (
        EDGE,
        Welcome(
            2, "ionn 0.1.0", "7d20", "cpu", 2, 4 << 30, 64 << 20, 1 << 20,
            {"linear": [1e-05, 2e-10]}, LANE, 10.0,
        ),
        "So does the edge.",
    ),
    (CLIENT, Offer(MODEL, memoryview(b"")), "Do you know this model?"),
    (EDGE, Unknown(MODEL), "No."),
    (CLIENT, Offer(MODEL, memoryview(GRAPH)), "The graph, whole (here, its first entry only)."),
    (
        EDGE,
        Have(MODEL, "7d20", (2, 1), (Partial(1, COARSE, 1),)),
        "Weights 0 and 1 are lacking, weight 2 is held; of weight 1, one element's COARSE is here.",
    ),
    (CLIENT, Segment(0, WHOLE, 0, 2, "raw", 8), "Both elements of weight 0, as they are: 8 bytes."),
    (CLIENT, Chunk(memoryview(WEIGHT)), "All of them."),
    (EDGE, ChunkAck(10.5), "They came at 10.5 s of the edge's clock."),
    (EDGE, Held(0, WHOLE, 2, True), "They match the digest: layer 0 may be executed."),
    (
        CLIENT,
        Execute(1, 0, 1, 0.5, "exact", "raw", (floats(1.0, 2.0),)),
        "Layer 0, within half a second.",
    ),
    (
        EDGE,
        Result(1, 0, 1, "exact", 0.001, 0.0, 0.002, (floats(3.0),)),
        "It waited 1 ms and ran for 2 ms.",
    ),
    (
        CLIENT,
        Execute(2, 1, 2, None, "float8", "planes", (floats(3.0),)),
        "Layer 1 at any precision; it needs weight 1.",
    ),
    (EDGE, Error("not-uploaded", "layer 1 needs weight 1", 2), "An answer; all goes on."),
    (CLIENT, Ping(7), "Are you there?"),
    (EDGE, Pong(7, 11.0), "At 11 s of the edge's clock."),
    (CLIENT, Execute(3, 0, 1, None, "exact", "raw", (floats(1.0, 2.0),)), "Once more."),
    (CLIENT, Cancel(3), "The answer is no longer wanted."),
    (CLIENT, GetLoad(), "How busy is the edge?"),
    (
        EDGE,
        Load(1, 0, 0, 1.25, 12, 4 << 30, (ModelLoad(MODEL, 12, 24, 1, 2),)),
        "One client, one model, 12 of its 24 bytes.",
    ),
    (EDGE, Evicted(MODEL, "7d21"), "The memory was needed: offer again."),
    (EDGE, Bye("draining"), "The edge stops."),
]  # fmt: skip

# The same client's second connection, beside the first one while that has its model.
LANE_EXCHANGE: list[tuple[Role, Message, str]] = [
    (CLIENT, Hello(2, 2, "ionn 0.1.0"), "A second connection greets like any other."),
    (
        EDGE,
        Welcome(
            2, "ionn 0.1.0", "7d20", "cpu", 2, 4 << 30, 64 << 20, 1 << 20, {}, "0f" * 16, 12.0,
        ),
        "It gets a secret of its own, which nobody needs.",
    ),
    (CLIENT, Join(LANE), "It carries weights for the connection that was told this secret."),
    (EDGE, Joined(), "So it does."),
    (
        CLIENT,
        Segment(1, COARSE, 1, 2, "raw", 3),
        "The COARSE plane of weight 1 goes on after its first element.",
    ),
    (CLIENT, Chunk(memoryview(COARSE_REST)), "The step's exponent and two codes."),
    (EDGE, ChunkAck(12.5), "They came."),
    (EDGE, Held(1, COARSE, 3, False), "All three elements of the plane are here: float8."),
    (
        CLIENT,
        Segment(1, MIDDLE, 0, 3, "planes", MIDDLE_ALL.nbytes),
        "What is still lacking of their first 16 bits.",
    ),
    (
        CLIENT,
        Chunk(memoryview(MIDDLE_ALL)),
        "An exponent, three parts of mantissa bits, and half bytes, each with its length.",
    ),
    (EDGE, ChunkAck(12.75), "They came."),
    (EDGE, Held(1, MIDDLE, 3, False), "The weight is at bfloat16 now."),
    (CLIENT, Bye("done"), "FINE may come some other time."),
]  # fmt: skip
