"""`ionn demo`: the whole thing on one machine, in a minute."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ionn_client.commands.arguments import (
    Json,
    Network,
    Precision,
    Queue,
    Rate,
    RoundTrip,
    Slowdown,
    made,
)
from ionn_client.device import device_slowdown
from ionn_client.emulate import LinkSpec
from ionn_client.reports.view import View, megabytes
from ionn_client.scenario import TOLERANCE, Asked
from ionn_client.trial import SCHEMES, Subject, Trial, planner_link, run_trial, subject_of
from layergraph.load import load
from planner import timeline, upload_plan
from planner.timeline import Ack
from planner.upload import Algorithm

# The scheme that a precision is run as.
OURS = {"exact": "efficiency", "progressive": "progressive"}


def demo(
    network: Network = "alexnet",
    rate: Rate = "80mbit",
    rtt: RoundTrip = "5ms",
    queue: Queue = "256k",
    slowdown: Slowdown = None,
    out: Annotated[Path, typer.Option(help="Directory for the picture and the JSONL.")] = Path(
        "out"
    ),
    precision: Precision = "exact",
    as_json: Json = False,
) -> None:
    """Run a network on real photos together with an edge box while its weights upload.

    Starts an edge box that knows no model as its own process, emulates a wireless link to it and
    a slow device, and asks a query every half second, as in IONN's evaluation.
    """
    console = Console(stderr=as_json)
    spec = LinkSpec.parse(rate, rtt=rtt, queue=queue)
    out = made(out)
    loaded = load(network)
    console.print(f"Capturing {network} and timing its layers on this machine ...", highlight=False)
    what = subject_of(loaded)
    factor = device_slowdown(slowdown, what.profiled if network == "alexnet" else None)
    local_s = factor * sum(what.profiled.client_s)
    console.print(
        f"Emulated device: {factor:.0f} times slower than this machine, {network} takes"
        f" {local_s:.2f} s on it.\nEmulated link: {spec.up_Bps * 8 / 1e6:g} Mbit/s each way,"
        f" {spec.rtt_s * 1e3:g} ms round trip. Edge box: a process of its own that has never"
        f" seen {network} ({megabytes(what.total_bytes)}).",
        highlight=False,
    )
    title = f"IONN: {network} with an edge box, while it uploads"
    with View(title, console, quiet=as_json) as view:
        trial = asyncio.run(
            run_trial(
                SCHEMES[OURS[precision]], what, spec, factor, horizon_s=0, on_change=view.show
            )
        )
    records = _records(what, spec, factor, trial)
    log, picture = _write(records, out, network)
    report = _report(trial, local_s, log, picture)
    if as_json:
        print(json.dumps(report, indent=2))
    else:
        _show(console, report)
    if report["unequal_answers"]:
        raise typer.Exit(1)


def _records(what: Subject, spec: LinkSpec, factor: float, trial: Trial) -> list[dict[str, Any]]:
    link = planner_link(spec)
    horizon_s = max(query.time_s + query.latency_s for query in trial.asked)
    title = (
        f"{what.name}, {megabytes(what.total_bytes)}, over {spec.up_Bps * 8 / 1e6:g} Mbit/s,"
        f" {spec.rtt_s * 1e3:g} ms (emulated), device {factor:.0f}x slower (emulated)"
    )
    costs = what.profiled.costs(link, factor)
    forecasts = []
    baselines: tuple[tuple[Algorithm, Ack, str], ...] = (
        ("efficiency", "layer", "predicted before the upload"),
        ("all-at-once", "partition", "all at once, predicted"),
    )
    for name, ack, label in baselines:
        order = upload_plan(costs, link, algorithm=name)
        line = timeline(costs, link, order, ack=ack, horizon_s=horizon_s)
        points = [[point.time_s, point.latency_s] for point in line.points]
        points.append([horizon_s, points[-1][1]])
        forecasts.append({"event": "forecast", "name": name, "label": label, "points": points})
    local_s = float(sum(costs.client_s))
    forecasts.append(
        {
            "event": "forecast",
            "name": "local",
            "label": "on the device alone",
            "points": [[0, local_s], [horizon_s, local_s]],
        }
    )
    run = {"event": "run", "title": title, "network": what.name, "device_slowdown": factor,
           "link": dataclasses.asdict(spec)}  # fmt: skip
    return [run, *forecasts, *trial.records]


def _write(records: Sequence[dict[str, Any]], out: Path, network: str) -> tuple[Path, Path]:
    name = "".join(letter if letter.isalnum() else "-" for letter in network)
    log, picture = out / f"demo-{name}.jsonl", out / f"demo-{name}.png"
    log.write_text("".join(json.dumps(record) + "\n" for record in records))
    # Matplotlib takes most of a second, and writes into the home directory.
    from ionn_client.reports import figure

    figure.draw_run(figure.read_records(log), picture)
    return log, picture


def _report(trial: Trial, local_s: float, log: Path, picture: Path) -> dict[str, Any]:
    asked = trial.asked
    uploading = [q for q in asked if q.phase == "uploading"]
    ready = [q for q in asked if q.phase == "ready"]
    errors = sorted(
        abs(q.latency_s - q.predicted_s) / q.predicted_s for q in uploading if q.predicted_s > 0
    )
    return {
        "queries": len(asked),
        "local_s": local_s,
        "mean_while_uploading_s": _mean(uploading),
        "uploaded_mean_s": _mean(ready),
        "upload_s": trial.upload_s,
        "goodput_share": trial.goodput_share,
        "prediction_error_median": errors[len(errors) // 2] if errors else None,
        "exact_answers": sum(q.exact for q in asked),
        "bitwise_equal_answers": sum(q.difference == 0 for q in asked if q.exact),
        "unequal_answers": sum(q.wrong for q in asked),
        "same_top_answers": sum(q.same_top for q in asked),
        "fallbacks": sum(q.fallback_reason is not None for q in asked),
        "jsonl": str(log),
        "picture": str(picture),
    }


def _mean(asked: Sequence[Asked]) -> float | None:
    return sum(query.latency_s for query in asked) / len(asked) if asked else None


def _show(console: Console, report: dict[str, Any]) -> None:
    table = Table(show_header=False)
    local_s = report["local_s"]

    def row(name: str, seconds: float | None) -> None:
        if seconds is not None:
            table.add_row(name, f"{seconds:.3f} s", f"{local_s / seconds:.1f}x faster")

    table.add_row("on the device alone", f"{local_s:.3f} s", "")
    row("mean of the queries while uploading", report["mean_while_uploading_s"])
    row("once uploaded", report["uploaded_mean_s"])
    if report["upload_s"] is not None:
        share = f"{report['goodput_share']:.1%} of the link"
        table.add_row("upload", f"{report['upload_s']:.1f} s", share)
    if report["prediction_error_median"] is not None:
        error = f"{report['prediction_error_median']:.1%}"
        table.add_row("measured off predicted, median", error, "")
    console.print(table)
    console.print(_verdict(report), highlight=False)
    console.print(f"Picture: {report['picture']}\nDrawn from: {report['jsonl']}", highlight=False)


def _verdict(report: dict[str, Any]) -> str:
    """How the answers compare with the local model's."""
    queries, exact = report["queries"], report["exact_answers"]
    equal, unequal = report["bitwise_equal_answers"], report["unequal_answers"]
    which = f"{queries} answers" if exact == queries else f"{exact} exact answers"
    if unequal:
        verdict = f"{unequal} of the {which} DIFFER from the local model's."
    elif equal == exact:
        verdict = f"Every one of the {which} equals the local model's, bit for bit."
    else:
        verdict = (
            f"All {which} equal the local model's: {equal} bit for bit, the others"
            f" within {TOLERANCE:g} of the largest element."
        )
    if exact < queries:
        verdict += (
            f" {queries - exact} came at reduced precision before that;"
            f" {report['same_top_answers']} of all {queries} have the same first choice."
        )
    return verdict
