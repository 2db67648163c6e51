"""`ionn bench latency`: query latency during upload, ours beside the baselines."""

from __future__ import annotations

import asyncio
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from ionn_client.commands.arguments import (
    Json,
    Precision,
    Queue,
    Rate,
    RoundTrip,
    Slowdown,
    made,
    print_json,
)
from ionn_client.device import device_slowdown
from ionn_client.emulate import LinkSpec
from ionn_client.quantities import seconds
from ionn_client.reports.plan_view import plain_table
from ionn_client.scenario import EXACT
from ionn_client.trial import SCHEMES, Scheme, Subject, Trial, run_trial, subject

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Measure, with baselines in the same run."
)
LABELS = {
    "local": "device alone",
    "all-at-once": "all at once",
    "ionn": "IONN K=0.5",
    "efficiency": "ours",
    "progressive": "progressive",
}
# Of fewer queries of a round the mean says little: where the first one falls decides.
FEW = 5


@app.callback()
def _bench() -> None:
    """Keeps `latency` a subcommand while it is the only one."""


@app.command()
def latency(
    network: Annotated[
        list[str], typer.Option("--network", "-n", help="Network; may be given several times.")
    ] = ["alexnet"],  # noqa: B006  (typer copies it)
    rate: Rate = "80mbit",
    rtt: RoundTrip = "5ms",
    queue: Queue = "256k",
    slowdown: Slowdown = None,
    rounds: Annotated[
        int, typer.Option(min=1, help="How often each scheme runs; they take turns.")
    ] = 3,
    out: Annotated[Path, typer.Option(help="Directory for pictures and JSONL.")] = Path("out"),
    quick: Annotated[bool, typer.Option(help="Toy size: shows that it works.")] = False,
    precision: Precision = "exact",
    as_json: Json = False,
) -> None:
    """Mean query latency while a network uploads: device alone, all at once, IONN, and ours.

    With --precision progressive, ours at progressive precision comes as a further scheme.

    Each scheme gets its own edge process, store, link and device, all emulated alike, and runs
    IONN's scenario over the same horizon: the time that the link needs for all of the weights.
    """
    console = Console(stderr=as_json)
    spec = LinkSpec.parse(rate, rtt=rtt, queue=queue)
    out = made(out)
    subjects = {name: subject(name, runs=1 if quick else 5) for name in network}
    alexnet = subjects["alexnet"].profiled if "alexnet" in subjects else None
    factor = device_slowdown(slowdown, alexnet)
    schemes = {name: each for name, each in SCHEMES.items()
               if each.precision in ("exact", precision)}  # fmt: skip
    reports = []
    for name, what in subjects.items():
        horizon_s = what.total_bytes / spec.up_Bps
        console.print(
            f"{name}: {what.total_bytes / 1e6:.1f} MB, {horizon_s:.1f} s at {rate};"
            f" device {factor:.0f}x slower; {'1 round' if rounds == 1 else f'{rounds} rounds'}"
            f" of {len(schemes)} schemes",
            highlight=False,
        )
        trials = _rounds(schemes, what, spec, factor, rounds, horizon_s, quick, console)
        reports.append(_report(what, spec, factor, horizon_s, trials))
        _draw(out, reports[-1], trials)
        if not as_json:
            _show(console, reports[-1])
    if as_json:
        print_json(reports)


def _rounds(
    schemes: Mapping[str, Scheme],
    what: Subject,
    spec: LinkSpec,
    factor: float,
    rounds: int,
    horizon_s: float,
    quick: bool,
    console: Console,
) -> dict[str, list[Trial]]:
    trials: dict[str, list[Trial]] = {name: [] for name in schemes}
    for number in range(rounds):
        for name, scheme in schemes.items():
            trial = asyncio.run(
                run_trial(
                    scheme,
                    what,
                    spec,
                    factor,
                    horizon_s=horizon_s,
                    preparation_s=0.02 if quick else 0.5,
                )
            )
            trials[name].append(trial)
            mean_s = trial.mean_latency_s(horizon_s)
            console.print(
                f"  round {number + 1}, {LABELS[name]}: {seconds(mean_s)}", highlight=False
            )
    return trials


def _report(
    what: Subject,
    spec: LinkSpec,
    factor: float,
    horizon_s: float,
    trials: dict[str, list[Trial]],
) -> dict[str, Any]:
    means = {name: [t.mean_latency_s(horizon_s) for t in runs] for name, runs in trials.items()}
    over_time = {
        name: [t.mean_over_time_s(horizon_s) for t in runs] for name, runs in trials.items()
    }
    ours = trials["efficiency"]
    rows = [
        {
            "scheme": name,
            "mean_latency_s": statistics.median(means[name]),
            "spread_s": [min(means[name]), max(means[name])],
            "ours_is_faster": _median_ratio(means[name], means["efficiency"]),
            "mean_over_time_s": statistics.median(over_time[name]),
            "ours_is_faster_over_time": _median_ratio(over_time[name], over_time["efficiency"]),
            "queries": sum(len(trial.asked) for trial in runs),
            "queries_while_uploading": [len(trial.latencies_s(horizon_s)) for trial in runs],
        }
        for name, runs in trials.items()
    ]
    errors = [
        abs(q.latency_s - q.predicted_s) / q.predicted_s
        for trial in ours
        for q in trial.asked
        if q.phase in ("uploading", "ready") and q.predicted_s > 0
    ]
    every = [q for runs in trials.values() for t in runs for q in t.asked]
    exact = [q for q in every if q.precision == EXACT]
    return {
        "network": what.name,
        "up_Bps": spec.up_Bps,
        "rtt_s": spec.rtt_s,
        "device_slowdown": factor,
        "horizon_s": horizon_s,
        "schemes": rows,
        "goodput_share": statistics.median(t.goodput_share or 0.0 for t in ours),
        "prediction_error_median": statistics.median(errors) if errors else None,
        "answers": len(every),
        "exact_answers": len(exact),
        "bitwise_equal_answers": sum(q.difference == 0 for q in exact),
        "unequal_answers": sum(q.wrong for q in exact),
        "same_top_answers": sum(q.same_top for q in every),
    }


def _median_ratio(theirs: Sequence[float], ours: Sequence[float]) -> float:
    """Round by round, because the machine's speed drifts."""
    return statistics.median(a / b for a, b in zip(theirs, ours, strict=True))


def _draw(out: Path, report: dict[str, Any], trials: dict[str, list[Trial]]) -> None:
    stem = out / f"latency-{report['network'].replace(':', '-').replace('/', '-')}"
    records: list[dict[str, Any]] = [{"event": "report", **report}]
    for name, runs in trials.items():
        for number, trial in enumerate(runs):
            records.extend({**r, "scheme": name, "round": number} for r in trial.records)
    log = stem.with_suffix(".jsonl")
    log.write_text("".join(json.dumps(record) + "\n" for record in records))
    report["jsonl"], report["picture"] = str(log), str(stem.with_suffix(".png"))
    first: dict[str, Sequence[dict[str, Any]]] = {
        name: [r for r in runs[0].records if r["event"] == "query"] for name, runs in trials.items()
    }
    title = (
        f"{report['network']} over {report['up_Bps'] * 8 / 1e6:g} Mbit/s (emulated), first round"
    )
    # Matplotlib takes most of a second, and writes into the home directory.
    from ionn_client.reports import figure

    figure.draw_schemes(first, LABELS, report["horizon_s"], title, stem.with_suffix(".png"))


def _show(console: Console, report: dict[str, Any]) -> None:
    table = plain_table(f"Query latency of {report['network']} while it uploads")
    table.add_column("scheme", no_wrap=True)
    for heading in ("mean", "least", "most", "/ ours", "over time", "/ ours", "n"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in report["schemes"]:
        low, high = row["spread_s"]
        ours = row["scheme"] == "efficiency"
        table.add_row(
            LABELS[row["scheme"]],
            seconds(row["mean_latency_s"]),
            seconds(low),
            seconds(high),
            "" if ours else f"{row['ours_is_faster']:.2f}x",
            seconds(row["mean_over_time_s"]),
            "" if ours else f"{row['ours_is_faster_over_time']:.2f}x",
            f"{statistics.median(row['queries_while_uploading']):g}",
        )
    console.print(table)
    console.print(
        "Mean of the n queries asked in that time, and mean over the time; medians of the rounds.",
        highlight=False,
    )
    least = min(min(row["queries_while_uploading"]) for row in report["schemes"])
    if least < FEW:
        console.print(
            f"So few queries (n: {least}) in the {seconds(report['horizon_s'])} of the upload say"
            " little: a slower link (--rate) or a larger network has more.",
            highlight=False,
        )
    error = report["prediction_error_median"]
    console.print(
        f"Goodput while uploading: {report['goodput_share']:.1%} of the link. "
        + (f"Measured off predicted: {error:.1%} (median). " if error is not None else "")
        + f"Answers: {report['answers']}, exact: {report['exact_answers']}, of them bitwise equal"
        f" to the local model's: {report['bitwise_equal_answers']}, unequal:"
        f" {report['unequal_answers']}; same first choice: {report['same_top_answers']}.\n"
        f"Picture: {report['picture']}\nDrawn from: {report['jsonl']}",
        highlight=False,
    )
