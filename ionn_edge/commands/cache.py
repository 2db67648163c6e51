"""`ionn edge cache`: what the box keeps for whom, and what goes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from ionn_edge import cache as cached
from ionn_edge.commands.devices import Json, State
from ionn_edge.commands.failing import complaining
from ionn_edge.config import default_state, default_store, format_bytes, parse_bytes
from ionn_edge.doors.control import NotRunning, ask, claimed
from ionn_edge.doors.devices import LOOPBACK, Registry
from ionn_edge.storage.store import Store

StoreDirectory = Annotated[
    Path | None,
    typer.Option("--store", help="The box's directory of weights, as for serve; if it is stopped."),
]
Device = Annotated[
    str, typer.Argument(help="Its name, or the beginning of its id; loopback for an unpaired box.")
]

app = typer.Typer(
    name="cache",
    no_args_is_help=True,
    help="See what the box keeps, and drop some of it.",
)


@app.command("ls")
def ls(state: State = None, store: StoreDirectory = None, as_json: Json = False) -> None:
    """List which devices have how much here, and which models."""
    with complaining():
        rows = _asked("cache ls", state, store, lambda there, _: cached.store_rows(there))
        names = {each.device.id: each.device.name for each in _registry(state).all()}
    for row in rows["devices"]:
        row["name"] = names.get(row["id"], LOOPBACK.name)
    print(json.dumps(rows, indent=1) if as_json else "\n".join(_lines(rows)))


@app.command("prune")
def prune(
    to: Annotated[
        str, typer.Option(help="Drop until so much is left, such as 2G; 0 is all that may go.")
    ] = "0",
    state: State = None,
    store: StoreDirectory = None,
    as_json: Json = False,
) -> None:
    """Drop weights that no query is using, the longest unused first."""
    with complaining():
        limit_bytes = 0 if to == "0" else parse_bytes(to)
        freed = _asked(
            *("cache prune", state, store),
            lambda there, _: {"freed_bytes": cached.prune_files(there, limit_bytes)},
            bytes=limit_bytes,
        )
    print(json.dumps(freed) if as_json else f"Freed {format_bytes(freed['freed_bytes'])}.")


@app.command("forget")
def forget(
    device: Device, state: State = None, store: StoreDirectory = None, as_json: Json = False
) -> None:
    """Drop all weights and graphs of a device, which stays paired."""
    with complaining():
        freed = _asked(
            *("cache forget", state, store),
            lambda there, find: {"freed_bytes": cached.forget_files(there, find(device))},
            device=device,
        )
    print(json.dumps(freed) if as_json else f"Freed {format_bytes(freed['freed_bytes'])}.")


def _asked(
    question: str,
    state: Path | None,
    store: Path | None,
    at_rest: Callable[[Store, Callable[[str], str]], dict[str, Any]],
    **arguments: Any,
) -> dict[str, Any]:
    """A running box's answer, or what is said of the files of one that is stopped."""
    directory = state or default_state()
    try:
        answer: dict[str, Any] = ask(directory, question, **arguments)
    except NotRunning:
        with claimed(directory):
            registry = _registry(state)
            devices = [each.device.id for each in registry.all()]
            with cached.at_rest(store or default_store(), directory, devices) as there:
                answer = at_rest(there, lambda what: device_id(registry, what))
    return answer


def _registry(state: Path | None) -> Registry:
    registry = Registry(state or default_state())
    registry.open()
    return registry


def device_id(registry: Registry, what: str) -> str:
    """The id of the one that is meant. Raises ControlError."""
    from ionn_edge.doors.questions import the_one

    if what == LOOPBACK.id:
        return what
    return the_one(registry, what).device.id


def _lines(rows: dict[str, Any]) -> list[str]:
    lines = [f"{format_bytes(rows['used_bytes'])} in all"]
    for row in rows["devices"]:
        lines.append(f"{row['name']} ({row['id'][:12]}): {format_bytes(row['used_bytes'])}")
        lines.extend(f"  {_model(model)}" for model in row["models"])
    if rows["published"]:
        lines.append("published for every device:")
        lines.extend(f"  {_model(model)}" for model in rows["published"])
    if rows["strange_bytes"]:
        left = format_bytes(rows["strange_bytes"])
        lines.append(f"{left} of devices that are not paired any more; prune drops it first")
    return lines


def _model(model: dict[str, Any]) -> str:
    said: str = model["fingerprint"][:16]
    if name := model.get("name"):
        said = f"{name} ({said})"
    if model["total_bytes"] is not None:
        said += f"  {format_bytes(model['total_bytes'])}"
    if model.get("held_bytes") is not None and model["held_bytes"] < model["total_bytes"]:
        said += f", {format_bytes(model['held_bytes'])} of it here"
    if clients := model.get("clients"):
        said += f", {clients} connected" if clients > 1 else ", connected"
    return said
