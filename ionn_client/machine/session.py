"""The client's state machine: what to send, to run and to answer next.

No I/O, no clock, no threads: events and the time go in, commands come out. The driver performs
the commands and reports what became of them. The connection's life is in dialogue, the weights'
part in uploading, the queries' in queries, and what time brings in watch.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from ionn_client.config import Options
from ionn_client.errors import EdgeQuarantined, EdgeRejected, OffloadError
from ionn_client.machine.context import OVER, Context
from ionn_client.machine.dialogue import Dialogue
from ionn_client.machine.events import (
    CloseConnection,
    Command,
    Connected,
    ConnectionLost,
    EdgeDistrusted,
    Event,
    LaneConnected,
    LaneHeard,
    LaneLost,
    MessageReceived,
    OpenConnection,
    Quarantine,
    QueryAbandoned,
    QueryAsked,
    RangeAudited,
    RangeFailed,
    RangeNotAudited,
    RangeRan,
    RunRange,
    SegmentCoded,
    SegmentNotCoded,
    Started,
    Stopped,
    TensorsDecoded,
    TensorsEncoded,
    TensorsUndecodable,
)
from ionn_client.machine.forecast import Forecast
from ionn_client.machine.pacer import UploadPacer
from ionn_client.machine.queries import Queries
from ionn_client.machine.upload import Upload
from ionn_client.machine.uploading import Uploading
from ionn_client.machine.watch import Watch
from layergraph import InvalidInput, LayerGraph
from planner import Link, Route

# Why no edge is used, where nothing has failed.
_NOT_YET = {
    "connecting": "not connected yet",
    "greeting": "the edge is greeted",
    "offering": "the edge has not said yet what it has of the model",
    "closed": "the session was closed",
}


class Session:
    """One model, one edge, any number of connections one after the other."""

    def __init__(
        self,
        graph: LayerGraph,
        offer: bytes,
        blobs: Sequence[memoryview],
        forecast: Forecast,
        options: Options,
        chance: random.Random | None = None,
    ) -> None:
        """chance: draws the answers that are audited; the system's own by default."""
        self.options = options
        self.context = Context(graph, forecast, options)
        self.uploading = Uploading(self.context, blobs)
        chance = random.SystemRandom() if chance is None else chance
        self.queries = Queries(self.context, self.uploading, chance)
        self.dialogue = Dialogue(self.context, self.uploading, self.queries, offer)
        self.lane = self.dialogue.lane
        self._watch = Watch(self.dialogue)
        # Since the last that was caught up on.
        self._range_ran = False

    def handle(self, event: Event, now: float) -> list[Command]:
        """Take one event at time `now`; return the commands that follow, in order."""
        self._begin(event, now)
        self._follow()
        return self.context.take_commands()

    def take(self, event: Event, now: float) -> list[Command]:
        """What of an event nobody should wait for: how a query leaves, and its answer.

        Whoever performs the commands that this returns has `catch_up` follow, soon; what else
        happens meanwhile is taken too.
        """
        self._begin(event, now)
        return self.context.take_commands()

    def catch_up(self, now: float) -> list[Command]:
        """All else that events bring: what is learnt of them, weights, audits, what is due."""
        self.context.now = now
        self._follow()
        return self.context.take_commands()

    def _begin(self, event: Event, now: float) -> None:
        self.context.now = now
        self._watch.woke()
        self._range_ran = self._range_ran or isinstance(event, RangeRan)
        self._take(event)

    def _follow(self) -> None:
        self.context.learn()
        self.lane.send_weights(self.reply_credit_bytes())
        self._watch.look()
        # A suspicion ends in any case: where queries leave no time to audit, between their ranges.
        audits, range_ran = self.queries.trust.audits, self._range_ran
        self._range_ran = False
        if self.queries.idle_here or (audits.suspects and range_ran):
            audits.proceed(self.context.do)
        self._watch.expect()

    def _take(self, event: Event) -> None:
        match event:
            case MessageReceived(message):
                self.dialogue.received(message)
            case QueryAsked():
                self.queries.asked(event)
            case QueryAbandoned(number):
                self.queries.abandoned(number)
            case RangeRan():
                self.queries.ran(event)
            case RangeFailed(number, error, start):
                self.queries.failed(number, start, error)
            case SegmentCoded():
                self.uploading.sender.coded(event)
            case SegmentNotCoded(piece):
                self.uploading.sender.not_coded(piece)
            case TensorsEncoded():
                self.queries.encoded(event)
            case TensorsDecoded():
                self._decoded(event)
            case TensorsUndecodable(number, reason):
                self._undecodable(number, reason)
            case RangeAudited():
                self._audited(event)
            case RangeNotAudited(audit, reason):
                self.context.record("not audited", reason=reason)
                self.queries.trust.audits.not_audited(audit)
            case Started():
                self.context.do(OpenConnection(0.0))
            case Connected() if self.phase in OVER and not self.dialogue.asks_again:
                self.context.do(CloseConnection("no longer wanted"))
            case Connected():
                self.lane.forget_refusal()
                self.dialogue.greet()
            case LaneConnected() | LaneHeard() | LaneLost():
                self.lane.take(event)
                self.dialogue.look_whether_ready()
            case ConnectionLost(reason):
                self.dialogue.lost(reason)
            case EdgeDistrusted(error):
                self.dialogue.distrusted(error)
            case Stopped():
                self.dialogue.stop()

    # What callers look at.

    @property
    def error(self) -> OffloadError | None:
        return self.dialogue.error

    @property
    def phase(self) -> str:
        return self.context.phase

    @property
    def last_failure(self) -> str | None:
        return self.context.last_failure

    @property
    def forecast(self) -> Forecast:
        return self.context.forecast

    @property
    def upload(self) -> Upload:
        return self.uploading.upload

    @property
    def pacer(self) -> UploadPacer | None:
        return self.context.pacer

    @property
    def link(self) -> Link:
        return self.context.links.link

    def usable(self, precision: str) -> frozenset[int]:
        """Weighted layers that queries which accept `precision` may run on the edge now."""
        return self.uploading.usable[precision]

    def route(self, precision: str) -> Route:
        """Where the layers of a query that accepts `precision` would run now."""
        if self.queries.trust.refusal() is not None:
            return self.forecast.local_route()
        return self.queries.route(precision)

    def health(self, now: float) -> dict[str, Any]:
        """How the edge did, in the fields of a Status."""
        queries, trust = self.queries, self.queries.trust
        return {
            "breaker": trust.breaker.state(now),
            "hedges": queries.racing.hedges,
            "hedges_won": queries.racing.hedges_won,
            "audits": trust.audits.done,
            "audits_failed": trust.audits.failed,
            "quarantine": str(self.error) if isinstance(self.error, EdgeQuarantined) else None,
        }

    def explanation(self) -> str:
        """One line: where a query's layers would run now, and why."""
        if self.phase == "rejected":
            refused = isinstance(self.error, EdgeRejected)
            return f"all here: {f'the edge refused ({self.error})' if refused else self.error}"
        if not self.context.agreed:
            return f"all here: {self.last_failure or _NOT_YET[self.phase]}"
        refusal = self.queries.trust.refusal()
        if refusal is not None:
            return f"all here: {refusal}"
        least = self.options.least_precision
        return self.forecast.explain(self.route(least), self.usable(least))

    @property
    def wake_at(self) -> float | None:
        """When TimePassed is due, if nothing happens before."""
        return self._watch.wake_at

    def failed(self, error: Exception, now: float) -> list[Command]:
        """The safety net: an exception of our own costs the connection, never a query."""
        self.context.now = now
        # What was decided before it stands, answers above all; what was to run here starts over.
        for command in self.context.take_commands():
            if not isinstance(command, RunRange):
                self.context.do(command)
        if self.context.online:
            self.dialogue.drop(f"internal error: {error!r}")
        self.queries.start_over(f"internal error: {error!r}")
        self._watch.expect()
        return self.context.take_commands()

    def _audited(self, event: RangeAudited) -> None:
        power, seconds = self.options.objective.power, event.seconds * self.options.device_slowdown
        if power is not None:
            self.queries.rations.also_drawn(seconds * power.compute_W)
        trust = self.queries.trust
        verdict = trust.audited(event)
        if verdict is not None and trust.audits.convicted:
            reason = f"the edge gave wrong answers: {verdict}"
            self.context.do(Quarantine(reason))
            self.dialogue.reject(EdgeQuarantined(reason))

    def _decoded(self, event: TensorsDecoded) -> None:
        try:
            self.queries.decoded(event)
        except InvalidInput as error:
            self._undecodable(event.query, f"the edge broke the protocol: {error}")

    def _undecodable(self, number: int, reason: str) -> None:
        if self.context.online:
            self.dialogue.drop(reason)
        self.queries.undecodable(number, reason)

    def reply_credit_bytes(self) -> float:
        """What to send beyond the window while a large reply holds up the acknowledgements.

        They wait behind it on the downlink; the uplink need not wait with them.
        """
        pacer, reply_s = self.pacer, self.queries.reply_s
        if not reply_s or pacer is None:
            return 0.0
        return min(pacer.stalled_s(self.context.now), reply_s) * self.link.up_Bps
