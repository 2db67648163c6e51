"""`ionn doctor`: what is wrong between this device and its boxes, and what to do about it."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from ionn_client.boxes.doctor import Finding, examine
from ionn_client.commands.arguments import Json, State, print_json

MARKS = {"ok": ("ok  ", "green"), "note": ("note", "yellow"), "bad": ("BAD ", "red")}


def doctor(
    edge: Annotated[
        str | None,
        typer.Option(help="The name or address of one box; all known ones if none is given."),
    ] = None,
    state: State = None,
    as_json: Json = False,
) -> None:
    """Look at this device, its boxes and the way to them, one line each. Changes nothing.

    The exit code is 1 if anything is bad.
    """
    findings = asyncio.run(examine(edge, state))
    if as_json:
        print_json([dataclasses.asdict(finding) for finding in findings])
    else:
        console = Console(highlight=False)
        for finding in findings:
            console.print(_line(finding), soft_wrap=True)
    if any(finding.state == "bad" for finding in findings):
        raise typer.Exit(1)


def _line(finding: Finding) -> Text:
    mark, colour = MARKS[finding.state]
    where = "" if finding.box is None else f"{finding.box}: "
    line = Text(mark, style=colour).append(f" {where}{finding.what}: {finding.text}", style="")
    return line.append(f". Do: {finding.advice}" if finding.advice else "", style="")
