import math

import pytest

from planner.accuracy import accuracy, by_type, cross_validated
from planner.predictor import Sample
from planner.work import OperatorWork


def test_figures_by_hand():
    got = accuracy("pool", [1.0, 2.0, 5.0], [1.0, 2.0, 4.0])
    assert (got.type, got.count, got.median) == ("pool", 3, 2.0)
    # Squares of residuals: 1; of distances from the mean 7/3: 16/9 + 1/9 + 25/9.
    assert got.r_squared == pytest.approx(1 - 1 / (42 / 9))
    assert got.rmse == pytest.approx(math.sqrt(1 / 3))
    assert (got.error, got.close) == (0.0, pytest.approx(2 / 3))


def test_layers_that_all_cost_the_same():
    assert accuracy("a", [1.0, 1.0], [1.0, 1.0]).r_squared == 1
    assert accuracy("a", [1.0, 2.0], [1.0, 1.0]).r_squared == 0


@pytest.mark.parametrize(
    ("predicted", "measured"),
    [([], []), ([1.0], [1.0, 2.0]), ([1.0], [0.0]), ([1.0], [math.nan]), ([math.inf], [1.0])],
)
def test_refuses_what_has_no_accuracy(predicted, measured):
    with pytest.raises(ValueError, match=r"shape|costs"):
        accuracy("a", predicted, measured)


def sample(cost, type="a"):
    return Sample((OperatorWork("conv", 1.0),), cost, type)


def test_one_row_per_type():
    rows = by_type([sample(1.0), sample(2.0, "b"), sample(3.0)], lambda s: s.cost)
    assert [(row.type, row.count, row.r_squared) for row in rows] == [("a", 2, 1.0), ("b", 1, 1.0)]


def test_no_sample_is_predicted_by_a_fit_that_saw_it():
    samples = [sample(float(cost)) for cost in range(1, 13)]

    def fit(some):
        seen = {s.cost for s in some}
        return lambda s: float(s.cost in seen)

    assert cross_validated(samples, fit) == [0.0] * len(samples)


@pytest.mark.parametrize("folds", [1, 4])
def test_refuses_folds_that_leave_nothing(folds):
    with pytest.raises(ValueError, match="folds of 3 samples"):
        cross_validated([sample(1.0)] * 3, lambda _: lambda _: 1.0, folds)
