"""`ionn run`: query a network together with a real edge box."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.console import Console

from ionn_client.commands.arguments import Json, Network, Precision
from ionn_client.config import EdgeAddress, Options
from ionn_client.offload import connect
from ionn_client.scenario import Asked, run_scenario
from ionn_client.trial import Subject, subject
from ionn_client.view import View, milliseconds


def run(
    edge: Annotated[str, typer.Option(help="The edge box, e.g. ionn://192.0.2.7:7431.")],
    network: Network = "alexnet",
    queries: Annotated[int, typer.Option(min=1, help="How many queries to ask.")] = 20,
    interval: Annotated[float, typer.Option(min=0, help="Seconds between them.")] = 0.5,
    deadline: Annotated[
        float | None, typer.Option(min=1e-3, help="Deadline of each query, in seconds.")
    ] = None,
    slowdown: Annotated[
        float,
        typer.Option("--device-slowdown", min=1.0, help="Emulate a device so many times slower."),
    ] = 1.0,
    precision: Precision = "exact",
    tolerance: Annotated[
        float | None,
        typer.Option(
            "--activation-tolerance",
            min=1e-9,
            help="Let live tensors be coded with loss where the answer to the example is off by"
            " no more than this share of its largest element.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Ask queries of a network while its weights upload to an edge box, and show how it goes.

    Queries are answered from the first on, and also when the edge box is not there.
    """
    address = str(EdgeAddress.parse(edge))
    console = Console(stderr=as_json)
    console.print(f"Capturing {network} and timing its layers here ...", highlight=False)
    what = subject(network, tolerance=tolerance)
    options = Options(device_slowdown=slowdown, precision=precision, activation_tolerance=tolerance)
    asked = asyncio.run(_ask(what, address, options, queries, interval, deadline, console, as_json))
    if not as_json:
        console.print(summary(asked), highlight=False)


def summary(asked: Sequence[Asked]) -> str:
    """How fast and how exact the answers were, in a line."""
    mean_s = sum(query.latency_s for query in asked) / len(asked)
    exact = [query for query in asked if query.exact]
    text = (
        f"{len(asked)} queries, mean {milliseconds(mean_s)}, last"
        f" {milliseconds(asked[-1].latency_s)} on {asked[-1].served_by};"
        f" {sum(not query.wrong for query in exact)} of {len(exact)} exact answers equal the local"
        " model's"
    )
    if lossy := [query for query in asked if query.lossy]:
        off = max(query.difference for query in lossy)
        text += f"; {len(lossy)} were coded with loss on the way, and are off by at most {off:.2g}"
        text += " of the largest element"
    return f"{text}."


async def _ask(
    what: Subject,
    address: str,
    options: Options,
    queries: int,
    interval: float,
    deadline: float | None,
    console: Console,
    as_json: bool,
) -> list[Asked]:
    done: list[Asked] = []
    async with connect(what.profiled, what.inputs[0], edge=address, options=options) as net:
        with View(f"{what.name} with {address}", console, quiet=as_json) as view:

            def on_query(query: Asked) -> None:
                done.append(query)
                view.show(net.status, done)
                if as_json:
                    print(json.dumps(_record(query)), flush=True)

            view.show(net.status, done)
            return await run_scenario(
                net,
                what.inputs,
                what.references,
                lambda _, asked: len(asked) >= queries,
                on_query,
                interval,
                deadline,
            )


def _record(query: Asked) -> dict[str, Any]:
    return {"event": "query", **dataclasses.asdict(query)}
