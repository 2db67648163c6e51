"""What `ionn plan` shows in a terminal: tables, schedules as rows of cells, sentences."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ionn_client.quantities import bit_rate, byte_count, joules, seconds
from ionn_client.reports.cells import CLIENT, EDGE, MIXED, columns, folded, layer_span, segments
from ionn_client.reports.comparison import LIMITS, OURS, Planned
from ionn_client.reports.schedule_file import Schedules
from ionn_client.reports.upload_orders import UploadOrder
from planner.objective import Limit

STYLES = {CLIENT: "white on blue", EDGE: "black on green", MIXED: "black on yellow"}


def planner_table(
    rows: Sequence[Planned],
    *,
    edge_limited: bool,
    title: str = "One query, when every weight is on the edge",
) -> Table:
    """Every planner's schedule in numbers; how long the edge is busy only where that is limited."""
    table = plain_table(title)
    table.add_column("planner", overflow="fold")
    with_energy = any(row.route is not None and row.route.energy_J is not None for row in rows)
    with_weights = any(row.weight_bytes for row in rows)
    headings = ["latency", "energy", "up", "down", "of it weights", "on edge", "planned"]
    shown = [True, with_energy, True, True, with_weights, edge_limited, True]
    for heading in compress(headings, shown):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        style = "bold" if row.planner == OURS else None
        table.add_row(row.planner, *compress(_numbers(row), shown), style=style)
    return table


def _numbers(row: Planned) -> list[str]:
    if row.route is None:
        return ["none", *[""] * 5, seconds(row.cpu_s)]
    energy_J = row.route.energy_J
    return [
        seconds(row.route.latency_s),
        "" if energy_J is None else joules(energy_J),
        byte_count(row.up_bytes),
        byte_count(row.down_bytes),
        byte_count(row.weight_bytes),
        seconds(row.edge_s),
        seconds(row.cpu_s),
    ]


def limit_lines(rows: Sequence[Planned], limits: Sequence[Limit]) -> list[str]:
    """What was limited, who keeps it, and why some found nothing."""
    lines = []
    for limit in limits:
        what, unit = LIMITS[limit.name]
        exceeded = [row.planner for row in rows if limit.name in row.broken]
        by = "; ".join(exceeded) or "none"
        lines.append(f"Over the {what} of {unit(limit.at_most)}: {by}.")
    notes = dict.fromkeys(row.note for row in rows if row.route is None)
    for note in notes:
        none = "; ".join(row.planner for row in rows if row.route is None and row.note == note)
        lines.append(f"No schedule from {none}: {note}.")
    lines += [f"{row.planner}: {row.note}." for row in rows if row.route is not None and row.note]
    return lines


def cache_sentence(schedules: Schedules) -> str:
    """What a cache holds for which conditions, and how near the best its schedules are."""
    cache, here = schedules.cache, schedules.lookup()
    region = cache.region
    ups, downs = ([bit_rate(rate) for rate in ends] for ends in (region.up_Bps, region.down_Bps))
    came = "read" if schedules.solved_s is None else f"solved in {seconds(schedules.solved_s)}"
    counted = "1 schedule" if cache.schedules == 1 else f"{cache.schedules} schedules"
    held = "1 cell" if cache.cells == 1 else f"{cache.cells} cells"
    share = here.regret / here.price if here.price else 0.0
    bound = f"costs at most {share:.2%} more than the best" if share else "is proved the best"
    return (
        f"Cache {schedules.path} ({came}): {counted} in {held}, for {ups[0]} to {ups[1]} up,"
        f" {downs[0]} to {downs[1]} down, round trips up to {seconds(region.rtt_s[1])},"
        f" server loads up to {region.server_load[1]:g}; limits are not kept. For this link it"
        f" {bound}; anywhere it costs at most {cache.regret:.2%} more."
    )


def plain_table(title: str) -> Table:
    """An empty table with a bold title and no frame."""
    return Table(
        title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD,
        show_edge=False, pad_edge=False,
    )  # fmt: skip


def upload_table(orders: Sequence[UploadOrder]) -> Table:
    """Upload orders: partitions, and what queries take meanwhile and then."""
    table = plain_table("While the weights upload")
    headings = ["upload order", "partitions", "mean latency", "then"]
    if any(order.joules for order in orders):
        headings += ["mean energy", "then"]
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "upload order" else "right")
    for order in orders:
        mean_s, then_s = order.line.mean_latency_s, order.line.points[-1].latency_s
        cells = [str(len(order.plan.partitions)), seconds(mean_s), seconds(then_s)]
        if order.joules is not None:
            cells += [joules(order.joules.mean_J), joules(order.joules.at_points[-1])]
        table.add_row(order.name, *cells)
    return table


def show_schedules(console: Console, rows: Sequence[Planned], names: Sequence[str]) -> None:
    """A row of cells for each planner that found a schedule, and which layers the parts are."""
    scheduled = [row for row in rows if row.route is not None]
    letters = [row.letters for row in scheduled]
    label = max(len(row.planner) for row in scheduled) + 2
    shown = columns(letters, max(8, console.width - label))
    wide = max(1, min(4, (console.width - label) // max(1, len(shown))))
    console.print(_legend(len(names), len(shown), letters, shown))
    for row in scheduled:
        line = Text(row.planner.ljust(label))
        for letter in folded(row.letters, shown):
            line.append(letter.center(wide), STYLES[letter])
        console.print(line, overflow="crop", no_wrap=True)
    parts = segments(letters)
    if len(parts) > 1:
        spans = "; ".join(layer_span(names, start, stop) for start, stop in parts)
        console.print(f"The parts: {spans}.", highlight=False)


def _legend(
    layers: int, cells: int, letters: Sequence[str], shown: Sequence[tuple[int, int]]
) -> Text:
    text = Text("Where the layers run: ")
    text.append(f" {CLIENT} ", STYLES[CLIENT]).append(" client, ")
    text.append(f" {EDGE} ", STYLES[EDGE]).append(" edge")
    if any(MIXED in folded(row, shown) for row in letters):
        text.append(", ").append(f" {MIXED} ", STYLES[MIXED]).append(" some of each")
    most = max((stop - start for start, stop in shown), default=1)
    each = "one cell a layer" if cells == layers else f"a cell stands for up to {most} layers"
    return text.append(f"; {layer_count(layers)}, {each}.")


def layer_count(layers: int) -> str:
    """ "1 layer", "9 layers" """
    return "1 layer" if layers == 1 else f"{layers} layers"
