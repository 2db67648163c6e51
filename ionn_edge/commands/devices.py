"""`ionn edge devices`, `unpair` and `pair`: who may use this box."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from ionn_edge.commands.failing import complaining
from ionn_edge.commands.pairing_text import pairing_lines
from ionn_edge.config import default_state, default_store, format_bytes
from ionn_edge.doors.control import NotRunning, ask, claimed
from ionn_edge.doors.devices import Registry

State = Annotated[
    Path | None, typer.Option(help="The box's directory of identity and devices, as for serve.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


def devices(state: State = None, as_json: Json = False) -> None:
    """List the devices that are paired with this box."""
    from ionn_edge.doors.questions import row

    with complaining():
        directory = state or default_state()
        try:
            rows = ask(directory, "devices")
        except NotRunning:
            if state is not None and not state.is_dir():
                raise ValueError(f"--state {state}: there is no such directory") from None
            rows = [row(paired) for paired in _opened(directory).all()]
    if as_json:
        print(json.dumps(rows, indent=1))
    elif not rows:
        print("No device is paired. `ionn edge pair` shows how to pair one, while the box runs.")
    else:
        print("\n".join(_table(rows, time.time())))


def unpair(
    device: Annotated[str, typer.Argument(help="Its name, or the beginning of its id.")],
    state: State = None,
    store: Annotated[
        Path | None,
        typer.Option(help="The box's directory of weights, as for serve; if it is stopped."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Let a device in no more: its connections end at once, and its weights are deleted."""
    with complaining():
        directory = state or default_state()
        try:
            gone = ask(directory, "unpair", device=device)
        except NotRunning:
            gone = _unpair_at_rest(directory, store or default_store(), device)
    print(json.dumps(gone) if as_json else f"Unpaired {gone['name']} ({gone['id'][:12]}).")


def pair(state: State = None, as_json: Json = False) -> None:
    """Show how to pair the next device with the running box; open pairing if it was closed."""
    with complaining():
        shown = ask(state or default_state(), "pair")
    if as_json:
        print(json.dumps(shown))
    else:
        print("\n".join(pairing_lines(shown)))


def _opened(directory: Path) -> Registry:
    registry = Registry(directory)
    registry.open()
    return registry


def _unpair_at_rest(directory: Path, store: Path, device: str) -> dict[str, Any]:
    from ionn_edge.cache import at_rest, forget_files
    from ionn_edge.doors.questions import row, the_one

    with claimed(directory):
        registry = _opened(directory)
        paired = the_one(registry, device)
        asyncio.run(registry.remove(paired.device.id))
        if store.is_dir():
            with at_rest(store, directory, [paired.device.id]) as there:
                forget_files(there, paired.device.id)
    return row(paired)


def _table(rows: list[dict[str, Any]], now: float) -> list[str]:
    heads = ("device", "id", "paired", "seen", "connections", "holds")
    cells = [heads, *(_cells(row, now) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(heads))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]


def _cells(row: dict[str, Any], now: float) -> tuple[str, ...]:
    connections, held = row.get("connections"), row.get("held_bytes")
    return (
        row["name"],
        row["id"][:12],
        _ago(row["paired_at"], now),
        "never" if row["seen_at"] is None else _ago(row["seen_at"], now),
        "-" if connections is None else str(connections),
        "-" if held is None else format_bytes(held),
    )


def _ago(at: float, now: float) -> str:
    since_s = max(now - at, 0.0)
    for unit, seconds in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if since_s >= 2 * seconds:
            return f"{since_s / seconds:.0f} {unit} ago"
    return f"{since_s:.0f} s ago"
