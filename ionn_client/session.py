"""The client's state machine: what to send, to run and to answer next.

No I/O, no clock, no threads: events and the time go in, commands come out. The driver performs
the commands and reports what became of them. The rules that must not be got wrong live here:
what counts as uploaded, when a query gives the edge up, when to reconnect.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ionn_client.config import Options
from ionn_client.errors import DeadlineExceeded, EdgeRejected, OffloadError, VersionMismatch
from ionn_client.estimate import LinkEstimator
from ionn_client.events import (
    AbortConnection,
    CloseConnection,
    Command,
    Connected,
    ConnectionLost,
    Event,
    FailQuery,
    FinishQuery,
    MessageReceived,
    OpenConnection,
    QueryAbandoned,
    QueryAsked,
    RangeFailed,
    RangeRan,
    Record,
    RunRange,
    SegmentCoded,
    SendMessage,
    Started,
    Stopped,
    TimePassed,
)
from ionn_client.forecast import Forecast
from ionn_client.inventory import read_have
from ionn_client.pacer import UploadPacer
from ionn_client.query import Query, live_bytes
from ionn_client.sender import Sender
from ionn_client.tensors import live_from_wire, live_to_wire
from ionn_client.upload import Step, Upload
from layergraph import InvalidInput, LayerGraph
from layergraph.execute import Live
from planner import Link, Route
from planner.predictor import Predictor
from planner.route import Where
from wire import (
    PRECISIONS,
    Conversation,
    ProtocolError,
    RemoteProtocolError,
    Role,
    check_welcome,
    hello,
    messages,
)
from wire.planes import WHOLE

AGENT = "ionn-client"
REPLY_TICK_S = 0.003
IDLE_PING_S = 2.0
REPLAN_INTERVAL_S = 1.0
REPLAN_CHANGE = 0.2
RETRY_REFUSED_S = 10.0
HOP_GRACE_S = 0.5
ONLINE = frozenset({"greeting", "offering", "uploading", "ready"})
# Refusals that no later attempt can change.
FINAL_REFUSALS = frozenset({"version", "graph"})
# Refusals that room or time may change.
SLOW_REFUSALS = frozenset({"memory", "overloaded", "storage"})
NOTHING: Mapping[str, frozenset[int]] = dict.fromkeys(PRECISIONS, frozenset())


class Session:
    """One model, one edge, any number of connections one after the other.

    phase: "connecting", "greeting", "offering", "uploading", "ready", "rejected" or "closed".
    """

    def __init__(
        self,
        graph: LayerGraph,
        offer: bytes,
        blobs: Sequence[memoryview],
        forecast: Forecast,
        options: Options,
    ) -> None:
        self.graph = graph
        self.forecast = forecast
        self.options = options
        self.upload = Upload(graph, options.precision)
        self.sender = Sender(self.upload, blobs)
        self.links = LinkEstimator(options.assumed_link)
        self.phase = "connecting"
        self.error: OffloadError | None = None
        self.last_failure: str | None = None
        self.pacer: UploadPacer | None = None
        self.query_bytes = 0
        self._offer = offer
        self._layers = len(graph.layers)
        self._queries: dict[int, Query] = {}
        self._conversation = Conversation(Role.CLIENT)
        self._commands: list[Command] = []
        self._backoff_s = options.backoff_s
        self._uploaded = NOTHING
        self._max_chunk_bytes = 0
        self._offered_whole = False
        self._pings: dict[int, float] = {}
        self._next_ping = 0
        self._greeted_at = 0.0
        self._heard_at = 0.0
        self._owed_since: float | None = None
        self._offer_at: float | None = None
        self._planned_for: tuple[float, float] | None = None
        self._replan_at = 0.0
        self._now = 0.0

    def handle(self, event: Event, now: float) -> list[Command]:
        """Take one event at time `now`; return the commands that follow, in order."""
        self._now = now
        match event:
            case Started():
                self._do(OpenConnection(0.0))
            case Connected() if self.phase in ("rejected", "closed"):
                self._do(CloseConnection("no longer wanted"))
            case Connected():
                self._greet()
            case ConnectionLost(reason):
                self._lost(reason)
            case MessageReceived(message):
                self._received(message)
            case QueryAsked(number, live, deadline_s, precision):
                self._asked(number, live, deadline_s, precision)
            case QueryAbandoned(number):
                self._abandoned(number)
            case RangeRan(number, start, stop, live, seconds):
                self._ran(number, start, stop, live, seconds)
            case RangeFailed(number, error):
                if self._queries.pop(number, None):
                    self._do(FailQuery(number, error))
            case SegmentCoded():
                self.sender.coded(event)
            case Stopped():
                self._stop()
            case TimePassed():
                pass
        self._send_weights()
        self._watch_time()
        commands, self._commands = self._commands, []
        return commands

    @property
    def wake_at(self) -> float | None:
        """When TimePassed is due, if nothing happens before."""
        times = [t for q in self._queries.values() for t in (q.give_up_at, q.deadline_at) if t]
        if self.phase in ONLINE:
            if self._owed_since is not None:
                times.append(self._quiet_since + self._silence_limit_s)
            else:
                times.append(self._heard_at + IDLE_PING_S)
        if self._offer_at is not None:
            times.append(self._offer_at)
        if self.phase == "uploading" and any(
            query.on_edge and query.reply_s > REPLY_TICK_S for query in self._queries.values()
        ):
            times.append(self._now + REPLY_TICK_S)
        return min(times, default=None)

    @property
    def link(self) -> Link:
        return self.links.link

    def uploaded(self, precision: str) -> frozenset[int]:
        """Weighted layers that queries which accept `precision` may run on the edge now."""
        return self._uploaded[precision]

    @property
    def queries(self) -> int:
        return len(self._queries)

    def route(self, precision: str) -> Route:
        """Where the layers of a query that accepts `precision` would run now."""
        if self.phase not in ("uploading", "ready"):
            return _all_local(self._layers, self.forecast.local_s())
        return self.forecast.route(self._link_now(), self._uploaded[precision])

    def _link_now(self) -> Link:
        """The link as the next message finds it: behind the chunks that are under way."""
        link = self.links.link
        return Link(link.up_Bps, link.down_Bps, link.rtt_s + self._queueing_s())

    def _queueing_s(self) -> float:
        link = self.links.link
        in_flight_bytes = 0 if self.pacer is None else self.pacer.in_flight_bytes
        return max(0.0, in_flight_bytes / link.up_Bps - link.rtt_s)

    def failed(self, error: Exception, now: float) -> list[Command]:
        """The safety net: an exception of our own costs the connection, never a query."""
        self._now = now
        self._commands.clear()
        if self.phase in ONLINE:
            self._drop_connection(f"internal error: {error!r}")
        for query in list(self._queries.values()):
            self._run_here(query, f"internal error: {error!r}")
        commands, self._commands = self._commands, []
        return commands

    def explanation(self) -> str:
        """One line: where a query's layers would run now, and why."""
        if self.phase == "rejected":
            return f"all here: the edge refused ({self.error})"
        if self.phase not in ("uploading", "ready"):
            return f"all here: {self.last_failure or 'not connected yet'}"
        least = self.options.least_precision
        return self.forecast.explain(self.route(least), self._uploaded[least])

    # Connection.

    def _do(self, command: Command) -> None:
        self._commands.append(command)

    def _send(self, message: messages.Message) -> None:
        self._conversation.sent(message)
        self._do(SendMessage(message))

    def _enter(self, phase: str, **fields: Any) -> None:
        if phase != self.phase:
            self.phase = phase
            self._do(Record("phase", {"phase": phase, **fields}))

    def _greet(self) -> None:
        self._conversation = Conversation(Role.CLIENT)
        self._heard_at = self._now
        self._pings.clear()
        self._greeted_at = self._now
        self._enter("greeting")
        self._send(hello(AGENT))

    def _lost(self, reason: str) -> None:
        self.last_failure = reason
        self._uploaded = NOTHING
        self._offer_at = self._owed_since = None
        self._pings.clear()
        if self.pacer is not None:
            self.pacer.reset_flight()
        self.sender.reset()
        for query in list(self._queries.values()):
            if query.on_edge:
                self._run_here(query, f"edge gone: {reason}")
        if self.phase in ("rejected", "closed"):
            return
        self._enter("connecting", reason=reason)
        self._do(OpenConnection(self._backoff_s))
        self._backoff_s = min(2 * self._backoff_s, self.options.max_backoff_s)

    def _drop_connection(self, reason: str) -> None:
        """End the connection from here; the driver need not tell us that it ended."""
        self._do(AbortConnection(reason))
        self._lost(reason)

    def _stop(self) -> None:
        for number in list(self._queries):
            self._abandoned(number)
            self._do(FailQuery(number, OffloadError("the session was closed")))
        if self.phase in ONLINE:
            self._send(messages.Bye("done"))
            self._do(CloseConnection("done"))
        self._offer_at = None
        self._enter("closed")

    def _received(self, message: messages.Message) -> None:
        self._heard_at = self._now
        try:
            self._conversation.received(message)
            self._dispatch(message)
        except (ProtocolError, InvalidInput, ValueError) as error:
            # Whatever an edge says wrong, queries go on here and the connection starts anew.
            self._drop_connection(f"the edge broke the protocol: {error}")

    def _dispatch(self, message: messages.Message) -> None:
        match message:
            case messages.Welcome():
                self._welcomed(message)
            case messages.Pong(token):
                self._ponged(token)
            case messages.Ping(token):
                self._send(messages.Pong(token, self._now))
            case messages.Have():
                self._negotiated(message)
            case messages.Unknown(fingerprint):
                self._unknown(fingerprint)
            case messages.ChunkAck(clock_s):
                self._chunk_acknowledged(clock_s)
            case messages.Held():
                self._held(message)
            case messages.Result():
                self._answered(message)
            case messages.Error():
                self._refused(message)
            case messages.Evicted():
                self._evicted()
            case messages.Bye(reason):
                self._drop_connection(f"the edge says goodbye: {reason}")
            case messages.Load():
                pass

    def _welcomed(self, welcome: messages.Welcome) -> None:
        try:
            check_welcome(welcome)
        except RemoteProtocolError as error:
            self._reject(VersionMismatch(str(error), error.code))
            return
        self.forecast.meet_edge(Predictor.from_plain(welcome.predictor), welcome.max_message_bytes)
        self._max_chunk_bytes = welcome.max_chunk_bytes
        self.links.observe_round_trip(self._now - self._greeted_at)
        # Beside the offer, so that it costs no time; two round trips are better than one.
        self._ping()
        self._make_offer()

    def _ping(self) -> None:
        self._pings[self._next_ping] = self._now
        self._send(messages.Ping(self._next_ping))
        self._next_ping += 1

    def _ponged(self, token: int) -> None:
        sent_at = self._pings.pop(token, None)
        if sent_at is None:
            raise ValueError(f"a pong for ping {token}, which is not under way")
        if self.phase == "offering":
            self.links.observe_round_trip(min(self._now - sent_at, self.links.link.rtt_s))

    def _make_offer(self, graph: bytes = b"") -> None:
        """Ask whether the edge knows the graph, or offer it whole."""
        self._offer_at = None
        self._offered_whole = bool(graph)
        self._enter("offering")
        self._send(messages.Offer(self.graph.fingerprint, graph))

    def _unknown(self, fingerprint: str) -> None:
        if fingerprint != self.graph.fingerprint or self._offered_whole:
            raise ValueError("the edge does not know a graph that it was just given")
        self._make_offer(self._offer)

    def _negotiated(self, have: messages.Have) -> None:
        lost_bytes = self.upload.renegotiated(read_have(self.graph, have))
        if self.pacer is None:
            self.pacer = UploadPacer(self._max_chunk_bytes)
        self.pacer.reset_flight()
        self.sender.reset()
        self._enter("uploading", held_bytes=self.upload.held_bytes, lost_bytes=lost_bytes)
        self._plan()
        self._refresh_uploaded()

    def _evicted(self) -> None:
        self.upload.forget()
        self._uploaded = NOTHING
        if self.pacer is not None:
            self.pacer.reset_flight()
        self.sender.reset()
        self.last_failure = "the edge evicted the model to make room"
        self._enter("greeting", reason=self.last_failure)
        # At once would start two clients evicting each other in turn.
        self._offer_at = self._now + RETRY_REFUSED_S

    def _refused(self, error: messages.Error) -> None:
        if error.query is not None:
            query = self._queries.get(error.query)
            if query is not None and query.on_edge:
                self._run_here(query, f"the edge refused: {error.text}")
            return
        self._do(Record("refused", {"code": error.code, "text": error.text}))
        if error.code in FINAL_REFUSALS:
            kind = VersionMismatch if error.code == "version" else EdgeRejected
            self._reject(kind(error.text, error.code))
            return
        if error.code in SLOW_REFUSALS:
            self._backoff_s = RETRY_REFUSED_S
        self._drop_connection(error.text)

    def _reject(self, error: EdgeRejected) -> None:
        """This edge will never run this model: stay on the client."""
        self.error = error
        self._enter("rejected", reason=str(error))
        self._drop_connection(str(error))

    # Upload.

    def _steps(self) -> Sequence[Sequence[Step]]:
        """The order of the upload: over layers, or over layers and planes jointly."""
        if self.options.precision == "progressive":
            return self.forecast.progressive_plan(self.links.link, self.upload.missing_planes())
        plan = self.forecast.plan(
            self.links.link, self.upload.missing_bytes(), self.options.algorithm, self.options.k
        )
        return [[(layer, WHOLE) for layer in partition] for partition in plan.partitions]

    def _plan(self) -> None:
        partitions = self._steps()
        self.upload.follow(partitions)
        self.sender.replanned()
        self._planned_for = self._plan_basis()
        self._replan_at = self._now + REPLAN_INTERVAL_S
        self._do(
            Record(
                "plan",
                {
                    "algorithm": self.options.algorithm,
                    "precision": self.options.precision,
                    "partitions": [[list(step) for step in part] for part in partitions],
                    "up_Bps": self.links.link.up_Bps,
                    "rtt_s": self.links.link.rtt_s,
                },
            )
        )

    def _chunk_acknowledged(self, clock_s: float) -> None:
        pacer = self.pacer
        if pacer is None or not pacer.in_flight_bytes:
            raise ValueError("an acknowledgement of a chunk that was not sent")
        pacer.acknowledged(clock_s, self._now)
        rate = pacer.mean_rate_Bps
        if rate is not None:
            self.links.observe_upload(rate)
        if self.options.replan and self._now >= self._replan_at and self._world_moved():
            self._plan()
            # A new plan may want nothing more ("ionn" leaves layers out): then this is the end.
            self._refresh_uploaded()

    def _held(self, held: messages.Held) -> None:
        self.upload.held(held)
        if held.complete:
            # Only now is it sure that this edge takes what it is sent.
            self._backoff_s = self.options.backoff_s
        if self.upload.has(held.weight, held.plane):
            self._refresh_uploaded()

    def _plan_basis(self) -> tuple[float, float]:
        """What a plan rests on and may change: the uplink's rate, and the edge's whole time."""
        return self.links.link.up_Bps, self.forecast.edge_range_s(0, self._layers)

    def _world_moved(self) -> bool:
        self._replan_at = self._now + REPLAN_INTERVAL_S
        return self._planned_for is not None and any(
            abs(now - planned) > REPLAN_CHANGE * planned
            for planned, now in zip(self._planned_for, self._plan_basis(), strict=True)
        )

    def _refresh_uploaded(self) -> None:
        whole = self.options.acknowledge == "partition"
        uploaded = {
            precision: self.upload.layers(precision, whole_partitions=whole)
            for precision in PRECISIONS
        }
        if uploaded != self._uploaded:
            self._uploaded = uploaded
            self._do(
                Record(
                    "uploaded",
                    {
                        "layers": {name: sorted(layers) for name, layers in uploaded.items()},
                        "held_bytes": self.upload.held_bytes,
                        "partitions_done": self.upload.partitions_done,
                        "partitions": len(self.upload.partitions),
                    },
                )
            )
        if self.upload.done:
            self._backoff_s = self.options.backoff_s
            self._enter("ready", sent_bytes=self.upload.sent_bytes, query_bytes=self.query_bytes)

    def _send_weights(self) -> None:
        # A segment that has begun is finished even where a new plan wants nothing more.
        if self.phase not in ("uploading", "ready") or self.pacer is None:
            return
        while self.pacer.may_send(self._now, self._reply_credit_bytes()):
            parts = self.sender.next(self.pacer.chunk_bytes())
            for part in parts:
                self._send(part)
                if isinstance(part, messages.Chunk):
                    self.pacer.sent(len(part.payload), self._now)
            if not parts:
                break
        for command in self.sender.ahead(self.links.link.up_Bps):
            self._do(command)

    def _reply_credit_bytes(self) -> float:
        """What to send beyond the window while a large reply holds up the acknowledgements.

        They wait behind it on the downlink; the uplink need not wait with them.
        """
        if self.pacer is None:
            return 0.0
        reply_s = max((q.reply_s for q in self._queries.values() if q.on_edge), default=0.0)
        return min(self.pacer.stalled_s(self._now), reply_s) * self.links.link.up_Bps

    # Queries.

    def _asked(self, number: int, live: Live, deadline_s: float | None, precision: str) -> None:
        chosen = self.route(precision)
        if self._uploaded[precision] and "edge" not in chosen.placement:
            self.forecast.relax_edge()
        query = Query.start(number, live, chosen, self._now, deadline_s, precision)
        self._queries[number] = query
        self._advance(query)

    def _advance(self, query: Query) -> None:
        """Start the next range, or answer."""
        if query.position == self._layers:
            del self._queries[query.number]
            self._do(FinishQuery(query.number, query.answer(self._now)))
            return
        part = query.plan[0]
        if part.where == "client":
            self._do(RunRange(query.number, query.position, part.stop, query.live))
        elif self.phase not in ("uploading", "ready"):
            self._run_here(query, self.last_failure or "the edge is not connected")
        else:
            self._run_there(query, part.stop)

    def _run_here(self, query: Query, reason: str) -> None:
        query.fall_back(reason, self._layers)
        self._advance(query)

    def _run_there(self, query: Query, stop: int) -> None:
        link, start = self._link_now(), query.position
        others = [other for other in self._queries.values() if other.on_edge]
        for sharing in (query, *others) if others else ():
            sharing.shared_link = True
        query.sent_at = self._now
        query.queueing_s = self._queueing_s()
        query.up_bytes = live_bytes(query.live)
        query.reply_s = self.graph.cut_bytes[stop] / link.down_Bps
        query.transfer_s = query.up_bytes / link.up_Bps + query.reply_s
        expected_s = link.rtt_s + query.transfer_s + self.forecast.edge_range_s(start, stop)
        expected_s += sum(other.transfer_s for other in others)
        query.give_up_at = self._now + HOP_GRACE_S + self.options.patience * expected_s
        remaining_s = None
        if query.deadline_at is not None:
            remaining_s = max(query.deadline_at - self._now, 0.0)
            # Keep enough time to answer from here.
            last_call = query.deadline_at - 1.1 * self.forecast.local_s(start)
            if last_call > self._now + expected_s:
                query.give_up_at = min(query.give_up_at, last_call)
        self.query_bytes += query.up_bytes
        if self.pacer is not None:
            self.pacer.carried(query.up_bytes)
        tensors = live_to_wire(query.live)
        self._send(
            messages.Execute(query.number, start, stop, remaining_s, query.accepts, "raw", tensors)
        )

    def _answered(self, result: messages.Result) -> None:
        query = self._queries.get(result.query)
        if query is None or query.sent_at is None or result.start != query.position:
            return  # The answer to something given up.
        asked_stop = query.plan[0].stop
        if not query.position < result.stop <= asked_stop:
            raise ValueError(f"layers [{result.start}, {result.stop}) were not asked for")
        live = live_from_wire(result.tensors, self.graph, result.stop)
        query.used(result.precision)
        self.forecast.observe_edge(result.start, result.stop, result.compute_s)
        self._backoff_s = self.options.backoff_s
        self._do(
            Record(
                "hop",
                {
                    "query": result.query,
                    "layers": [result.start, result.stop],
                    "up_bytes": query.up_bytes,
                    "down_bytes": live_bytes(live),
                    "elapsed_s": self._now - query.sent_at,
                    "queueing_s": query.queueing_s,
                    "queue_s": result.queue_s,
                    "coding_s": result.coding_s,
                    "compute_s": result.compute_s,
                    "precision": result.precision,
                },
            )
        )
        # Queries that shared the link waited for each other: their times are not the link's.
        if not query.shared_link:
            self.links.observe_hop(
                query.up_bytes,
                live_bytes(live),
                self._now - query.sent_at,
                result.queue_s + result.coding_s + result.compute_s + query.queueing_s,
                idle=self.phase == "ready",
            )
        query.left_edge()
        query.reached("edge", result.stop, live)
        if result.stop < asked_stop:
            query.fall_back("the edge had not all of the range's weights", self._layers)
        self._advance(query)

    def _ran(self, number: int, start: int, stop: int, live: Live, seconds: float) -> None:
        query = self._queries.get(number)
        self.forecast.observe_client(start, stop, seconds)
        if query is not None and query.position == start:
            query.reached("client", stop, live)
            self._advance(query)

    def _abandoned(self, number: int) -> None:
        query = self._queries.pop(number, None)
        if query is not None and query.on_edge:
            self._send(messages.Cancel(number))

    # Time.

    @property
    def _owed(self) -> bool:
        """The edge owes us a message."""
        return (
            (self.phase in ("greeting", "offering") and self._offer_at is None)
            or bool(self._pings)
            or self.upload.owed
            or (self.pacer is not None and self.pacer.in_flight_bytes > 0)
        )

    def _watch_time(self) -> None:
        for query in list(self._queries.values()):
            if query.deadline_at is not None and self._now >= query.deadline_at:
                self._abandoned(query.number)
                late = DeadlineExceeded(f"no answer within {query.deadline_at - query.asked_at} s")
                self._do(FailQuery(query.number, late))
            elif query.give_up_at is not None and self._now >= query.give_up_at:
                waited_s = self._now - (query.sent_at or self._now)
                self._send(messages.Cancel(query.number))
                self._run_here(query, f"edge slow: no answer in {waited_s:.2f} s")
        if self._offer_at is not None and self._now >= self._offer_at:
            self._make_offer()
        if self.phase in ONLINE:
            self._watch_silence()

    @property
    def _quiet_since(self) -> float:
        """Since when the edge says nothing although it owes us something."""
        return max(self._heard_at, self._owed_since or 0.0)

    @property
    def _silence_limit_s(self) -> float:
        """How long silence is no sign: tensors under way hold up every answer behind them."""
        transfers_s = sum(q.transfer_s for q in self._queries.values() if q.on_edge)
        return self.options.silence_s + transfers_s

    def _watch_silence(self) -> None:
        if not self._owed:
            self._owed_since = None
            if self._now - self._heard_at >= IDLE_PING_S:
                self._ping()
        if self._owed and self._owed_since is None:
            self._owed_since = self._now
        quiet_s = self._now - self._quiet_since
        if self._owed_since is not None and quiet_s >= self._silence_limit_s:
            self._drop_connection(f"the edge said nothing for {quiet_s:.1f} s")


def _all_local(layers: int, latency_s: float) -> Route:
    here: Where = "client"
    return Route(latency_s, (here,) * layers)
