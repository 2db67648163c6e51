"""In which order the layers of one block are uploaded: dynamic programmes over intervals.

A block of k layers can grow from one layer outwards, so that what is there is an interval, or from
its ends inwards, so that what is missing is one; the latter pays where the narrow cuts lie at both
ends, as in encoders with decoders. Of either kind there are 2^(k-1) orders. Each programme finds
the one with the least area under the latency curve (latency times bytes) in O(k^2).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from planner.costs import Floats


def outward_order(
    now_s: float, enter: Floats, leave: Floats, sizes: Floats
) -> tuple[float, list[int]]:
    """The least area of the orders that grow outwards, and such an order of 0..k-1.

    A query takes `now_s` at first, and `enter[i] + leave[j]` with layers i..j on the edge.
    """
    count = len(sizes)
    latency, area = np.full(count + 1, now_s), np.zeros(count + 1)
    leftmost_last: list[NDArray[np.bool_]] = []
    for length in range(1, count + 1):
        intervals = count - length + 1
        # The last one travels at the latency of the interval without it.
        left = area[1:] + latency[1:] * sizes[:intervals]
        right = area[:-1] + latency[:-1] * sizes[length - 1 :]
        leftmost_last.append(left < right)
        area = np.minimum(left, right)
        whole = enter[:intervals] + leave[length - 1 :]
        latency = np.minimum(np.minimum(latency[1:], latency[:-1]), whole)
    order, first, stop = [], 0, count
    for is_left in reversed(leftmost_last):
        if is_left[first]:
            order.append(first)
            first += 1
        else:
            stop -= 1
            order.append(stop)
    return float(area[0]), order[::-1]


def inward_order(enter: Floats, leave: Floats, sizes: Floats) -> tuple[float, list[int]]:
    """The least area of the orders that grow inwards, and such an order of 0..k-1.

    A query takes `enter[i] + leave[j]` with layers i..j missing.
    """
    count = len(sizes)
    area = np.zeros(1)
    was_left: list[NDArray[np.bool_]] = []
    for length in range(count, 0, -1):
        intervals = count - length + 1
        latency = enter[:intervals] + leave[length - 1 :]
        left = np.concatenate([[np.inf], area + latency * sizes[:intervals]])
        right = np.concatenate([area + latency * sizes[length - 1 :], [np.inf]])
        was_left.append(left < right)
        area = np.minimum(left, right)
    first = int(area.argmin())
    least, order = float(area[first]), []
    for missing, is_left in enumerate(reversed(was_left)):
        if is_left[first]:
            first -= 1
            order.append(first)
        else:
            order.append(first + missing)
    return least, order[::-1]
