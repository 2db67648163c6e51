"""Where a session stands, as its caller sees it."""

from __future__ import annotations

from dataclasses import dataclass

from planner import Link, Range


@dataclass(frozen=True, slots=True)
class Status:
    """Where a session stands.

    phase: "connecting", "greeting", "offering", "uploading", "ready", "rejected" or "closed".
    uploaded_layers of weighted_layers can run on the edge, exact_layers of them exactly.
    held_bytes of total_bytes are on the edge, as they are in the model.
    sent_bytes: weights sent in all, as coded; skipped_bytes were on the edge already;
        resent_bytes were sent again after a connection broke or the edge evicted the model.
    exposed_bytes: of layers that are kept here (`Options.keep_local`), which the edge has from
        an earlier visit; `Offload.forget` has it delete them.
    rate_Bps: of the upload, None before it is measured. time_left_s: until the plan is uploaded.
    route: where the layers of a query would run now, and `reason` why; predicted_latency_s
        what it would take. error: the last failure, in words.
    edge_name: what the box is called, None if it is unpaired.
    breaker: "closed", "open" (no query goes to the edge for now) or "half-open" (one goes, to see
        how it does). hedges: queries that ran here too because their reply was late; hedges_won
        of them had their answer from here.
    audits: answers of the edge that were computed here again; audits_failed were wrong.
    quarantine: why this edge is not used any more, None if it is.
    battery_J: what is left of the session's battery for queries; None without one.
    """

    phase: str
    edge: str
    uploaded_layers: int
    exact_layers: int
    weighted_layers: int
    held_bytes: int
    total_bytes: int
    sent_bytes: int
    skipped_bytes: int
    resent_bytes: int
    partitions_done: int
    partitions: int
    link: Link
    rate_Bps: float | None
    time_left_s: float | None
    route: tuple[Range, ...]
    reason: str
    predicted_latency_s: float
    local_latency_s: float
    error: str | None
    battery_J: float | None = None
    edge_name: str | None = None
    breaker: str = "closed"
    hedges: int = 0
    hedges_won: int = 0
    audits: int = 0
    audits_failed: int = 0
    quarantine: str | None = None
    exposed_bytes: int = 0
