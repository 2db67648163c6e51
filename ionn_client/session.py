"""The client's state machine: what to send, to run and to answer next.

No I/O, no clock, no threads: events and the time go in, commands come out. The driver performs
the commands and reports what became of them. The connection's life is here; the weights' part is
in uploading, the queries' in queries.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from ionn_client.config import Options
from ionn_client.context import OVER, Context
from ionn_client.errors import EdgeQuarantined, EdgeRejected, OffloadError, VersionMismatch
from ionn_client.events import (
    AbortConnection,
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
from ionn_client.forecast import Forecast
from ionn_client.lane import Lane
from ionn_client.liveness import Liveness
from ionn_client.pacer import UploadPacer
from ionn_client.queries import REPLY_TICK_S, Queries
from ionn_client.upload import Upload
from ionn_client.uploading import Uploading
from layergraph import InvalidInput, LayerGraph
from planner import Link, Route
from planner.predictor import Predictor
from wire import (
    Conversation,
    RemoteProtocolError,
    Role,
    State,
    check_welcome,
    hello,
    messages,
)

AGENT = "ionn-client"
# When this program is so late, it hears first what has arrived meanwhile, and for so long.
LATE_S, HEAR_S = 0.1, 0.05
# It does so once in a while only: a program that is always late must miss things in the end.
HEAR_AGAIN_S = 1.0
RETRY_REFUSED_S = 10.0
# Refusals that no later attempt can change.
FINAL_REFUSALS = frozenset({"version", "graph"})
# Refusals that room or time may change.
SLOW_REFUSALS = frozenset({"memory", "overloaded", "storage"})


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
        self.lane = Lane(self.context, self.uploading, self._make_offer)
        self.error: OffloadError | None = None
        self._graph = graph
        self._offer = offer
        self._offered_whole = False
        self._backoff_s = options.backoff_s
        self._max_chunk_bytes = 0
        self._liveness = Liveness(options.silence_s)
        self._greeted_at = 0.0
        self._asked_for_lane: float | None = None
        self._due_at: float | None = None
        self._offer_at: float | None = None

    def handle(self, event: Event, now: float) -> list[Command]:
        """Take one event at time `now`; return the commands that follow, in order."""
        self.context.now = now
        if self._due_at is not None and now - self._due_at >= LATE_S:
            self._hear_out()
        self._take(event)
        self.lane.send_weights(self.reply_credit_bytes())
        self._watch_time()
        # A suspicion ends in any case: where queries leave no time to audit, between their ranges.
        audits = self.queries.trust.audits
        if self.queries.idle_here or (audits.suspects and isinstance(event, RangeRan)):
            audits.proceed(self.context.do)
        self._due_at = self.wake_at
        return self.context.take_commands()

    def _hear_out(self) -> None:
        now, context = self.context.now, self.context
        if now >= context.heard_out_at + HEAR_AGAIN_S:
            context.heard_out_at = now + HEAR_S

    def _take(self, event: Event) -> None:
        match event:
            case MessageReceived(message):
                self._received(message)
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
            case Connected() if self.phase in OVER:
                self.context.do(CloseConnection("no longer wanted"))
            case Connected():
                self.lane.forget_refusal()
                self._greet()
            case LaneConnected() | LaneHeard() | LaneLost():
                self.lane.take(event)
                self._look_whether_ready()
            case ConnectionLost(reason):
                self._lost(reason)
            case EdgeDistrusted(error):
                self._distrusted(error)
            case Stopped():
                self._stop()

    # What callers look at.

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
            "hedges": queries.hedges,
            "hedges_won": queries.hedges_won,
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
            return f"all here: {self.last_failure or 'not connected yet'}"
        refusal = self.queries.trust.refusal()
        if refusal is not None:
            return f"all here: {refusal}"
        least = self.options.least_precision
        return self.forecast.explain(self.route(least), self.usable(least))

    @property
    def wake_at(self) -> float | None:
        """When TimePassed is due, if nothing happens before."""
        times = self.queries.wake_times()
        if self.context.online:
            due = self._liveness.ping_at(), self._gone_at
            times.extend(at for at in due if at is not None)
        if self._offer_at is not None:
            times.append(self._offer_at)
        if self.uploading.due_at is not None:
            times.append(self.uploading.due_at)
        if self.lane.quiet_since is not None:
            half_s = self._silence_limit_s / 2
            later = self.context.now >= self.lane.quiet_since + half_s
            times.append(self.lane.quiet_since + half_s * (1 + later))
        if self.phase == "uploading" and self.queries.reply_s > REPLY_TICK_S:
            times.append(self.context.now + REPLY_TICK_S)
        return min(times, default=None)

    def failed(self, error: Exception, now: float) -> list[Command]:
        """The safety net: an exception of our own costs the connection, never a query."""
        self.context.now = now
        # What was decided before it stands, answers above all; what was to run here starts over.
        for command in self.context.take_commands():
            if not isinstance(command, RunRange):
                self.context.do(command)
        if self.context.online:
            self._drop_connection(f"internal error: {error!r}")
        self.queries.start_over(f"internal error: {error!r}")
        return self.context.take_commands()

    # Connection.

    def _greet(self) -> None:
        self.context.conversation = Conversation(Role.CLIENT)
        self._greeted_at = self.context.now
        self._liveness.opened(self.context.now)
        self.context.enter("greeting")
        self.context.send(hello(AGENT))

    def _lost(self, reason: str) -> None:
        self.context.last_failure = reason
        self._offer_at = None
        self._liveness.lost()
        self.lane.first_lost()
        self.uploading.interrupted()
        self.queries.edge_gone(reason)
        if self.phase not in OVER:
            self.context.enter("connecting", reason=reason)
            self.context.do(OpenConnection(self._backoff_s))
            self._backoff_s = min(2 * self._backoff_s, self.options.max_backoff_s)

    def _drop_connection(self, reason: str) -> None:
        """End the connection from here; the driver need not tell us that it ended."""
        self.context.do(AbortConnection(reason))
        self._lost(reason)

    def _stop(self) -> None:
        self.queries.close()
        self.queries.trust.audits.drop()
        self.lane.first_lost()
        if self.context.online:
            self.context.send(messages.Bye("done"))
            self.context.do(CloseConnection("done"))
        self._offer_at = None
        self.context.enter("closed")

    def _received(self, message: messages.Message) -> None:
        self._liveness.heard(self.context.now)
        try:
            self.context.conversation.received(message)
            self._dispatch(message)
        except (RemoteProtocolError, InvalidInput) as error:
            # Whatever an edge says wrong, queries go on here and the connection starts anew.
            self._drop_connection(f"the edge broke the protocol: {error}")

    def _dispatch(self, message: messages.Message) -> None:
        match message:
            case messages.ChunkAck() | messages.Held() if self.lane.carrying:
                raise RemoteProtocolError(
                    "weights are acknowledged on the connection that carries them"
                )
            case messages.ChunkAck(clock_s):
                self.uploading.chunk_acknowledged(clock_s)
                self._look_whether_ready()
            case messages.Held():
                self.uploading.held(message)
                if message.complete:
                    # Only now is it sure that this edge takes what it is sent.
                    self._backoff_s = self.options.backoff_s
                self._look_whether_ready()
            case messages.Result():
                self.queries.answered(message)
                self._backoff_s = self.options.backoff_s
            case messages.Welcome():
                self._welcomed(message)
            case messages.Pong(token):
                self._ponged(token)
            case messages.Ping(token):
                self.context.send(messages.Pong(token, self.context.now))
            case messages.Unknown(fingerprint):
                self._unknown(fingerprint)
            case messages.Have():
                # Asked again on the same connection, when the second one broke.
                own = self.lane.phase == "asking"
                self.uploading.negotiated(message, self._max_chunk_bytes, own=own)
                self.lane.answered()
                self._look_whether_ready()
            case messages.Error():
                self._refused(message)
            case messages.Evicted():
                self._evicted()
            case messages.Bye(reason):
                self._drop_connection(f"the edge says goodbye: {reason}")

    def _welcomed(self, welcome: messages.Welcome) -> None:
        try:
            check_welcome(welcome)
        except RemoteProtocolError as error:
            self._reject(VersionMismatch(str(error), error.code))
            return
        predictor = None
        try:
            predictor = Predictor.from_plain(welcome.predictor)
        except ValueError as error:
            # Of another version, say: what its queries take is learnt as they run.
            self.context.record("unknown predictor", reason=str(error))
        self.forecast.meet_edge(predictor, welcome.max_message_bytes)
        self._max_chunk_bytes = welcome.max_chunk_bytes
        self.lane.offered(welcome.lane)
        self.context.links.observe_round_trip(self.context.now - self._greeted_at)
        # Beside the offer, so that it costs no time; two round trips are better than one.
        self._ping()
        self._make_offer()

    def _ping(self) -> None:
        self.context.send(messages.Ping(self._liveness.ping(self.context.now)))

    def _ponged(self, token: int) -> None:
        took_s = self._liveness.ponged(token, self.context.now)
        if took_s is None:
            raise RemoteProtocolError(f"a pong for ping {token}, which is not under way")
        if self.phase == "offering":
            self.context.links.observe_round_trip(min(took_s, self.link.rtt_s))

    def _make_offer(self, graph: bytes = b"") -> None:
        """Ask whether the edge knows the graph, or offer it whole."""
        self._offer_at = None
        self._offered_whole = bool(graph)
        self.context.enter("offering")
        self.context.send(messages.Offer(self._graph.fingerprint, graph))

    def _unknown(self, fingerprint: str) -> None:
        if fingerprint != self._graph.fingerprint or self._offered_whole:
            raise RemoteProtocolError("the edge does not know a graph that it was just given")
        self._make_offer(self._offer)

    def _look_whether_ready(self) -> None:
        if self.phase == "uploading" and self.upload.done:
            self._backoff_s = self.options.backoff_s
            sent = {"sent_bytes": self.upload.sent_bytes, "query_bytes": self.queries.sent_bytes}
            self.context.enter("ready", **sent)

    def _evicted(self) -> None:
        self.lane.first_lost()
        self.uploading.evicted()
        self.context.last_failure = "the edge evicted the model to make room"
        if self.context.conversation.state is State.OFFERED:
            # What is held was being asked: that is the next offer.
            return
        self.context.enter("greeting", reason=self.last_failure)
        # At once would start two clients evicting each other in turn.
        self._offer_at = self.context.now + RETRY_REFUSED_S

    def _refused(self, error: messages.Error) -> None:
        if error.query is not None:
            self.queries.refused(error.query, error.code, error.text)
            return
        self.context.record("refused", code=error.code, text=error.text)
        if error.code in FINAL_REFUSALS:
            kind = VersionMismatch if error.code == "version" else EdgeRejected
            self._reject(kind(error.text, error.code))
            return
        if error.code in SLOW_REFUSALS:
            self._backoff_s = RETRY_REFUSED_S
        self._drop_connection(error.text)

    def _distrusted(self, error: OffloadError) -> None:
        if self.phase != "closed":
            self._reject(error)

    def _reject(self, error: OffloadError) -> None:
        """This edge will never run this model: stay on the client."""
        self.error = error
        self.context.enter("rejected", reason=str(error))
        self._drop_connection(str(error))

    def _audited(self, event: RangeAudited) -> None:
        power, seconds = self.options.objective.power, event.seconds * self.options.device_slowdown
        if power is not None:
            self.queries.rations.also_drawn(seconds * power.compute_W)
        trust = self.queries.trust
        verdict = trust.audited(event)
        if verdict is not None and trust.audits.convicted:
            reason = f"the edge gave wrong answers: {verdict}"
            self.context.do(Quarantine(reason))
            self._reject(EdgeQuarantined(reason))

    def _decoded(self, event: TensorsDecoded) -> None:
        try:
            self.queries.decoded(event)
        except InvalidInput as error:
            self._undecodable(event.query, f"the edge broke the protocol: {error}")

    def _undecodable(self, number: int, reason: str) -> None:
        if self.context.online:
            self._drop_connection(reason)
        self.queries.undecodable(number, reason)

    def reply_credit_bytes(self) -> float:
        """What to send beyond the window while a large reply holds up the acknowledgements.

        They wait behind it on the downlink; the uplink need not wait with them.
        """
        pacer, reply_s = self.pacer, self.queries.reply_s
        if not reply_s or pacer is None:
            return 0.0
        return min(pacer.stalled_s(self.context.now), reply_s) * self.link.up_Bps

    # Time.

    @property
    def _owed(self) -> bool:
        """The edge owes us a message."""
        return (
            (self.phase in ("greeting", "offering") and self._offer_at is None)
            or self.queries.on_edge
            or (self.uploading.owed and not self.lane.carrying)
        )

    def _watch_time(self) -> None:
        self.queries.watch_time()
        if self._offer_at is not None and self.context.now >= self._offer_at:
            self._make_offer()
        if self.context.online:
            self._watch_silence()
        if self.context.online and self.lane.quiet_since is not None:
            self._watch_lane(self.lane.quiet_since)

    def _watch_lane(self, quiet_since: float) -> None:
        """A silent second connection is given up; with the first, if that is silent too."""
        now, half_s = self.context.now, self._silence_limit_s / 2
        quiet_s = now - quiet_since
        if now < quiet_since + half_s:
            return
        if now < quiet_since + half_s * 2:
            # Once, to tell a silent connection from a silent edge.
            if self._asked_for_lane != quiet_since:
                self._asked_for_lane = quiet_since
                self._ping()
        elif now >= self._liveness.heard_at + half_s:
            self._drop_connection(f"the edge said nothing for {quiet_s:.1f} s")
        else:
            self.lane.drop(f"the edge said nothing for {quiet_s:.1f} s")

    @property
    def _held_up_s(self) -> float:
        """How long what is under way may hold up every answer behind it."""
        return self.queries.transfers_s + self.context.queueing_s()

    @property
    def _silence_limit_s(self) -> float:
        """How long silence is no sign."""
        return self.options.silence_s + self._held_up_s

    @property
    def _gone_at(self) -> float | None:
        gone_at = self._liveness.gone_at(self._held_up_s)
        return None if gone_at is None else max(gone_at, self.context.heard_out_at)

    def _watch_silence(self) -> None:
        now = self.context.now
        self._liveness.owed(now, owed=self._owed)
        if (ping_at := self._liveness.ping_at()) is not None and now >= ping_at:
            self._ping()
        if (gone_at := self._gone_at) is not None and now >= gone_at:
            quiet_s = now - self._liveness.heard_at
            self._drop_connection(f"the edge said nothing for {quiet_s:.1f} s")
