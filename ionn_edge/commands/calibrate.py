"""`ionn edge calibrate`: how fast this machine runs layers."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Annotated

import typer

from ionn_edge.commands.failing import complaining, give_up
from ionn_edge.config import Config, default_store
from ionn_edge.config import usable_threads as usable


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
    with complaining():
        config = Config(
            device=device,
            threads=threads or usable(),
            store=default_store() if store is None else store,
        )
        try:
            _calibrate(config, seconds, as_json)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            give_up(f"cannot keep the calibration in {config.store}: {reason}")


def _calibrate(config: Config, seconds: float, as_json: bool) -> None:
    from ionn_edge.calibration import calibrate, calibration_table

    measured = asyncio.run(calibrate.calibrate(config, seconds))
    path = calibrate.cache_path(config)
    text = calibration_table.as_json if as_json else calibration_table.as_text
    print(text(measured, path))
