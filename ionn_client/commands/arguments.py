"""Options that several commands share, and how their text becomes values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ionn_client.reports.places import check_writable

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
Queue = Annotated[str, typer.Option(help="Bytes that the emulated link queues each way, e.g. 64k.")]
Slowdown = Annotated[
    float | None,
    typer.Option(
        "--device-slowdown",
        min=1.0,
        help="How many times slower than this machine the device is: emulated by waiting. By"
        " default AlexNet takes 1.3 s on it, as in IONN section 2.",
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


def made(out: Path) -> Path:
    """The directory, there before minutes go by. ValueError if nothing can be written there."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--out: cannot make {out}: {(error.strerror or '').lower()}") from None
    check_writable("--out", out)
    return out


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, default=float))
