"""`ionn ps`: what an edge box is doing."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
from typing import Annotated

import aiohttp
import typer
from rich.console import Console
from rich.table import Table

from ionn_client.boxes.access import Access, TurnedAway
from ionn_client.boxes.connection import cause
from ionn_client.boxes.inquiry import TIMEOUT_S, Ended, inquiring
from ionn_client.commands.arguments import Json, State, print_json
from ionn_client.errors import EdgeRejected, EdgeUnreachable, NotPaired, PairingError
from wire import RemoteProtocolError, messages


def ps(
    edge: Annotated[str, typer.Option(help="A paired box's name, or an address.")] = (
        "ionn://127.0.0.1:7431"
    ),
    state: State = None,
    as_json: Json = False,
) -> None:
    """Show what a box is doing for this device, and which of its models it holds."""
    access = Access.to(edge, state)
    welcome, load = asyncio.run(ask_load(access))
    if as_json:
        report = {"edge": str(access), "agent": welcome.agent, "device": welcome.device,
                  "threads": welcome.threads, **dataclasses.asdict(load)}  # fmt: skip
        print_json(report)
        return
    console = Console(markup=False)
    console.print(
        f"{access}: {welcome.agent} on {welcome.device} with {welcome.threads} threads, "
        f"{load.clients} connection{'s' * (load.clients != 1)}, "
        f"{load.running} running, {load.queued} queued, "
        f"{load.used_bytes / 1e6:.0f} of {load.memory_bytes / 1e6:.0f} MB used",
        highlight=False,
    )
    if not load.models:
        console.print("It holds no model.")
        return
    table = Table()
    for heading in ("model", "uploaded", "connections", "queries"):
        table.add_column(heading, justify="left" if heading == "model" else "right")
    for model in load.models:
        table.add_row(
            model.fingerprint[:16],
            f"{model.held_bytes / 1e6:.1f} of {model.total_bytes / 1e6:.1f} MB",
            str(model.clients),
            str(model.queries),
        )
    console.print(table)


async def ask_load(edge: Access) -> tuple[messages.Welcome, messages.Load]:
    """The edge's greeting and load. Raises EdgeUnreachable, EdgeRejected or PairingError."""
    try:
        async with inquiring(edge) as inquiry:
            welcome = await inquiry.greet("ionn-ps")
            return welcome, await inquiry.ask(messages.GetLoad(), messages.Load)
    except TimeoutError:
        raise EdgeUnreachable(f"no answer from {edge} within {TIMEOUT_S:.0f} s") from None
    except Ended as error:
        raise EdgeUnreachable(f"{edge} answers, but {error}") from None
    except (aiohttp.ClientError, OSError) as error:
        told = await edge.explained(error)
        if isinstance(told, PairingError):
            raise told from None
        if isinstance(told, TurnedAway):
            raise NotPaired(f"{edge}: {told}") from None
        refused = getattr(error, "errno", None) == errno.ECONNREFUSED
        advice = ". Is `ionn edge serve` running there? Another box: --edge NAME" * refused
        raise EdgeUnreachable(f"no edge at {edge}: {told or cause(error)}{advice}") from None
    except RemoteProtocolError as error:
        raise EdgeRejected(f"{edge} does not speak the protocol: {error}", "malformed") from None
