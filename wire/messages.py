"""Every message that crosses the network, and every kind number.

A message is a frozen dataclass of plain data. Bulk bytes (`payload`, `graph`, a tensor's
`data`) are memoryviews that the codec sends out of band. docs/protocol.md is the
specification; a change here changes it, the golden bytes and the changelog too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias

VERSION = 2
OLDEST_VERSION = 2

Buffer: TypeAlias = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Tensor:
    """A dense tensor out of band.

    `shape` is the logical shape. `order` lists its dimensions from the slowest to the fastest
    in memory (a permutation of range(rank)), so that a channels-last tensor stays one across a
    cut. `data` holds the elements in that order, without gaps, little endian; under any
    `coding` (one of TENSOR_CODINGS) but "raw", it holds what wire.activations makes of that.
    """

    dtype: str
    shape: tuple[int, ...]
    order: tuple[int, ...]
    data: Buffer
    coding: str = "raw"


@dataclass(frozen=True, slots=True)
class Hello:
    """Client's first message: the versions it speaks. Answered by Welcome or Error."""

    oldest_version: int
    version: int
    agent: str


@dataclass(frozen=True, slots=True)
class Welcome:
    """Edge's answer: the version chosen, what the box is, its limits and its cost predictor.

    `epoch` changes whenever the edge forgets what it acknowledged. `predictor` is
    planner.predictor's plain form. `lane` is the secret by which a second connection of the same
    client joins this one. `clock_s` is the edge's monotonic clock.
    """

    version: int
    agent: str
    epoch: str
    device: str
    threads: int
    memory_bytes: int
    max_message_bytes: int
    max_chunk_bytes: int
    predictor: dict[str, Any]
    lane: str
    clock_s: float


@dataclass(frozen=True, slots=True)
class Join:
    """Client: this connection carries weights for the one that was welcomed with `lane`.

    Answered by Joined or Error.
    """

    lane: str


@dataclass(frozen=True, slots=True)
class Joined:
    """Edge's answer to Join: segments and chunks may come here."""


@dataclass(frozen=True, slots=True)
class Offer:
    """Client offers the model it wants to run: the whole graph, without weights.

    `graph` is the msgpack of LayerGraph.to_plain(), or empty to ask whether the edge knows the
    graph of this fingerprint. Answered by Have, Error, or Unknown where it was empty.
    """

    fingerprint: str
    graph: Buffer


@dataclass(frozen=True, slots=True)
class Unknown:
    """Edge does not know the graph of this fingerprint: offer it whole."""

    fingerprint: str


@dataclass(frozen=True, slots=True)
class Partial:
    """The edge holds the first `count` elements of one plane of a weight (see wire.planes)."""

    weight: int
    plane: int
    count: int


@dataclass(frozen=True, slots=True)
class Have:
    """Edge's answer to Offer: which weights it holds, and what of the others.

    `runs` are lengths of runs of weights in the graph's order: lacking, held, lacking, held, ...
    The first may be 0; they add up to the number of weights. A held weight is whole, and its
    digest was verified. `partial` tells of lacking weights of which there is something.
    """

    fingerprint: str
    epoch: str
    runs: tuple[int, ...]
    partial: tuple[Partial, ...]


@dataclass(frozen=True, slots=True)
class Segment:
    """Announces elements [start, start + count) of one plane of a weight, coded by itself.

    `start` is where the edge's copy of the plane ends. `coding` is one of SEGMENT_CODINGS. The
    `coded_bytes` follow in Chunks, before the next Segment.
    """

    weight: int
    plane: int
    start: int
    count: int
    coding: str
    coded_bytes: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """The next bytes of the segment announced last. Answered by ChunkAck."""

    payload: Buffer


@dataclass(frozen=True, slots=True)
class ChunkAck:
    """Edge received one more chunk, at `clock_s` of its clock."""

    clock_s: float


@dataclass(frozen=True, slots=True)
class Held:
    """Edge decoded and stored a segment: it holds the plane's first `count` elements.

    `complete` says that the weight is whole and its digest matched.
    """

    weight: int
    plane: int
    count: int
    complete: bool


@dataclass(frozen=True, slots=True)
class Execute:
    """Client asks for layers [start, stop), given the live tensors at cut `start`.

    `deadline_s` is the time after which the answer is worthless, counted from receipt; None
    for no limit. `precision` (one of PRECISIONS) is the least that the weights must have;
    `reply_coding` the coding wanted for the answer's tensors.
    """

    query: int
    start: int
    stop: int
    deadline_s: float | None
    precision: str
    reply_coding: str
    tensors: tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """Edge's answer to Execute: the live tensors at cut `stop`, and where the time went.

    `stop` is the end of the range that really ran: less than asked where a weight was not there.
    `precision` is the least that any of its weights had. `queue_s` from receipt until its turn
    came, `coding_s` for decoding and coding tensors, `compute_s` for the layers.
    """

    query: int
    start: int
    stop: int
    precision: str
    queue_s: float
    coding_s: float
    compute_s: float
    tensors: tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class Cancel:
    """Client no longer wants the answer to Execute `query`. Not answered."""

    query: int


@dataclass(frozen=True, slots=True)
class Ping:
    """Either side: are you there? Answered by Pong with the same token."""

    token: int


@dataclass(frozen=True, slots=True)
class Pong:
    token: int
    clock_s: float


@dataclass(frozen=True, slots=True)
class GetLoad:
    """Client asks for a Load report."""


@dataclass(frozen=True, slots=True)
class ModelLoad:
    """One model that the edge holds."""

    fingerprint: str
    held_bytes: int
    total_bytes: int
    clients: int
    queries: int


@dataclass(frozen=True, slots=True)
class Load:
    """Edge's load: answer to GetLoad, and sent by itself when it changes much.

    `slowdown` is the ratio of recent to uncontended execution time (Neurosurgeon's K), 1 or more.
    """

    clients: int
    running: int
    queued: int
    slowdown: float
    used_bytes: int
    memory_bytes: int
    models: tuple[ModelLoad, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class Evicted:
    """Edge dropped the model for want of memory: nothing acknowledged before holds any more."""

    fingerprint: str
    epoch: str


@dataclass(frozen=True, slots=True)
class Error:
    """Something failed. `query` names the Execute that it answers; without it the connection ends.

    `code` is one of ERROR_CODES; `text` is for a person.
    """

    code: str
    text: str
    query: int | None = None


@dataclass(frozen=True, slots=True)
class Bye:
    """Sender will say nothing more: "done", "draining" (the edge stops; run elsewhere)."""

    reason: str


Message: TypeAlias = (
    Hello | Welcome | Offer | Have | Chunk | ChunkAck | Execute | Result | Cancel
    | Ping | Pong | GetLoad | Load | Evicted | Error | Bye
    | Join | Joined | Unknown | Segment | Held
)  # fmt: skip

KINDS: dict[int, type[Message]] = {
    1: Hello, 2: Welcome, 3: Offer, 4: Have, 5: Chunk, 6: ChunkAck, 7: Execute, 8: Result,
    9: Cancel, 10: Ping, 11: Pong, 12: GetLoad, 13: Load, 14: Evicted, 15: Error, 16: Bye,
    17: Join, 18: Joined, 19: Unknown, 20: Segment, 21: Held,
}  # fmt: skip

# How a segment of weights, and a live tensor, may be coded. "affine8" ones and "float16" lose.
SEGMENT_CODINGS = ("raw", "planes")
TENSOR_CODINGS = ("raw", "planes", "float16", "affine8", "affine8-png")

# Of weights, from the least: what is above a step (wire.float8); the first 16 bits; all.
PRECISIONS = ("float8", "bfloat16", "exact")

ERROR_CODES = frozenset({
    "version",         # no protocol version in common
    "malformed",       # a message that cannot be decoded, or breaks a limit
    "unexpected",      # a well-formed message that this state does not allow
    "graph",           # the graph is invalid, or uses an operator the edge refuses
    "memory",          # the model does not fit the edge's memory budget
    "storage",         # the edge cannot store weights (disk full)
    "coding",          # a segment's bytes do not decode as they should
    "digest",          # a weight's bytes do not match its digest; its bytes are dropped
    "input",           # live tensors do not fit the cut
    "not-uploaded",    # the first layer of the range is not there
    "deadline",        # the deadline passed before the range ran
    "execution",       # the range failed while running
    "overloaded",      # too many queries or clients
})  # fmt: skip
