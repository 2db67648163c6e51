import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.roofline import TERMS, terms
from planner.work import OperatorWork

sizes = st.floats(0, 1e12)
works = st.builds(
    OperatorWork, st.just("conv"), *[sizes] * 8, sizes, st.floats(1, 1e4), st.floats(1, 1e4)
)


@given(works)
def test_terms_are_finite_and_never_negative(work):
    values = terms(work)
    assert len(values) == len(TERMS)
    assert all(math.isfinite(value) and value >= 0 for value in values)


def named(work):
    return dict(zip(TERMS, terms(work), strict=True))


def test_terms_of_a_product():
    # 2 x 3 by 3 x 20, five times over, twice in turn.
    got = named(OperatorWork("linear", 600.0, 7, 8, 9, 5, 2, 3, 20, 2, 1, 1))
    assert got["launch"] == 1
    assert got["operations"] == 600
    assert (got["bytes read"], got["bytes of weights"], got["bytes made"]) == (7, 8, 9)
    assert (got["rows x columns"], got["inner x columns"], got["rows x inner"]) == (200, 300, 30)
    assert (got["rows"], got["columns"], got["inner"], got["batch"]) == (10, 100, 15, 5)
    assert got["product in vectors"] == 5 * 2 * 3 * 32
    assert got["steps"] == 2
    assert got["weights read again"] == 2 * 60


@pytest.mark.parametrize(("size", "beyond"), [(1 << 17, 0), (1 << 18, 1 << 18)])
def test_bytes_beyond_a_cache_count_from_where_it_ends(size, beyond):
    got = named(OperatorWork("elementwise", 1.0, float(size), 0.0, float(size)))
    assert got["activations beyond the 1st cache"] == beyond
    assert got["bytes beyond the 3rd cache"] == 0
