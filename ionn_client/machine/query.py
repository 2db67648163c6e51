"""One query on its way through the layers, and the answer that its caller gets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ionn_client.machine.hedging import Hedge
from layergraph.execute import Live
from planner import Range, Route
from planner.prices import Where
from wire import PRECISIONS, messages


@dataclass(frozen=True, slots=True)
class QueryResult:
    """A query's answer.

    value: what the model returns, in the model's own structure.
    served_by: "client", "edge" or "both".
    precision: the least that any weight used for it had: "float8", "bfloat16" or "exact".
    ranges: the layer ranges as they really ran, as (where, start, stop).
    latency_s: from the call to the answer. predicted_s: what the planner expected.
    fallback_reason: why layers meant for the edge ran on the client, or None.
    lossy: activations crossed with loss, within the session's activation_tolerance.
    energy_J: what the client drew for it by the power model, as its layers ran, with what was
        sent in vain or run here in vain beside the edge; None where the session's objective has
        no power.
    """

    value: Any
    served_by: str
    ranges: tuple[Range, ...]
    latency_s: float
    predicted_s: float
    fallback_reason: str | None
    precision: str
    lossy: bool = False
    energy_J: float | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """A QueryResult before its value is put back into the model's own structure."""

    live: Live
    ranges: tuple[Range, ...]
    latency_s: float
    predicted_s: float
    fallback_reason: str | None
    precision: str
    lossy: bool
    energy_J: float | None

    @property
    def served_by(self) -> str:
        places = {part.where for part in self.ranges}
        return "both" if len(places) > 1 else next(iter(places), "client")


@dataclass(slots=True)
class Query:
    """Where a query is: the live tensors at `position`, and the ranges still to run."""

    number: int
    live: Live
    asked_at: float
    deadline_at: float | None
    predicted_s: float
    plan: list[Range]
    accepts: str
    lossless: bool = False
    expected_J: float | None = None
    # The weighted layers that the plan could have at the edge.
    usable: frozenset[int] = frozenset()
    position: int = 0
    precision: str = PRECISIONS[-1]
    ran: list[Range] = field(default_factory=list)
    fallback_reason: str | None = None
    # Set while the edge works on it.
    sent_at: float | None = None
    # When its reply is late: then it runs here too, unless the session only waits and gives up.
    late_at: float | None = None
    expected_reply_s: float = 0.0
    hedge: Hedge | None = None
    # It failed here: the edge's reply is all that there is, for as long as one is waited for.
    alone: bool = False
    probe: bool = False
    # For an audit: copies of what was sent, if one was drawn; and as it was coded.
    kept: Live | None = None
    coded: tuple[messages.Tensor, ...] = ()
    up_bytes: int = 0
    # Sent to an edge that did not answer; run here beside an edge that did.
    vain_bytes: int = 0
    vain_s: float = 0.0
    transfer_s: float = 0.0
    reply_s: float = 0.0
    queueing_s: float = 0.0
    shared_link: bool = False
    # Coding of its tensors, outside the time that the edge has.
    up_coding: str = "raw"
    reply_coding: str = "raw"
    sent_lossy: bool = False
    lossy: bool = False
    encoding: bool = False
    result: messages.Result | None = None

    @property
    def on_edge(self) -> bool:
        return self.sent_at is not None

    @classmethod
    def start(
        cls,
        number: int,
        live: Live,
        chosen: Route,
        now: float,
        deadline_s: float | None,
        accepts: str,
        lossless: bool,
    ) -> Query:
        deadline_at, plan = None if deadline_s is None else now + deadline_s, list(chosen.ranges)
        expected = chosen.latency_s, plan, accepts, lossless, chosen.energy_J
        return cls(number, live, now, deadline_at, *expected)

    def reached(self, where: Where, stop: int, live: Live) -> None:
        """Layers up to `stop` ran at `where`."""
        if stop > self.position:
            if self.ran and self.ran[-1].where == where:
                self.ran[-1] = Range(where, self.ran[-1].start, stop)
            else:
                self.ran.append(Range(where, self.position, stop))
        self.position, self.live = stop, live
        self.plan = [part for part in self.plan if part.stop > stop]

    def used(self, precision: str) -> None:
        """Weights of this precision were used."""
        if suffices(self.precision, precision):
            self.precision = precision

    def fall_back(self, reason: str, layers: int) -> None:
        """Run what is left on the client, from the live tensors at hand."""
        self.fallback_reason = self.fallback_reason or reason
        if self.on_edge:
            self.vain_bytes += self.up_bytes
        hedge, self.hedge = self.hedge, None
        if hedge is not None:
            self.reached("client", hedge.position, hedge.live)
        self.plan = [Range("client", self.position, layers)]
        self.left_edge()

    def left_edge(self) -> None:
        """The edge does not work on it any more."""
        self.sent_at = self.late_at = None
        self.shared_link = False

    def drop_hedge(self, ran_s: float) -> None:
        """The edge was first: what ran here, and the slice that still runs, was in vain."""
        self.vain_s += ran_s
        self.hedge = None

    def takes(self, start: int) -> bool:
        """Whether a range that runs here from `start` is of use."""
        if self.hedge is not None:
            return self.hedge.position == start
        return self.position == start and not self.on_edge

    def answer(self, now: float, energy_J: float | None) -> Answer:
        return Answer(
            self.live,
            tuple(self.ran),
            now - self.asked_at,
            self.predicted_s,
            self.fallback_reason,
            self.precision,
            self.lossy,
            energy_J,
        )


def suffices(precision: str, least: str) -> bool:
    """Whether one precision is no worse than another."""
    return PRECISIONS.index(precision) >= PRECISIONS.index(least)


def live_bytes(live: Sequence[Any]) -> int:
    """Bytes of the live tensors' elements."""
    return sum(tensor.numel() * tensor.element_size() for tensor in live)
