"""The emulated link as its own process: `python -m ionn_client.emulate --to HOST:PORT`.

Prints one line when it is ready, one with its counters on SIGUSR1 and one at its end, which is
SIGTERM, SIGINT or the end of the process that started it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import selectors
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict

from ionn_client.emulate.link import LinkSpec
from ionn_client.emulate.relay import LinkEmulator, address

PARENT_CHECK_S = 0.5


def main(words: Sequence[str] | None = None) -> None:
    """Runs the link until it is told to end; `words`: the command line without the program."""
    arguments = _parser().parse_args(words)
    try:
        link = LinkEmulator(
            LinkSpec.parse(
                arguments.rate, arguments.up, arguments.down, arguments.rtt, arguments.queue
            ),
            address(arguments.to),
            address(arguments.listen),
        )
    except ValueError as error:
        raise SystemExit(f"emulate: {error}") from None
    with asyncio.Runner(loop_factory=_precise_loop) as runner:
        try:
            runner.run(_serve(link, as_json=arguments.json))
        except OSError as error:
            raise SystemExit(f"emulate: {error}") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ionn_client.emulate",
        description="An emulated wireless link: a TCP relay with a rate, a delay and a queue.",
    )
    parser.add_argument("--to", required=True, metavar="HOST:PORT", help="the edge")
    parser.add_argument("--listen", default="127.0.0.1:0", metavar="HOST:PORT")
    parser.add_argument("--rate", default="80mbit", help="both ways, of payload (default 80mbit)")
    parser.add_argument("--up", help="client to edge, instead of --rate")
    parser.add_argument("--down", help="edge to client, instead of --rate")
    parser.add_argument("--rtt", default="5ms", help="round trip of an idle link (default 5ms)")
    parser.add_argument("--queue", default="64k", help="bytes that wait, each way (default 64k)")
    parser.add_argument("--json", action="store_true", help="print JSON lines")
    return parser


def _precise_loop() -> asyncio.AbstractEventLoop:
    # select() takes microseconds; epoll rounds every wait up to a millisecond.
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


async def _serve(link: LinkEmulator, as_json: bool) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    parent = os.getppid()
    async with link:
        loop.add_signal_handler(signal.SIGUSR1, _print_counters, link, as_json)
        _print_ready(link, as_json)
        while not ended.is_set() and os.getppid() == parent:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), PARENT_CHECK_S)
        _print_counters(link, as_json)


def _print_ready(link: LinkEmulator, as_json: bool) -> None:
    to = "{}:{}".format(*link.target.where[:2])
    if as_json:
        _print_json({"event": "ready", "host": link.host, "port": link.port, "to": to})
        return
    spec = link.spec
    _print(
        f"emulated link {link.host}:{link.port} -> {to}: {spec.up_Bps * 8e-6:g} Mbit/s up, "
        f"{spec.down_Bps * 8e-6:g} down, {spec.rtt_s * 1e3:g} ms round trip, "
        f"queue {spec.queue_bytes} bytes"
    )


def _print_counters(link: LinkEmulator, as_json: bool) -> None:
    counters = asdict(link.counters)
    if as_json:
        _print_json({"event": "counters", **counters, "cpu_s": time.process_time()})
    else:
        _print(f"carried {counters['up_bytes']} bytes up, {counters['down_bytes']} down")


def _print_json(line: dict[str, object]) -> None:
    _print(json.dumps(line))


def _print(line: str) -> None:
    # The reader may be gone already, and a full pipe must not stop the link.
    with contextlib.suppress(OSError):
        os.write(sys.stdout.fileno(), (line + "\n").encode())


if __name__ == "__main__":
    main()
