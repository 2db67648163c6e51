"""The `ionn` command. Rooms outside this package (the edge) are mounted by entry point.

A command is imported once it is chosen: those that compute need torch, which takes seconds.
"""

from __future__ import annotations

import inspect
import io
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from ionn_client.errors import OffloadError
from ionn_client.interrupt import INTERRUPTED, leaving_at_once

# Where it is under `commands`, and its first sentence, for the list of all.
COMMANDS = {
    "demo": (
        "demo.demo",
        "Run a network on real photos together with an edge box while its weights upload.",
    ),
    "run": (
        "run.run",
        "Ask queries of a network while its weights upload to an edge box, and show how it goes.",
    ),
    "plan": (
        "plan.plan",
        "Compare planners and upload orders for a network, link, device and edge, without a box.",
    ),
    "profile": (
        "profile.profile",
        "Show each layer's time here, its weights, and the bytes that a cut before it would send.",
    ),
    "bench": ("bench.app", "Measure, with baselines in the same run."),
    "ps": (
        "ps.ps",
        "Show what a box is doing for this device, and which of its models it holds.",
    ),
    "discover": (
        "discover.discover_boxes",
        "List the boxes that announce themselves on this network, and those paired among them.",
    ),
    "pair": (
        "pair.pair_box",
        "Pair this device with a box, which each box that is not on this machine wants first.",
    ),
    "devices": ("devices.app", "The boxes that this device is paired with."),
    "forget": (
        "forget.forget_me",
        "Have a box wipe the weights and graphs that it holds of this device's.",
    ),
    "doctor": (
        "doctor.doctor",
        "Look at this device, its boxes and the way to them, one line each. Changes nothing.",
    ),
}
ROOMS = {room.name: room for room in entry_points(group="ionn.commands")}


class Later(TyperCommand):
    """Stands in the list for a command, or for a room of them, until it is chosen."""

    def __init__(self, name: str, summary: str, imported: Callable[[], Any]) -> None:
        super().__init__(name, help=summary)
        self._imported = imported

    def make_context(self, *args: Any, **settings: Any) -> Any:
        with leaving_at_once():
            found = self._imported()
        return _as_command(found).make_context(*args, **settings)


class Commands(TyperGroup):
    """Lists all, and imports one."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for name, (where, summary) in COMMANDS.items():
            self.add_command(Later(name, summary, partial(_imported, where)))
        for name, room in ROOMS.items():
            self.add_command(Later(name, "", room.load))

    def format_help(self, *args: Any) -> None:
        for name, room in ROOMS.items():
            self.commands[name].help = room.load().info.help
        super().format_help(*args)


def _imported(where: str) -> Any:
    module, _, attribute = where.partition(".")
    return getattr(import_module(f"ionn_client.commands.{module}"), attribute)


def _as_command(found: Any) -> Any:
    """From a room of commands, or the function that is one."""
    if isinstance(found, typer.Typer):
        return _reflowed(get_command(found))
    alone = typer.Typer(add_completion=False)
    alone.command()(found)
    return _reflowed(get_command(alone))


def _reflowed(command: Any) -> Any:
    """With paragraphs of help as wide as the terminal, not as the source."""
    paragraphs = inspect.cleandoc(command.help or "").split("\n\n")
    command.help = "\n\n".join(" ".join(lines.split()) for lines in paragraphs)
    for below in getattr(command, "commands", {}).values():
        _reflowed(below)
    return command


app = typer.Typer(
    name="ionn",
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Run a neural network together with whichever edge box is near, while its weights are"
    " still uploading. Start with `ionn demo`.",
)


@app.callback()
def ionn() -> None:
    """Has commands of its own by `Commands` only, which makes it a group."""


def main() -> None:
    """Run the command line. What can be foreseen to go wrong is one line, and exit code 2 where
    something else has to be typed, 1 where it failed; 130 after Ctrl-C."""
    # Without this, a terminated demo or benchmark would leave its edge process behind.
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, lambda number, _: sys.exit(128 + number))
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character gets a question mark in its place.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except _foreseeable() as error:
        print(f"ionn: {_said(error)}", file=sys.stderr)
        sys.exit(2 if isinstance(error, (ValueError, *_known("load", "UnknownModel"))) else 1)


def _foreseeable() -> tuple[type[Exception], ...]:
    return (OffloadError, ValueError, OSError, *_known("errors", "GraphError"))


def _known(module: str, name: str) -> tuple[type[Exception], ...]:
    """What can be wrong with a model, where one was looked at at all."""
    imported = sys.modules.get(f"layergraph.{module}")
    return (getattr(imported, name),) if imported else ()


def _said(error: Exception) -> str:
    """Without the number of an OSError, which nobody knows."""
    if not isinstance(error, OSError) or error.strerror is None:
        return str(error)
    where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
    return f"{where}{error.strerror.lower()}"
