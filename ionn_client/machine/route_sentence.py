"""A query's route in a sentence: which layers run where, and why."""

from __future__ import annotations

from collections.abc import Callable, Collection

from ionn_client.quantities import byte_count, joules, seconds
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
    return f"edge runs {', '.join(pieces)}; {_saves(chosen, here)}"


def _saves(chosen: Route, here: Route) -> str:
    """Of the two, where joules count as well, one may be what the other costs."""
    text = _less(here.latency_s - chosen.latency_s, seconds)
    if here.energy_J is None or chosen.energy_J is None:
        return text
    return f"{text}, {_less(here.energy_J - chosen.energy_J, joules)}"


def _less(saved: float, quantity: Callable[[float], str]) -> str:
    return f"saves {quantity(saved)}" if saved >= 0 else f"costs {quantity(-saved)} more"


def _crossing(chosen: CutCoding) -> str:
    coding = "" if chosen.coding == "raw" else f" as {chosen.coding}"
    return f"{byte_count(chosen.bytes)}{coding}"
