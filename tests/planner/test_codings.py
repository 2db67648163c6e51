import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner import CutCoding, choose_codings

numbers = st.integers(0, 9)
codings = st.builds(CutCoding, st.sampled_from(("raw", "planes", "float16")), *[numbers] * 3)
offers = st.lists(st.lists(codings, min_size=1, max_size=5), max_size=4)


@given(offers, st.sampled_from((0.5, 1, 3)))
def test_takes_the_first_of_the_soonest(options, rate_Bps):
    chosen = choose_codings(options, rate_Bps)
    assert len(chosen) == len(options)
    for taken, offered in zip(chosen, options, strict=True):
        times = [o.bytes / rate_Bps + o.encode_s + o.decode_s for o in offered]
        assert taken is offered[times.index(min(times))]


def test_the_link_decides():
    raw, planes = CutCoding("raw", 1e6, 0, 0), CutCoding("planes", 6e5, 2e-3, 1e-3)
    assert choose_codings([[raw, planes]], 1e6) == (planes,)
    assert choose_codings([[raw, planes]], 1e9) == (raw,)
    assert planes.coding_s == 3e-3


def test_raw_wins_ties():
    raw, planes = CutCoding("raw", 4, 0, 0), CutCoding("planes", 2, 1, 1)
    assert choose_codings([[raw, planes]], 1) == (raw,)


@pytest.mark.parametrize("field", ["bytes", "encode_s", "decode_s"])
@pytest.mark.parametrize("wrong", [-1.0, float("nan"), float("inf"), "3", None, 1j, [1]])
def test_refuses_numbers_that_make_no_sense(field, wrong):
    numbers = {"bytes": 1, "encode_s": 1, "decode_s": 1, field: wrong}
    with pytest.raises(ValueError, match=field):
        CutCoding("raw", **numbers)


@pytest.mark.parametrize("wrong", ["", None, 3])
def test_refuses_codings_without_a_name(wrong):
    with pytest.raises(ValueError, match="coding is a name"):
        CutCoding(wrong, 1, 1, 1)


def test_refuses_a_cut_without_options():
    with pytest.raises(ValueError, match=r"options\[1\] is empty"):
        choose_codings([[CutCoding("raw", 1, 0, 0)], []], 1.0)


@pytest.mark.parametrize("rate_Bps", [0, -1.0, float("nan"), float("inf")])
def test_refuses_impossible_rates(rate_Bps):
    with pytest.raises(ValueError, match="rate_Bps"):
        choose_codings([], rate_Bps)
