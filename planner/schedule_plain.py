"""The parts of a schedule cache as plain data: placements, and the tree of its cells.

Whatever is not a plain form of one is refused with ValueError.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from planner.prices import SAME, Placement, Where
from planner.region import is_number
from planner.schedule_cells import MOST_CELLS, Cell, Fork, Node, Point, Solver


def placement_to_plain(placement: Placement) -> list[int]:
    """The cuts where the sides change, from the client on."""
    return [i for i, (a, b) in enumerate(pairwise(("client", *placement))) if a != b]


def section(given: object, name: str, kind: type) -> Any:
    if not isinstance(given, kind):
        raise ValueError(f"{name} is a {kind.__name__}, not {type(given).__name__}")
    return given


def placement_from_plain(given: object, n: int, available: Sequence[bool] | None) -> Placement:
    cuts = section(given, "a schedule", list)
    if not all(type(cut) is int and 0 <= cut < n for cut in cuts) or cuts != sorted(set(cuts)):
        raise ValueError(f"a schedule is cuts from 0 to {n - 1} that go up, not {cuts!r:.80}")
    sides: list[Where] = []
    where: Where = "client"
    for start, stop in pairwise((0, *cuts, n)):
        sides += [where] * (stop - start)
        where = "edge" if where == "client" else "client"
    if available is not None and any(
        side == "edge" and not may for side, may in zip(sides, available, strict=True)
    ):
        raise ValueError("a schedule has layers on the edge that are not available there")
    return tuple(sides)


def tree_to_plain(root: Node, axes: Sequence[str], number: Mapping[int, int]) -> list[list[object]]:
    """Nodes, parents first: [axis, at] for a split, [schedules, gaps, share] for a cell.

    Gaps are by how much the first schedule misses the best at each corner, none where it never
    does; the share is how much of the price can be regret. `number`: of each schedule in the plain
    form.
    """
    nodes: list[list[object]] = []
    stack = [root]
    while stack:
        node = stack.pop()
        if isinstance(node, Fork):
            nodes.append([axes[node.axis], node.at])
            stack += [node.high, node.low]
        else:
            gaps = [a - b for a, b in zip(node.prices[0], node.least, strict=True)]
            schedules = [number[schedule] for schedule in node.schedules]
            nodes.append([schedules, gaps if any(gaps) else [], node.share])
    return nodes


def tree_from_plain(
    given: Sequence[object], axes: Sequence[str], solver: Solver, numbers: Sequence[int]
) -> Node:
    if len(given) > 2 * MOST_CELLS:
        raise ValueError(f"nodes are at most {2 * MOST_CELLS}, not {len(given)}")
    parts: list[Cell | tuple[int, float]] = []
    boxes = [(solver.low, solver.high)]
    for entry in given:
        if not boxes:
            raise ValueError("nodes go on after the last cell")
        low, high = boxes.pop()
        node = section(entry, "a node", list)
        if len(node) == 2 and isinstance(node[0], str):
            axis, at = _split(node, axes, low, high)
            boxes.append(((*low[:axis], at, *low[axis + 1 :]), high))
            boxes.append((low, (*high[:axis], at, *high[axis + 1 :])))
            parts.append((axis, at))
        else:
            parts.append(_cell(node, low, high, solver, numbers))
    if boxes:
        raise ValueError("nodes end before the last cell")
    roots: list[Node] = []
    for part in reversed(parts):
        roots.append(part if isinstance(part, Cell) else Fork(*part, roots.pop(), roots.pop()))
    return roots[0]


def _split(node: Sequence[Any], axes: Sequence[str], low: Point, high: Point) -> tuple[int, float]:
    name, at = node
    if name not in axes:
        raise ValueError(f"a node is split along {name!r:.40}, which is not an axis")
    axis = axes.index(name)
    if not is_number(at) or not low[axis] < at < high[axis]:
        raise ValueError(f"a node is split at {at!r:.40}, outside of {low[axis]}..{high[axis]}")
    return axis, float(at)


def _cell(
    node: Sequence[Any], low: Point, high: Point, solver: Solver, numbers: Sequence[int]
) -> Cell:
    if len(node) != 3:
        raise ValueError(f"a node that is a cell has schedules, gaps and share: {node!r:.80}")
    chosen, gaps = section(node[0], "schedules", list), section(node[1], "gaps", list)
    wrong = [i for i in chosen if type(i) is not int or not 0 <= i < len(numbers)]
    if wrong or not 1 <= len(chosen) <= 2:
        raise ValueError(f"a cell has one or two of {len(numbers)} schedules, not {chosen!r:.80}")
    share = node[2]
    if not is_number(share) or share > 1:
        raise ValueError(f"share is a number from 0 to 1, not {share!r:.40}")
    schedules = [numbers[i] for i in chosen]
    prices = solver.corner_prices(low, high, schedules)
    if len(gaps) not in (0, prices.shape[1]):
        raise ValueError(f"a cell has {prices.shape[1]} gaps or none, not {len(gaps)}")
    if not all(is_number(gap) for gap in gaps):
        raise ValueError(f"gaps are finite numbers from 0, not {gaps!r:.80}")
    least = prices[0] - np.array(gaps or 0.0)
    if (least < 0).any() or (least > prices * (1 + SAME)).any():
        raise ValueError(f"gaps leave a least price that no schedule can have: {gaps!r:.80}")
    return solver.priced(low, high, schedules, least, float(share))
