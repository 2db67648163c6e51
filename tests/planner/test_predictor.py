import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.coefficients import LARGEST
from planner.predictor import FORMAT, Predictor, Sample
from planner.roofline import TERMS, terms
from planner.work import OperatorWork

LAUNCH, FLOP, BYTE = 20e-6, 2e-11, 1e-10


def product(r, kind="linear"):
    rows, inner, columns = (float(round(10 ** r.uniform(0, 3))) for _ in range(3))
    return OperatorWork(
        kind,
        2 * rows * inner * columns,
        *(4 * rows * inner, 4 * inner * columns, 4 * rows * columns),
        *(1.0, rows, inner, columns),
    )


def true_cost(work):
    size = work.read_bytes + work.weight_bytes + work.made_bytes
    return LAUNCH + FLOP * work.flops + BYTE * size + 3e-9 * work.rows * work.columns


def samples(noise=0.0, count=80, seed=0, kind="linear"):
    r = np.random.default_rng(seed)
    for _ in range(count):
        work = product(r, kind)
        yield Sample((work,), true_cost(work) * math.exp(r.normal(0, noise)), "product")


def errors(predictor, given):
    return np.array([predictor.cost(s.work) / s.cost - 1 for s in given])


def test_finds_the_costs_behind_the_samples():
    predictor = Predictor.fit(samples())
    assert np.abs(errors(predictor, samples(seed=1))).max() < 0.05


def test_small_layers_count_as_much_as_large_ones():
    wrong = errors(Predictor.fit(samples(noise=0.1, count=300)), samples(seed=1))
    small = np.array([s.cost < 1e-4 for s in samples(seed=1)])
    assert small.sum() > 5
    assert np.abs(wrong[small]).mean() < 0.1
    assert np.abs(wrong).mean() < 0.05


def test_noise_biases_it_neither_up_nor_down():
    wrong = errors(Predictor.fit(samples(noise=0.4, count=600)), samples(seed=1))
    assert abs(np.median(wrong)) < 0.08


def test_a_few_disturbed_measurements_hardly_matter():
    disturbed = [
        replace(s, cost=20 * s.cost) if index % 12 == 0 else s
        for index, s in enumerate(samples(count=240))
    ]
    assert np.abs(np.median(errors(Predictor.fit(disturbed), samples(seed=1)))) < 0.1


def test_shapes_that_terms_do_not_explain_get_a_factor():
    def bent(sample):
        slow = 1.8 if sample.work[0].inner < 30 else 1.0
        return replace(sample, cost=slow * sample.cost)

    given, others = ([bent(s) for s in samples(count=300, seed=k)] for k in (0, 1))
    predictor = Predictor.fit(given)
    assert predictor.factors["linear"].table[2].hundredths
    without = np.abs(errors(replace(predictor, factors={}), others))
    assert np.median(np.abs(errors(predictor, others))) < 0.7 * np.median(without)


def test_never_predicts_a_negative_cost():
    # The larger, the faster: plain least squares would answer with a negative slope.
    falling = [Sample((OperatorWork("conv", 10.0**i, 1.0),), 1.0 / i) for i in range(1, 8)]
    predictor = Predictor.fit(falling)
    assert min(predictor.rows["conv"]) >= 0
    assert predictor.predict(OperatorWork("conv", 1e12, 1e9)) > 0


def test_kinds_of_a_family_serve_those_never_measured():
    r = np.random.default_rng(0)
    given = [*samples(kind="pool/max"), *samples(kind="pool/average", seed=2)]
    given += [replace(s, cost=1e3 * s.cost) for s in samples(kind="conv")]
    predictor = Predictor.fit(given)
    other, unheard = product(r, "pool/other"), product(r, "unheard of")
    assert predictor.predict(other) == pytest.approx(true_cost(other), rel=0.05)
    same = replace(unheard, kind="conv")
    assert predictor.predict(unheard) < predictor.predict(same)
    assert predictor.predict(unheard) == pytest.approx(
        sum(c * t for c, t in zip(predictor.pooled, terms(unheard), strict=True))
    )


def test_kinds_hardly_measured_have_no_row_of_their_own():
    few = [Sample((OperatorWork("rare", 1e6, 1e6),), 1.0)] * 2
    predictor = Predictor.fit([*samples(), *few])
    assert set(predictor.rows) == {"linear"}


def test_a_kind_measured_only_beside_others_is_told_apart():
    view = OperatorWork("move/view", 0.0)
    given = [Sample((view,), 1e-6)] * 3
    given += [Sample((view, s.work[0]), s.cost + 1e-6) for s in samples(kind="move/permute")]
    predictor = Predictor.fit(given)
    assert predictor.predict(view) == pytest.approx(1e-6, rel=0.02)
    work = product(np.random.default_rng(5), "move/permute")
    assert predictor.predict(work) == pytest.approx(true_cost(work), rel=0.05)


def test_a_layer_is_the_sum_of_its_operators_and_a_range_is_entered_once():
    predictor = Predictor.fit(samples(), entry=1e-3)
    layers = [[product(np.random.default_rng(seed))] * 2 for seed in range(3)]
    assert predictor.layer_s(layers[0]) == pytest.approx(2 * predictor.predict(layers[0][0]))
    assert predictor.layer_s([]) == 0
    assert predictor.range_cost(layers) == pytest.approx(1e-3 + sum(map(predictor.cost, layers)))


def test_joules_are_fitted_as_seconds_are():
    watts = 12.0
    joules = [replace(s, cost=watts * s.cost) for s in samples()]
    power = Predictor.fit(joules, unit="J")
    work = product(np.random.default_rng(3))
    assert power.predict(work) == pytest.approx(watts * true_cost(work), rel=0.05)
    assert Predictor.from_plain(power.to_plain()).unit == "J"
    with pytest.raises(ValueError, match="gives J, not seconds"):
        power.layer_s([work])


def test_survives_the_trip_over_the_wire():
    predictor = Predictor.fit(samples(noise=0.1), entry=5e-6)
    text = json.dumps(predictor.to_plain())
    assert len(text) < 1000
    assert Predictor.from_plain(json.loads(text)) == predictor


def test_terms_that_say_the_same_take_one_coefficient():
    # Nothing here has steps, batches or windows, which all would be the launch once more.
    row = Predictor.fit(samples(kind="pool")).rows["pool"]
    used = {term for term, coefficient in zip(TERMS, row, strict=True) if coefficient}
    assert not used & {"steps", "batch", "columns at each step", "operations by window"}


GOOD = OperatorWork("conv", 1.0, 1.0)


@pytest.mark.parametrize("cost", [0.0, -1.0, math.nan, math.inf])
def test_refuses_impossible_costs(cost):
    with pytest.raises(ValueError, match="a sample has finite work"):
        Predictor.fit([Sample((GOOD,), cost)])


def test_refuses_samples_of_nothing():
    with pytest.raises(ValueError, match="a sample has finite work"):
        Predictor.fit([Sample((), 1.0)])


def test_refuses_to_learn_from_nothing():
    with pytest.raises(ValueError, match="at least one sample"):
        Predictor.fit([])


def test_refuses_only_mixtures():
    with pytest.raises(ValueError, match="no sample is of a single operator"):
        Predictor.fit([Sample((GOOD, replace(GOOD, kind="pool")), 1.0)])


@pytest.mark.parametrize("field", ["flops", "read_bytes", "rows", "steps", "stride"])
@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_work_is_finite_and_not_negative(field, value):
    with pytest.raises(ValueError, match=field):
        replace(GOOD, **{field: value})


@pytest.mark.parametrize("field", ["window", "stride"])
def test_a_filter_has_an_extent(field):
    with pytest.raises(ValueError, match="at least 1"):
        replace(GOOD, **{field: 0.0})


KNOWN = [[], [], [4, 0, 100], *[[]] * 6]
ONE = round(1000 * math.log(LARGEST))
PLAIN = {
    "format": FORMAT,
    "unit": "s",
    "entry": 0,
    "pooled": [0, ONE],
    "kinds": {"conv": [[]], "linear": [[0, ONE], KNOWN]},
}


def test_the_example_for_hostile_input_is_sound():
    predictor = Predictor.from_plain(PLAIN)
    assert predictor.predict(GOOD) == 0
    assert predictor.predict(replace(GOOD, kind="linear")) == pytest.approx(1.0, rel=1e-3)
    large = replace(GOOD, kind="linear", inner=4.0**6)
    assert predictor.predict(large) == pytest.approx(math.e, rel=1e-3)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 1},
        {"format": FORMAT + 1},
        {"format": True},
        {"format": str(FORMAT)},
        {"unit": "W"},
        {"unit": None},
        {"unit": ["s"]},
        {"entry": None},
        {"entry": -1e-9},
        {"entry": float("nan")},
        {"pooled": None},
        {"pooled": "ab"},
        {"pooled": [0]},
        {"pooled": [0, 1, 2]},
        {"pooled": [-1, 1]},
        {"pooled": [len(TERMS), 1]},
        {"pooled": [True, 1]},
        {"pooled": [1, 1, 1, 1]},
        {"pooled": [2, 1, 1, 1]},
        {"pooled": [0, -1]},
        {"pooled": [0, 1 << 16]},
        {"pooled": [0, 10**400]},
        {"pooled": [0, 1.0]},
        {"pooled": [0, True]},
        {"pooled": [0, "3"]},
        {"kinds": None},
        {"kinds": []},
        {"kinds": {1: [[]]}},
        {"kinds": {"k" * 65: [[]]}},
        {"kinds": {"conv": {}}},
        {"kinds": {"conv": []}},
        {"kinds": {"conv": [[], KNOWN, KNOWN]}},
        {"kinds": {"conv": [None]}},
        {"kinds": {"conv": [[0, 0, 0]]}},
        {"kinds": {str(i): [[]] for i in range(257)}},
        {"kinds": {"conv": [[], None]}},
        {"kinds": {"conv": [[], KNOWN[1:]]}},
        {"kinds": {"conv": [[], [None, *KNOWN[1:]]]}},
        {"kinds": {"conv": [[], [[0], *KNOWN[1:]]]}},
        {"kinds": {"conv": [[], [[0] * 17, *KNOWN[1:]]]}},
        {"kinds": {"conv": [[], [[1, *[0] * 15], *KNOWN[1:]]]}},
        {"kinds": {"conv": [[], [[-1, 0], *KNOWN[1:]]]}},
        {"kinds": {"conv": [[], [[0, 101], *KNOWN[1:]]]}},
        {"kinds": {"conv": [[], [[0, -101], *KNOWN[1:]]]}},
        {"kinds": {"conv": [[], [[0, 0.5], *KNOWN[1:]]]}},
        {"kinds": {"conv": [[], [[0, True], *KNOWN[1:]]]}},
    ],
    ids=lambda change: repr(change)[:40],
)
def test_refuses_hostile_rows(change):
    with pytest.raises(ValueError, match=r"predictor|row|kind|entry|factor"):
        Predictor.from_plain({**PLAIN, **change})


def test_the_former_format_is_refused_by_its_number():
    former = {"format": 5, "pooled": [0.0, 1.0, 2.0], "rows": {"conv": [0, 0, 0]}}
    with pytest.raises(ValueError, match="predictor format 5; known is 6"):
        Predictor.from_plain(former)


plain_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.sampled_from((*PLAIN, "conv")) | st.text(), inner)
    ),
)
rows = st.lists(st.integers() | st.floats(), max_size=4) | st.dictionaries(
    st.integers(0, len(TERMS)), st.integers(-1, 1 << 16)
).map(lambda pairs: [number for pair in sorted(pairs.items()) for number in pair])


@given(plain_values | st.fixed_dictionaries({**dict.fromkeys(PLAIN, plain_values)}))
def test_from_plain_raises_nothing_but_value_error(plain):
    try:
        predictor = Predictor.from_plain(plain)
    except ValueError:
        return
    assert predictor.predict(GOOD) >= 0


@given(rows, rows, st.floats() | st.integers())
def test_what_is_accepted_predicts_finite_costs(pooled, row, entry):
    plain = {**PLAIN, "pooled": pooled, "kinds": {"conv": [row]}, "entry": entry}
    try:
        predictor = Predictor.from_plain(plain)
    except ValueError:
        return
    large = OperatorWork("conv", *[1e15] * 11)
    assert 0 <= predictor.range_cost([[large]] * 1000) < math.inf
