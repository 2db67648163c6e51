"""The live view of a session: a rich panel on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ionn_client.quantities import byte_count, joules
from ionn_client.quantities import seconds as three_digits
from ionn_client.scenario import EXACT, Asked
from ionn_client.status import Status

PLAIN_INTERVAL_S = 2.0


def megabytes(count: float) -> str:
    """In MB, as a count beside others is read; in less where that would show nothing."""
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else byte_count(count)


def milliseconds(seconds: float) -> str:
    """In ms, without digits that change with every query; with three where few are left."""
    if seconds < 0.0095:
        return three_digits(seconds)
    return f"{seconds * 1e3:.0f} ms" if seconds < 10 else f"{seconds:.1f} s"


def progress_line(status: Status) -> str:
    """Partitions, bytes, rate and time left in one line; an error unless the reason tells it."""
    if status.phase not in ("uploading", "ready"):
        # After a failure it is tried again by itself, whichever step that is at now.
        ended = status.phase in ("rejected", "closed")
        doing = "trying again" if status.error and not ended else status.phase
        told = not status.error or status.error in status.reason
        return doing if told else f"{doing} ({status.error})"
    parts = [
        f"partition {min(status.partitions_done + 1, status.partitions)}/{status.partitions}"
        if status.phase == "uploading"
        else f"all {status.partitions} partitions uploaded"
        if status.partitions
        else "nothing to upload",
        f"{megabytes(status.held_bytes)} of {megabytes(status.total_bytes)}",
    ]
    if status.exact_layers < status.uploaded_layers:
        parts.append(f"{status.exact_layers} of {status.uploaded_layers} layers exact")
    if status.skipped_bytes:
        parts.append(f"{megabytes(status.skipped_bytes)} were there already")
    if status.exposed_bytes:
        parts.append(
            f"{megabytes(status.exposed_bytes)} of kept layers are there from before"
            " (ionn forget deletes them)"
        )
    if status.phase == "uploading" and status.rate_Bps:
        parts.append(f"{status.rate_Bps * 8 / 1e6:.1f} Mbit/s")
    if status.time_left_s is not None:
        parts.append(f"{status.time_left_s:.0f} s left")
    return ", ".join(parts)


def place(query: Asked) -> str:
    """Where it was answered."""
    return "client and edge" if query.served_by == "both" else query.served_by


def query_line(asked: Sequence[Asked]) -> str:
    """Number of queries, last and mean latency, and joules where they are known, in one line."""
    if not asked:
        return "no query yet"
    last = asked[-1]
    mean_s = sum(query.latency_s for query in asked) / len(asked)
    text = (
        f"query {len(asked)}: {milliseconds(last.latency_s)} on {place(last)}"
        f" (predicted {milliseconds(last.predicted_s)}), mean {milliseconds(mean_s)}"
    )
    if last.energy_J is not None:
        text = f"{text}, {joules(last.energy_J)}"
    if last.battery_J is not None:
        text = f"{text} ({joules(last.battery_J)} of the battery left)"
    if last.precision != EXACT:
        text = f"{text}, at {last.precision}"
    if last.lossy:
        text = f"{text}, its tensors coded with loss"
    return f"{text}; fell back: {last.fallback_reason}" if last.fallback_reason else text


class View:
    """Shows a session's progress while a scenario runs; a context manager."""

    def __init__(self, title: str, console: Console, *, quiet: bool = False) -> None:
        self._title = title
        self._console = console
        self._quiet = quiet
        self._live: Live | None = None
        self._next_line_at = 0.0
        self._phase = ""

    def __enter__(self) -> Self:
        if not self._quiet and self._console.is_terminal:
            self._live = Live(console=self._console, refresh_per_second=8)
            self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.__exit__(kind, error, trace)

    def show(self, status: Status, asked: Sequence[Asked]) -> None:
        if self._quiet:
            return
        if self._live is not None:
            self._live.update(self._panel(status, asked))
        elif time.monotonic() >= self._next_line_at or status.phase != self._phase:
            self._phase = status.phase
            self._next_line_at = time.monotonic() + PLAIN_INTERVAL_S
            lines = (progress_line(status), status.reason, query_line(asked))
            # What others call themselves is no markup.
            self._console.print(" | ".join(lines), soft_wrap=True, highlight=False, markup=False)

    def _panel(self, status: Status, asked: Sequence[Asked]) -> RenderableType:
        rows = Table.grid(padding=(0, 2))
        rows.add_column(style="bold")
        rows.add_column()
        rows.add_row("upload", Text(progress_line(status)))
        rows.add_row("", ProgressBar(max(status.total_bytes, 1), status.held_bytes, width=48))
        rows.add_row("route", Text(status.reason))
        rows.add_row("", layer_cells(status, 48))
        rows.add_row("queries", Text(query_line(asked)))
        return Panel(Group(rows), title=Text(self._title), title_align="left")


def layer_cells(status: Status, width: int) -> Text:
    """The layers as a row of cells: where each would run now."""
    layers = max((part.stop for part in status.route), default=0)
    places = [part.where for part in status.route for _ in range(part.start, part.stop)]
    text = Text()
    for cell in range(min(width, layers)):
        on_edge = places[cell * layers // min(width, layers)] == "edge"
        text.append("▇" if on_edge else "▁", "green" if on_edge else "yellow")
    return text.append("  ▁ client ▇ edge", "dim")
