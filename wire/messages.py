"""Every message that crosses the network, and every kind number.

A message is a frozen dataclass of plain data. Bulk bytes (`payload`, `graph`, a tensor's
`data`) are memoryviews that the codec sends out of band. docs/protocol.md is the
specification; a change here changes it, the golden bytes and the changelog too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias

VERSION = 1
OLDEST_VERSION = 1

Buffer: TypeAlias = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Tensor:
    """A dense tensor out of band.

    `shape` is the logical shape. `order` lists its dimensions from the slowest to the fastest
    in memory (a permutation of range(rank)), so that a channels-last tensor stays one across a
    cut. `data` holds the elements in that order, without gaps, little endian.
    """

    dtype: str
    shape: tuple[int, ...]
    order: tuple[int, ...]
    data: Buffer


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
    planner.predictor's plain form. `clock_s` is the edge's monotonic clock.
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
    clock_s: float


@dataclass(frozen=True, slots=True)
class Offer:
    """Client offers the model it wants to run: the whole graph, without weights.

    `graph` is the msgpack of LayerGraph.to_plain(). Answered by Have or Error.
    """

    fingerprint: str
    graph: Buffer


@dataclass(frozen=True, slots=True)
class Have:
    """Edge's answer to Offer: how many leading bytes of each weight it holds, by weight number.

    A weight held in full is verified by its digest. The client sends the rest.
    """

    fingerprint: str
    epoch: str
    held_bytes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of one weight's bytes, at `offset`, which is where the edge's copy ends."""

    weight: int
    offset: int
    payload: Buffer


@dataclass(frozen=True, slots=True)
class ChunkAck:
    """Edge holds `held_bytes` leading bytes of the weight at `clock_s` of its clock.

    `complete` says that the digest matched and that layers using it may be executed.
    """

    weight: int
    held_bytes: int
    complete: bool
    clock_s: float


@dataclass(frozen=True, slots=True)
class Execute:
    """Client asks for layers [start, stop), given the live tensors at cut `start`.

    `deadline_s` is the time after which the answer is worthless, counted from receipt; None
    for no limit.
    """

    query: int
    start: int
    stop: int
    deadline_s: float | None
    tensors: tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """Edge's answer to Execute: the live tensors at cut `stop`, and where the time went.

    `stop` is the end of the range that really ran: less than asked where a weight was not there.
    `queue_s` from receipt to start of execution, `compute_s` from there to its end.
    """

    query: int
    start: int
    stop: int
    queue_s: float
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
)  # fmt: skip

KINDS: dict[int, type[Message]] = {
    1: Hello, 2: Welcome, 3: Offer, 4: Have, 5: Chunk, 6: ChunkAck, 7: Execute, 8: Result,
    9: Cancel, 10: Ping, 11: Pong, 12: GetLoad, 13: Load, 14: Evicted, 15: Error, 16: Bye,
}  # fmt: skip

ERROR_CODES = frozenset({
    "version",         # no protocol version in common
    "malformed",       # a message that cannot be decoded, or breaks a limit
    "unexpected",      # a well-formed message that this state does not allow
    "graph",           # the graph is invalid, or uses an operator the edge refuses
    "memory",          # the model does not fit the edge's memory budget
    "storage",         # the edge cannot store weights (disk full)
    "digest",          # a weight's bytes do not match its digest; its bytes are dropped
    "input",           # live tensors do not fit the cut
    "not-uploaded",    # the first layer of the range is not there
    "deadline",        # the deadline passed before the range ran
    "execution",       # the range failed while running
    "overloaded",      # too many queries or clients
})  # fmt: skip
