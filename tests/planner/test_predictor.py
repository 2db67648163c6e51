import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.predictor import Predictor, Sample

TRUTH = {
    "conv": (20e-6, 2e-11, 1e-10),
    "linear": (5e-6, 5e-11, 3e-10),
    "move": (2e-6, 0.0, 1e-10),
}


def samples(noise=0.0, count=40, seed=0):
    r = np.random.default_rng(seed)
    for kind, (launch_s, s_per_flop, s_per_byte) in TRUTH.items():
        for _ in range(count):
            flops, size = 10 ** r.uniform(3, 9.5), 10 ** r.uniform(3, 8)
            seconds = launch_s + flops * s_per_flop + size * s_per_byte
            yield Sample(kind, flops, size, seconds * float(np.exp(r.normal(0, noise))))


def test_finds_the_coefficients_that_made_the_times():
    predictor = Predictor.fit(samples())
    for kind, row in TRUTH.items():
        assert predictor.rows[kind] == pytest.approx(row, rel=1e-6, abs=1e-18)


def test_small_layers_count_as_much_as_large_ones():
    predictor = Predictor.fit(samples(noise=0.1))
    errors = [
        abs(predictor.predict(s.kind, s.flops, s.bytes) / s.seconds - 1) for s in samples(seed=1)
    ]
    assert np.mean(errors) < 0.05
    small = [
        abs(predictor.predict(s.kind, s.flops, s.bytes) / s.seconds - 1)
        for s in samples(seed=1)
        if s.seconds < 1e-4
    ]
    assert len(small) > 5
    assert np.mean(small) < 0.1


def test_never_predicts_a_negative_time():
    # The larger, the faster: plain least squares would answer with a negative slope.
    falling = [Sample("conv", 10.0**i, 1.0, 1.0 / i) for i in range(1, 8)]
    predictor = Predictor.fit(falling)
    assert min(predictor.rows["conv"]) >= 0
    assert predictor.predict("conv", 1e12, 1e9) > 0


def test_kinds_never_or_hardly_measured_are_priced_by_all_the_others():
    few = [Sample("rare", 1e6, 1e6, 1.0)] * 2
    predictor = Predictor.fit([*samples(), *few])
    assert "rare" not in predictor.rows
    assert predictor.predict("rare", 1e6, 1e6) == predictor.predict("unheard of", 1e6, 1e6)
    expected = Predictor.fit([*samples(), *few]).pooled
    assert predictor.predict("rare", 1e6, 0.0) == pytest.approx(expected[0] + 1e6 * expected[1])


def test_a_layer_is_the_sum_of_its_operators():
    predictor = Predictor.fit(samples())
    work = [("conv", 1e6, 1e5), ("move", 0.0, 1e5)]
    assert predictor.layer_s(work) == pytest.approx(
        sum(predictor.predict(*operator) for operator in work)
    )
    assert predictor.layer_s([]) == 0


def test_survives_the_trip_over_the_wire():
    predictor = Predictor.fit(samples(noise=0.1))
    text = json.dumps(predictor.to_plain())
    assert len(text) < 1000
    assert Predictor.from_plain(json.loads(text)) == predictor


@pytest.mark.parametrize(
    "sample",
    [
        Sample("conv", -1, 1, 1),
        Sample("conv", 1, float("nan"), 1),
        Sample("conv", 1, 1, 0),
        Sample("conv", 1, 1, float("inf")),
    ],
)
def test_refuses_impossible_samples(sample):
    with pytest.raises(ValueError, match="a sample has finite work"):
        Predictor.fit([sample])


def test_refuses_to_learn_from_nothing():
    with pytest.raises(ValueError, match="at least one sample"):
        Predictor.fit([])


PLAIN = {"format": 1, "pooled": [0.0, 1.0, 2], "rows": {"conv": [0, 0, 0]}}


def test_the_example_for_hostile_input_is_sound():
    assert Predictor.from_plain(PLAIN).predict("conv", 1, 1) == 0


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"format": True},
        {"format": "1"},
        {"pooled": None},
        {"pooled": [1.0, 2.0]},
        {"pooled": [1.0, 2.0, -1e-9]},
        {"pooled": [1.0, 2.0, float("nan")]},
        {"pooled": [1.0, 2.0, float("inf")]},
        {"pooled": [1.0, 2.0, 10**400]},
        {"pooled": [1.0, 2.0, True]},
        {"pooled": [1.0, 2.0, "3"]},
        {"pooled": "abc"},
        {"rows": []},
        {"rows": {1: [0, 0, 0]}},
        {"rows": {"k" * 65: [0, 0, 0]}},
        {"rows": {"conv": {}}},
        {"rows": {str(i): [0, 0, 0] for i in range(257)}},
    ],
    ids=lambda change: repr(change)[:40],
)
def test_refuses_hostile_rows(change):
    with pytest.raises(ValueError, match=r"predictor|row|kind"):
        Predictor.from_plain({**PLAIN, **change})


plain_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.sampled_from(("format", "pooled", "rows", "conv")) | st.text(), inner)
    ),
)


@given(plain_values)
def test_from_plain_raises_nothing_but_value_error(plain):
    try:
        predictor = Predictor.from_plain(plain)
    except ValueError:
        return
    assert predictor.predict("conv", 1e12, 1e12) >= 0
