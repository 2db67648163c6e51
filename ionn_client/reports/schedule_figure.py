"""Draws what `ionn plan` compares: schedules as rows of cells, latency and energy, uploads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ionn_client.quantities import joules, seconds
from ionn_client.reports.cells import CLIENT, EDGE, MIXED, columns, folded
from ionn_client.reports.comparison import LIMITS, OURS, Planned
from ionn_client.reports.drawing import Axes, Patch, Rectangle, pyplot
from ionn_client.reports.places import check_folder_of, check_writable
from ionn_client.reports.upload_orders import UploadOrder

COLOURS = {CLIENT: "#4c78b0", EDGE: "#57a773", MIXED: "#b59a3d"}
MEANING = {CLIENT: "client", EDGE: "edge", MIXED: "some of each"}
ORDER_COLOURS = {
    "efficiency": "#1b8a4b", "emdl": "#b5484a", "ionn K=0.1": "#a9bfe0", "ionn K=0.5": "#3f6fb5",
    "ionn K=0.9": "#7d9bcc", "front-to-back": "#8a4bb5", "all-at-once": "#c26a1c",
}  # fmt: skip
FORMATS = (".png", ".pdf", ".svg")
# More cells have no room for their letters; further layers share them.
MOST_CELLS = 32


def check_picture(path: Path) -> None:
    """ValueError unless a picture can be written there."""
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"--figure is a file ending in {', '.join(FORMATS)}, not {path}")
    check_writable("--figure", check_folder_of("--figure", path))


def draw_plan(
    compared: Sequence[Planned],
    orders: Sequence[UploadOrder],
    names: Sequence[str],
    title: str,
    path: Path,
    marks: Sequence[tuple[float, str]] = (),
    *,
    by_energy: bool = False,
) -> None:
    """One row per planner, cells beside bars, and below what queries take while uploading.

    by_energy: draw the joules of queries there, rather than their seconds. Nothing is drawn there
    without orders.
    marks: moments since the device met the edge, and what happens then.
    """
    rows = [row for row in compared if row.route is not None]
    energies = [row.route.energy_J for row in rows if row.route and row.route.energy_J is not None]
    bars = 2 if energies else 1
    cells_wide = min(11.0, max(5.0, 0.36 * len(names)))
    shown = columns([row.letters for row in rows], MOST_CELLS)
    longest = max((len(_column(names, *span)) for span in shown), default=0)
    high = 0.36 * len(rows)
    below = 2.6 if orders else 0.01
    figure = pyplot.figure(
        figsize=(cells_wide + 2.1 * bars + 2.2, high + below + 1.0 + 0.05 * longest)
    )
    grid = figure.add_gridspec(
        2, 1 + bars, height_ratios=[high, below], width_ratios=[cells_wide] + [2.1] * bars,
        hspace=(0.75 + 0.062 * longest) / (0.5 * (high + below)), wspace=0.06,
    )  # fmt: skip
    _cells(figure.add_subplot(grid[0, 0]), rows, names, shown)
    latencies = [row.route.latency_s if row.route else 0.0 for row in rows]
    _bars(figure.add_subplot(grid[0, 1]), rows, latencies, "latency", seconds)
    if energies:
        _bars(figure.add_subplot(grid[0, 2]), rows, energies, "client's energy", joules)
    if orders:
        _uploads(figure.add_subplot(grid[1, :]), orders, marks, by_energy=by_energy)
    above = figure.subplotpars.top + 0.36 / figure.get_figheight()  # the legend is between
    figure.suptitle(title, fontsize=11, x=0.125, y=above, ha="left", va="bottom")
    figure.savefig(path, dpi=130, bbox_inches="tight", pad_inches=0.15)
    pyplot.close(figure)


def _cells(
    axes: Axes,
    rows: Sequence[Planned],
    names: Sequence[str],
    shown: Sequence[tuple[int, int]],
) -> None:
    for line, row in enumerate(rows):
        for x, letter in enumerate(folded(row.letters, shown)):
            axes.add_patch(Rectangle((x, line - 0.38), 1, 0.76, color=COLOURS[letter], linewidth=0))
            axes.text(x + 0.5, line, letter, ha="center", va="center", fontsize=7, color="white")
    for cut in range(1, len(shown)):
        axes.axvline(cut, color="white", linewidth=1)
    axes.set_xlim(0, len(shown))
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_yticks(range(len(rows)), [_label(row) for row in rows], fontsize=9)
    for label, row in zip(axes.get_yticklabels(), rows, strict=True):
        label.set_fontweight("bold" if row.planner == OURS else "normal")
    axes.set_xticks(
        [x + 0.5 for x in range(len(shown))], [_column(names, *span) for span in shown],
        rotation=60, ha="right", fontsize=7, rotation_mode="anchor",
    )  # fmt: skip
    axes.tick_params(length=0)
    _bare(axes)
    seen = {letter for row in rows for letter in folded(row.letters, shown)}
    patches = [Patch(color=COLOURS[c], label=f"{c}: {MEANING[c]}") for c in MEANING if c in seen]
    if broken := dict.fromkeys(LIMITS[name][0] for row in rows for name in row.broken):
        patches.append(Patch(alpha=0, label=f"* over the {' or the '.join(broken)}"))
    axes.legend(
        handles=patches, loc="lower left", bbox_to_anchor=(0, 1), ncols=4, fontsize=8,
        frameon=False,
    )  # fmt: skip


def _column(names: Sequence[str], start: int, stop: int) -> str:
    return names[start] if stop - start == 1 else f"{names[start]} +{stop - start - 1}"


def _label(row: Planned) -> str:
    return f"{row.planner} *" if row.broken else row.planner


def _bars(
    axes: Axes,
    rows: Sequence[Planned],
    values: Sequence[float],
    title: str,
    text: Callable[[float], str],
) -> None:
    kept = [value for row, value in zip(rows, values, strict=True) if not row.broken]
    best = min(kept, default=0.0)
    dark = [
        not row.broken and value <= best * 1.005 for row, value in zip(rows, values, strict=True)
    ]
    colours = ["#555555" if is_dark else "#bbbbbb" for is_dark in dark]
    axes.barh(range(len(rows)), values, height=0.76, color=colours)
    most = max(values) or 1.0
    for line, value in enumerate(values):
        inside = value > 0.55 * most
        axes.text(
            value - 0.03 * most if inside else value + 0.03 * most, line, text(value),
            va="center", ha="right" if inside else "left", fontsize=8,
            color="white" if inside and dark[line] else "black",
        )  # fmt: skip
    axes.set_xlim(0, 1.02 * most)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(title, fontsize=9, loc="left", pad=6)
    _bare(axes)


def _uploads(
    axes: Axes,
    orders: Sequence[UploadOrder],
    marks: Sequence[tuple[float, str]],
    *,
    by_energy: bool,
) -> None:
    for order in orders:
        times = [*(point.time_s for point in order.line.points), 1.03 * order.line.horizon_s]
        values, mean = _values(order, by_energy)
        ours = order.name == "efficiency"
        axes.step(
            times, [*values, values[-1]], where="post", linewidth=2.2 if ours else 1.2,
            color=ORDER_COLOURS.get(order.name, "black"), zorder=3 if ours else 2,
            label=f"{order.name}: {mean} on average",
        )  # fmt: skip
    axes.set_title("While the weights upload", fontsize=9, loc="left")
    axes.set_xlabel("time since the device met the edge (s)", fontsize=9)
    what = "client's energy for a query (J)" if by_energy else "query latency (s)"
    axes.set_ylabel(what, fontsize=9)
    axes.set_ylim(bottom=0)
    end_s = 1.03 * max(order.line.horizon_s for order in orders) or 1.0
    axes.set_xlim(left=0, right=end_s)
    for time_s, text in marks:
        if time_s <= end_s:
            axes.axvline(time_s, color="#444444", linestyle=":", linewidth=1)
            # Away from the nearer end, where the lines are steep.
            early = time_s < end_s / 2
            axes.annotate(
                text, (time_s, 0.03), xycoords=("data", "axes fraction"), rotation=90, fontsize=7,
                xytext=(3 if early else -3, 0), textcoords="offset points", zorder=4,
                ha="left" if early else "right",
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
            )  # fmt: skip
    axes.grid(axis="y", alpha=0.3)
    axes.tick_params(labelsize=8)
    axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _values(order: UploadOrder, by_energy: bool) -> tuple[Sequence[float], str]:
    if by_energy and order.joules is not None:
        return order.joules.at_points, joules(order.joules.mean_J)
    return [point.latency_s for point in order.line.points], seconds(order.line.mean_latency_s)


def _bare(axes: Axes) -> None:
    for side in ("top", "right", "bottom", "left"):
        axes.spines[side].set_visible(False)
