"""Schedules as rows of cells, one letter a layer, folded to the width that there is.

C: on the client, E: on the edge. Where there are more layers than columns, layers that stay
together in every row share a column first; a column whose layers differ within a row is mixed.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

CLIENT, EDGE, MIXED = "C", "E", "*"


def segments(rows: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """The maximal ranges [start, stop) of layers that change sides in none of the rows."""
    n = len(rows[0]) if rows else 0
    if any(len(row) != n for row in rows):
        raise ValueError("rows of cells are of one length")
    cuts = [0, *(i for i in range(1, n) if any(row[i] != row[i - 1] for row in rows)), n]
    return tuple(pairwise(cuts)) if n else ()


def columns(rows: Sequence[str], width: int) -> tuple[tuple[int, int], ...]:
    """The ranges [start, stop) of layers that each column shows, at most `width` of them.

    ValueError for a width below 1 and rows of different lengths.
    """
    if width < 1:
        raise ValueError(f"a row of cells has at least 1 column, not {width}")
    n = len(rows[0]) if rows else 0
    parts = segments(rows)
    if n <= width:
        return tuple((i, i + 1) for i in range(n))
    if len(parts) > width:
        return _divided(0, n, width)
    shares = [1] * len(parts)
    for _ in range(width - len(parts)):
        # The column goes where most layers share one.
        most = max(
            range(len(parts)),
            key=lambda k: (parts[k][1] - parts[k][0]) / shares[k],
        )
        shares[most] += 1
    return tuple(
        column
        for (start, stop), share in zip(parts, shares, strict=True)
        for column in _divided(start, stop, share)
    )


def folded(row: str, shown: Sequence[tuple[int, int]]) -> str:
    """A row's letters, one for each column that is shown."""
    letters = (set(row[start:stop]) for start, stop in shown)
    return "".join(letter.pop() if len(letter) == 1 else MIXED for letter in letters)


def _divided(start: int, stop: int, parts: int) -> tuple[tuple[int, int], ...]:
    cuts = [start + (stop - start) * k // parts for k in range(parts + 1)]
    return tuple((a, b) for a, b in pairwise(cuts) if a < b)


def layer_span(names: Sequence[str], start: int, stop: int) -> str:
    """Layers [start, stop) in words, counted from 1: "layer 3 (conv2)", "layers 1-6 (a to f)"."""
    if stop - start == 1:
        return f"layer {stop} ({names[start]})"
    return f"layers {start + 1}-{stop} ({names[start]} to {names[stop - 1]})"
