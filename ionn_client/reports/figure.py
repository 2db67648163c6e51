"""Draws query latency over time while a model uploads, as IONN's Figure 7 does, from JSONL."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ionn_client.reports.drawing import Axes, pyplot

COLOURS = {
    "local": "#8c8c8c", "all-at-once": "#c26a1c", "ionn": "#3f6fb5", "efficiency": "#1b8a4b",
    "progressive": "#8a4bb5",
}  # fmt: skip


def read_records(path: Path) -> list[dict[str, Any]]:
    """The records of a run's JSONL. Raises ValueError naming the first bad line."""
    records = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}:{number}: not JSON: {error}") from None
        if not isinstance(record, dict) or "event" not in record:
            raise ValueError(f"{path}:{number}: not a record of a run")
        records.append(record)
    return records


def draw_run(records: Sequence[Mapping[str, Any]], path: Path) -> None:
    """One measured run: queries, what was predicted, the partitions, and the baselines."""
    by_event: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        by_event.setdefault(str(record["event"]), []).append(record)
    run = by_event["run"][0]
    figure, axes = pyplot.subplots(figsize=(9, 4.8))
    _partitions(axes, by_event.get("uploaded", ()))
    for record in by_event.get("forecast", ()):
        name, style = str(record["name"]), ":" if record["name"] != "efficiency" else "-"
        axes.step(
            [point[0] for point in record["points"]],
            [point[1] for point in record["points"]],
            where="post", linestyle=style, linewidth=1.6,
            color=COLOURS.get(name, "black"), label=str(record["label"]),
        )  # fmt: skip
    queries = by_event.get("query", [])
    axes.plot(
        [q["time_s"] for q in queries], [q["latency_s"] for q in queries],
        "o", markersize=5, color=COLOURS["efficiency"], label="measured queries of this run",
    )  # fmt: skip
    axes.plot(
        [q["time_s"] for q in queries], [q["predicted_s"] for q in queries],
        "x", markersize=6, color="black", label="predicted when each was asked",
    )  # fmt: skip
    _finish(axes, str(run["title"]))
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def draw_schemes(
    runs: Mapping[str, Iterable[Mapping[str, Any]]],
    labels: Mapping[str, str],
    horizon_s: float,
    title: str,
    path: Path,
) -> None:
    """Measured queries of several schemes, each a list of query records, over time.

    labels: what each scheme is called. horizon_s: when the link can have carried all weights.
    """
    figure, axes = pyplot.subplots(figsize=(9, 4.8))
    axes.axvline(horizon_s, color="#cccccc", linewidth=1, label="the link has room for all weights")
    for scheme, records in runs.items():
        queries = list(records)
        axes.plot(
            [q["time_s"] for q in queries], [q["latency_s"] for q in queries],
            "o-", markersize=4, linewidth=1.2,
            color=COLOURS[scheme], label=labels[scheme],
        )  # fmt: skip
    _finish(axes, title)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def _partitions(axes: Axes, uploaded: Sequence[Mapping[str, Any]]) -> None:
    done, labelled_s = 0, 0.0
    last_s = max((record["time_s"] for record in uploaded), default=0.0)
    for record in uploaded:
        if record["partitions_done"] > done:
            done = record["partitions_done"]
            axes.axvline(record["time_s"], color="#dddddd", linewidth=0.8, zorder=0)
            if not labelled_s or record["time_s"] - labelled_s > 0.03 * last_s:
                labelled_s = record["time_s"]
                axes.annotate(
                    str(done), (record["time_s"], 1.0), xycoords=("data", "axes fraction"),
                    xytext=(2, 0), textcoords="offset points",
                    ha="left", va="top", fontsize=7, color="#999999",
                )  # fmt: skip


def _finish(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=11, loc="left")
    axes.set_xlabel("time since the device met the edge (s)")
    axes.set_ylabel("query latency (s)")
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    axes.grid(axis="y", alpha=0.3)
    axes.legend(fontsize=8, frameon=False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
