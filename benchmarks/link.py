"""The link between client and edge: everything that it must keep, beside what others reach.

    python benchmarks/link.py                        # all of it: some two hours
    python benchmarks/link.py --only loaded --rate 20mbit --rtt 40ms --queue 500ms
    python benchmarks/link.py --quick                # every part for seconds: shows that it works

As root the link is the kernel's (netns.py: packets, tbf, TCP with cubic); elsewhere, and with
--emulate, it is ionn_client.emulate, which has no packets. Baselines run in the same minutes over
the same link, in turn with ours, which encrypts (not in revisit, change, copies and progressive).
Every figure is a line of JSON in --out.

What counts how: capacity is what a bare TCP transfer delivers just before; a query goes up with its
bytes and 4 to 32 bytes come back; "idle" is the same connection once everything is uploaded; p50
and p95 inflation are over the idle p50.
"""

from __future__ import annotations

import argparse
import itertools
import json
import signal
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path as FilePath
from typing import Any, TextIO

from link_figures.capacity import capacity_Bps
from link_figures.counting import NoCompiler, counting
from link_figures.path import Cell, baselines, edge, open_path, worker

RATES, RTTS, QUEUES = ("5mbit", "20mbit", "80mbit"), ("2ms", "40ms"), ("50ms", "500ms")
CODING_RATES = ("5mbit", "20mbit", "80mbit", "1gbit", None)
PARTS = (
    "upload", "loaded", "egress", "overhead", "coding", "networks", "revisit", "change",
    "copies", "progressive",
)  # fmt: skip
NETWORKS = ("resnet50", "vgg16")


def main() -> None:
    options = _parser().parse_args()
    if options.inside:
        _inside(*options.inside)
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # So that contexts are left.
    if options.quick:
        options.seconds, options.rounds = 3.0, 1
    toy = options.quick
    options.rate = options.rate or (["20mbit"] if toy else list(RATES))
    options.rtt = options.rtt or (["2ms"] if toy else list(RTTS))
    options.queue = options.queue or (["50ms"] if toy else list(QUEUES))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with options.out.open("w") as out:
        missed = sum(
            _record(out, title, rows)
            for part in options.only or PARTS
            for title, rows in _PARTS[part](options)
        )
    print(f"{missed} missed; every figure is in {options.out}")
    sys.exit(bool(missed) and not options.quick)  # Seconds prove nothing.


# -- the parts: titles, and the rows under each --------------------------------------------------

Rows = Iterator[dict[str, Any]]
Titled = Iterator[tuple[str, Rows]]


def _upload(options: argparse.Namespace) -> Titled:
    for cell in [*_cells(options), Cell(None)]:
        yield f"upload alone: {cell.name}", _over_link(options, cell, "upload")


def _loaded(options: argparse.Namespace) -> Titled:
    for cell in _cells(options):
        yield f"queries beside an upload: {cell.name}", _over_link(options, cell, "loaded")


def _egress(options: argparse.Namespace) -> Titled:
    for rate, rtt in itertools.product(options.rate, options.rtt):
        cell = Cell(rate, rtt, options.queue[-1], own_egress=True)
        sizes = [1_000] if options.quick else [1_000, 150_000]
        rows = _over_link(options, cell, "loaded", query_bytes=sizes)
        yield f"queries beside an upload: {cell.name}", rows


def _overhead(options: argparse.Namespace) -> Titled:
    sizes = [1_000, 150_000, 1_000_000]
    for cell in (Cell(None), Cell("80mbit", "2ms", "50ms")):
        rows = _over_link(options, cell, "overhead", query_bytes=sizes)
        yield f"one query, nothing else: {cell.name}", rows


def _coding(options: argparse.Namespace) -> Titled:
    rates = (options.rate[0], None) if options.quick else CODING_RATES
    for rate in rates:
        cell = Cell(rate, "0ms", "50ms")
        yield f"lossless coding: {cell.name}", _over_link(options, cell, "coding")


def _networks(options: argparse.Namespace) -> Titled:
    names = ["mobilenet"] if options.quick else ["mobilenet", *NETWORKS]
    cell = Cell("80mbit" if options.quick else "200mbit", "0ms", "50ms")
    rows = _over_link(options, cell, "networks", networks=names)
    yield f"whole networks, exact: {cell.name}", rows


def _revisit(options: argparse.Namespace) -> Titled:
    size = 1_000_000 if options.quick else 50_000_000
    yield "revisit, all held: emulator, 80mbit, 40ms", _alone("revisit", bytes=size)


def _change(options: argparse.Namespace) -> Titled:
    stay_s = 3.0 if options.quick else 8.0
    rows = _alone("change", stay_s=stay_s, rtts=options.rtt)
    yield "the link's rate changes while uploading: emulator", rows


def _copies(options: argparse.Namespace) -> Titled:
    size = 8_000_000 if options.quick else 200_000_000
    yield "copies between socket and tensor: loopback", _counted(bytes=size)


def _progressive(options: argparse.Namespace) -> Titled:
    rate = "80mbit" if options.quick else "18.88mbit"
    for name in ["mobilenet"] if options.quick else NETWORKS:
        rows = _alone(
            "progressive", networks=[name], rate=rate, pause_s=0.5,
            slowdown=None, profile_runs=1 if options.quick else 5,
        )  # fmt: skip
        yield f"progressive precision: emulator, {rate}", rows


_PARTS = {part: globals()[f"_{part}"] for part in PARTS}


def _cells(options: argparse.Namespace) -> list[Cell]:
    return [Cell(*each) for each in itertools.product(options.rate, options.rtt, options.queue)]


def _over_link(options: argparse.Namespace, cell: Cell, figure: str, **more: Any) -> Rows:
    """`figure` on the client's side of a fresh link, with a fresh edge and the baselines."""
    way = open_path(cell, options.emulate, not options.unpaired)
    with way as path, edge(path) as box, baselines(path) as servers:
        size = int(cell.rate_Bps * min(options.seconds / 3, 10.0))
        settings = {
            "addresses": {
                "ours": box["address"],
                "naive": servers["frames"],
                "echo": servers["frames"],
                "encrypted echo": servers["encrypted frames"],
                "isolated echo": servers["isolated frames"],
                **{name: servers[name] for name in ("grpc",) if name in servers},
            },
            "edge_pid": box["pid"],
            "capacity": capacity_Bps(path, size),
            "rate": cell.rate and cell.rate_Bps,
            "rtt_s": cell.rtt_s,
            "own_egress": cell.own_egress,
            "burst_bytes": path.burst_bytes,
            "seconds": options.seconds,
            "rounds": options.rounds,
            "query_bytes": [1_000, 150_000],
            **more,
        }
        with worker(path, figure, settings, box["environment"]) as rows:
            yield from (
                {**row, "link": path.kind, "capacity": settings["capacity"]} for row in rows
            )


def _alone(figure: str, **settings: Any) -> Rows:
    """`figure` with a fresh edge, in the clear; it makes its own link, if any."""
    with open_path(Cell(None), paired=False) as path, edge(path) as box:
        settings["addresses"] = {"ours": box["address"]}
        with worker(path, figure, settings) as rows:
            yield from rows


def _counted(**settings: Any) -> Rows:
    """As `_alone`, both sides counting what they copy."""
    try:
        with (
            counting() as environment,
            # What TLS copies is the library's.
            open_path(Cell(None), paired=False) as path,
            edge(path, environment) as box,
        ):
            settings |= {"addresses": {"ours": box["address"]}, "edge_pid": box["pid"]}
            with worker(path, "copies", settings, environment) as rows:
                yield from rows
    except NoCompiler as reason:
        print(f"  not counted: {reason}")


def _inside(figure: str, settings: str) -> None:
    """On the client's side: prints the rows of one figure."""
    module = import_module(f"link_figures.{_MODULES.get(figure, figure)}")
    for row in getattr(module, figure)(json.loads(settings)):
        print(json.dumps(row.plain()), flush=True)


_MODULES = {"upload": "loaded", "networks": "coding"}


def _record(out: TextIO, title: str, rows: Rows) -> int:
    """Shows rows as they come and keeps them; how many missed their bound."""
    print(title, flush=True)
    missed = 0
    try:
        for row in rows:
            out.write(json.dumps({"cell": title, **row}) + "\n")
            out.flush()
            print(f"  {_line(row)}", flush=True)
            missed += row["ok"] is False
    except RuntimeError as error:  # The other parts' hours are not lost with it.
        print(f"  FAILED: {error}", flush=True)
        missed += 1
    print(flush=True)
    return missed


def _line(row: dict[str, Any]) -> str:
    bound = row["bound"]
    kept = f"{bound['kind']} {bound['value']:g}" if bound else ""
    verdict = {None: "", True: "ok", False: "MISSED"}[row["ok"]]
    value = f"{row['value']:12,.3f} {row['unit']}"
    return f"{row['name']:44} {row['who']:12} {value:28} {kept:14} {verdict}".rstrip()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", choices=PARTS, help="may be given several times")
    parser.add_argument("--rate", action="append", help="of the cells; may be given several times")
    parser.add_argument("--rtt", action="append", help="added; may be given several times")
    parser.add_argument("--queue", action="append", help="in time; may be given several times")
    parser.add_argument("--seconds", type=float, default=30.0, help="of upload per figure")
    parser.add_argument("--rounds", type=int, default=2, help="that those seconds are split into")
    parser.add_argument("--emulate", action="store_true", help="the emulator, even as root")
    parser.add_argument("--unpaired", action="store_true", help="in the clear, over the emulator")
    parser.add_argument("--out", type=FilePath, default=FilePath("out/link.jsonl"))
    parser.add_argument("--quick", action="store_true", help="one cell, for seconds")
    parser.add_argument("--inside", nargs=2, metavar=("FIGURE", "JSON"), help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main()
