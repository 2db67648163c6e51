"""Options of plans: devices, power and aims that are stated, and limits."""

from __future__ import annotations

from typing import Annotated

import typer

from ionn_client.commands.energy import GoalKey, RadioKey
from ionn_client.devices import shipped_devices

_STATED = ", ".join(shipped_devices()) + ", or FILE.toml"
Device = Annotated[
    str | None,
    typer.Option(
        "--device",
        help=f"A stated device in place of this machine: {_STATED}. Gives its power too.",
    ),
]
PowerOf = Annotated[
    str | None,
    typer.Option(
        "--device",
        help=f"Count the power of this device: {_STATED}. Layers still take the time that they take"
        " on this machine.",
    ),
]
Edge = Annotated[
    str | None, typer.Option("--edge", help="A stated edge in place of this machine: as --device.")
]
RadioName = Annotated[
    RadioKey | None,
    typer.Option(
        "--radio",
        help="Count the power of this radio, and take its average rate where none is given, or"
        " measured yet (both from the papers).",
    ),
]
PowerText = Annotated[
    str | None,
    typer.Option(
        "--power",
        help="What the device draws in W, computing and idle: compute=5,idle=1.5. What its radio"
        " draws, unless --radio says so: base=0.13 in W, up=0.28,down=0.14 in W per Mbit/s.",
    ),
]
Goal = Annotated[
    GoalKey,
    typer.Option("--objective", help="Minimise seconds, the device's joules, or both."),
]
SecondsPerJoule = Annotated[
    float | None,
    typer.Option(min=0.0, help="With --objective mix: how many seconds a joule is worth."),
]
Battery = Annotated[
    float | None, typer.Option(min=0.0, help="Joules of the device that a query may take at most.")
]
BatteryOfAll = Annotated[
    float | None,
    typer.Option(
        "--battery",
        min=0.0,
        help="Joules of the device that these queries may take together. Each gets an even share"
        " of what is left.",
    ),
]
Deadline = Annotated[
    str | None, typer.Option(help="How long a query may take at most, e.g. 200ms.")
]
EdgeLimit = Annotated[
    str | None, typer.Option(help="How long a query may keep the edge busy at most, e.g. 10ms.")
]
ServerLoad = Annotated[
    float,
    typer.Option(min=1.0, help="How many times as long the edge takes as when it is idle."),
]
StayText = Annotated[
    str | None,
    typer.Option(
        "--stay",
        help="Tell how much of the upload pays back its joules until the device leaves this edge,"
        " after so long, e.g. 10min.",
    ),
]
StayToUpload = Annotated[
    str | None,
    typer.Option(
        "--stay",
        help="Upload only what pays back its joules until the device leaves this edge, after so"
        " long, e.g. 10min.",
    ),
]
QueriesPerHour = Annotated[
    float, typer.Option(min=0.0, help="With --stay: how many queries are asked in an hour.")
]
