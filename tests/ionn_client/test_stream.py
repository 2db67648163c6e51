"""Tokens, the newest frame, order, errors and endings of a stream."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from ionn_client.blocking import SyncOffload
from ionn_client.machine.query import QueryResult
from ionn_client.stream import StreamResult, stream


class Net:
    """Queries that end when the test says so."""

    def __init__(self) -> None:
        self.asked: dict[Any, asyncio.Future[QueryResult]] = {}
        self.open = self.most_open = 0

    async def query(self, *args: Any) -> QueryResult:
        answer = asyncio.get_running_loop().create_future()
        self.asked[args[0]] = answer
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            return await answer
        finally:
            self.open -= 1

    def answer(self, frame: Any) -> None:
        self.asked[frame].set_result(result(frame))


class Instant:
    async def query(self, *args: Any) -> QueryResult:
        return result(args)


class Camera:
    """An asynchronous source that gives frames when the test says so."""

    def __init__(self) -> None:
        self.frames: asyncio.Queue[Any] = asyncio.Queue()
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[Any]:
        try:
            while (frame := await self.frames.get()) is not None:
                if isinstance(frame, Exception):
                    raise frame
                yield frame
        finally:
            self.closed = True

    async def give(self, *frames: Any) -> None:
        for frame in frames:
            self.frames.put_nowait(frame)
        await settle()


def result(value: Any) -> QueryResult:
    names = {"value": value, "served_by": "edge", "latency_s": 0.0, "predicted_s": 0.0}
    fields = QueryResult.__dataclass_fields__
    return QueryResult(**{name: names.get(name) for name in fields})  # type: ignore[arg-type]


async def settle() -> None:
    """Let every task go on as far as it can."""
    for _ in range(30):
        await asyncio.sleep(0)


def other_tasks() -> set[asyncio.Task[Any]]:
    return asyncio.all_tasks() - {asyncio.current_task()}  # type: ignore[arg-type]


async def consume(results: AsyncIterator[StreamResult], into: list[StreamResult]) -> None:
    async for each in results:
        into.append(each)


@contextlib.asynccontextmanager
async def consuming(net: Any, source: Any, tokens: int) -> AsyncIterator[list[StreamResult]]:
    seen: list[StreamResult] = []
    consumer = asyncio.create_task(consume(stream(net, source, tokens), seen))
    await settle()
    yield seen
    await consumer


async def test_at_most_so_many_frames_are_open_as_there_are_tokens() -> None:
    net, camera = Net(), Camera()
    async with consuming(net, camera, tokens=2) as seen:
        await camera.give("a", "b", "c")
        assert list(net.asked) == ["a", "b"]
        net.answer("a")
        await settle()
        assert list(net.asked) == ["a", "b", "c"]
        net.answer("b")
        net.answer("c")
        await camera.give(None)
    assert [each.result.value for each in seen] == ["a", "b", "c"]
    assert net.most_open == 2


async def test_the_newest_frame_replaces_the_one_that_waits() -> None:
    net, camera = Net(), Camera()
    async with consuming(net, camera, tokens=1) as seen:
        await camera.give("a", "b", "c", "d")
        net.answer("a")
        await settle()
        assert list(net.asked) == ["a", "d"]
        net.answer("d")
        await camera.give(None)
    assert [(each.frame, each.dropped) for each in seen] == [(0, 0), (3, 2)]
    assert seen[0].waited_s < seen[1].waited_s


async def test_results_come_in_the_order_of_the_frames() -> None:
    net, camera = Net(), Camera()
    async with consuming(net, camera, tokens=3) as seen:
        await camera.give("a", "b", "c")
        net.answer("c")
        net.answer("b")
        await settle()
        assert seen == []
        net.answer("a")
        await camera.give(None)
    assert [each.frame for each in seen] == [0, 1, 2]


async def test_a_slow_consumer_holds_its_token() -> None:
    net, camera = Net(), Camera()
    results = stream(net, camera, tokens=1)
    first = asyncio.ensure_future(anext(results))
    await settle()
    await camera.give("a")
    net.answer("a")
    assert (await first).result.value == "a"
    await camera.give("b", "c")
    assert list(net.asked) == ["a"]  # The consumer still looks at it.
    second = asyncio.ensure_future(anext(results))
    await settle()
    net.answer("c")
    assert (await second).frame == 2
    await results.aclose()


async def test_the_last_frame_of_a_source_that_ended_is_still_asked() -> None:
    net, camera = Net(), Camera()
    async with consuming(net, camera, tokens=1) as seen:
        await camera.give("a", "b", None)
        net.answer("a")
        await settle()
        net.answer("b")
    assert [each.result.value for each in seen] == ["a", "b"]


async def test_what_the_source_raises_comes_after_the_results_before_it() -> None:
    net, camera, seen = Net(), Camera(), list[StreamResult]()
    consumer = asyncio.create_task(consume(stream(net, camera, 1), seen))
    await settle()
    await camera.give("a", OSError("unplugged"))
    net.answer("a")
    with pytest.raises(OSError, match="unplugged"):
        await consumer
    assert [each.frame for each in seen] == [0]
    assert not other_tasks()


async def test_what_a_query_raises_is_the_callers_and_ends_the_stream() -> None:
    net, camera, seen = Net(), Camera(), list[StreamResult]()
    consumer = asyncio.create_task(consume(stream(net, camera, 2), seen))
    await settle()
    await camera.give("a", "b")
    net.asked["a"].set_exception(ValueError("no such input"))
    with pytest.raises(ValueError, match="no such input"):
        await consumer
    assert net.open == 0
    assert camera.closed
    assert not other_tasks()


async def test_closing_ends_queries_and_source() -> None:
    net, camera = Net(), Camera()
    results = stream(net, camera, tokens=3)
    first = asyncio.ensure_future(anext(results))
    await settle()
    await camera.give("a", "b", "c", "d")
    net.answer("a")
    await first
    await results.aclose()
    assert net.open == 0
    assert camera.closed
    assert not other_tasks()


async def test_a_cancelled_consumer_leaves_nothing_behind() -> None:
    net, camera = Net(), Camera()
    consumer = asyncio.create_task(consume(stream(net, camera, 2), []))
    await settle()
    await camera.give("a", "b", "c")
    consumer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await consumer
    assert net.open == 0
    assert not other_tasks()


async def test_leaving_the_loop_ends_the_stream() -> None:
    net, camera = Instant(), Camera()
    camera.frames.put_nowait("a")
    async for each in stream(net, camera, tokens=1):
        assert each.frame == 0
        break
    await settle()
    assert camera.closed
    assert not other_tasks()


async def test_a_blocking_source_is_read_in_one_thread_and_holds_nobody_up() -> None:
    gate, threads = threading.Event(), set[str]()

    def camera() -> Iterator[str]:
        for frame in ("a", "b"):
            threads.add(threading.current_thread().name)
            gate.wait(60)
            yield frame

    async with consuming(Instant(), camera(), tokens=1) as seen:
        assert seen == []  # The loop turns while the camera blocks.
        gate.set()
    assert [each.result.value for each in seen][-1] == ("b",)
    assert len(threads) == 1
    assert threading.current_thread().name not in threads


async def test_closing_waits_for_the_blocking_read_under_way() -> None:
    gate, reading = threading.Event(), threading.Event()

    def camera() -> Iterator[int]:
        yield 0
        reading.set()
        gate.wait(60)
        yield 1

    results = stream(Instant(), camera(), tokens=1)
    assert (await anext(results)).frame == 0
    await asyncio.to_thread(reading.wait, 10)
    closing = asyncio.ensure_future(results.aclose())
    await settle()
    assert not closing.done()
    gate.set()
    await closing
    assert not any(t.name.startswith("ionn-stream") for t in threading.enumerate())


async def test_a_source_that_never_waits_holds_nobody_up() -> None:
    async def endless() -> AsyncIterator[int]:
        for number in itertools.count():
            yield number

    frames = []
    results = stream(Instant(), endless(), tokens=2)
    async for each in results:
        frames.append(each.frame)
        if len(frames) == 20:
            break
    await results.aclose()
    assert frames == sorted(set(frames))


async def test_a_list_is_read_to_its_end_and_the_last_frame_is_answered() -> None:
    async with consuming(Instant(), range(1000), tokens=2) as seen:
        pass
    assert seen[-1].frame == 999
    assert sum(each.dropped for each in seen) + len(seen) == 1000
    assert not any(t.name.startswith("ionn-stream") for t in threading.enumerate())


async def test_a_source_of_the_callers_stays_open() -> None:
    async def numbers() -> AsyncIterator[int]:
        for number in range(3):
            yield number

    mine = numbers()
    results = stream(Instant(), mine, tokens=1)
    await anext(results)
    await results.aclose()
    assert [number async for number in mine][-1] == 2


async def test_a_tuple_is_the_models_arguments_and_an_empty_source_gives_nothing() -> None:
    async with consuming(Instant(), [("x", "scale")], tokens=1) as seen:
        pass
    assert seen[0].result.value == ("x", "scale")
    async with consuming(Instant(), [], tokens=1) as none:
        pass
    assert none == []


async def test_a_stream_that_nobody_reads_starts_nothing() -> None:
    net, camera = Net(), Camera()
    results = stream(net, camera)
    await settle()
    assert not net.asked
    assert not other_tasks()
    await results.aclose()


@pytest.mark.parametrize("tokens", [0, -1, 1.5, True, None, "2"])
def test_tokens_are_a_positive_whole_number(tokens: Any) -> None:
    with pytest.raises(ValueError, match="tokens"):
        stream(Instant(), [], tokens)


@pytest.mark.parametrize("source", [None, 7, object()])
def test_a_source_must_be_iterable(source: Any) -> None:
    with pytest.raises(TypeError, match="iterated"):
        stream(Instant(), source)


async def test_an_iterable_that_fails_to_start_or_to_go_on_says_so() -> None:
    class Unopened:
        def __iter__(self) -> Iterator[Any]:
            raise OSError("no camera")

    with pytest.raises(OSError, match="no camera"):
        await anext(stream(Instant(), Unopened()))

    def breaks() -> Iterator[int]:
        yield 0
        raise OSError("unplugged")

    with pytest.raises(OSError, match="unplugged"):
        await consume(stream(Instant(), breaks(), 1), [])


class Connected(Instant):
    threads = 1

    async def __aenter__(self) -> Connected:
        return self

    async def __aexit__(self, *_: object) -> None:
        assert not other_tasks()

    def stream(self, source: Any, tokens: int) -> Any:
        return stream(self, source, tokens)


def test_the_blocking_stream_ends_by_itself_or_early() -> None:
    before = set(threading.enumerate())
    with SyncOffload(Connected()) as net:  # type: ignore[arg-type]
        frames = [each.frame for each in net.stream(range(100))]
        assert frames[-1] == 99
        for each in net.stream(itertools.count()):
            assert each.frame == 0
            break
        with pytest.raises(ValueError, match="tokens"):
            next(net.stream([], tokens=0))
    begun = set(threading.enumerate()) - before
    assert not any(thread.name.startswith("ionn") for thread in begun)
