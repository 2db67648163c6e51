"""When an answer of the edge is expected, what it must be, and what it tells of link and edge."""

from __future__ import annotations

from collections.abc import Iterable

from ionn_client.config import Options
from ionn_client.machine.context import Context
from ionn_client.machine.lateness import Lateness
from ionn_client.machine.query import Query, suffices
from ionn_client.machine.tensors import check_answer, wire_bytes
from layergraph import LayerGraph
from wire import RemoteProtocolError, messages
from wire.activations import LOSSY

# Added to the longest that a reply is waited for.
GRACE_S = 0.5


def send_off(context: Context, query: Query, tensors: tuple[messages.Tensor, ...]) -> None:
    """The query's next range goes to the edge now, with these tensors."""
    query.sent_at, query.coded = context.now, tensors
    query.sent_lossy = any(tensor.coding in LOSSY for tensor in tensors)
    query.queueing_s = context.queueing_s()
    query.up_bytes = wire_bytes(tensors)
    query.reply_coding = context.forecast.down_coding(query.plan[0].stop).coding


def expect_reply(context: Context, query: Query, others: Iterable[Query]) -> None:
    """When the reply to what was sent off would be back, behind those that are under way."""
    forecast, link = context.forecast, context.link_now()
    start, stop = query.position, query.plan[0].stop
    reply = forecast.down_coding(stop)
    # The route may be old, and estimates wrong: an edge whose clock jumped makes links seem slow.
    # Nothing is expected to take longer than all that is left would take here.
    most_s = max(forecast.local_s(start), context.options.silence_s)
    query.reply_s = min(reply.bytes / link.down_Bps, most_s)
    query.transfer_s = min(query.up_bytes / link.up_Bps + query.reply_s, most_s)
    expected_s = link.rtt_s + query.transfer_s + forecast.edge_range_s(start, stop)
    expected_s += forecast.up_option(start, query.up_coding).decode_s + reply.encode_s
    expected_s += sum(other.transfer_s for other in others)
    query.expected_reply_s = min(expected_s, most_s)


def longest_wait_s(options: Options, expected_s: float) -> float:
    """How long a reply is waited for where nothing runs here beside it."""
    return GRACE_S + options.patience * expected_s


def usual_wait_s(options: Options, expected_s: float, lateness: Lateness) -> float:
    """How long a reply is waited for where neither a deadline nor a doubt presses."""
    longest_s = longest_wait_s(options, expected_s)
    return min(longest_s, lateness.p95_s(expected_s)) if options.hedging else longest_s


def late_after_s(context: Context, query: Query, lateness: Lateness) -> float:
    """How long the reply is waited for before the query runs here, too or instead."""
    options, expected_s = context.options, query.expected_reply_s
    late_s = usual_wait_s(options, expected_s, lateness)
    if query.deadline_at is not None:
        # Keep enough time to answer from here.
        last_call_s = query.deadline_at - context.now
        last_call_s -= 1.1 * context.forecast.local_s(query.position)
        if last_call_s > (0.0 if options.hedging else expected_s):
            late_s = min(late_s, last_call_s)
    return late_s


def is_awaited(query: Query, result: messages.Result) -> bool:
    """False for the answer to something given up, and for one that comes twice."""
    return query.sent_at is not None and result.start == query.position


def check_reply(query: Query, result: messages.Result, graph: LayerGraph) -> None:
    """Before anything is decoded: raises RemoteProtocolError for another thing than was asked."""
    if not query.position < result.stop <= query.plan[0].stop:
        raise RemoteProtocolError(f"layers [{result.start}, {result.stop}) were not asked for")
    check_answer(result.tensors, graph, result.stop)
    if not suffices(result.precision, query.accepts):
        raise RemoteProtocolError(
            f"an answer at {result.precision}, where {query.accepts} was asked for"
        )


def observe_reply(
    context: Context, query: Query, result: messages.Result, elapsed_s: float, *, shared: bool
) -> None:
    """What an answer tells that took so long, and a record of it.

    shared: other queries' tensors were on the link meanwhile.
    """
    forecast, down_bytes = context.forecast, wire_bytes(result.tensors)
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
        expected_s=query.expected_reply_s,
        elapsed_s=elapsed_s,
        queueing_s=query.queueing_s,
        queue_s=result.queue_s,
        coding_s=result.coding_s,
        compute_s=result.compute_s,
        precision=result.precision,
    )
    # Queries that shared the link waited for each other: their times are not the link's.
    if not shared:
        busy_s = result.queue_s + result.coding_s + result.compute_s + query.queueing_s
        context.links.observe_hop(
            query.up_bytes, down_bytes, elapsed_s, busy_s, idle=context.phase == "ready"
        )
