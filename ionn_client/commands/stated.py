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
        help=f"A stated device whose power is counted: {_STATED}. Layers take their time here.",
    ),
]
Edge = Annotated[
    str | None, typer.Option("--edge", help="A stated edge in place of this machine, likewise.")
]
RadioName = Annotated[
    RadioKey | None,
    typer.Option(
        "--radio",
        help="What the radio draws, and, where no rate is given or measured yet, how fast it is on"
        " average (both as the papers have them).",
    ),
]
PowerText = Annotated[
    str | None,
    typer.Option(
        "--power",
        help="What the device draws, in W: compute=5,idle=1.5; its radio too, in W and in W per"
        " Mbit/s: base=0.13,up=0.28,down=0.14.",
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
        help="How long the device stays near this edge, e.g. 10min: how much of the upload pays"
        " back its joules until then?",
    ),
]
QueriesPerHour = Annotated[float, typer.Option(min=0.0, help="With --stay: how many queries.")]
