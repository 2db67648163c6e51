"""The emulated link and device: exact on the virtual clock, whole and in order on real sockets."""

import asyncio
import contextlib
import itertools
import json
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ionn_client.emulate import (
    LinkEmulator,
    LinkProcess,
    LinkSpec,
    Shaper,
    SlowDevice,
    parse_rate,
    parse_size,
    parse_time,
    slowdown_for,
)
from ionn_client.emulate.__main__ import main
from ionn_client.emulate.connection import UNSENT_BYTES
from ionn_client.emulate.link import MAX_PIECE_BYTES, piece_bytes
from ionn_client.emulate.relay import address

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import netns
from namespaces import Namespaces, NamespacesUnavailable

FAST = LinkSpec(up_Bps=1e9, down_Bps=1e9, rtt_s=0.0, queue_bytes=65_536)
SLOW_Bps = 1e3
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], object]


# -- numbers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("read", "text", "value"),
    [
        (parse_rate, "80mbit", 1e7),
        (parse_rate, "5.85mbit", 731_250),
        (parse_rate, " 1 Gbit ", 1.25e8),
        (parse_rate, "512kbit", 64e3),
        (parse_rate, "800bit", 100),
        (parse_rate, "10MB/s", 1e7),
        (parse_rate, "3kB/s", 3e3),
        (parse_time, "5ms", 0.005),
        (parse_time, "300us", 0.0003),
        (parse_time, "0.5s", 0.5),
        (parse_time, "10min", 600.0),
        (parse_time, "1.5h", 5400.0),
        (parse_size, "64k", 65_536),
        (parse_size, "1.5KB", 1_536),
        (parse_size, "1m", 1_048_576),
        (parse_size, "9000", 9_000),
    ],
)
def test_texts_are_read_with_their_units(read, text, value):
    assert read(text) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("text", ["", "mbit", "-1mbit", "80", "80mb", "1e3mbit", "٣mbit", "nanbit"])
def test_a_rate_that_cannot_be_read_names_an_example(text):
    with pytest.raises(ValueError, match=r"as a rate: write 80mbit or 10MB/s"):
        parse_rate(text)


@pytest.mark.parametrize("text", ["", "5", "5m", "ms", "5 m s", "1h30min"])
def test_a_time_that_cannot_be_read_names_an_example(text):
    with pytest.raises(ValueError, match=r"as a time: write 5ms or 0.5s"):
        parse_time(text)


@pytest.mark.parametrize("text", ["", "k", "64q", "64kbit", "0x10"])
def test_a_size_that_cannot_be_read_names_an_example(text):
    with pytest.raises(ValueError, match=r"as a size: write 64k or 65536"):
        parse_size(text)


@given(st.text(max_size=20))
def test_no_text_breaks_a_parser_otherwise(text):
    for read in (parse_rate, parse_time, parse_size):
        with contextlib.suppress(ValueError):
            assert read(text) >= 0


def test_a_spec_is_read_from_texts_and_up_and_down_override_the_rate():
    assert LinkSpec.parse("80mbit", rtt="20ms", queue="8k") == LinkSpec(1e7, 1e7, 0.02, 8_192)
    assert LinkSpec.parse("80mbit", up="8mbit") == LinkSpec(1e6, 1e7, 0.005, 65_536)
    assert LinkSpec.parse("80mbit", down="8mbit") == LinkSpec(1e7, 1e6, 0.005, 65_536)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ((0, 1e6, 0.0, 65_536), "up_Bps must be 1 to"),
        ((1e6, float("nan"), 0.0, 65_536), "down_Bps must be 1 to"),
        ((1e6, float("inf"), 0.0, 65_536), "down_Bps must be 1 to"),
        ((1e6, 1e6, -0.001, 65_536), "rtt_s must be 0 to 60 seconds"),
        ((1e6, 1e6, float("nan"), 65_536), "rtt_s must be 0 to 60 seconds"),
        ((1e6, 1e6, 0.0, 1_399), "queue_bytes must be 1400"),
    ],
)
def test_a_link_that_cannot_be_is_refused(numbers, message):
    with pytest.raises(ValueError, match=message):
        LinkSpec(*numbers)


@pytest.mark.parametrize("text", ["", "host", ":80", "host:", "host:x", "host:65536", "host:-1"])
def test_an_address_that_cannot_be_read_is_refused(text):
    with pytest.raises(ValueError, match="as an address: write host:port"):
        address(text)


def test_addresses():
    assert address("127.0.0.1:80") == ("127.0.0.1", 80)
    assert address("[::1]:80") == ("::1", 80)


# -- the virtual clock --------------------------------------------------------------------------

RATES = st.floats(1e3, 1e9)
QUEUES = st.integers(1_400, 1 << 20)
# What comes, as (bytes, seconds after the one before found room).
ARRIVALS = st.lists(
    st.tuples(st.integers(1, MAX_PIECE_BYTES), st.floats(0, 0.1)), min_size=1, max_size=60
)
CLOCK_S = 1e5  # A machine that is up for a day: the rounding is that of real clocks.
ROUNDING_S = 1e-9


def feed(shaper: Shaper, arrivals: list[tuple[int, float]]) -> list[tuple[int, float, float]]:
    """(size, pushed, departure) of every piece, each pushed when it came or later had room."""
    now, rows = CLOCK_S, []
    for size, gap_s in arrivals:
        now = max(now, shaper.room_s(size)) + gap_s
        rows.append((size, now, shaper.push(size, now)))
    return rows


@given(RATES, QUEUES, ARRIVALS)
def test_no_span_of_departures_is_faster_than_the_rate_and_they_keep_their_order(
    rate_Bps, queue_bytes, arrivals
):
    rows = feed(Shaper(rate_Bps, 0.0, queue_bytes), arrivals)
    for (_, _, before_s), (size, pushed_s, departure_s) in itertools.pairwise(rows):
        assert departure_s - before_s >= size / rate_Bps - ROUNDING_S
        assert departure_s - pushed_s >= size / rate_Bps - ROUNDING_S


@given(RATES, QUEUES, st.lists(st.integers(1, MAX_PIECE_BYTES), min_size=1, max_size=60))
def test_a_saturated_link_carries_exactly_its_rate(rate_Bps, queue_bytes, sizes):
    rows = feed(Shaper(rate_Bps, 0.0, queue_bytes), [(size, 0.0) for size in sizes])
    spent_s = rows[-1][2] - CLOCK_S
    assert spent_s == pytest.approx(sum(sizes) / rate_Bps, abs=ROUNDING_S * len(sizes))


@given(RATES, QUEUES, ARRIVALS)
def test_the_queue_is_bounded_and_a_piece_that_has_room_fits(rate_Bps, queue_bytes, arrivals):
    shaper = Shaper(rate_Bps, 0.0, queue_bytes)
    rounding_bytes = ROUNDING_S * rate_Bps
    for size, gap_s in arrivals:
        now = max(CLOCK_S, shaper.room_s(size)) + gap_s
        shaper.push(size, now)
        # A piece that is larger than the whole queue is alone in it.
        assert shaper.backlog_bytes(now) <= max(queue_bytes, size) + rounding_bytes
        assert shaper.backlog_bytes(now) >= size - rounding_bytes


def test_a_full_queue_takes_nothing_but_closes():
    shaper = Shaper(1e6, 0.0, 10_000)
    shaper.push(10_000, now=5.0)
    with pytest.raises(ValueError, match="no room for 1 bytes in a queue of 10000"):
        shaper.push(1, now=5.0)
    assert shaper.push(0, now=5.0) == pytest.approx(5.01)
    assert shaper.room_s(1) == pytest.approx(5.000001)


@given(st.floats(0, 30), RATES)
def test_the_delay_comes_after_the_departure(delay_s, rate_Bps):
    shaper = Shaper(rate_Bps, delay_s, 65_536)
    departure_s = shaper.push(1_000, now=0.0)
    assert shaper.arrival_s(departure_s) == departure_s + delay_s


@given(RATES, RATES, st.floats(0, 1))
def test_a_new_rate_holds_for_what_waits(old_Bps, new_Bps, share):
    shaper = Shaper(old_Bps, 0.0, 65_536)
    shaper.push(60_000, now=0.0)
    change_s = share * 60_000 / old_Bps
    shaper.set_rate(new_Bps, change_s)
    expected_s = change_s + (1 - share) * 60_000 / new_Bps
    assert shaper.push(1_000, now=shaper.room_s(1_000)) == pytest.approx(
        expected_s + 1_000 / new_Bps, rel=1e-9
    )


@given(RATES, QUEUES)
def test_a_piece_is_some_1_5_ms_of_the_link_within_bounds(rate_Bps, queue_bytes):
    piece = piece_bytes(rate_Bps, queue_bytes)
    assert 1_400 <= piece <= MAX_PIECE_BYTES
    assert piece <= queue_bytes
    assert piece == 1_400 or piece <= rate_Bps * 0.0015


# -- the slow device ----------------------------------------------------------------------------


def test_a_slow_device_waits_for_what_the_computation_left():
    device = SlowDevice(4.0, [0.1, 0.2, 0.3])
    assert device.remaining_s(1, elapsed_s=0.2) == pytest.approx(0.6)
    assert device.remaining_s(range(3), elapsed_s=0.4) == pytest.approx(2.0)
    assert device.remaining_s(range(2, 2), elapsed_s=0.0) == 0.0
    assert device.remaining_s(0, elapsed_s=5.0) == 0.0


@given(
    st.lists(st.floats(1e-6, 1), min_size=1, max_size=20),
    st.floats(1, 100),
    st.data(),
)
def test_ranges_of_a_slow_device_add_up(profile_s, slowdown, data):
    device = SlowDevice(slowdown, profile_s)
    n = len(profile_s)
    cut = data.draw(st.integers(0, n))
    whole = device.target_s(range(n))
    assert whole == pytest.approx(slowdown * sum(profile_s))
    assert whole == pytest.approx(device.target_s(range(cut)) + device.target_s(range(cut, n)))


@pytest.mark.parametrize("layers", [-1, 3, range(4), range(2, 1), range(0, 3, 2)])
def test_layers_that_were_not_profiled_are_refused(layers):
    with pytest.raises(ValueError, match="not a range of the 3 profiled layers"):
        SlowDevice(2.0, [1.0, 1.0, 1.0]).remaining_s(layers, 0.0)


def test_a_slowdown_reaches_its_target_and_never_speeds_up():
    profile_s = [0.010, 0.016]
    device = SlowDevice(slowdown_for(1.3, profile_s), profile_s)
    assert device.target_s(range(2)) == pytest.approx(1.3)
    assert slowdown_for(0.001, profile_s) == 1.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SlowDevice(0.5, [1.0]), "slowdown must be 1 or more"),
        (lambda: SlowDevice(float("nan"), [1.0]), "slowdown must be 1 or more"),
        (lambda: SlowDevice(1.0, [-1.0]), "none of them negative"),
        (lambda: slowdown_for(0.0, [1.0]), "target_s must be positive"),
        (lambda: slowdown_for(1.0, []), "adds up to nothing"),
        (lambda: slowdown_for(1.0, [float("inf")]), "finite seconds"),
    ],
)
def test_a_device_that_cannot_be_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# -- the relay ----------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def linked(handler: Handler, spec: LinkSpec = FAST) -> AsyncIterator[LinkEmulator]:
    """A link to an edge that serves connections with `handler`; hanging fails, not waits."""
    wrong: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: wrong.append(context))
    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    edge = server.sockets[0].getsockname()
    async with asyncio.timeout(60), server, LinkEmulator(spec, edge) as link:
        yield link
    assert wrong == []  # What the loop would only log.


async def opened(link: LinkEmulator) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", link.port)


async def closed(*writers: asyncio.StreamWriter) -> None:
    for writer in writers:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def until(happened: Callable[[], bool]) -> None:
    while not happened():  # noqa: ASYNC110 - the link has no events for its insides
        await asyncio.sleep(0)


async def refused(link: LinkEmulator) -> bool:
    """Whether a new connection is reset, be it while it opens or right after."""
    try:
        reader, writer = await opened(link)
    except ConnectionResetError:
        return True
    try:
        await reader.readexactly(1)
    except ConnectionResetError:
        return True
    finally:
        await closed(writer)
    return False


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while piece := await reader.read(4_096):
            writer.write(piece)
            await writer.drain()
    await closed(writer)


async def exchange(link: LinkEmulator, payload: bytes) -> bytes:
    """Sends `payload`, closes the sending half, and returns all that comes back."""
    reader, writer = await opened(link)

    async def send() -> None:
        writer.write(payload)
        await writer.drain()
        writer.write_eof()

    async with asyncio.TaskGroup() as group:
        group.create_task(send())
        answer = group.create_task(reader.read())
    await closed(writer)
    return answer.result()


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 200_000), min_size=1, max_size=4), st.integers(0, 1 << 32))
def test_what_goes_in_comes_out_on_every_connection_both_ways(sizes, seed):
    payloads = [random.Random(seed + i).randbytes(size) for i, size in enumerate(sizes)]

    async def check() -> None:
        async with linked(echo) as link:
            answers = await asyncio.gather(*(exchange(link, payload) for payload in payloads))
            assert answers == payloads
            await until(lambda: not link.connections)
            total = sum(sizes)
            counters = link.counters
            assert (counters.up_bytes, counters.down_bytes) == (total, total)
            assert (counters.connections, counters.open_connections) == (len(sizes), 0)

    asyncio.run(check())


async def test_a_link_with_the_smallest_queue_and_a_delay_carries_everything():
    payload = random.Random(3).randbytes(100_000)
    async with linked(echo, LinkSpec(5e7, 5e7, 0.002, 1_400)) as link:
        assert await exchange(link, payload) == payload


async def test_a_half_closed_connection_still_answers():
    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(str(len(await reader.read())).encode())
        await closed(writer)

    async with linked(count) as link:
        assert await exchange(link, b"x" * 12_345) == b"12345"


async def test_the_edge_may_speak_and_close_first():
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        await closed(writer)

    async with linked(greet) as link:
        reader, writer = await opened(link)
        assert await reader.read() == b"hello"
        await closed(writer)
        await until(lambda: not link.connections)


@pytest.mark.parametrize("side", ["client", "edge"])
async def test_a_reset_is_passed_on_and_the_connection_forgotten(side):
    ended: asyncio.Queue[bytes | None] = asyncio.Queue()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)
        if side == "edge":
            linger_reset(writer)
        try:
            ended.put_nowait(await reader.read())
        except ConnectionError:
            ended.put_nowait(None)
        await closed(writer)

    async with linked(serve) as link:
        reader, writer = await opened(link)
        writer.write(b"!")
        if side == "edge":
            with pytest.raises(ConnectionResetError):
                await reader.readexactly(1)
        else:
            await until(lambda: link.counters.up_bytes == 1)
            linger_reset(writer)
            assert await ended.get() is None
        await until(lambda: not link.connections)
        await closed(writer)


def linger_reset(writer: asyncio.StreamWriter) -> None:
    """Closes a stream so that the peer gets a reset instead of an end."""
    side = writer.get_extra_info("socket")
    side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    writer.transport.abort()


async def test_a_client_that_left_while_the_edge_answers_is_noticed():
    edge_lost = asyncio.Event()

    async def flood(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(b"x" * 10_000)
                await writer.drain()
        edge_lost.set()
        await closed(writer)

    async with linked(flood) as link:
        reader, writer = await opened(link)
        await reader.readexactly(1)
        await closed(writer)
        await edge_lost.wait()
        await until(lambda: not link.connections)


async def test_an_edge_that_refuses_looks_like_a_reset():
    with socket.create_server(("127.0.0.1", 0)) as gone:
        where = gone.getsockname()
    async with asyncio.timeout(60), LinkEmulator(FAST, where) as link:
        assert await refused(link)
        await until(lambda: not link.connections)


async def test_a_cut_resets_everything_until_it_is_restored():
    async with linked(echo) as link:
        streams = [await opened(link) for _ in range(3)]
        for reader, writer in streams:
            writer.write(b"?")
            assert await reader.readexactly(1) == b"?"
        link.cut()
        for reader, _ in streams:
            with pytest.raises(ConnectionResetError):
                await reader.readexactly(1)
        assert await refused(link)
        link.restore()
        assert await exchange(link, b"again") == b"again"
        await closed(*(writer for _, writer in streams))


async def test_a_cut_drops_what_is_under_way():
    spec = LinkSpec(SLOW_Bps, SLOW_Bps, 0.0, 65_536)
    async with linked(echo, spec) as link:
        _, writer = await opened(link)
        await until(lambda: bool(link.counters.open_connections))
        writer.write(b"x" * 60_000)  # A minute of this link.
        await until(lambda: bool(link.up.under_way))
        link.cut()
        assert not link.up.under_way
        link.restore()
        await link.set_rate(up_Bps=1e9, down_Bps=1e9)
        assert await exchange(link, b"again") == b"again"
        await closed(writer)


async def test_a_new_rate_frees_what_a_slow_link_held():
    spec = LinkSpec(SLOW_Bps, SLOW_Bps, 0.0, 65_536)
    payload = random.Random(5).randbytes(300_000)  # Five minutes of this link.
    async with linked(echo, spec) as link:
        exchanged = asyncio.ensure_future(exchange(link, payload))
        await until(lambda: bool(link.up.waiting))
        await link.set_rate(up_Bps=1e9, down_Bps=1e9)
        assert await exchanged == payload
        with pytest.raises(ValueError, match="rate_Bps must be 1 to"):
            await link.set_rate(up_Bps=0)


async def test_a_receiver_that_does_not_read_stops_the_sender_and_nobody_else():
    readers: asyncio.Queue[asyncio.StreamReader] = asyncio.Queue()
    done = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.readexactly(1) == b"e":
            await echo(reader, writer)
            return
        reader._transport.pause_reading()
        readers.put_nowait(reader)
        await done.wait()
        await closed(writer)

    async with linked(serve) as link:
        with socket.create_connection(("127.0.0.1", link.port)) as sender:
            sender.setblocking(False)
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)
            sender.send(b"s")
            reader = await readers.get()
            sent_bytes = await filled(link, sender)
            # The stalled flow's own buffers, the edge's kernel (6 MB at the most) and its reader.
            flow = next(iter(link.connections)).up
            assert flow.unsent_bytes <= UNSENT_BYTES + FAST.queue_bytes + MAX_PIECE_BYTES
            assert sent_bytes < 10_000_000
            assert await exchange(link, b"e" + b"others pass" * 1_000) == b"others pass" * 1_000
            reader._transport.resume_reading()
            await asyncio.get_running_loop().sock_sendall(sender, b"end")
            sender.shutdown(socket.SHUT_WR)
            received = await reader.read()
            assert received == b"z" * sent_bytes + b"end"
            done.set()


async def filled(link: LinkEmulator, sender: socket.socket) -> int:
    """Sends until the relay has stopped reading from its one connection and the kernel is full."""
    flow = next(iter(link.connections)).up
    sent_bytes = 0
    while True:
        try:
            sent_bytes += sender.send(b"z" * 65_536)
        except BlockingIOError:
            if flow.unsent_bytes > UNSENT_BYTES and not link.up.under_way:
                return sent_bytes
        await asyncio.sleep(0)


async def test_connections_share_the_link_piece_by_piece():
    """A query that comes behind a bulk upload waits for the queue, not for the upload."""
    spec = LinkSpec(2e7, 2e7, 0.0, 65_536)
    async with linked(echo, spec) as link:
        bulk = asyncio.ensure_future(exchange(link, bytes(2_000_000)))
        await until(lambda: bool(link.up.waiting))
        before_bytes = link.counters.up_bytes
        assert await exchange(link, b"query") == b"query"
        assert link.counters.up_bytes - before_bytes < 1_000_000
        assert len(await bulk) == 2_000_000


async def test_a_listening_address_that_is_taken_fails():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        link = LinkEmulator(FAST, "127.0.0.1:1", taken.getsockname())
        with pytest.raises(OSError, match="in use"):
            await link.__aenter__()


# -- its own process ----------------------------------------------------------------------------


@contextlib.contextmanager
def echo_process():
    """An edge that echoes one connection after the other, in a process of its own."""
    program = (
        "import socket\n"
        "with socket.create_server(('127.0.0.1', 0)) as listener:\n"
        "    print(listener.getsockname()[1], flush=True)\n"
        "    while True:\n"
        "        with listener.accept()[0] as side:\n"
        "            while piece := side.recv(65536):\n"
        "                side.sendall(piece)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        try:
            yield int(process.stdout.readline())
        finally:
            process.terminate()


def test_a_process_relays_counts_and_ends():
    payload = random.Random(9).randbytes(50_000)
    with echo_process() as port:
        with LinkProcess(LinkSpec.parse("800mbit", rtt="1ms"), ("127.0.0.1", port)) as link:
            with socket.create_connection((link.host, link.port), timeout=60) as side:
                side.sendall(payload)
                side.shutdown(socket.SHUT_WR)
                answer = b"".join(iter(lambda: side.recv(65_536), b""))
            assert answer == payload
            counters = link.counters()
            assert (counters.up_bytes, counters.down_bytes) == (50_000, 50_000)
            assert counters.connections == 1
            assert link.cpu_s > 0
        with pytest.raises(ProcessLookupError):
            os.kill(link.pid, 0)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "ionn_client.emulate", *arguments]


def test_a_process_prints_json_at_its_start_and_end_and_exits_on_sigterm():
    arguments = command("--to", "127.0.0.1:9", "--json", "--up", "8mbit", "--queue", "8k")
    with subprocess.Popen(arguments, stdout=subprocess.PIPE) as process:
        ready = json.loads(process.stdout.readline())
        assert ready.pop("port") > 0
        assert ready == {"event": "ready", "host": "127.0.0.1", "to": "127.0.0.1:9"}
        process.send_signal(signal.SIGTERM)
        last = json.loads(process.stdout.readline())
        assert (last["event"], last["up_bytes"], last["connections"]) == ("counters", 0, 0)
    assert process.returncode == 0


def test_a_process_ends_when_its_parent_does():
    parent = (
        "import subprocess, sys\n"
        f"link = subprocess.Popen({command('--to', '127.0.0.1:9')!r}, stdout=subprocess.PIPE)\n"
        "sys.stdout.buffer.write(link.stdout.readline())\n"
        "sys.stdout.flush()\n"
        "import os; os._exit(0)\n"
    )
    # The link has this pipe as its stderr: it closes when the link is gone, not before.
    ended = subprocess.run(
        [sys.executable, "-c", parent], capture_output=True, timeout=60, check=True
    )
    assert ended.stdout.startswith(b"emulated link 127.0.0.1:")
    assert ended.stderr == b""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--to", "127.0.0.1:9", "--rate", "fast"), "cannot read 'fast' as a rate"),
        (("--to", "nowhere"), "cannot read 'nowhere' as an address"),
        (("--to", "127.0.0.1:9", "--queue", "10"), "queue_bytes must be 1400"),
        (("--rate", "80mbit"), "the following arguments are required: --to"),
    ],
)
def test_a_process_that_cannot_start_says_why(arguments, message, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert message in f"{ended.value.code} {capsys.readouterr().err}"
    assert ended.value.code != 0


def test_a_process_whose_address_is_taken_says_so():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = "{}:{}".format(*taken.getsockname())
        with pytest.raises(SystemExit, match=r"emulate: .* in use"):
            main(["--to", "127.0.0.1:9", "--listen", where])


# -- the same by the kernel ---------------------------------------------------------------------


@pytest.fixture
def namespaces():
    link = Namespaces(LinkSpec.parse("80mbit", rtt="0ms"))
    try:
        link.__enter__()
    except NamespacesUnavailable as reason:
        pytest.skip(str(reason))
    try:
        yield link
    finally:
        link.__exit__(None, None, None)
        listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
        assert f"-{os.getpid()}" not in listed.stdout


def test_namespaces_carry_everything_through_the_shaper(namespaces):
    seen = netns.check(namespaces, f"{namespaces.edge_ip}:{netns.PORT}", seconds=0.2)
    assert seen.goodput_Bps > 0
    router = f"ionn-router-{os.getpid()}"
    shown = subprocess.check_output(["tc", "-n", router, "-s", "-j", "qdisc", "show"])
    upwards = next(row for row in json.loads(shown) if row["dev"] == "to-edge")
    assert (upwards["kind"], upwards["options"]["rate"]) == ("tbf", 10_000_000)
    assert upwards["bytes"] > 2_000_000
    assert upwards["overlimits"] > 0


def test_namespaces_are_cleaned_up_when_a_process_stays_behind(namespaces):
    sleeper = subprocess.Popen([*namespaces.client_prefix, "sleep", "1000"])
    namespaces.__exit__(None, None, None)
    assert sleeper.wait() == -signal.SIGKILL


def test_namespaces_add_a_round_trip_in_both_places_of_the_shaper():
    for own_egress in (False, True):
        try:
            with Namespaces(LinkSpec.parse("80mbit", rtt="10ms"), own_egress) as link:
                seen = netns.check(link, f"{link.edge_ip}:{netns.PORT}", seconds=0.2)
        except NamespacesUnavailable as reason:
            pytest.skip(str(reason))
        assert seen.rtt_s >= 0.010
        assert seen.goodput_Bps > 0


def test_namespaces_say_what_is_missing(monkeypatch):
    link = Namespaces(LinkSpec.parse(rtt="0ms"))
    monkeypatch.setenv("PATH", "")
    missing = "apt-get install iproute2" if os.geteuid() == 0 else "need root"
    with pytest.raises(NamespacesUnavailable, match=missing):
        link.__enter__()
