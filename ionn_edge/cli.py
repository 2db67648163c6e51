"""`ionn edge`: the box's commands."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from ionn_edge.blobs import StorageError
from ionn_edge.box import Box
from ionn_edge.config import DEFAULT_PORT, Config, default_store, format_bytes, parse_bytes
from ionn_edge.config import usable_threads as usable
from ionn_edge.engine import EngineError
from wire import VERSION

app = typer.Typer(
    name="edge",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Be an edge box: lend this machine's processor to clients nearby.",
)


@app.callback()
def edge() -> None:
    """Be an edge box: lend this machine's processor to clients nearby."""


@app.command("serve")
def serve(
    bind: Annotated[
        str, typer.Option(help="Address to listen on. 0.0.0.0 is every network: only trusted ones.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="TCP port; 0 takes a free one.")] = DEFAULT_PORT,
    device: Annotated[str, typer.Option(help="What executes: cpu or cuda.")] = "cpu",
    memory: Annotated[
        str, typer.Option(help="Budget for weights of all models, such as 512M or 4G.")
    ] = "4G",
    threads: Annotated[
        int, typer.Option(help="Processor threads that one query gets; 0 is all of them.")
    ] = 0,
    store: Annotated[
        Path | None,
        typer.Option(help="Directory that keeps weights; by default in the user's cache."),
    ] = None,
    calibration: Annotated[
        str,
        typer.Option(help="auto measures layer times once, again measures anew, off skips it."),
    ] = "auto",
    unpaired: Annotated[
        bool,
        typer.Option("--unpaired", help="Serve whoever is on this machine, in the clear."),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one line of JSON when ready, for scripts.")
    ] = False,
) -> None:
    """Serve until Ctrl-C or SIGTERM: take models from clients and run their layers.

    Weights stay in the store, so that a client that comes back uploads nothing twice.
    """
    level = logging.WARNING if as_json else logging.INFO
    logging.basicConfig(format="ionn edge: %(message)s", level=level)
    try:
        config = Config(
            bind=bind,
            port=port,
            device=device,
            threads=threads or usable(),
            memory_bytes=parse_bytes(memory),
            store=default_store() if store is None else store,
            calibration=calibration,
            unpaired=unpaired,
        )
        _run(config, as_json)
    except (ValueError, StorageError, EngineError) as error:
        _give_up(str(error))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        _give_up(f"cannot listen on {bind}:{port}: {reason}")


@app.command("calibrate")
def calibrate(
    seconds: Annotated[
        float, typer.Option(min=1.0, max=3600.0, help="How long to measure; longer is better.")
    ] = 30.0,
    device: Annotated[str, typer.Option(help="What executes: cpu or cuda.")] = "cpu",
    threads: Annotated[
        int, typer.Option(help="Processor threads that one query gets; 0 is all of them.")
    ] = 0,
    store: Annotated[
        Path | None, typer.Option(help="The box's directory; by default in the user's cache.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
) -> None:
    """Measure how fast this machine runs layers of every type, and keep it for `serve`.

    Prints, per type, how well the fitted costs predict layers that were left out of the fit.
    """
    logging.basicConfig(format="ionn edge: %(message)s", level=logging.WARNING)
    try:
        config = Config(
            device=device,
            threads=threads or usable(),
            store=default_store() if store is None else store,
        )
        _calibrate(config, seconds, as_json)
    except (ValueError, EngineError) as error:
        _give_up(str(error))
    except OSError as error:
        _give_up(f"cannot keep the calibration in {config.store}: {error.strerror or error}")


def _calibrate(config: Config, seconds: float, as_json: bool) -> None:
    from ionn_edge import calibrate, calibration_table

    measured = asyncio.run(calibrate.calibrate(config, seconds))
    path = calibrate.cache_path(config)
    text = calibration_table.as_json if as_json else calibration_table.as_text
    print(text(measured, path))


def main() -> None:
    """`python -m ionn_edge`."""
    app(prog_name="python -m ionn_edge")


def _run(config: Config, as_json: bool) -> None:
    # Not needed to say what is wrong with the options.
    from ionn_edge import server

    def started(box: Box, address: tuple[str, int]) -> None:
        print(_json_line(box, address) if as_json else _banner(box, address), flush=True)

    server.run(config, started)


def _json_line(box: Box, address: tuple[str, int]) -> str:
    from ionn_edge.server import description

    host, port = address
    return json.dumps(
        {
            "address": f"{host}:{port}",
            "url": _url(host, port),
            "host": host,
            "port": port,
            "pid": os.getpid(),
            "store": str(box.config.store),
            **description(box),
        }
    )


def _banner(box: Box, address: tuple[str, int]) -> str:
    config, (host, port) = box.config, address
    seen = "<this machine>" if host in ("0.0.0.0", "::") else host
    threads = "1 thread" if config.threads == 1 else f"{config.threads} threads"
    url = _url(seen, port)
    return "\n".join(
        [
            f"IONN edge box, protocol version {VERSION}",
            f"  listening  {_url(host, port)}",
            f"  device     {box.device_name}, {threads} per query",
            f"  memory     {format_bytes(config.memory_bytes)} for weights,"
            f" {format_bytes(box.store.used_bytes)} used",
            f"  store      {config.store}",
            "",
            f"On the client:  ionn run --edge {url}",
            f'or in Python:   ionn_client.connect(model, args, edge="{url}")',
            *_warning(host),
            "Ctrl-C stops.",
        ]
    )


def _warning(host: str) -> list[str]:
    if host in ("127.0.0.1", "::1"):
        return []
    return ["Whoever reaches this address can use this edge: serve on trusted networks only."]


def _url(host: str, port: int) -> str:
    return f"ionn://[{host}]:{port}" if ":" in host else f"ionn://{host}:{port}"


def _give_up(text: str) -> None:
    print(f"ionn edge: {text}", file=sys.stderr)
    raise typer.Exit(2)
