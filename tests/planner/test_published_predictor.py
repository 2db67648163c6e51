import math

import numpy as np
import pytest

from planner.predictor import Sample
from planner.published_predictor import PublishedPredictor, variables
from planner.work import OperatorWork


def conv(r):
    side, cin, cout = r.integers(4, 64), r.integers(1, 64), r.integers(1, 64)
    read, window, stride = 4.0 * side * side * cin, 9.0, float(r.choice([1, 4]))
    rows = side * side / stride
    flops = 2 * rows * cin * 9 * cout
    return OperatorWork(
        "conv", flops, read, 36.0 * cin * cout, 4 * rows * cout, 1, rows, cin * 9, cout, 1,
        window, stride,
    )  # fmt: skip


def test_the_variables_are_the_published_ones():
    r = np.random.default_rng(0)
    work = conv(r)
    # Features in the input; (filter size / stride)^2 times filters.
    assert variables(work) == (work.read_bytes / 4, work.window / work.stride * work.columns)
    full = OperatorWork("linear/vector", 24.0, 16, 48, 12, 1, 1, 4, 3)
    assert variables(full) == (4, 3)
    pool = OperatorWork("pool/max", 9.0, 400, 0, 100, window=4, stride=4)
    assert variables(pool) == (100, 25)
    assert variables(OperatorWork("softmax", 9.0, 400, 0, 400)) == (100, 100)
    assert variables(OperatorWork("elementwise", 9.0, 400, 0, 400)) == (100,)
    assert variables(OperatorWork("norm/batch", 9.0, 400, 16, 400)) == (100,)


def given(kind_cost):
    r = np.random.default_rng(1)
    works = [conv(r) for _ in range(60)]
    return [Sample((work,), kind_cost(work)) for work in works]


def test_linear_costs_are_found_and_called_linear():
    def cost(work):
        x1, x2 = variables(work)
        return 1e-4 + 2e-9 * x1 + 3e-7 * x2

    fitted = PublishedPredictor.fit(given(cost))
    assert fitted.regressions["conv"].function == "linear"
    assert fitted.regressions["conv"].coefficients == pytest.approx((1e-4, 2e-9, 3e-7))


def test_a_plateau_of_performance_is_found_and_called_logarithmic():
    def cost(work):
        x1, x2 = variables(work)
        return work.flops / (1e9 * (2 + math.log(x1) + 0.5 * math.log(x2)))

    samples = given(cost)
    fitted = PublishedPredictor.fit(samples)
    assert fitted.regressions["conv"].function == "logarithmic"
    assert fitted.cost(samples[0].work) == pytest.approx(samples[0].cost, rel=1e-6)
    linear = PublishedPredictor.fit(samples, ("linear",))
    assert linear.regressions["conv"].function == "linear"


def test_types_that_do_no_operations_have_no_performance_to_model():
    samples = [
        Sample((OperatorWork("move", 0.0, 4.0 * n, 0.0, 4.0 * n),), 1e-6 * n) for n in range(1, 9)
    ]
    assert PublishedPredictor.fit(samples).regressions["move"].function == "linear"


def test_costs_are_not_negative_and_unknown_types_cost_nothing():
    samples = [
        Sample((OperatorWork("elementwise", 1.0, 4.0 * n),), max(1e-9, 1e-6 * (n - 5)))
        for n in range(1, 20)
    ]
    fitted = PublishedPredictor.fit(samples, ("linear",))
    assert fitted.cost([OperatorWork("elementwise", 1.0, 4.0)]) == 0
    assert fitted.cost([OperatorWork("attention", 1e9, 4.0)]) == 0


def test_refuses_to_learn_from_nothing():
    with pytest.raises(ValueError, match="at least one sample"):
        PublishedPredictor.fit([])
    with pytest.raises(ValueError, match="one function"):
        PublishedPredictor.fit(given(lambda _: 1.0), ())
