"""A reply that is late, and this side that runs its query too: who is first, and what it says.

No I/O, no clock. One query is hedged at a time; the first valid answer wins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ionn_client.machine.context import Context
from ionn_client.machine.events import RunRange
from ionn_client.machine.hedging import Hedge, Slices
from ionn_client.machine.lateness import Lateness
from ionn_client.machine.query import Query
from ionn_client.machine.replies import usual_wait_s
from ionn_client.machine.trust import Trust

# So many times as long as a reply takes at most in 95 of 100 cases, and the edge has failed.
FAR_TOO_LATE = 2.0
# Of a failure: late, and beaten here by less than that.
BEATEN = 0.5


class Racing:
    """One session's late replies.

    here: has a query answered by this side, whatever the edge may say yet, for a reason.
    """

    def __init__(
        self,
        context: Context,
        lateness: Lateness,
        slices: Slices,
        trust: Trust,
        here: Callable[[Query, str], None],
    ) -> None:
        self._context = context
        self._lateness = lateness
        self._slices = slices
        self._trust = trust
        self._here = here
        self.hedges = self.hedges_won = 0

    def late(self, query: Query, others: Iterable[Query]) -> None:
        """Its reply is overdue: run it here too, where none of the others is."""
        waited_s = self._waited_s(query)
        if query.alone or not self._context.options.hedging:
            self._give_up(query, waited_s)
        elif not any(other.hedge is not None for other in others):
            self.hedges += 1
            query.late_at = None
            query.hedge = Hedge(query.position, query.live)
            self._context.record(
                "hedge", query=query.number, waited_s=waited_s, expected_s=query.expected_reply_s
            )
            self._slice(query, query.hedge)

    def _waited_s(self, query: Query) -> float:
        return self._context.now - (query.sent_at or self._context.now)

    def _slice(self, query: Query, hedge: Hedge) -> None:
        stop = self._slices.stop(hedge.position)
        self._context.do(RunRange(query.number, hedge.position, stop, hedge.live))

    def ran(self, query: Query, hedge: Hedge) -> None:
        """A slice ran here; the answer, if that was the last."""
        if hedge.position < self._context.layers:
            self._slice(query, hedge)
            return
        self.hedges_won += 1
        if query.on_edge:
            self._give_up(query, self._waited_s(query))
        else:
            # Its answer is being decoded, which is of no use any more.
            query.vain_bytes += query.up_bytes
            self._here(query, "edge slow: this side was first")

    def _give_up(self, query: Query, waited_s: float) -> None:
        late_s = usual_wait_s(self._context.options, query.expected_reply_s, self._lateness)
        reason = f"edge slow: no answer in {waited_s:.2f} s"
        # What was given up sooner, for a deadline or in doubt, says nothing about the edge.
        if self._context.now >= (query.sent_at or 0.0) + late_s:
            self._lateness.observe(query.expected_reply_s, waited_s)
            by_far = query.hedge is None or waited_s >= FAR_TOO_LATE * late_s
            self._trust.failed(reason, query, 1.0 if by_far else BEATEN)
        self._here(query, reason)
