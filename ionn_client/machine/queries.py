"""The queries' part of a session: routed, run here and there, answered in any case.

A reply that is late is not waited for: the query runs here too (`racing`), from the live tensors
that it had when it was sent, and the first valid answer wins.
"""

from __future__ import annotations

import random
from functools import partial

from ionn_client.errors import DeadlineExceeded, OffloadError
from ionn_client.machine.battery import Rations
from ionn_client.machine.context import Context
from ionn_client.machine.events import (
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
from ionn_client.machine.hedging import Slices
from ionn_client.machine.lateness import Lateness
from ionn_client.machine.query import Query, live_bytes
from ionn_client.machine.racing import Racing
from ionn_client.machine.replies import (
    check_reply,
    expect_reply,
    is_awaited,
    late_after_s,
    longest_wait_s,
    observe_reply,
    send_off,
)
from ionn_client.machine.tensors import is_raw, live_from_wire, live_to_wire
from ionn_client.machine.trust import TROUBLE, Trust
from ionn_client.machine.uploading import Uploading
from ionn_client.quantities import seconds
from layergraph.execute import Live
from planner import Route
from wire import messages
from wire.activations import decode_tensor, encode_tensor

REPLY_TICK_S = 0.003
# Larger tensors are coded in a thread: this many bytes take about a millisecond.
INLINE_BYTES = 64 << 10


class Queries:
    """Every query that has no answer yet."""

    def __init__(self, context: Context, uploading: Uploading, chance: random.Random) -> None:
        self._context = context
        self._uploading = uploading
        self._open: dict[int, Query] = {}
        self._lateness = Lateness(context.options.patience)
        self._slices = Slices(context.forecast.client_s.tolist())
        self.trust = Trust(context, self._slices, chance)
        self.racing = Racing(context, self._lateness, self._slices, self.trust, self._beaten)
        self.sent_bytes = 0
        # Of queries given up: how long they may still be on the link, and when they are over.
        self._cancelled_s = self.over_at = 0.0
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
        query.usable = self._uploading.usable[accepts]
        self.rations.asked(query.expected_J)
        self._open[query.number] = query
        self._advance(query)

    def _advance(self, query: Query) -> None:
        """Start the next range, or answer."""
        context = self._context
        if query.position == context.layers:
            del self._open[query.number]
            drawn_J = query.expected_J
            if query.fallback_reason is not None or query.vain_s:
                vain = query.vain_bytes, query.vain_s
                drawn_J = context.forecast.energy_J(query.ran, context.link_now(), *vain)
            self.rations.answered(query.expected_J, drawn_J)
            context.do(FinishQuery(query.number, query.answer(context.now, drawn_J)))
            return
        part = query.plan[0]
        if part.where == "client":
            context.do(RunRange(query.number, query.position, part.stop, query.live))
        elif (refusal := self._refusal(query)) is not None:
            self._run_here(query, refusal)
        else:
            self._encode(query)

    def _refusal(self, query: Query) -> str | None:
        """Why its next range is not sent to the edge now; None if it may be."""
        context = self._context
        if not context.agreed:
            return context.last_failure or "the edge is not connected"
        usable = self._uploading.usable[query.accepts]
        if usable is not query.usable:
            # Planned before weights came, or went: on another connection, say.
            layers = range(query.position, query.plan[0].stop)
            if any(context.graph.layers[layer].weights and layer not in usable for layer in layers):
                return "the edge has not all of the range's weights any more"
        return self.trust.refusal()

    def _run_here(self, query: Query, reason: str) -> None:
        """From where it is; a slice that is running already is the first of it."""
        hedged = query.hedge is not None
        query.fall_back(reason, self._context.layers)
        self.trust.breaker.settled(query.number)
        if not hedged:
            self._advance(query)

    def _beaten(self, query: Query, reason: str) -> None:
        """This side answers, whatever the edge may say yet."""
        hedged = query.hedge is not None
        if query.on_edge:
            self._cancel(query)
        self._run_here(query, reason)
        if hedged:
            self._advance(query)

    def wants(self, number: int, start: int) -> bool:
        """Whether what runs here from `start` is of use to its query."""
        query = self._open.get(number)
        return query is not None and query.takes(start)

    @property
    def idle_here(self) -> bool:
        """No query has anything to run on this processor now."""
        return all(
            query.hedge is None and (query.on_edge or query.encoding or query.result is not None)
            for query in self._open.values()
        )

    def ran(self, event: RangeRan) -> None:
        self._context.forecast.observe_client(event.start, event.stop, event.seconds)
        query = self._open.get(event.query)
        if query is None or not query.takes(event.start):
            return
        if query.hedge is not None:
            query.hedge.reached(event.stop, event.live, event.seconds)
            self.racing.ran(query, query.hedge)
        else:
            query.reached("client", event.stop, event.live)
            self._advance(query)

    def failed(self, number: int, start: int | None, error: Exception) -> None:
        query = self._open.get(number)
        if query is None or (start is not None and not query.takes(start)):
            return
        if query.hedge is not None:
            # The edge may do better, but is not waited for without end.
            query.hedge = None
            if query.on_edge:
                query.alone = True
                query.late_at = (query.sent_at or 0.0) + longest_wait_s(
                    self._context.options, query.expected_reply_s
                )
        else:
            self.trust.breaker.settled(number)
            del self._open[number]
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
        if (refusal := self._refusal(query)) is not None:
            self._run_here(query, refusal)
        else:
            self._send(query, event.tensors)

    def _send(self, query: Query, tensors: tuple[messages.Tensor, ...]) -> None:
        context, start, stop = self._context, query.position, query.plan[0].stop
        assert context.kept.isdisjoint(range(start, stop)), "a layer that is kept here"
        others = [other for other in self._open.values() if other.on_edge]
        for sharing in (query, *others) if others else ():
            sharing.shared_link = True
        send_off(context, query, tensors)
        context.later(partial(self._expect, query, others))
        self.sent_bytes += query.up_bytes
        assert context.pacer is not None, "there is one wherever something is agreed"
        context.pacer.carried(query.up_bytes, context.now)
        left_s = None if query.deadline_at is None else max(query.deadline_at - context.now, 0.0)
        context.send(
            messages.Execute(
                query.number, start, stop, left_s, query.accepts, query.reply_coding, tensors
            )
        )

    def _expect(self, query: Query, others: list[Query]) -> None:
        if not query.on_edge:
            return
        expect_reply(self._context, query, others)
        query.late_at = self._context.now + late_after_s(self._context, query, self._lateness)
        self.trust.sent(query)

    def answered(self, result: messages.Result) -> None:
        """Raises RemoteProtocolError for an answer to something else than was asked."""
        query = self._open.get(result.query)
        if query is None or not is_awaited(query, result):
            return
        graph, live = self._context.graph, None
        check_reply(query, result, graph)
        elapsed_s = self._context.now - (query.sent_at or 0.0)
        if query.hedge is not None and query.hedge.position >= result.stop:
            self._lateness.observe(query.expected_reply_s, elapsed_s)
            self._run_here(query, f"edge slow: this side was further after {elapsed_s:.2f} s")
            return
        if graph.cut_bytes[result.stop] <= INLINE_BYTES or is_raw(result.tensors):
            # Before anything is noted of an answer that turns out to be none.
            live = live_from_wire(tuple(map(decode_tensor, result.tensors)), graph, result.stop)
        lesson = partial(self._learn, query, result, elapsed_s, shared=query.shared_link)
        query.left_edge()
        if live is not None and result.stop == self._context.layers:
            # Nobody waits for what is learnt of the last answer.
            self._context.later(lesson)
        else:
            lesson()
        if live is not None:
            self._arrived(query, result, live)
        else:
            query.result = result
            self._context.do(DecodeTensors(query.number, result.tensors))

    def _learn(
        self, query: Query, result: messages.Result, elapsed_s: float, *, shared: bool
    ) -> None:
        self._lateness.observe(query.expected_reply_s, elapsed_s)
        observe_reply(self._context, query, result, elapsed_s, shared=shared)
        # For the next query, which then need not wait for it.
        self.route(query.accepts, lossless=query.lossless)

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
        if query is not None and query.result is not None:
            query.result = None
            query.vain_bytes += query.up_bytes
            self._run_here(query, reason)

    def _arrived(self, query: Query, result: messages.Result, live: Live) -> None:
        disbelief = self.trust.disbelief(query, result, live)
        if disbelief is not None:
            query.vain_bytes += query.up_bytes
            self._run_here(query, disbelief)
            return
        self.trust.succeeded(query)
        asked_stop = query.plan[0].stop
        hedge = query.hedge
        if hedge is not None:
            running = hedge.position, self._slices.stop(hedge.position)
            query.drop_hedge(hedge.seconds + self._context.forecast.client_range_s(*running))
        query.reached("edge", result.stop, live)
        query.used(result.precision)
        query.lossy = query.lossy or query.sent_lossy
        if result.stop < asked_stop:
            layers = self._context.layers
            query.fall_back("the edge had not all of the range's weights", layers)
        self._advance(query)

    # Ends.

    def refused(self, number: int, code: str, text: str) -> None:
        query = self._open.get(number)
        if query is not None and query.on_edge:
            if code in TROUBLE:
                self.trust.failed(text, query)
            self._run_here(query, f"the edge refused: {text}")

    def edge_gone(self, reason: str) -> None:
        """Run here what the edge was to run."""
        lost = [query for query in self._open.values() if query.on_edge]
        if lost:
            self.trust.failed(reason)
        for query in lost:
            self._run_here(query, f"edge gone: {reason}")

    def abandoned(self, number: int) -> None:
        query = self._open.pop(number, None)
        if query is None:
            return
        self.trust.breaker.settled(number)
        if query.on_edge:
            self._cancel(query)

    def _cancel(self, query: Query) -> None:
        """Its tensors, and its answer, may be on the link all the same."""
        now = self._context.now
        self._cancelled_s = query.transfer_s + (self._cancelled_s if now < self.over_at else 0.0)
        self.over_at = now + self._cancelled_s + self._context.options.silence_s
        self._context.send(messages.Cancel(query.number))

    def start_over(self, reason: str) -> None:
        """Run everything here, whatever state it was in: a bug must cost no answer."""
        for query in list(self._open.values()):
            query.result, query.encoding, query.hedge = None, False, None
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
                given = seconds(query.deadline_at - query.asked_at)
                late = DeadlineExceeded(f"no answer within {given}")
                self._context.do(FailQuery(query.number, late))
            elif query.late_at is not None and now >= max(
                query.late_at, self._context.heard_out_at
            ):
                self.racing.late(query, self._open.values())

    def wake_times(self) -> list[float]:
        if not self._open:
            return []
        queries, heard_out_at = self._open.values(), self._context.heard_out_at
        times = [q.deadline_at for q in queries if q.deadline_at is not None]
        # Of those that are late already, the next one starts when the one that runs has ended;
        # those that cannot be hedged are given up.
        hedged = any(query.hedge is not None for query in queries)
        for query in queries:
            if query.late_at is not None and (query.alone or not hedged):
                times.append(max(query.late_at, heard_out_at))
        return times

    @property
    def on_edge(self) -> bool:
        """The edge works on one."""
        return any(query.on_edge for query in self._open.values())

    @property
    def transfers_s(self) -> float:
        """How long tensors under way may hold up every answer behind them."""
        cancelled_s = self._cancelled_s if self._context.now < self.over_at else 0.0
        return cancelled_s + sum(q.transfer_s for q in self._open.values() if q.on_edge)

    @property
    def reply_s(self) -> float:
        """How long the largest answer awaited takes on the downlink."""
        if not self._open:
            return 0.0
        return max((q.reply_s for q in self._open.values() if q.on_edge), default=0.0)
