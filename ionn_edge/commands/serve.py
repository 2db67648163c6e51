"""`ionn edge serve`: be a box, and say how to use it."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ionn_edge.commands.failing import complaining, give_up
from ionn_edge.commands.pairing_text import on_terminal, pairing_lines
from ionn_edge.config import (
    DEFAULT_PORT,
    Config,
    default_name,
    default_state,
    default_store,
    format_bytes,
    parse_bytes,
    parse_quota,
)
from ionn_edge.config import usable_threads as usable
from wire import VERSION

if TYPE_CHECKING:
    from ionn_edge.doors.pairing_desk import PairingDesk
    from ionn_edge.server import Serving


def serve(
    bind: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 is every network.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="TCP port; 0 takes a free one.")] = DEFAULT_PORT,
    name: Annotated[
        str | None, typer.Option(help="What people know this box by; by default its host name.")
    ] = None,
    device: Annotated[str, typer.Option(help="What executes: cpu or cuda.")] = "cpu",
    memory: Annotated[
        str, typer.Option(help="Budget for weights of all models, such as 512M or 4G.")
    ] = "4G",
    quota: Annotated[
        str | None,
        typer.Option(
            help="What one device may use: a size of weights, such as 1G, by default as much as"
            " there is; or several, such as weights=1G,rate=50, of: weights, memory (of what"
            " computes for it), connections, queries (open at once), rate (queries a second)."
        ),
    ] = None,
    threads: Annotated[
        int, typer.Option(help="Processor threads that one query gets; 0 is all of them.")
    ] = 0,
    store: Annotated[
        Path | None,
        typer.Option(help="Directory that keeps weights; by default in the user's cache."),
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(
            help="Directory for this box's identity and its paired devices; by default the user's."
        ),
    ] = None,
    calibration: Annotated[
        str,
        typer.Option(help="When to measure layer times, at the start: auto (once), again, or off."),
    ] = "auto",
    unpaired: Annotated[
        bool,
        typer.Option(
            "--unpaired", help="Serve any program on this machine, without pairing, in the clear."
        ),
    ] = False,
    announce: Annotated[
        bool, typer.Option(help="Let devices on the network find this box by its name.")
    ] = True,
    weak_isolation: Annotated[
        bool,
        typer.Option(
            "--weak-isolation",
            help="Serve a network even where this machine cannot isolate what clients run.",
        ),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one line of JSON when ready, for scripts.")
    ] = False,
) -> None:
    """Serve until Ctrl-C or SIGTERM: take models from paired devices and run their layers.

    Prints a pairing code and URI, each for one device; `ionn edge pair` shows the next ones.
    Weights stay in the store, so that a device that comes back uploads nothing twice.
    """
    level = logging.WARNING if as_json else logging.INFO
    logging.basicConfig(format="ionn edge: %(message)s", level=level)
    with complaining():
        config = Config(
            bind=bind,
            port=port,
            name=default_name() if name is None else name,
            device=device,
            threads=threads or usable(),
            memory_bytes=parse_bytes(memory),
            store=default_store() if store is None else store,
            state=default_state() if state is None else state,
            calibration=calibration,
            unpaired=unpaired,
            announce=announce,
            weak_isolation=weak_isolation,
            **({} if quota is None else parse_quota(quota)),
        )
        try:
            _run(config, as_json)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            give_up(f"cannot listen on {bind}:{port}: {reason}")


def _run(config: Config, as_json: bool) -> None:
    # A script that started it may have a screen of its own, on this very terminal.
    if sys.stderr.isatty() and not as_json:
        print("Starting ...", file=sys.stderr, flush=True)
    # Not needed to say what is wrong with the options.
    from ionn_edge import server

    def started(serving: Serving) -> None:
        print(_json_line(serving) if as_json else _banner(serving), flush=True)
        desk = serving.desk
        if desk is not None and not as_json and on_terminal():
            desk.changed = lambda: print("\n".join(_how_to_pair(desk, serving)), flush=True)

    server.run(config, started)


def _json_line(serving: Serving) -> str:
    from ionn_edge.doors.questions import pairing_plain
    from ionn_edge.doors.routes import public_description

    box, (host, port), desk = serving.box, serving.address, serving.desk
    plain: dict[str, Any] = {
        "address": f"{host}:{port}",
        "url": _url(host, port),
        "host": host,
        "port": port,
        "pid": os.getpid(),
        "store": str(box.config.store),
        "device": box.config.device,
        "device_name": box.device_name,
        "threads": box.config.threads,
        "memory_bytes": box.config.memory_bytes,
        "used_bytes": box.store.used_bytes,
        **public_description(box.config, None if desk is None else desk.fingerprint),
        "isolation": dataclasses.asdict(serving.isolation),
        "pairing": None if desk is None else pairing_plain(desk, serving.reachable),
    }
    return json.dumps(plain)


def _banner(serving: Serving) -> str:
    box, (host, port) = serving.box, serving.address
    config = box.config
    threads = "1 thread" if config.threads == 1 else f"{config.threads} threads"
    return "\n".join(
        [
            f"IONN edge box {config.name!r}, protocol version {VERSION}",
            f"  listening  {_url(host, port)}",
            f"  device     {box.device_name}, {threads} per query",
            f"  memory     {format_bytes(config.memory_bytes)} for weights,"
            f" {format_bytes(box.store.used_bytes)} used",
            f"  store      {config.store}",
            *_wrapped(f"  workers    {serving.isolation}"),
            *_how_to_use(serving),
            "Ctrl-C stops.",
        ]
    )


def _how_to_pair(desk: PairingDesk, serving: Serving) -> list[str]:
    from ionn_edge.doors.questions import pairing_plain

    return pairing_lines(pairing_plain(desk, serving.reachable))


def _how_to_use(serving: Serving) -> list[str]:
    config, desk, (host, port) = serving.box.config, serving.desk, serving.reachable
    if desk is None:
        url = _url(host, port)
        return [
            "  devices    whoever is on this machine, in the clear",
            "",
            f"On this machine:  ionn run --edge {url}",
            f'or in Python:     ionn_client.connect(model, args, edge="{url}")',
        ]
    return [
        f"  devices    paired ones only, over TLS; remembered in {config.state}",
        "",
        *_how_to_pair(desk, serving),
        f"and from then on:        ionn run --edge {config.name}",
        "",
    ]


def _wrapped(line: str) -> list[str]:
    return textwrap.wrap(line, 80, subsequent_indent=" " * 13, break_on_hyphens=False)


def _url(host: str, port: int) -> str:
    return f"ionn://[{host}]:{port}" if ":" in host else f"ionn://{host}:{port}"
