"""`ionn devices`: the boxes that this device knows."""

from __future__ import annotations

import datetime
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ionn_client.boxes.known_boxes import KnownBox, KnownBoxes, described
from ionn_client.commands.arguments import Json, State, print_json
from ionn_client.errors import NotPaired
from pairing.identity import short

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    help="The boxes that this device is paired with.",
)


@app.callback(invoke_without_command=True)
def devices(context: typer.Context, state: State = None, as_json: Json = False) -> None:
    """List the boxes that this device is paired with."""
    if context.invoked_subcommand is not None:
        return
    if state is not None and not state.exists():
        raise ValueError(f"--state {state}: there is no such directory")
    boxes = KnownBoxes(state).all()
    if as_json:
        print_json([described(box) for box in boxes])
        return
    console = Console(highlight=False)
    if not boxes:
        console.print("This device is paired with no box: ionn discover, then ionn pair NAME.")
        return
    table = Table(box=SIMPLE_HEAD)
    for heading in ("name", "address", "certificate", "paired", "state"):
        table.add_column(heading, overflow="fold")
    for box in boxes:
        day = datetime.datetime.fromtimestamp(box.paired_at_s).strftime("%Y-%m-%d")
        shown = (box.name, box.address, short(box.fingerprint), day, _state(box))
        table.add_row(*map(Text, shown))
    console.print(table)


@app.command("forget")
def forget(
    box: Annotated[str, typer.Argument(help="Its name or address, as `ionn devices` has it.")],
    state: State = None,
    as_json: Json = False,
) -> None:
    """Forget a box: this device neither trusts nor uses it until it is paired again.

    The box still holds what was uploaded, and still knows this device: first
    `ionn forget NAME` to have it wipe that, and `ionn edge unpair` there.
    """
    known = KnownBoxes(state)
    found = known.find(box)
    if found is None:
        raise NotPaired(f"no box is known by {box!r}{known.near(box)}: see `ionn devices`")
    known.remove(found.fingerprint)
    if as_json:
        print_json({**described(found), "forgotten": True})
        return
    print(f"Forgotten: {found.name}. On the box, `ionn edge unpair` has it forget this device too.")


def _state(box: KnownBox) -> str:
    if box.quarantined is not None:
        return f"quarantined: {box.quarantined}"
    return "paired" if box.confirmed else "on probation: the box has not confirmed yet"
