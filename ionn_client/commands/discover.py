"""`ionn discover`: which boxes are on this network."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ionn_client.access import Access
from ionn_client.commands.arguments import Json, State, print_json
from ionn_client.config import EdgeAddress
from ionn_client.discover import LOOK_S, FoundBox, discover
from ionn_client.known_boxes import KnownBox, KnownBoxes
from pairing.identity import short


def discover_boxes(
    seconds: Annotated[float, typer.Option(min=0.1, max=60.0, help="How long to look.")] = LOOK_S,
    state: State = None,
    as_json: Json = False,
) -> None:
    """List the boxes that announce themselves on this network, and those paired among them.

    Anybody can announce anything. A paired box that announces another address than it had is
    found there from now on, if it proves who it is.
    """
    boxes = KnownBoxes(state)
    known = {box.fingerprint: box for box in boxes.all()}
    found = asyncio.run(discover(seconds))
    for box in found:
        if (paired := known.get(box.fingerprint or "")) is not None:
            asyncio.run(follow(paired, box.address, boxes))
    if as_json:
        print_json([_plain(box, known.get(box.fingerprint or "")) for box in found])
        return
    console = Console(highlight=False)
    if not found:
        console.print(
            "No box announces itself here. Multicast may be blocked: `ionn pair URI` with the URI"
            " that the box shows needs none."
        )
        return
    table = Table()
    for heading in ("name", "address", "certificate", "paired as"):
        table.add_column(heading)
    for box in found:
        paired = known.get(box.fingerprint or "")
        shown = (
            box.name,
            str(box.address),
            short(box.fingerprint) if box.fingerprint else "unpaired use only",
            _paired_as(paired, box),
        )
        table.add_row(*map(Text, shown))
    console.print(table)
    if any(box.fingerprint not in known for box in found):
        console.print("To pair: ionn pair NAME, with the code that the box shows.")


async def follow(box: KnownBox, address: EdgeAddress, boxes: KnownBoxes) -> None:
    """Know the box at that address from now on, if it is really there."""
    if box.address != str(address) and await Access(address, box).answers_guests():
        boxes.moved(box.fingerprint, str(address))


def _paired_as(known: KnownBox | None, found: FoundBox) -> str:
    if known is None:
        return "-"
    moved = "" if known.address == str(found.address) else f", which was at {known.address}"
    return f"{known.name}{moved}"


def _plain(box: FoundBox, known: KnownBox | None) -> dict[str, str | None]:
    return {
        "name": box.name,
        "address": str(box.address),
        "fingerprint": box.fingerprint,
        "paired_as": None if known is None else known.name,
    }
