"""A query's route in a sentence: which layers run where, and why."""

from __future__ import annotations

from collections.abc import Callable, Collection

from layergraph import LayerGraph
from planner import CutCoding, Route


def route_sentence(
    graph: LayerGraph,
    chosen: Route,
    here: Route,
    uploaded: Collection[int],
    up_coding: Callable[[int], CutCoding],
    down_coding: Callable[[int], CutCoding],
) -> str:
    """Which layers run where on the `chosen` route, and what that saves over `here`, the client's.

    The codings are those of a cut that goes up, or comes down.
    """
    edge = [part for part in chosen.ranges if part.where == "edge"]
    if not edge:
        if not uploaded:
            return "all here: no layer is on the edge yet"
        more = "" if here.energy_J is None else ", or draw more"
        return f"all here: sending would take longer than computing{more}"
    pieces = []
    for part in edge:
        first, last = graph.layers[part.start].name, graph.layers[part.stop - 1].name
        name = first if part.stop - part.start == 1 else f"{first}..{last}"
        up, down = up_coding(part.start), down_coding(part.stop)
        pieces.append(f"{name} ({_crossing(up)} up, {_crossing(down)} down)")
    return f"edge runs {', '.join(pieces)}; saves {_saved(chosen, here)}"


def _saved(chosen: Route, here: Route) -> str:
    saved_s = f"{here.latency_s - chosen.latency_s:.2f} s"
    if here.energy_J is None or chosen.energy_J is None:
        return saved_s
    return f"{saved_s}, {here.energy_J - chosen.energy_J:.2f} J"


def _crossing(chosen: CutCoding) -> str:
    coding = "" if chosen.coding == "raw" else f" as {chosen.coding}"
    return f"{_size(chosen.bytes)}{coding}"


def _size(count: float) -> str:
    return f"{count / 1e3:.0f} KB" if count < 1e6 else f"{count / 1e6:.1f} MB"
