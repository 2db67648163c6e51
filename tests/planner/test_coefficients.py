import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.coefficients import LARGEST, rounded, row_from_plain, row_to_plain
from planner.predictor import Predictor
from planner.roofline import TERMS
from planner.work import OperatorWork

rows = st.lists(
    st.just(0.0) | st.floats(1e-22, LARGEST), min_size=len(TERMS), max_size=len(TERMS)
).map(tuple)
works = st.builds(OperatorWork, st.just("conv"), *[st.floats(0, 1e12)] * 8, st.floats(1, 1e3))


@given(rows, works)
def test_no_prediction_changes_by_more_than_a_thousandth(row, work):
    crossed = row_from_plain("conv", json.loads(json.dumps(row_to_plain(row))))
    before, after = (Predictor({"conv": each}, each).predict(work) for each in (row, crossed))
    assert after == pytest.approx(before, rel=1e-3, abs=0)


@given(rows)
def test_what_crossed_stays_as_it_is(row):
    once = rounded(row)
    assert row_from_plain("conv", row_to_plain(row)) == once
    assert rounded(once) == once


def test_zeros_take_no_room():
    row = [0.0] * len(TERMS)
    assert row_to_plain(row) == []
    row[7] = LARGEST
    assert row_to_plain(row) == [7, 0]


def test_next_to_nothing_is_nothing():
    assert rounded([1e-300] * len(TERMS)) == (0.0,) * len(TERMS)
