"""What can happen to a client session, and what it can ask its driver to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

from ionn_client.errors import OffloadError
from ionn_client.machine.query import Answer
from ionn_client.machine.upload import Piece
from layergraph.execute import Live
from wire import PRECISIONS, messages

# Events: what happened.


@dataclass(frozen=True, slots=True)
class Started:
    """The driver is ready."""


@dataclass(frozen=True, slots=True)
class Connected:
    """A connection to the edge is open; nothing was said yet."""


@dataclass(frozen=True, slots=True)
class ConnectionLost:
    """The connection ended, or could not be opened."""

    reason: str


@dataclass(frozen=True, slots=True)
class EdgeDistrusted:
    """The edge is not, or no longer, to be talked to in this session: `error` says why."""

    error: OffloadError


@dataclass(frozen=True, slots=True)
class MessageReceived:
    message: messages.Message


@dataclass(frozen=True, slots=True)
class LaneConnected:
    """The second connection is open; nothing was said on it yet."""


@dataclass(frozen=True, slots=True)
class LaneHeard:
    """The edge said this on the second connection."""

    message: messages.Message


@dataclass(frozen=True, slots=True)
class LaneLost:
    """The second connection ended, or could not be opened."""

    reason: str


@dataclass(frozen=True, slots=True)
class QueryAsked:
    """`precision`: the least that weights used for it must have. `lossless`: whatever error the
    session tolerates, its tensors cross as they are.
    """

    query: int
    live: Live
    deadline_s: float | None
    precision: str = "exact"
    lossless: bool = False


@dataclass(frozen=True, slots=True)
class QueryAbandoned:
    """The caller no longer waits."""

    query: int


@dataclass(frozen=True, slots=True)
class RangeRan:
    """The client ran layers [start, stop) of a query in `seconds`."""

    query: int
    start: int
    stop: int
    live: Live
    seconds: float


@dataclass(frozen=True, slots=True)
class RangeFailed:
    """The client could not run a range: the model itself fails on this input.

    start: of the range; None for whatever of the query runs.
    """

    query: int
    error: Exception
    start: int | None = None


@dataclass(frozen=True, slots=True)
class SegmentCoded:
    """A piece of a weight was coded, in `seconds` of a thread's own time."""

    piece: Piece
    payload: memoryview
    seconds: float


@dataclass(frozen=True, slots=True)
class SegmentNotCoded:
    """Coding a piece of a weight failed."""

    piece: Piece


@dataclass(frozen=True, slots=True)
class TensorsEncoded:
    """A query's live tensors are as they shall be sent, after `seconds`."""

    query: int
    tensors: tuple[messages.Tensor, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class TensorsDecoded:
    """An answer's tensors are raw again, after `seconds`."""

    query: int
    tensors: tuple[messages.Tensor, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class TensorsUndecodable:
    """An answer's tensors cannot be had: they are not what the edge says, or a bug is here."""

    query: int
    reason: str


@dataclass(frozen=True, slots=True)
class RangeAudited:
    """A part of an audit ran in `seconds`: the live tensors at `stop`, or, if it was the last,
    how much the edge's differ from them (see .audit). explained: how much weights of the precision
    that the edge claims make them differ, or, where it claims the exact ones, and they differ too
    much, other roundings."""

    audit: int
    stop: int
    live: Live
    difference: float | None
    seconds: float
    explained: float | None = None


@dataclass(frozen=True, slots=True)
class RangeNotAudited:
    """It could not be computed here."""

    audit: int
    reason: str


@dataclass(frozen=True, slots=True)
class Stopped:
    """The caller is done with the whole session."""


@dataclass(frozen=True, slots=True)
class TimePassed:
    """The time asked for by `wake_at` has come."""


Event: TypeAlias = (
    Started | Connected | ConnectionLost | EdgeDistrusted | MessageReceived | LaneConnected
    | LaneHeard | LaneLost | QueryAsked | QueryAbandoned | RangeRan | RangeFailed | SegmentCoded
    | SegmentNotCoded | TensorsEncoded | TensorsDecoded | TensorsUndecodable | RangeAudited
    | RangeNotAudited | Stopped | TimePassed
)  # fmt: skip


# Commands: what to do.


@dataclass(frozen=True, slots=True)
class OpenConnection:
    delay_s: float


@dataclass(frozen=True, slots=True)
class CloseConnection:
    """End the connection once everything is sent."""

    reason: str


@dataclass(frozen=True, slots=True)
class AbortConnection:
    """End the connection at once: what waits to be sent is worthless."""

    reason: str


@dataclass(frozen=True, slots=True)
class SendMessage:
    message: messages.Message


@dataclass(frozen=True, slots=True)
class OpenLane:
    """A second connection, behind the first in every queue that honours priorities."""


@dataclass(frozen=True, slots=True)
class SendOnLane:
    message: messages.Message


@dataclass(frozen=True, slots=True)
class CloseLane:
    """End the second connection once everything is sent."""


@dataclass(frozen=True, slots=True)
class AbortLane:
    """End the second connection at once."""


@dataclass(frozen=True, slots=True)
class RunRange:
    """Run layers [start, stop) here."""

    query: int
    start: int
    stop: int
    live: Live


@dataclass(frozen=True, slots=True)
class AuditRange:
    """Run layers [start, stop) here beside whatever queries run, for nobody's answer.

    coded: if any, what to decode in place of `live`. claimed: if given, what to compare with;
    beyond `tolerance`, see whether the weights here are still those that the edge was given.
    precision: the least of any weight, as the edge says; what that explains is computed too.
    """

    audit: int
    start: int
    stop: int
    live: Live
    coded: tuple[messages.Tensor, ...] = ()
    claimed: Live | None = None
    tolerance: float = 0.0
    precision: str = PRECISIONS[-1]


@dataclass(frozen=True, slots=True)
class Quarantine:
    """Remember that this edge lies, and do not use it again."""

    reason: str


@dataclass(frozen=True, slots=True)
class CodeSegment:
    """Code a piece of the weight `blob`, whose elements are of `dtype`, before its turn comes."""

    piece: Piece
    dtype: str
    blob: memoryview


@dataclass(frozen=True, slots=True)
class EncodeTensors:
    """Code a query's raw tensors, which are too large to be coded between two messages."""

    query: int
    tensors: tuple[messages.Tensor, ...]
    coding: str


@dataclass(frozen=True, slots=True)
class DecodeTensors:
    """Make an answer's tensors raw again, which are too large for between two messages."""

    query: int
    tensors: tuple[messages.Tensor, ...]


@dataclass(frozen=True, slots=True)
class FinishQuery:
    query: int
    answer: Answer


@dataclass(frozen=True, slots=True)
class FailQuery:
    query: int
    error: Exception


@dataclass(frozen=True, slots=True)
class Record:
    """Something notable, for logs and views."""

    kind: str
    fields: dict[str, Any]


Command: TypeAlias = (
    OpenConnection | CloseConnection | AbortConnection | SendMessage | OpenLane | SendOnLane
    | CloseLane | AbortLane | RunRange | AuditRange | Quarantine | CodeSegment | EncodeTensors
    | DecodeTensors | FinishQuery | FailQuery | Record
)  # fmt: skip
