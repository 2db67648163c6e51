import numpy as np
import pytest

from planner import Correction
from planner.correction import LARGEST


def test_changes_nothing_before_it_has_seen_anything():
    assert Correction(3).apply([1.0, 2.0, 3.0]).tolist() == [1.0, 2.0, 3.0]


def test_learns_factors_per_layer_from_range_times():
    predicted = np.array([1.0, 2.0, 3.0, 4.0])
    truth = predicted * [3.0, 3.0, 0.5, 0.5]
    correction = Correction(4)
    for _ in range(40):
        for start, stop in ((0, 2), (2, 4)):
            expected = correction.apply(predicted)[start:stop].sum()
            correction.observe(start, stop, expected, truth[start:stop].sum())
    assert correction.apply(predicted) == pytest.approx(truth, rel=1e-3)


def test_keeps_what_it_learnt_of_single_layers_when_ranges_grow():
    predicted, truth = np.array([1.0, 1.0]), np.array([4.0, 1.0])
    correction = Correction(2)
    for _ in range(40):
        for layer in (0, 1):
            correction.observe(layer, layer + 1, correction.apply(predicted)[layer], truth[layer])
    for _ in range(40):
        correction.observe(0, 2, correction.apply(predicted).sum(), 2 * truth.sum())
    assert correction.apply(predicted) == pytest.approx(2 * truth, rel=1e-3)


def test_one_outlier_does_not_decide():
    correction = Correction(1)
    for _ in range(10):
        correction.observe(0, 1, correction.apply([1.0])[0], 1.0)
    correction.observe(0, 1, correction.apply([1.0])[0], 100.0)
    assert correction.apply([1.0])[0] < 100**0.26


def test_layers_never_tried_are_expected_to_be_as_far_off_as_the_others():
    correction = Correction(3)
    for _ in range(40):
        correction.observe(0, 1, correction.apply([1.0] * 3)[0], 4.0)
    assert correction.apply([1.0] * 3) == pytest.approx([4.0] * 3, rel=1e-3)


def test_stays_bounded():
    correction = Correction(2)
    for _ in range(100):
        correction.observe(0, 1, 1e-9, 1e9)
        correction.observe(1, 2, 1e9, 1e-9)
    assert correction.apply([1.0, 1.0]) == pytest.approx([LARGEST, 1 / LARGEST])


def test_relaxes_towards_the_prediction():
    correction = Correction(1)
    correction.observe(0, 1, 1.0, 9.0)
    before = correction.apply([1.0])[0]
    assert before == pytest.approx(3.0)
    correction.relax()
    assert 1.0 < correction.apply([1.0])[0] < before
    for _ in range(500):
        correction.relax()
    assert correction.apply([1.0])[0] == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize(
    "times", [(0.0, 1.0), (1.0, 0.0), (-1.0, 1.0), (float("nan"), 1.0), (1.0, float("inf"))]
)
def test_ignores_times_that_say_nothing(times):
    correction = Correction(1)
    correction.observe(0, 1, *times)
    assert correction.apply([1.0]).tolist() == [1.0]


@pytest.mark.parametrize(("start", "stop"), [(-1, 1), (0, 3), (2, 1)])
def test_refuses_ranges_outside_the_model(start, stop):
    with pytest.raises(ValueError, match="in a model of 2"):
        Correction(2).observe(start, stop, 1.0, 1.0)


def test_refuses_tables_of_another_length():
    with pytest.raises(ValueError, match="edge_s has shape"):
        Correction(2).apply([1.0])
