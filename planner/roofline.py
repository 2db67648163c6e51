"""What an operator's cost is made of: the terms that our predictor weighs.

A roofline (Williams et al., CACM 2009) bounds a time by the larger of operations over peak and
bytes over bandwidth. Summed instead of bounded, with the terms that fill pipelines and caches, it
is linear in coefficients that cannot be negative, so that small least squares problems find them:

- a launch, and every sequential step's launch;
- operations, and bytes of activations read, made, and of weights, which come from memory;
- bytes beyond what each level of cache holds, and weights that a step reads again;
- of a product of (rows, inner) by (inner, columns): its faces and edges. A kernel that loses a
  constant share of rows, columns or depth at the borders takes
  (rows + r) (columns + c) (inner + i) s, whose expansion these terms are;
- the same with dimensions rounded up to what registers hold;
- weights whose rows, or columns, lie whole pages apart: what reorders them finds sixteen lines
  where a cache of eight ways has room for eight; and rows of weights that begin within a page;
- operations by how many vectors of filters a kernel keeps in registers at once;
- elements of a pass that come from more pages than are looked up fast, from lines whole pages apart
  (all in the same few places of a cache), and in lines shorter than a vector, which are passed over
  one by one;
- of a pass, and of what a product makes before it is folded: bytes that displace each other, all
  of them where as many again fit into no cache;
- windows of a pass that are more than branch predictors remember from one query to the next;
- of a filter: operations by how often an element is used again.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from planner.work import Work

_KIB = 1024
# Where times bend on processors of the last decade: half of a core's cache, all of it, about what
# a core gets of the shared one, and about all of that.
_CACHE_BYTES = (256 * _KIB, 1024 * _KIB, 8192 * _KIB, 16384 * _KIB)
_VECTOR, _TILE, _BLOCK = 16, 64, 14
_PAGE = 4096
_REMEMBERED = 8192
# Bytes, of which some are displaced from caches before they are needed again, and all are.
_SOME_DISPLACED, _ALL_DISPLACED = _CACHE_BYTES[2], 3 * _CACHE_BYTES[2]
_FAST_PAGES = 512
# Of the 2nd cache: how large a line is, how many have room at one place, and after how many bytes
# places begin anew.
_LINE, _WAYS = 64, 8
_PLACES_BYTES = _CACHE_BYTES[1] // _WAYS
# Lines of a cache begin at so many places among numbers; vectors of filters that registers hold.
_IN_STEP, _MOST_KEPT = 4, 6


def terms(work: Work) -> tuple[float, ...]:
    """The terms of one operator, all >= 0, in an order that `TERMS` names."""
    return tuple(term(work) for term in _TERMS.values())


def _beyond(size: float, cache: int) -> float:
    return max(0.0, size - cache)


def _up(value: float, multiple: int) -> float:
    return math.ceil(value / multiple) * multiple


def _transposed(w: Work) -> bool:
    return w.kind.startswith("transposed_conv")


def _vectors(w: Work) -> float:
    """Columns, with what vectors hold of nothing: of transposed convolutions, a vector has filters.

    Those to few channels, as to an image's, compute mostly what nobody reads.
    """
    if _transposed(w):
        return _up(w.columns / w.window, _VECTOR) * w.window
    return _up(w.columns, _VECTOR)


def _channels(w: Work) -> float:
    """The depth of a product, with what vectors of channels hold of nothing."""
    window = 1.0 if _transposed(w) else w.window
    return _up(w.inner / window, _VECTOR) * window


def _kept(w: Work) -> int:
    """As many vectors of a transposed convolution's filters as registers hold and divide all."""
    vectors = max(1, math.ceil(w.columns / w.window / _VECTOR))
    return max(count for count in range(1, _MOST_KEPT + 1) if vectors % count == 0)


def _share_displaced(size: float) -> float:
    share = (size - _SOME_DISPLACED) / (_ALL_DISPLACED - _SOME_DISPLACED)
    return min(1.0, max(0.0, share))


def _displaced(size: float) -> float:
    """Of bytes that are passed over again and again, those that come from memory each time."""
    return size * _share_displaced(size)


def _unfolded(w: Work) -> float:
    """Bytes that a product makes before they are added up to a map."""
    return 4 * w.batch * w.rows * w.columns if w.kind == "transposed_conv/product" else 0.0


def _passed(w: Work) -> float:
    return _activations(w) if w.inner == 1 else 0.0


def _short(w: Work) -> float:
    """Elements in lines shorter than a vector."""
    short = w.inner == 1 and w.columns < _VECTOR
    return w.batch * w.rows * w.columns if short else 0.0


def _activations(w: Work) -> float:
    return w.read_bytes + w.made_bytes


def _paged(w: Work, elements: float) -> float:
    """Bytes of weights, if lines of so many elements lie whole pages apart."""
    return 0.0 if 4 * elements % _PAGE else w.weight_bytes


def _forgotten(w: Work) -> float:
    """Windows of a pass, less as many as a processor remembers how their branches went."""
    passes = w.window > 1 and w.inner == 1
    return _beyond(w.batch * w.rows * w.columns, _REMEMBERED) if passes else 0.0


def _scattered(w: Work) -> float:
    """Elements of a pass, by how many times more pages than are looked up fast a line is from.

    If lines are columns of what is read, as where dimensions are exchanged.
    """
    elements = w.batch * w.rows * w.columns
    pages = min(w.columns, 4 * elements / _PAGE)
    return (
        elements * math.log2(pages / _FAST_PAGES) if w.inner == 1 and pages > _FAST_PAGES else 0.0
    )


def _elements_apart(w: Work) -> float:
    """Elements of a pass over more than a few columns, if neighbours of one lie whole pages apart.

    Twice as many as have room at one place of the 1st cache.
    """
    apart = w.inner == 1 and w.rows > 0 and 4 * w.rows % _PAGE == 0 and w.columns > 2 * _WAYS
    return w.batch * w.rows * w.columns if apart else 0.0


def _crowded(w: Work) -> float:
    """Elements of a pass over columns, if the 2nd cache has no room for a line of each column.

    Lines that lie a power of two apart fall into few of its places.
    """
    if w.inner != 1 or not w.rows:
        return 0.0
    places = _PLACES_BYTES / max(_LINE, math.gcd(int(4 * w.rows), _PLACES_BYTES))
    return w.batch * w.rows * w.columns if w.columns > _WAYS * places else 0.0


def _out_of_step(w: Work) -> float:
    """Elements of many columns whose lines of a cache begin at as many places, not all at once.

    Each is waited for alone if memory has to be asked for it.
    """
    alone = w.inner == 1 and w.columns > _FAST_PAGES and w.rows % _IN_STEP
    return w.batch * w.rows * w.columns * _share_displaced(_activations(w)) if alone else 0.0


def _within_pages(w: Work) -> float:
    """Rows of a matrix that is read once, if they do not all begin where a page does."""
    once = w.kind.startswith("linear/vector") and 4 * w.inner % _PAGE
    return w.batch * w.columns if once else 0.0


def _again(w: Work) -> float:
    """Elements of a matrix that every step of several reads."""
    return w.steps * w.inner * w.columns if w.steps > 1 else 0.0


def _again_displaced(w: Work) -> float:
    return w.steps * _displaced(4 * w.inner * w.columns) if w.steps > 1 else 0.0


def _again_beyond(w: Work, cache: int) -> float:
    return w.steps * _beyond(4 * w.inner * w.columns, cache) if w.steps > 1 else 0.0


_TERMS: dict[str, Callable[[Work], float]] = {
    "launch": lambda _: 1.0,
    "operations": lambda w: w.flops,
    "bytes read": lambda w: w.read_bytes,
    "bytes of weights": lambda w: w.weight_bytes,
    "bytes made": lambda w: w.made_bytes,
    "activations beyond the 1st cache": lambda w: _beyond(_activations(w), _CACHE_BYTES[0]),
    "activations beyond the 2nd cache": lambda w: _beyond(_activations(w), _CACHE_BYTES[1]),
    "bytes made beyond the 2nd cache": lambda w: _beyond(w.made_bytes, _CACHE_BYTES[1]),
    "bytes beyond the 3rd cache": lambda w: _beyond(
        _activations(w) + w.weight_bytes, _CACHE_BYTES[2]
    ),
    "activations beyond the 4th cache": lambda w: _beyond(_activations(w), _CACHE_BYTES[3]),
    "weights beyond the 2nd cache": lambda w: _beyond(w.weight_bytes, _CACHE_BYTES[1]),
    "batch": lambda w: w.batch,
    "rows x columns": lambda w: w.batch * w.rows * w.columns,
    "inner x columns": lambda w: w.batch * w.inner * w.columns,
    "rows x inner": lambda w: w.batch * w.rows * w.inner,
    "rows": lambda w: w.batch * w.rows,
    "columns": lambda w: w.batch * w.columns,
    "inner": lambda w: w.batch * w.inner,
    "steps": lambda w: w.steps,
    "columns at each step": lambda w: w.steps * w.columns,
    "weights read again": _again,
    "weights read again beyond the 2nd cache": lambda w: _again_beyond(w, _CACHE_BYTES[1]),
    "weights read again beyond the 3rd cache": lambda w: _again_beyond(w, _CACHE_BYTES[2]),
    "weights read again beyond the 4th cache": lambda w: _again_beyond(w, _CACHE_BYTES[3]),
    "product in vectors": lambda w: w.batch * w.rows * w.inner * _vectors(w),
    "product in tiles": lambda w: w.batch * w.rows * w.inner * _up(w.columns, _TILE),
    "product in blocks of rows": lambda w: w.batch * _up(w.rows, _BLOCK) * w.inner * w.columns,
    "product in vectors of channels": lambda w: w.batch * w.rows * w.columns * _channels(w),
    "operations by vectors kept": lambda w: w.flops / _kept(w) if _transposed(w) else 0.0,
    "rows of weights within pages": _within_pages,
    "weights in rows of whole pages": lambda w: _paged(w, w.inner),
    "weights in columns of whole pages": lambda w: _paged(w, w.columns),
    "window of each byte made": lambda w: w.made_bytes * w.window,
    "side of the window of each byte made": lambda w: w.made_bytes * math.sqrt(w.window),
    "elements of many pages": _scattered,
    "elements of lines whole pages apart": _elements_apart,
    "elements of more lines than the 2nd cache has places for": _crowded,
    "elements of many pages out of step": _out_of_step,
    "windows beyond those remembered": _forgotten,
    "operations in windows beyond those remembered": lambda w: _forgotten(w) * w.window,
    "operations by window": lambda w: w.flops / w.window,
    "operations by the window's side": lambda w: w.flops / math.sqrt(w.window),
    "windows read": lambda w: w.batch * w.rows * w.inner / w.stride,
    "elements of short lines": _short,
    "activations displaced": lambda w: _displaced(_passed(w)),
    # Where a copy in another order is made on the way.
    "activations displaced by twice as many": lambda w: _displaced(2 * _passed(w)),
    "weights read again displaced": _again_displaced,
    "products displaced": lambda w: _displaced(_unfolded(w)),
}
TERMS = tuple(_TERMS)
