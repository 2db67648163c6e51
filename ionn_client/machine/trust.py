"""Whether the edge is asked, and whether what it answers is believed. No I/O, no clock."""

from __future__ import annotations

import random
from collections import defaultdict

from ionn_client.machine.audit import Audits, Hop, Verdict, copied, difference, not_finite
from ionn_client.machine.breaker import Breaker
from ionn_client.machine.context import Context
from ionn_client.machine.events import RangeAudited
from ionn_client.machine.hedging import Slices
from ionn_client.machine.query import Query
from ionn_client.machine.tensors import surely_finite
from layergraph.execute import Live
from wire import messages

# Refusals of a query that tell of an edge in trouble; the others are ordinary.
TROUBLE = frozenset({"execution", "input", "overloaded"})


class Trust:
    """In one edge, for as long as the session lasts."""

    def __init__(self, context: Context, slices: Slices, chance: random.Random) -> None:
        self._context = context
        self.breaker = Breaker()
        self.audits = Audits(context.graph, slices, context.options.audit_share, chance)
        # Of each cut, the tensors that hold infinities or NaNs by the model's own doing.
        self._not_finite: dict[int, frozenset[int]] = defaultdict(frozenset)

    def refusal(self) -> str | None:
        """Why a query is not sent to the edge now; None if it may be."""
        now, breaker = self._context.now, self.breaker
        if self.audits.suspects:
            return "the edge's last answer is in doubt"
        if breaker.admits(now):
            return None
        left_s = breaker.left_s(now)
        when = f"it is tried again in {left_s:.1f} s" if left_s else "it is being tried again"
        return f"the edge keeps failing ({breaker.last_failure}); {when}"

    def sent(self, query: Query) -> None:
        """The query goes to the edge now, and is not waited for if there is a doubt."""
        query.probe = self.breaker.sent(query.number)
        if self._context.options.hedging and (query.probe or self.audits.doubted):
            query.late_at = self._context.now
        audited = self.audits.drawn() or self.audits.doubted
        query.kept = copied(query.live) if audited else None

    def failed(self, reason: str, query: Query | None = None, weight: float = 1.0) -> None:
        """The edge failed this query, or all that it had."""
        number = None if query is None else query.number
        if self.breaker.failed(reason, self._context.now, number, weight):
            left_s = self.breaker.left_s(self._context.now)
            self._context.record("breaker", state="open", reason=reason, left_s=left_s)

    def succeeded(self, query: Query) -> None:
        self.breaker.succeeded(query.number)
        if query.probe:
            query.probe = False
            self._context.record("breaker", state=self.breaker.state(self._context.now))

    def disbelief(self, query: Query, result: messages.Result, claimed: Live) -> str | None:
        """Why this answer is not used before it was computed here; None if it is used."""
        strange: frozenset[int] = frozenset()
        if not surely_finite(result.tensors):
            strange = not_finite(claimed) - self._not_finite[result.stop]
        if self.audits.doubted:
            reason = "the edge's answers are in doubt"
        elif strange:
            reason = "the edge's answer is not finite"
        else:
            reason = None
        if query.kept is not None and difference(query.kept, query.live):
            # What went out is not known, so nothing is held against anybody.
            self._context.record("not audited", reason="the caller changed its tensors meanwhile")
        elif reason is not None or query.kept is not None:
            given = copied(query.live) if query.kept is None else query.kept
            coded = query.coded if query.sent_lossy else ()
            self.audits.begin(
                Hop(
                    *(query.position, result.stop, given, coded),
                    *(copied(claimed), result.precision, reason is not None),
                )
            )
        return reason

    def audited(self, event: RangeAudited) -> Verdict | None:
        """The verdict, if the audit is over."""
        verdict = self.audits.audited(event)
        if verdict is None:
            return None
        hop = verdict.hop
        if verdict.agrees:
            # As the model has it: the next one is no surprise.
            self._not_finite[hop.stop] |= not_finite(hop.claimed)
        self._context.record(
            "audit",
            layers=[hop.start, hop.stop],
            precision=hop.precision,
            difference=verdict.difference,
            tolerance=verdict.tolerance,
            agrees=verdict.agrees,
        )
        return verdict
