"""What `ionn plan --stay` says of a stay, on numbers that can be counted by hand."""

from __future__ import annotations

import io
import math

import pytest
from rich.console import Console

from ionn_client.reports.comparison import Problem
from ionn_client.reports.payback_report import (
    stay_marks,
    stay_plain,
    stay_report,
    stay_sentence,
    stay_table,
)
from planner import LayerCosts, Link, Objective, Power, Radio, UploadPlan

# Two layers. The first, 100 bytes, takes 10 s and 40 J to upload and makes a query draw 18 J less
# above idle; the second, 1000 bytes, 100 s and 400 J, saves 1.8 J a query.
LINK = Link(10, 10)
COSTS = LayerCosts([10, 1], [1, 0.1], [100, 1000], [0, 0, 0], [0, 0, 0])
POWER = Power(2.0, 0.0, Radio(0.2, 0.2, 2.0))
PROBLEM = Problem(COSTS, LINK, Objective(power=POWER))
PLAN = UploadPlan("front-to-back", ((0,), (1,)))


def shown(problem: Problem, stay_s: float, queries_per_h: float = 36) -> str:
    console = Console(file=io.StringIO(), width=80)
    console.print(stay_table(stay_report(problem, PLAN, stay_s, queries_per_h)))
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_a_short_stay_pays_for_nothing() -> None:
    report = stay_report(PROBLEM, PLAN, 100, 36)
    assert report.worth.partitions == 0
    assert report.worth == report.nothing
    assert report.everything.stay.net_J < 0
    assert stay_sentence(report).startswith("Nothing is worth uploading for this stay. Everything")
    assert len(report.choices) == 2


def test_a_longer_one_pays_for_the_first_partition() -> None:
    report = stay_report(PROBLEM, PLAN, 1010, 36)
    worth = report.worth
    assert (worth.partitions, worth.upload_bytes, worth.upload_s) == (1, 100, 10)
    assert worth.upload_J == pytest.approx(40)
    assert worth.stay.saved_J == pytest.approx(0.01 * 1000 * 20)
    assert worth.stay.break_even_s == pytest.approx(10 + 40 / 0.2)
    assert (report.nothing.query_J, worth.query_J) == (pytest.approx(22), pytest.approx(2))
    assert worth.hour_J == pytest.approx(36 * 2)
    assert "The first partition is worth uploading for this stay (100 B)" in stay_sentence(report)
    assert [time_s for time_s, _ in stay_marks(report)] == [1010, 10, pytest.approx(210)]
    text = shown(PROBLEM, 1010)
    assert "1 of 2 partitions" in text
    assert max(map(len, text.splitlines())) <= 80


def test_a_long_one_pays_for_everything() -> None:
    report = stay_report(PROBLEM, PLAN, 1e6, 36)
    assert report.worth == report.everything
    assert stay_sentence(report).startswith(
        "Everything is worth uploading for this stay: that wins"
    )
    plain = stay_plain(report)
    assert plain["worth"]["net_J"] == pytest.approx(report.worth.stay.net_J)
    assert plain["nothing"]["upload_bytes"] == 0


def test_what_never_pays_says_so() -> None:
    report = stay_report(PROBLEM, PLAN, 1e6, 0)
    assert stay_sentence(report).endswith("Everything pays back in no stay, however long.")
    assert "never" in shown(PROBLEM, 1e6, 0)


def test_waiting_counts_in_the_hour() -> None:
    waits = Problem(COSTS, LINK, Objective(power=Power(2.0, 0.5, POWER.radio)))
    report = stay_report(waits, PLAN, 0, 0)
    assert report.nothing.hour_J == 3600 * 0.5


def test_an_empty_plan_is_nothing_to_upload() -> None:
    report = stay_report(PROBLEM, UploadPlan("ionn", ()), 100, 36)
    assert stay_sentence(report) == "There is nothing to upload."
    assert len(report.choices) == 1


@pytest.mark.parametrize("wrong", [-1.0, math.nan, math.inf])
def test_wrong_numbers_are_refused_by_name(wrong: float) -> None:
    with pytest.raises(ValueError, match="stay_s"):
        stay_report(PROBLEM, PLAN, wrong, 36)
    with pytest.raises(ValueError, match="queries_per_h"):
        stay_report(PROBLEM, PLAN, 100, wrong)


def test_unknown_powers_and_full_hours_are_refused() -> None:
    with pytest.raises(ValueError, match="not known"):
        stay_report(Problem(COSTS, LINK), PLAN, 100, 36)
    with pytest.raises(ValueError, match="--queries-per-hour: at most 327"):
        stay_report(PROBLEM, PLAN, 100, 1000)
