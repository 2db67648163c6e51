"""A second connection that carries weights for the first: joining it, and either one's end."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ionn_edge.machine import events
from ionn_edge.machine.events import (
    CountHeld,
    EndLane,
    HeldCounted,
    JoinLane,
    LaneJoined,
    LaneOver,
    LaneRefused,
    ModelEvicted,
    ModelOpened,
    OpenModel,
    Progress,
    Received,
    SegmentStored,
    Send,
    StopWorker,
    StoreSegment,
)
from ionn_edge.machine.session import Session
from layergraph import LayerGraph
from tests.ionn_edge.conftest import Serve
from tests.ionn_edge.peer import Peer, blobs, chain, execute, partial, segment
from tests.ionn_edge.test_session import (
    CONFIG,
    EMPTY,
    END,
    LIVE,
    MODEL,
    greeted,
    heard,
    only_error,
    ran,
    ready,
    welcome,
    whole,
)
from tests.support import ELEMENTS, WIDTH
from wire import hello, messages
from wire.messages import Bye, Chunk, ChunkAck, Evicted, Execute, Held, Hello, Join, Joined, Offer
from wire.planes import WHOLE

in_session = pytest.mark.asyncio(loop_scope="session")
ASK = Offer(MODEL.fingerprint, b"")


def joined(first: Session) -> Session:
    lane = greeted()
    assert lane.handle(Received(Join("secret")), 0.0) == [JoinLane("secret")]
    intake = first.lend_intake()
    assert intake is not None
    assert lane.handle(LaneJoined(intake), 0.0) == [Send(Joined())]
    return lane


def stored(commands: list[Any]) -> list[StoreSegment]:
    return [each for each in commands if isinstance(each, StoreSegment)]


# Without I/O.


def test_a_lane_takes_segments_for_the_first_and_answers_them_itself() -> None:
    first = ready()
    lane = joined(first)
    commands = heard(lane, *whole(1, 0, 50, 1), now=2.0)
    assert commands[0] == Send(ChunkAck(2.0))
    (store,) = stored(commands)
    assert store.segment.count == 50
    told = lane.handle(SegmentStored(1, WHOLE, 50, True), 3.0)
    assert told == [Send(Held(1, WHOLE, 50, True))]


def test_what_one_connection_brought_the_other_goes_on_with() -> None:
    first = ready()
    lane = joined(first)
    assert stored(heard(lane, *whole(1, 0, 20, 1)))
    assert stored(heard(first, *whole(1, 20, 10, 1)))
    assert stored(heard(lane, *whole(1, 30, 20, 1)))


def test_the_same_elements_on_both_connections_are_stored_once() -> None:
    first = ready()
    lane = joined(first)
    said = whole(1, 0, 20, 1)
    assert heard(lane, said[0]) == heard(first, said[0]) == []
    assert stored(heard(first, said[1]))
    error = only_error(heard(lane, said[1]))
    assert error.code == "unexpected"
    assert "at 0, expected 20" in error.text
    assert stored(heard(first, *whole(1, 20, 30, 1))), "the first connection goes on"


def test_a_chunk_needs_a_segment_on_its_own_connection() -> None:
    first = ready()
    lane = joined(first)
    heard(lane, whole(1, 0, 20, 1)[0])
    assert only_error(heard(first, Chunk(b"x" * 20))).code == "unexpected"


def test_a_lane_without_a_first_is_refused() -> None:
    lane = greeted()
    lane.handle(Received(Join("guess")), 0.0)
    error = only_error(lane.handle(LaneRefused("no"), 0.0))
    assert (error.code, error.text) == ("unexpected", "no")


@pytest.mark.parametrize("said", [ASK, Execute(1, 0, 3, None, "exact", "raw", LIVE), Join("x")])
def test_a_lane_carries_nothing_but_weights(said: messages.Message) -> None:
    assert only_error(heard(joined(ready()), said)).code == "unexpected"


def test_segments_need_the_answer_to_join() -> None:
    lane = greeted()
    heard(lane, Join("secret"))
    assert only_error(heard(lane, whole(1, 0, 20, 1)[0])).code == "unexpected"


def test_only_a_connection_with_a_model_lends_its_intake() -> None:
    assert greeted().lend_intake() is None
    first = ready()
    first.handle(ModelEvicted("e.1"), 0.0)
    assert first.lend_intake() is None


def test_the_lane_ends_with_the_model_and_with_the_first() -> None:
    first = ready()
    lane = joined(first)
    assert EndLane() in first.handle(ModelEvicted("e.1"), 0.0)
    assert lane.handle(LaneOver(), 0.0) == [Send(Bye("done")), *END]
    assert EndLane() in heard(ready(), Bye("done"))


def test_the_secret_is_not_shown() -> None:
    assert "secret" not in repr(JoinLane("secret"))


def test_what_is_held_can_be_asked_again() -> None:
    first = ready()
    first.handle(Received(Execute(1, 0, 3, None, "exact", "raw", LIVE)), 0.0)
    joined(first)
    assert heard(first, ASK) == [EndLane(), CountHeld()]
    answers = first.handle(ran(1), 0.0)
    assert isinstance(answers[0].message, messages.Result), "queries are answered meanwhile"
    held = (Progress(), Progress(whole_bytes=20), Progress())
    (have,) = first.handle(HeldCounted("e.0", held), 0.0)
    assert have.message.partial == (messages.Partial(1, WHOLE, 20),)
    assert stored(heard(first, *whole(1, 20, 30, 1))), "from there it goes on"


def test_a_segment_that_had_not_come_whole_is_dropped_by_asking() -> None:
    first = ready()
    heard(first, whole(1, 0, 20, 1)[0])
    heard(first, ASK)
    first.handle(HeldCounted("e.0", EMPTY), 0.0)
    assert stored(heard(first, *whole(1, 0, 50, 1)))


@pytest.mark.parametrize("offer", [Offer(MODEL.fingerprint, b"g"), Offer("e" * 64, b"")])
def test_another_model_needs_another_connection(offer: Offer) -> None:
    assert only_error(heard(ready(), offer)).code == "unexpected"


def test_segments_wait_for_the_answer_to_the_question() -> None:
    first = ready()
    heard(first, ASK)
    assert only_error(heard(first, whole(1, 0, 20, 1)[0])).code == "unexpected"


def test_an_eviction_makes_the_question_an_offer() -> None:
    first = ready()
    heard(first, ASK)
    evicted = first.handle(ModelEvicted("e.1"), 0.0)
    assert evicted == [
        EndLane(),
        StopWorker(),
        Send(Evicted(MODEL.fingerprint, "e.1")),
        OpenModel(MODEL.fingerprint, b""),
    ]
    assert first.handle(HeldCounted("e.1", EMPTY), 0.0) == [], "counted too late"
    (have,) = first.handle(ModelOpened(MODEL, "e.1", EMPTY), 0.0)
    assert isinstance(have.message, messages.Have)


def test_silence_before_hello_ends_a_lane_like_any_connection() -> None:
    lane = Session(CONFIG, lambda *_: pytest.fail("welcomed"))
    lane.handle(events.Connected(), 0.0)
    error = only_error(lane.handle(events.TimePassed(), CONFIG.hello_timeout_s))
    assert "no Hello" in error.text


def test_where_there_are_too_many_clients_a_lane_is_still_welcome_and_nothing_else() -> None:
    def welcomed() -> Session:
        session = Session(CONFIG, welcome)
        session.handle(events.Connected(admitted=False, joins=True), 0.0)
        assert heard(session, Hello(2, 2, "test")) == [Send(welcome(2, 0.0))]
        return session

    assert heard(welcomed(), Join("secret")) == [JoinLane("secret")]
    assert only_error(heard(welcomed(), ASK)).code == "overloaded"


# With sockets.


def _row() -> torch.Tensor:
    return torch.ones(1, WIDTH)


async def opened(first: Peer, graph: LayerGraph) -> str:
    lane = (await first.greet()).lane
    await first.offer(graph)
    return lane


async def join(lane: Peer, secret: str) -> None:
    await lane.greet()
    await lane.send(Join(secret))
    await lane.hear(Joined)


@in_session
async def test_weights_on_the_lane_are_run_on_the_first(serve: Serve) -> None:
    graph, weights = chain()
    async with serve() as (box, url), Peer(url) as first, Peer(url) as lane:
        await join(lane, await opened(first, graph))
        assert len(box.clients) == 2
        views = blobs(graph, weights)
        await first.upload(0, views[0])
        for number, view in enumerate(views[1:], 1):
            assert (await lane.upload(number, view)).complete
        result, _ = await first.run(1, 0, 3, (_row(),))
        assert result.stop == 3


@in_session
async def test_a_lane_takes_no_other_clients_place(serve: Serve) -> None:
    graph, weights = chain()
    async with serve(max_clients=1) as (_, url), Peer(url) as first:
        secret = await opened(first, graph)
        async with Peer(url) as lane:
            await join(lane, secret)
            assert (await lane.upload(0, blobs(graph, weights)[0])).complete
            await first.send(messages.GetLoad())
            assert (await first.hear(messages.Load)).clients == 1
            async with Peer(url) as other:
                assert "at most 1" in await other.fails_with("overloaded", hello("test"))


@in_session
@pytest.mark.parametrize("guess", ["", "0" * 32, "\u00e4" * 16])
async def test_a_wrong_secret_joins_nothing(serve: Serve, guess: str) -> None:
    graph, weights = chain()
    async with serve() as (_, url), Peer(url) as first, Peer(url) as lane:
        await opened(first, graph)
        await lane.greet()
        assert "no connection" in await lane.fails_with("unexpected", Join(guess or "x"))
        assert (await first.upload(0, blobs(graph, weights)[0])).complete


@in_session
async def test_one_lane_is_enough(serve: Serve) -> None:
    graph, weights = chain()
    async with serve() as (_, url), Peer(url) as first, Peer(url) as lane, Peer(url) as third:
        secret = await opened(first, graph)
        await join(lane, secret)
        await third.greet()
        assert "already" in await third.fails_with("unexpected", Join(secret))
        assert (await lane.upload(0, blobs(graph, weights)[0])).complete


@in_session
async def test_nobody_joins_a_connection_without_a_model(serve: Serve) -> None:
    async with serve() as (_, url), Peer(url) as first, Peer(url) as lane:
        secret = (await first.greet()).lane
        await lane.greet()
        assert "no model" in await lane.fails_with("unexpected", Join(secret))


@in_session
async def test_a_lane_of_its_own_leads_nowhere(serve: Serve) -> None:
    async with serve() as (_, url), Peer(url) as lane:
        secret = (await lane.greet()).lane
        await lane.fails_with("unexpected", Join(secret))


@in_session
async def test_queries_do_not_go_over_the_lane(serve: Serve) -> None:
    graph, weights = chain()
    async with serve() as (_, url), Peer(url) as first, Peer(url) as lane:
        await join(lane, await opened(first, graph))
        await lane.fails_with("unexpected", execute(1, 0, 1, (_row(),)))
        assert (await first.upload(0, blobs(graph, weights)[0])).complete


@in_session
async def test_a_lane_that_breaks_costs_its_unfinished_segment_only(serve: Serve) -> None:
    graph, weights = chain()
    views = blobs(graph, weights)
    async with serve() as (_, url), Peer(url) as first:
        secret = await opened(first, graph)
        async with Peer(url) as lane:
            await join(lane, secret)
            await lane.upload(0, views[0], stop=20, step=10)
            await lane.send(*segment(0, views[0], 20, 20)[:2])
            await lane.hear(ChunkAck)
            assert lane.socket._response.connection is not None
            lane.socket._response.connection.transport.abort()
        have = await ask(first, graph)
        assert partial(have) == [(0, WHOLE, 20)]
        assert (await first.upload(0, views[0], start=20)).complete
        async with Peer(url) as another:
            await join(another, secret)
            assert (await another.upload(1, views[1])).complete


@in_session
async def test_wrong_bytes_on_the_lane_can_be_sent_again_on_the_first(serve: Serve) -> None:
    graph, weights = chain()
    views = blobs(graph, weights)
    async with serve() as (_, url), Peer(url) as first, Peer(url) as lane:
        secret = await opened(first, graph)
        await join(lane, secret)
        await lane.send(*segment(0, views[1], 0, ELEMENTS, chunk_bytes=1 << 10))
        await lane.hear(ChunkAck)
        assert "send it again from 0" in await lane.fails_with("digest")
        assert partial(await ask(first, graph)) == []
        assert (await first.upload(0, views[0])).complete
        async with Peer(url) as another:
            await join(another, secret)
            assert (await another.upload(1, views[1])).complete


@in_session
async def test_asking_ends_a_lane_that_only_seems_to_be_there(serve: Serve) -> None:
    graph, weights = chain()
    views = blobs(graph, weights)
    async with serve() as (_, url), Peer(url) as first, Peer(url) as lane:
        await join(lane, await opened(first, graph))
        await lane.send(*segment(0, views[0], 0, 20), *segment(0, views[0], 20, 20)[:-1])
        have = await ask(first, graph)
        assert partial(have) in ([], [(0, WHOLE, 20)]), "as far as it had come"
        start = 20 if partial(have) else 0
        assert (await first.upload(0, views[0], start=start)).complete


@in_session
async def test_the_lane_ends_with_the_first(serve: Serve) -> None:
    graph, _ = chain()
    async with serve() as (_, url), Peer(url) as lane:
        async with Peer(url) as first:
            await join(lane, await opened(first, graph))
        await lane.hear(Bye)
        assert await lane.heard_close() == 1000


@in_session
async def test_the_lane_ends_with_the_model(serve: Serve) -> None:
    graph, weights = chain()
    other_graph, _ = chain(seed=1)
    size = 4 * ELEMENTS * 3
    async with serve(memory_bytes=size) as (_, url), Peer(url) as first, Peer(url) as lane:
        await join(lane, await opened(first, graph))
        await lane.upload(0, blobs(graph, weights)[0])
        async with Peer(url) as other:
            await other.greet()
            await other.offer(other_graph)
            await first.hear(Evicted)
            await lane.hear(Bye)


@in_session
async def test_a_busy_lane_keeps_the_upload_from_being_taken_over(serve: Serve) -> None:
    graph, weights = chain()
    async with serve() as (box, url), Peer(url) as first, Peer(url) as lane:
        await join(lane, await opened(first, graph))
        await lane.upload(0, blobs(graph, weights)[0], stop=20)
        of_first = next(link for link in box.clients if link.session.model is not None)
        of_lane = next(link for link in box.clients if link.session.model is None)
        assert of_first.heard_at == of_lane.session.heard_at > of_first.session.heard_at


@in_session
async def test_a_flood_on_the_lane_is_held_back_and_queries_go_on(serve: Serve) -> None:
    graph, weights = chain()
    views = blobs(graph, weights)
    async with serve() as (_, url), Peer(url) as first, Peer(url) as lane:
        await join(lane, await opened(first, graph))
        await first.upload(0, views[0])
        flood = [each for at in range(ELEMENTS) for each in segment(1, views[1], at, 1)]
        await lane.send(*flood)
        result, _ = await first.run(1, 0, 1, (_row(),))
        assert result.stop == 1
        held = await _last_held(lane, ELEMENTS)
        assert held.complete


async def _last_held(lane: Peer, count: int) -> Held:
    while True:
        message = await lane._hear()
        assert isinstance(message, ChunkAck | Held), message
        if isinstance(message, Held) and message.count == count:
            return message


async def ask(first: Peer, graph: LayerGraph) -> messages.Have:
    have = await first.ask(graph)
    assert isinstance(have, messages.Have)
    return have
