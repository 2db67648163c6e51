"""What `planner.explain` found, in sentences: why layers run where, and what would move them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby

from ionn_client.quantities import bit_rate, joules, seconds, times
from ionn_client.reports.cells import layer_span
from ionn_client.reports.comparison import LIMITS, Problem, crossings
from planner.changes import Change
from planner.constrained import cheapest_within
from planner.explain import Explanation, explain
from planner.ilp import ilp_placement
from planner.objective import Infeasible, Limit, Objective, battery
from planner.prices import Placement
from planner.reasons import Reason
from planner.route import priced

SIDES = {"client": "the client", "edge": "the edge"}
# "when ... below", "when ... above"
_DIALS: dict[str, tuple[str, str, Callable[[float], str]]] = {
    "up_Bps": ("the uplink drops below", "the uplink rises above", bit_rate),
    "down_Bps": ("the downlink drops below", "the downlink rises above", bit_rate),
    "rtt_s": ("the round trip drops below", "the round trip rises above", seconds),
    "server_load": (
        "the edge takes less than {} as long as now",
        "the edge takes more than {} as long as now",
        times,
    ),
    "device_speed": (
        "the device computes at less than {} its speed",
        "the device computes at more than {} its speed",
        times,
    ),
    "s_per_J": ("a joule is worth less than", "a joule is worth more than", seconds),
}


def explained(problem: Problem) -> Explanation:
    """Why each layer is where the shortest path has it, and what would move it."""
    return explain(problem.costs, problem.link, None, problem.objective)


def reason_sentences(found: Explanation, names: Sequence[str], objective: Objective) -> list[str]:
    """A sentence for each run of layers whose next best way is the same."""
    return [sentence for _, sentence in _reasons(found, names, objective)]


def closest_sentences(
    found: Explanation, names: Sequence[str], objective: Objective, most: int
) -> list[str]:
    """The `most` of them whose next best way costs least, in the order of the layers."""
    told = _reasons(found, names, objective)
    kept = sorted(sorted(range(len(told)), key=lambda i: told[i][0])[:most])
    return [told[i][1] for i in kept]


def _reasons(
    found: Explanation, names: Sequence[str], objective: Objective
) -> list[tuple[float, str]]:
    groups = (
        list(group) for _, group in groupby(found.reasons, key=lambda r: (r.where, r.start, r.stop))
    )
    return [(min(r.extra for r in group), _why(group, names, objective)) for group in groups]


def change_sentences(found: Explanation, names: Sequence[str]) -> list[str]:
    """A sentence for each dial and direction in which the plan changes."""
    if not found.changes:
        return ["No rate, round trip, load or speed would change this plan."]
    return [_when(change, found.placement, names) for change in found.changes]


def _why(reasons: Sequence[Reason], names: Sequence[str], objective: Objective) -> str:
    first, least = reasons[0], min(reasons, key=lambda reason: reason.extra)
    here = _capital(layer_span(names, first.layer, reasons[-1].layer + 1))
    there = SIDES["edge" if first.where == "client" else "client"]
    runs, it = ("runs", "it") if len(reasons) == 1 else ("run", "them")
    if not first.uploaded:
        # A plan takes all weights for uploaded, but those of layers that are kept.
        return f"{here} {runs} on {SIDES[first.where]}, as was asked."
    moved = "" if (first.start, first.stop) == (first.layer, reasons[-1].layer + 1) else (
        f", best together as {layer_span(names, first.start, first.stop)}"
    )  # fmt: skip
    return (
        f"{here} {runs} on {SIDES[first.where]}: with {it} on {there}{moved},"
        f" a query would {_costs_more(least, objective)}."
    )


def _costs_more(reason: Reason, objective: Objective) -> str:
    if reason.extra <= 0:
        return "cost the same"
    unit = joules if not objective.s_weight else seconds
    parts = [
        f"{what} {unit(abs(value))} {'more' if value > 0 else 'less'}"
        for what, value in (("computing", reason.computing), ("the link", reason.transfer))
        if abs(value) > 1e-3 * abs(reason.extra)
    ]
    extra = f"take {unit(reason.extra)}"
    if not objective.s_weight:
        longer = f"{extra} more of the battery"
    elif objective.J_weight:
        longer = f"cost {unit(reason.extra)} more, in time and in joules at their worth"
    else:
        longer = f"{extra} longer"
    return f"{longer} ({', '.join(parts)})" if len(parts) > 1 else longer


def _when(change: Change, placement: Placement, names: Sequence[str]) -> str:
    below, above, text = _DIALS[change.dial]
    phrase, value = above if change.rises else below, text(change.at)
    told = phrase.format(value) if "{}" in phrase else f"{phrase} {value}"
    now = "" if "{}" in phrase else f" (now {text(change.now)})"
    return f"When {told}{now}: {moves(placement, change.placement, names)}."


def moves(old: Placement, new: Placement, names: Sequence[str]) -> str:
    """What changes sides from one placement to another, in words."""
    if not crossings(new)[0]:
        return "every layer runs on the client"
    if "client" not in new:
        return "every layer runs on the edge"
    parts = []
    start = 0
    for pair, group in groupby(zip(old, new, strict=True)):
        stop = start + len(list(group))
        if pair[0] != pair[1]:
            parts.append(f"{layer_span(names, start, stop)} to {SIDES[pair[1]]}")
        start = stop
    return "move " + ", ".join(parts) if parts else "nothing moves"


def battery_sentence(problem: Problem, placement: Placement, names: Sequence[str]) -> str | None:
    """What a budget of joules would change; None where the device's power is not known."""
    power = problem.power
    if power is None:
        return None
    costs, link = problem.costs, problem.link
    needed_J = priced(costs, link, placement, problem.objective).energy_J
    if not needed_J:
        return None
    told = f"When a query may take less than {joules(needed_J)} of the battery:"
    others = tuple(limit for limit in problem.limits if limit.name != "battery")
    below: Limit = battery(costs, link, power, needed_J * (1 - 1e-6))
    prices = problem.objective.prices(costs, link)
    try:
        then = ilp_placement(prices, (*others, below)) if others else cheapest_within(prices, below)
    except Infeasible:
        return f"{told} no schedule is left."
    return f"{told} {moves(placement, then, names)}."


def limit_sentences(problem: Problem, placement: Placement) -> list[str]:
    """What each limit that `placement` exceeds would have to be, for it to be allowed."""
    sentences = []
    for limit in problem.limits:
        if not limit.allows(placement):
            what, unit = LIMITS[limit.name]
            needed, now = unit(limit.prices.along(placement)), unit(limit.at_most)
            sentences.append(
                f"The best schedule without limits takes {needed}, the {what} is {now}."
            )
    return sentences


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
