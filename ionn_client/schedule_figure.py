"""Draws what `ionn plan` compares: schedules as rows of cells, latency and energy, uploads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.patches import Patch, Rectangle

from ionn_client.comparison import LIMITS, OURS, Planned
from ionn_client.quantities import joules, seconds
from ionn_client.upload_orders import UploadOrder

CLIENT, EDGE = "#4c78b0", "#57a773"
ORDER_COLOURS = {
    "efficiency": "#1b8a4b", "emdl": "#b5484a", "ionn K=0.1": "#a9bfe0", "ionn K=0.5": "#3f6fb5",
    "ionn K=0.9": "#7d9bcc", "front-to-back": "#8a4bb5", "all-at-once": "#c26a1c",
}  # fmt: skip
FORMATS = (".png", ".pdf", ".svg")
# Beyond so many layers a cell has no room for its letter, and the axis none for every name.
LETTERED, NAMED = 40, 32


def check_picture(path: Path) -> None:
    """ValueError unless a picture can be written there."""
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"--figure is a file ending in {', '.join(FORMATS)}, not {path}")
    if not path.absolute().parent.is_dir():
        raise ValueError(f"--figure: there is no folder {path.parent}")


def draw_plan(
    compared: Sequence[Planned],
    orders: Sequence[UploadOrder],
    names: Sequence[str],
    title: str,
    path: Path,
) -> None:
    """One row per planner, cells beside bars, and below what queries take while uploading."""
    rows = [row for row in compared if row.route is not None]
    energies = [row.route.energy_J for row in rows if row.route and row.route.energy_J is not None]
    bars = 2 if energies else 1
    cells_wide = min(11.0, max(5.0, 0.42 * len(names)))
    high = 0.36 * len(rows)
    figure = pyplot.figure(figsize=(cells_wide + 2.1 * bars + 2.2, high + 4.0))
    longest = max(map(len, names), default=0)
    grid = figure.add_gridspec(
        2, 1 + bars, height_ratios=[high, 2.6], width_ratios=[cells_wide] + [2.1] * bars,
        hspace=(0.75 + 0.07 * min(longest, 24)) / (0.5 * (high + 2.6)), wspace=0.06,
    )  # fmt: skip
    _cells(figure.add_subplot(grid[0, 0]), rows, names)
    latencies = [row.route.latency_s if row.route else 0.0 for row in rows]
    _bars(figure.add_subplot(grid[0, 1]), rows, latencies, "latency", seconds)
    if energies:
        _bars(figure.add_subplot(grid[0, 2]), rows, energies, "client's energy", joules)
    _uploads(figure.add_subplot(grid[1, :]), orders)
    figure.suptitle(title, fontsize=11, x=0.125, y=0.985, ha="left", va="top")
    figure.savefig(path, dpi=130, bbox_inches="tight", pad_inches=0.15)
    pyplot.close(figure)


def _cells(axes: Axes, rows: Sequence[Planned], names: Sequence[str]) -> None:
    n = len(names)
    for line, row in enumerate(rows):
        start = 0
        for letter, group in groupby(row.letters):
            stop = start + len(list(group))
            colour = EDGE if letter == "E" else CLIENT
            axes.add_patch(
                Rectangle((start, line - 0.38), stop - start, 0.76, color=colour, linewidth=0)
            )
            if n > LETTERED and stop - start > 0.02 * n:
                _letter(axes, (start + stop) / 2, line, letter)
            start = stop
        for i in range(n if n <= LETTERED else 0):
            _letter(axes, i + 0.5, line, row.letters[i])
    if n <= LETTERED:
        for cut in range(1, n):
            axes.axvline(cut, color="white", linewidth=1)
    axes.set_xlim(0, n)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_yticks(range(len(rows)), [_label(row) for row in rows], fontsize=9)
    for label, row in zip(axes.get_yticklabels(), rows, strict=True):
        label.set_fontweight("bold" if row.planner == OURS else "normal")
    step = -(-n // NAMED)
    shown = range(0, n, step)
    axes.set_xticks(
        [i + 0.5 for i in shown], [names[i] for i in shown], rotation=60, ha="right", fontsize=7,
        rotation_mode="anchor",
    )  # fmt: skip
    axes.tick_params(length=0)
    _bare(axes)
    axes.legend(
        handles=[Patch(color=CLIENT, label="C: client"), Patch(color=EDGE, label="E: edge")],
        loc="lower left", bbox_to_anchor=(0, 1), ncols=2, fontsize=8, frameon=False,
    )  # fmt: skip


def _label(row: Planned) -> str:
    over = " and ".join(LIMITS[name][0] for name in row.broken)
    return f"{row.planner}\n(over the {over})" if over else row.planner


def _letter(axes: Axes, x: float, y: float, letter: str) -> None:
    axes.text(x, y, letter, ha="center", va="center", fontsize=7, color="white")


def _bars(
    axes: Axes,
    rows: Sequence[Planned],
    values: Sequence[float],
    title: str,
    text: Callable[[float], str],
) -> None:
    best = min(values)
    colours = ["#555555" if value <= best * 1.005 else "#bbbbbb" for value in values]
    axes.barh(range(len(rows)), values, height=0.76, color=colours)
    most = max(values) or 1.0
    for line, value in enumerate(values):
        inside = value > 0.55 * most
        axes.text(
            value - 0.03 * most if inside else value + 0.03 * most, line, text(value),
            va="center", ha="right" if inside else "left", fontsize=8,
            color="white" if inside and value <= best * 1.005 else "black",
        )  # fmt: skip
    axes.set_xlim(0, 1.02 * most)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(title, fontsize=9, loc="left", pad=6)
    _bare(axes)


def _uploads(axes: Axes, orders: Sequence[UploadOrder]) -> None:
    for order in orders:
        points = order.line.points
        times = [*(point.time_s for point in points), 1.03 * order.line.horizon_s]
        latencies = [*(point.latency_s for point in points), points[-1].latency_s]
        ours = order.name == "efficiency"
        axes.step(
            times, latencies, where="post", linewidth=2.2 if ours else 1.2,
            color=ORDER_COLOURS.get(order.name, "black"), zorder=3 if ours else 2,
            label=f"{order.name}: {seconds(order.line.mean_latency_s)} on average",
        )  # fmt: skip
    axes.set_title("While the weights upload", fontsize=9, loc="left")
    axes.set_xlabel("time since the device met the edge (s)", fontsize=9)
    axes.set_ylabel("query latency (s)", fontsize=9)
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0, right=1.03 * max(order.line.horizon_s for order in orders) or 1.0)
    axes.grid(axis="y", alpha=0.3)
    axes.tick_params(labelsize=8)
    axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _bare(axes: Axes) -> None:
    for side in ("top", "right", "bottom", "left"):
        axes.spines[side].set_visible(False)
