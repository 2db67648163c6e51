"""`ionn pair`: make a box and this device know each other."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Annotated

import typer
from rich.console import Console

from ionn_client.boxes.address import EdgeAddress
from ionn_client.boxes.discover import look_up
from ionn_client.boxes.known_boxes import KnownBoxes, described
from ionn_client.boxes.pair import Attempt, pair
from ionn_client.commands.arguments import Json, State, print_json
from ionn_client.errors import EdgeUnreachable, PairingError
from pairing.identity import short
from pairing.uri import SHAPE, PairingUri, parse_code

MOST_SLIPS = 3


def pair_box(
    box: Annotated[
        str,
        typer.Argument(
            help="The URI that the box shows; or its name, as `ionn discover` has it, or HOST:PORT:"
            " then its code is asked for. With - the URI is asked for: others who use this machine"
            " see what commands are given."
        ),
    ],
    code: Annotated[
        str | None, typer.Option(help="The code that the box shows, instead of being asked.")
    ] = None,
    called: Annotated[
        str | None, typer.Option("--as", help="What to call the box here; by default its own name.")
    ] = None,
    device: Annotated[
        str | None,
        typer.Option("--name", help="What the box calls this device; by default its host name."),
    ] = None,
    state: State = None,
    as_json: Json = False,
) -> None:
    """Pair this device with a box, which each box that is not on this machine wants first.

    The URI or code is read off the box itself. It is good for one attempt: a
    wrong one makes the box show another.
    """
    known = KnownBoxes(state)
    attempt = replace(_attempt(box, code, known), called=called, device=device)
    before = known.find(str(attempt.address))
    paired = asyncio.run(pair(attempt, state))
    if as_json:
        print_json({**described(paired), "directory": str(known.directory)})
        return
    console = Console(highlight=False, markup=False)
    console.print(f"Paired with {paired.name} at {paired.address}.")
    console.print(f"Its certificate is {short(paired.fingerprint)}; the box shows the same.")
    if before is not None and before.fingerprint != paired.fingerprint:
        console.print(
            f"{before.name} was at this address before, with another certificate. If it is gone:"
            f" ionn devices forget {before.name}"
        )
    console.print(f"Now: ionn run --edge {paired.name}")


def _attempt(box: str, code: str | None, known: KnownBoxes) -> Attempt:
    if box == "-":
        box = _prompted("The URI that the box shows")
        if "/pair" not in box:
            raise ValueError("that is no pairing URI: one looks like " + SHAPE)
    if "://" in box and "/pair" in box:
        if code is not None:
            raise ValueError("a pairing URI has a secret of its own: leave --code out")
        return Attempt.by_uri(PairingUri.parse(box))
    address = _address(box, known)
    return Attempt.by_code(address, _asked(box) if code is None else code)


def _address(box: str, known: KnownBoxes) -> EdgeAddress:
    """Of a box by its name, unless that can only be an address."""
    if ":" in box:
        return EdgeAddress.parse(box)
    try:
        return asyncio.run(look_up(box))
    except EdgeUnreachable:
        if (before := known.find(box)) is None:
            raise
        return EdgeAddress.parse(before.address)


def _asked(box: str) -> str:
    for _ in range(MOST_SLIPS):
        try:
            return parse_code(_prompted(f"The code that {box} shows"))
        except ValueError as error:
            # Not sent: a slip costs no guess.
            typer.echo(f"Not a code: {error}.", err=True)
    raise PairingError("not paired: no code was given. The box still shows the same one")


def _prompted(text: str) -> str:
    """What the person types. Raises PairingError at the end of input."""
    try:
        typed: str = typer.prompt(text, err=True)
    except typer.Abort as end:
        typer.echo(err=True)
        if isinstance(end.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise PairingError(
            "not paired: nothing was typed. The box still shows the same code"
        ) from None
    return typed
