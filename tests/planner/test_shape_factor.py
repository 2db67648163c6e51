import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.shape_factor import DIMENSIONS, KNOTS, LARGEST_LOG, Curve, ShapeFactor
from planner.work import OperatorWork


def work(inner):
    return OperatorWork("linear", 1.0, batch=1, rows=1, inner=inner, columns=1)


def test_follows_a_curve_in_one_dimension_and_leaves_the_others():
    sizes = 2.0 ** np.random.default_rng(0).uniform(3, 15, 400)
    ratios = np.where(sizes < 64, 1.6, 0.8)
    factor = ShapeFactor.fit([work(size) for size in sizes], ratios)
    assert factor.at(work(16.0)) == pytest.approx(1.6, rel=0.2)
    assert factor.at(work(4096.0)) == pytest.approx(0.8, rel=0.2)
    assert [bool(c.hundredths) for c in factor.table] == [i == 2 for i in range(len(DIMENSIONS))]


def test_what_all_samples_share_is_in_it():
    # Only `inner` differs; the other eight dimensions must take no share of the 1.5.
    sizes = 2.0 ** np.random.default_rng(0).uniform(3, 15, 400)
    factor = ShapeFactor.fit([work(size) for size in sizes], [1.5] * 400)
    assert factor.at(work(512.0)) == pytest.approx(1.5, rel=0.03)


def test_few_samples_say_little():
    factor = ShapeFactor.fit([work(64.0)] * 2 + [work(4096.0)] * 2, [3.0, 3.0, 1.0, 1.0])
    assert factor.at(work(64.0)) < 1.8


def test_disturbed_samples_hardly_matter():
    sizes = 2.0 ** np.random.default_rng(0).uniform(3, 15, 200)
    ratios = np.where(np.arange(200) % 10 == 0, 5.0, 1.0)
    factor = ShapeFactor.fit([work(size) for size in sizes], ratios)
    assert max(factor.at(work(size)) for size in sizes) < 1.2


def test_beyond_what_samples_reach_it_stays_as_it_is_there():
    sizes = 2.0 ** np.random.default_rng(0).uniform(6, 10, 400)
    factor = ShapeFactor.fit([work(size) for size in sizes], (sizes / 256) ** 0.2)
    assert factor.at(work(1.0)) == factor.at(work(64.0)) < 0.9
    assert factor.at(work(2.0**20)) == factor.at(work(1024.0)) > 1.1
    assert len(factor.to_plain()[2]) == 1 + 3


def curves():
    firsts = st.integers(0, KNOTS - 1)
    values = st.lists(st.integers(-100, 100), min_size=1, max_size=KNOTS)
    return st.just(Curve()) | st.builds(
        lambda first, some: Curve(first, tuple(some[: KNOTS - first])), firsts, values
    )


tables = st.tuples(*[curves()] * len(DIMENSIONS))


@given(tables, st.floats(0, 1e18))
def test_factors_are_bounded_and_survive_the_trip(table, size):
    factor = ShapeFactor(table)
    assert ShapeFactor.from_plain("conv", factor.to_plain()) == factor
    bound = math.exp(LARGEST_LOG)
    assert 1 / bound <= factor.at(OperatorWork("conv", *[size] * 8, size, 1, 1)) <= bound
