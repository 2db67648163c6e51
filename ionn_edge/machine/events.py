"""What a client's session is told (events, past tense) and asks for (commands, imperative)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from wire.messages import Buffer, Load, Message, Segment, Tensor

if TYPE_CHECKING:
    from ionn_edge.machine.intake import Intake


@dataclass(frozen=True, slots=True)
class Model:
    """What the session needs to know of a checked graph: (digest, bytes, dtype) of every weight.

    sizes: bytes of every blob; weights that are equal are one. total_bytes: of all blobs.
    """

    fingerprint: str
    layers: int
    weights: tuple[tuple[bytes, int, str], ...]
    sizes: dict[bytes, int] = field(init=False, repr=False, compare=False)
    total_bytes: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        sizes = {digest: size for digest, size, _ in self.weights}
        object.__setattr__(self, "sizes", sizes)
        object.__setattr__(self, "total_bytes", sum(sizes.values()))


@dataclass(frozen=True, slots=True)
class Progress:
    """How much of a blob is held: leading bytes of it, and leading elements of its first planes.

    Where there are planes, the leading bytes are those that FINE has made exact.
    """

    whole_bytes: int = 0
    coarse: int = 0
    middle: int = 0


NOTHING = Progress()


# Events.


@dataclass(frozen=True, slots=True)
class Connected:
    """A client is there. `admitted` is False where the edge has too many already.

    `joins` is whether it may be the second connection of one of those then.
    """

    admitted: bool = True
    joins: bool = False


@dataclass(frozen=True, slots=True)
class Received:
    """The client said this."""

    message: Message


@dataclass(frozen=True, slots=True)
class Garbled:
    """What the client sent is no message. `code` is what to answer."""

    text: str
    code: str = "malformed"


@dataclass(frozen=True, slots=True)
class ModelOpened:
    """The graph is fine and there is room: so much of each weight is held.

    `worker_ready` is False where a worker is still being made: WorkerRestarted or WorkerLost
    follows.
    """

    model: Model
    epoch: str
    held: tuple[Progress, ...]
    worker_ready: bool = True


@dataclass(frozen=True, slots=True)
class ModelUnknown:
    """The graph of the fingerprint that was offered alone is not here."""


@dataclass(frozen=True, slots=True)
class ModelRefused:
    """The graph is not fine, or there is no room."""

    code: str
    text: str


@dataclass(frozen=True, slots=True)
class LaneJoined:
    """The connection that was asked for is there: segments go on through this `intake`."""

    intake: Intake


@dataclass(frozen=True, slots=True)
class LaneRefused:
    """There is no connection to carry weights for, or it needs no other."""

    text: str


@dataclass(frozen=True, slots=True)
class LaneOver:
    """The connection that this one carries weights for has ended, or its model is gone."""


@dataclass(frozen=True, slots=True)
class HeldCounted:
    """Everything that came whole is stored, or has failed: so much of each weight is held."""

    epoch: str
    held: tuple[Progress, ...]


@dataclass(frozen=True, slots=True)
class SegmentStored:
    """A segment is stored: the plane's first `count` elements are held."""

    weight: int
    plane: int
    count: int
    complete: bool


@dataclass(frozen=True, slots=True)
class SegmentFailed:
    """A segment could not be stored, or completed a weight that does not match its digest."""

    code: str
    text: str


@dataclass(frozen=True, slots=True)
class RangeRan:
    """The worker ran layers up to `stop`, from `began_at` on."""

    query: int
    stop: int
    precision: str
    began_at: float
    coding_s: float
    compute_s: float
    tensors: tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class RangeFailed:
    """The worker did not run the range."""

    query: int
    code: str
    text: str


@dataclass(frozen=True, slots=True)
class WorkerLost:
    """The worker process ended, for this reason."""

    reason: str


@dataclass(frozen=True, slots=True)
class WorkerRestarted:
    """A new worker knows the model."""


@dataclass(frozen=True, slots=True)
class ModelEvicted:
    """The store dropped the model. Only happens while the session is not `busy`."""

    epoch: str


@dataclass(frozen=True, slots=True)
class LoadReported:
    """The box's load, because the session asked for it or because it changed much."""

    load: Load


@dataclass(frozen=True, slots=True)
class Draining:
    """The edge stops: finish what runs, take on nothing new."""


@dataclass(frozen=True, slots=True)
class TimePassed:
    """`wake_at` has come."""


Event: TypeAlias = (
    Connected | Received | Garbled | ModelOpened | ModelUnknown | ModelRefused | LaneJoined
    | LaneRefused | LaneOver | HeldCounted | SegmentStored | SegmentFailed | RangeRan | RangeFailed
    | WorkerLost | WorkerRestarted | ModelEvicted | LoadReported | Draining | TimePassed
)  # fmt: skip


# Commands.


@dataclass(frozen=True, slots=True)
class Send:
    """Say this to the client."""

    message: Message


@dataclass(frozen=True, slots=True)
class OpenModel:
    """Check the graph in a worker and make room. Leads to ModelOpened or ModelRefused.

    An empty graph is one checked before; leads to ModelUnknown where there was none.
    """

    fingerprint: str
    graph: Buffer


@dataclass(frozen=True, slots=True)
class JoinLane:
    """Find the connection with this secret. Leads to LaneJoined or LaneRefused."""

    lane: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class EndLane:
    """End the connection that carries weights for this one, if there is one."""


@dataclass(frozen=True, slots=True)
class CountHeld:
    """Store what came, then count. Leads to HeldCounted."""


@dataclass(frozen=True, slots=True)
class StoreSegment:
    """Decode and store this, in order. Leads to SegmentStored or SegmentFailed."""

    segment: Segment
    payloads: tuple[Buffer, ...]


@dataclass(frozen=True, slots=True)
class RunRange:
    """Have the worker run layers [start, stop). Leads to RangeRan, RangeFailed or WorkerLost."""

    query: int
    start: int
    stop: int
    precision: str
    reply_coding: str
    tensors: tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class StopWorker:
    """End the worker, whatever it does; it is not to be reported lost."""


@dataclass(frozen=True, slots=True)
class RestartWorker:
    """A new worker for the same model. Leads to WorkerRestarted or WorkerLost."""


@dataclass(frozen=True, slots=True)
class ReportLoad:
    """Leads to LoadReported."""


@dataclass(frozen=True, slots=True)
class CloseConnection:
    """Close, once everything said is on its way."""


Command: TypeAlias = (
    Send | OpenModel | JoinLane | EndLane | CountHeld | StoreSegment | RunRange | StopWorker
    | RestartWorker | ReportLoad | CloseConnection
)  # fmt: skip
