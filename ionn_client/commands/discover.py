"""`ionn discover`: which boxes are on this network."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ionn_client.boxes.access import Access
from ionn_client.boxes.address import EdgeAddress
from ionn_client.boxes.discover import LOOK_S, FoundBox, discover
from ionn_client.boxes.known_boxes import KnownBox, KnownBoxes
from ionn_client.commands.arguments import Json, State, print_json
from pairing.identity import short

# Of the addresses at which a box is said to be.
MOST_ASKED = 8


def discover_boxes(
    seconds: Annotated[float, typer.Option(min=0.1, max=60.0, help="How long to look.")] = LOOK_S,
    state: State = None,
    as_json: Json = False,
) -> None:
    """List the boxes that announce themselves on this network, and those paired among them.

    Anybody can announce anything. A paired box that announces another address
    than it had is found there from now on, if it proves who it is.
    """
    boxes = KnownBoxes(state)
    known = {box.fingerprint: box for box in boxes.all()}
    found = asyncio.run(discover(seconds))
    asyncio.run(_follow_all(known, found, boxes))
    known = {box.fingerprint: box for box in boxes.all()}
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
        alike = len({box.name for box in found}) < len(found)
        which = "HOST:PORT (some names are double)" if alike else "NAME"
        console.print(f"To pair: ionn pair {which}, with the code that the box shows.")


async def _follow_all(
    known: Mapping[str, KnownBox], found: Sequence[FoundBox], boxes: KnownBoxes
) -> None:
    announced: dict[str, list[EdgeAddress]] = {}
    for box in found:
        if box.fingerprint is not None and box.fingerprint in known:
            announced.setdefault(box.fingerprint, []).append(box.address)
    for fingerprint, addresses in announced.items():
        await follow(known[fingerprint], addresses, boxes)


async def follow(box: KnownBox, announced: Sequence[EdgeAddress], boxes: KnownBoxes) -> None:
    """Know the box from now on at the first of these addresses where it really is.

    Not if it is still where it was: whoever passes on what it is sent has the box's certificate
    at an address of his own, too, and would have a place in between that lasts.
    """
    here = EdgeAddress.parse(box.address)
    if here in announced:
        return
    asked = (here, *list(dict.fromkeys(announced))[:MOST_ASKED])
    answers = await asyncio.gather(*(Access(each, box).answers_guests() for each in asked))
    there = next((each for each, answer in zip(asked, answers, strict=True) if answer), here)
    if there != here:
        boxes.moved(box.fingerprint, str(there))


def _paired_as(known: KnownBox | None, found: FoundBox) -> str:
    if known is None:
        return "-"
    if known.address == str(found.address):
        return known.name
    return f"not proven: {known.name} is at {known.address}"


def _plain(box: FoundBox, known: KnownBox | None) -> dict[str, str | None]:
    return {
        "name": box.name,
        "address": str(box.address),
        "fingerprint": box.fingerprint,
        "paired_as": known.name if known and known.address == str(box.address) else None,
    }
