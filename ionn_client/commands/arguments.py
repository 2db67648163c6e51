"""Options that several commands share, and how their text becomes values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ionn_client.commands.energy import GoalKey, RadioKey
from ionn_client.devices import shipped_devices

Network = Annotated[
    str,
    typer.Option(
        "--network",
        "-n",
        help="A benchmark network (alexnet, resnet50, ...), torchvision:NAME, timm:NAME,"
        " transformers:CONFIG, or package.module:factory.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Rate = Annotated[str, typer.Option(help="Rate of the link each way, e.g. 80mbit or 10MB/s.")]
RoundTrip = Annotated[str, typer.Option(help="Round trip of the link, e.g. 5ms.")]
Queue = Annotated[str, typer.Option(help="Bytes that the link queues each way, e.g. 64k.")]
Slowdown = Annotated[
    float | None,
    typer.Option(
        "--device-slowdown",
        min=1.0,
        help="Emulate a slow device: each local layer takes this many times as long, by"
        " sleeping. Default: so that AlexNet takes 1.3 s locally, as in IONN section 2.",
    ),
]

KeepLocal = Annotated[
    str,
    typer.Option(
        help="How many first and last layers stay on the device, for privacy, e.g. 2,1: the edge"
        " gets none of their weights, and with first layers kept never the raw input.",
    ),
]

State = Annotated[
    Path | None,
    typer.Option(
        help="Directory with this device's identity and known boxes; by default the user's.",
    ),
]

Precision = Annotated[
    Literal["exact", "progressive"],
    typer.Option(
        help="Weights as they are, or their high bits first: sooner, and less precise until all"
        " is uploaded.",
    ),
]

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


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, default=float))
