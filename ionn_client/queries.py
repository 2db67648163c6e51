"""The queries' part of a session: routed, run here and there, answered in any case."""

from __future__ import annotations

from ionn_client.battery import Rations
from ionn_client.context import Context
from ionn_client.errors import DeadlineExceeded, OffloadError
from ionn_client.events import (
    DecodeTensors,
    EncodeTensors,
    FailQuery,
    FinishQuery,
    QueryAsked,
    RangeRan,
    RunRange,
    TensorsDecoded,
    TensorsEncoded,
)
from ionn_client.query import Query, live_bytes, suffices
from ionn_client.tensors import (
    check_answer,
    is_raw,
    live_from_wire,
    live_to_wire,
    wire_bytes,
)
from ionn_client.uploading import Uploading
from layergraph.execute import Live
from planner import Route
from wire import RemoteProtocolError, messages
from wire.activations import LOSSY, decode_tensor, encode_tensor

HOP_GRACE_S = 0.5
REPLY_TICK_S = 0.003
# Larger tensors are coded in a thread: this many bytes take about a millisecond.
INLINE_BYTES = 64 << 10


class Queries:
    """Every query that has no answer yet."""

    def __init__(self, context: Context, uploading: Uploading) -> None:
        self._context = context
        self._uploading = uploading
        self._open: dict[int, Query] = {}
        self.sent_bytes = 0
        self.rations = Rations(context.options.battery)

    def __len__(self) -> int:
        return len(self._open)

    def route(self, precision: str, *, lossless: bool = False) -> Route:
        """Where the layers of a query that accepts `precision` would run now."""
        context = self._context
        if not context.agreed:
            return context.forecast.local_route()
        usable, most_J = self._uploading.usable[precision], self.rations.most_J
        link = context.link_now()
        return context.forecast.route(link, usable, lossless=lossless, most_J=most_J)

    def asked(self, asked: QueryAsked) -> None:
        accepts = asked.precision
        chosen = self.route(accepts, lossless=asked.lossless)
        if self._uploading.usable[accepts] and "edge" not in chosen.placement:
            self._context.forecast.relax_edge()
        query = Query.start(
            asked.query,
            asked.live,
            chosen,
            self._context.now,
            asked.deadline_s,
            accepts,
            asked.lossless,
        )
        self.rations.asked(query.expected_J)
        self._open[query.number] = query
        self._advance(query)

    def _advance(self, query: Query) -> None:
        """Start the next range, or answer."""
        context = self._context
        if query.position == context.layers:
            del self._open[query.number]
            drawn_J = query.expected_J
            if query.fallback_reason is not None:
                drawn_J = context.forecast.energy_J(query.ran, context.link_now(), query.vain_bytes)
            self.rations.answered(query.expected_J, drawn_J)
            context.do(FinishQuery(query.number, query.answer(context.now, drawn_J)))
            return
        part = query.plan[0]
        if part.where == "client":
            context.do(RunRange(query.number, query.position, part.stop, query.live))
        elif not context.agreed:
            self._run_here(query, context.last_failure or "the edge is not connected")
        else:
            self._encode(query)

    def _run_here(self, query: Query, reason: str) -> None:
        query.fall_back(reason, self._context.layers)
        self._advance(query)

    def ran(self, event: RangeRan) -> None:
        self._context.forecast.observe_client(event.start, event.stop, event.seconds)
        query = self._open.get(event.query)
        if query is not None and query.position == event.start:
            query.reached("client", event.stop, event.live)
            self._advance(query)

    def failed(self, number: int, error: Exception) -> None:
        if self._open.pop(number, None):
            self._context.do(FailQuery(number, error))

    # To the edge and back.

    def _encode(self, query: Query) -> None:
        # One error per query, which is what was measured.
        lossless = query.lossy or query.lossless
        coding = self._context.forecast.up_coding(query.position, lossless=lossless).coding
        query.up_coding = coding
        tensors = live_to_wire(query.live)
        if coding == "raw":
            self._send(query, tensors)
        elif live_bytes(query.live) <= INLINE_BYTES:
            tensors = tuple(encode_tensor(tensor, coding) for tensor in tensors)
            self._send(query, tensors)
        else:
            query.encoding = True
            self._context.do(EncodeTensors(query.number, tensors, coding))

    def encoded(self, event: TensorsEncoded) -> None:
        query = self._open.get(event.query)
        if query is None or not query.encoding:
            return
        query.encoding = False
        self._context.forecast.observe_crossing_up(
            query.position, query.up_coding, encode_s=event.seconds
        )
        if self._context.agreed:
            self._send(query, event.tensors)
        else:
            self._run_here(query, self._context.last_failure or "the edge is not connected")

    def _send(self, query: Query, tensors: tuple[messages.Tensor, ...]) -> None:
        context, forecast = self._context, self._context.forecast
        link, start, stop = context.link_now(), query.position, query.plan[0].stop
        others = [other for other in self._open.values() if other.on_edge]
        for sharing in (query, *others) if others else ():
            sharing.shared_link = True
        reply = forecast.down_coding(stop)
        query.sent_at = context.now
        query.sent_lossy = any(tensor.coding in LOSSY for tensor in tensors)
        query.queueing_s = context.queueing_s()
        query.up_bytes, query.reply_coding = wire_bytes(tensors), reply.coding
        query.reply_s = reply.bytes / link.down_Bps
        query.transfer_s = query.up_bytes / link.up_Bps + query.reply_s
        expected_s = link.rtt_s + query.transfer_s + forecast.edge_range_s(start, stop)
        expected_s += forecast.up_option(start, query.up_coding).decode_s + reply.encode_s
        expected_s += sum(other.transfer_s for other in others)
        remaining_s = self._give_up_after(query, expected_s)
        self.sent_bytes += query.up_bytes
        if context.pacer is not None:
            context.pacer.carried(query.up_bytes, context.now)
        context.send(
            messages.Execute(
                query.number, start, stop, remaining_s, query.accepts, reply.coding, tensors
            )
        )

    def _give_up_after(self, query: Query, expected_s: float) -> float | None:
        """Set when to stop waiting; return how long the answer is of use."""
        now, options = self._context.now, self._context.options
        query.give_up_at = now + HOP_GRACE_S + options.patience * expected_s
        if query.deadline_at is None:
            return None
        # Keep enough time to answer from here.
        last_call = query.deadline_at - 1.1 * self._context.forecast.local_s(query.position)
        if last_call > now + expected_s:
            query.give_up_at = min(query.give_up_at, last_call)
        return max(query.deadline_at - now, 0.0)

    def answered(self, result: messages.Result) -> None:
        """Raises RemoteProtocolError for an answer to something else than was asked."""
        query = self._open.get(result.query)
        if query is None or query.sent_at is None or result.start != query.position:
            return  # The answer to something given up.
        if not query.position < result.stop <= query.plan[0].stop:
            raise RemoteProtocolError(f"layers [{result.start}, {result.stop}) were not asked for")
        graph = self._context.graph
        check_answer(result.tensors, graph, result.stop)
        if not suffices(result.precision, query.accepts):
            raise RemoteProtocolError(
                f"an answer at {result.precision}, where {query.accepts} was asked for"
            )
        live = None
        if graph.cut_bytes[result.stop] <= INLINE_BYTES or is_raw(result.tensors):
            # Before anything is noted of an answer that turns out to be none.
            live = live_from_wire(tuple(map(decode_tensor, result.tensors)), graph, result.stop)
        self._observe(query, result)
        query.left_edge()
        if live is not None:
            self._arrived(query, result, live)
        else:
            query.result = result
            self._context.do(DecodeTensors(query.number, result.tensors))

    def decoded(self, event: TensorsDecoded) -> None:
        """Raises InvalidInput for tensors that are no answer; the query is left waiting."""
        query = self._open.get(event.query)
        if query is not None and (result := query.result) is not None:
            live = live_from_wire(event.tensors, self._context.graph, result.stop)
            query.result = None
            self._context.forecast.observe_crossing_down(
                result.stop, query.reply_coding, decode_s=event.seconds
            )
            self._arrived(query, result, live)

    def undecodable(self, number: int, reason: str) -> None:
        query = self._open.get(number)
        if query is not None:
            query.result = None
            self._run_here(query, reason)

    def _arrived(self, query: Query, result: messages.Result, live: Live) -> None:
        asked_stop = query.plan[0].stop
        query.reached("edge", result.stop, live)
        query.used(result.precision)
        query.lossy = query.lossy or query.sent_lossy
        if result.stop < asked_stop:
            layers = self._context.layers
            query.fall_back("the edge had not all of the range's weights", layers)
        self._advance(query)

    def _observe(self, query: Query, result: messages.Result) -> None:
        """What an answer tells of the link and of the edge."""
        context, forecast = self._context, self._context.forecast
        assert query.sent_at is not None
        elapsed_s, down_bytes = context.now - query.sent_at, wire_bytes(result.tensors)
        forecast.observe_edge(result.start, result.stop, result.compute_s)
        forecast.observe_crossing_up(result.start, query.up_coding, query.up_bytes)
        forecast.observe_crossing_down(result.stop, query.reply_coding, down_bytes)
        forecast.observe_edge_coding(
            result.start, query.up_coding, result.stop, query.reply_coding, result.coding_s
        )
        context.record(
            "hop",
            query=result.query,
            layers=[result.start, result.stop],
            up_bytes=query.up_bytes,
            up_coding=query.up_coding,
            down_bytes=down_bytes,
            down_codings=sorted({tensor.coding for tensor in result.tensors}),
            elapsed_s=elapsed_s,
            queueing_s=query.queueing_s,
            queue_s=result.queue_s,
            coding_s=result.coding_s,
            compute_s=result.compute_s,
            precision=result.precision,
        )
        # Queries that shared the link waited for each other: their times are not the link's.
        if not query.shared_link:
            busy_s = result.queue_s + result.coding_s + result.compute_s + query.queueing_s
            context.links.observe_hop(
                query.up_bytes, down_bytes, elapsed_s, busy_s, idle=context.phase == "ready"
            )

    # Ends.

    def refused(self, number: int, text: str) -> None:
        query = self._open.get(number)
        if query is not None and query.on_edge:
            self._run_here(query, f"the edge refused: {text}")

    def edge_gone(self, reason: str) -> None:
        """Run here what the edge was to run."""
        for query in list(self._open.values()):
            if query.on_edge:
                self._run_here(query, f"edge gone: {reason}")

    def abandoned(self, number: int) -> None:
        query = self._open.pop(number, None)
        if query is not None and query.on_edge:
            self._context.send(messages.Cancel(number))

    def start_over(self, reason: str) -> None:
        """Run everything here, whatever state it was in: a bug must cost no answer."""
        for query in list(self._open.values()):
            query.result, query.encoding = None, False
            self._run_here(query, reason)

    def close(self) -> None:
        for number in list(self._open):
            self.abandoned(number)
            self._context.do(FailQuery(number, OffloadError("the session was closed")))

    def watch_time(self) -> None:
        now = self._context.now
        for query in list(self._open.values()):
            if query.deadline_at is not None and now >= query.deadline_at:
                self.abandoned(query.number)
                late = DeadlineExceeded(f"no answer within {query.deadline_at - query.asked_at} s")
                self._context.do(FailQuery(query.number, late))
            elif query.give_up_at is not None and now >= query.give_up_at:
                waited_s = now - (query.sent_at or now)
                self._context.send(messages.Cancel(query.number))
                self._run_here(query, f"edge slow: no answer in {waited_s:.2f} s")

    def wake_times(self) -> list[float]:
        return [t for q in self._open.values() for t in (q.give_up_at, q.deadline_at) if t]

    @property
    def transfers_s(self) -> float:
        """How long tensors under way may hold up every answer behind them."""
        if not self._open:
            return 0.0
        return sum(query.transfer_s for query in self._open.values() if query.on_edge)

    @property
    def reply_s(self) -> float:
        """How long the largest answer awaited takes on the downlink."""
        if not self._open:
            return 0.0
        return max((q.reply_s for q in self._open.values() if q.on_edge), default=0.0)
