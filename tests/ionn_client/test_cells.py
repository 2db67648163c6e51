"""Rows of cells: what each column shows when there are more layers than columns."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ionn_client.reports.cells import MIXED, columns, folded, layer_span, segments

rows_of_cells = st.integers(1, 60).flatmap(
    lambda n: st.lists(st.text("CE", min_size=n, max_size=n), min_size=1, max_size=4)
)


@given(rows_of_cells, st.integers(1, 70))
def test_columns_cover_every_layer_once_and_fit(rows: list[str], width: int) -> None:
    shown = columns(rows, width)
    assert len(shown) <= width
    assert [i for start, stop in shown for i in range(start, stop)] == list(range(len(rows[0])))


@given(rows_of_cells, st.integers(1, 70))
def test_a_letter_stands_for_all_its_layers_or_is_marked_mixed(rows: list[str], width: int) -> None:
    shown = columns(rows, width)
    for row in rows:
        for letter, (start, stop) in zip(folded(row, shown), shown, strict=True):
            assert set(row[start:stop]) == {letter} or (
                letter == MIXED and len(set(row[start:stop])) == 2
            )


@given(rows_of_cells, st.integers(1, 70))
def test_nothing_is_mixed_where_the_parts_fit(rows: list[str], width: int) -> None:
    if len(segments(rows)) <= width:
        assert all(MIXED not in folded(row, columns(rows, width)) for row in rows)


def test_layers_that_stay_together_are_folded_first() -> None:
    row = "C" * 90 + "ECE" + "C" * 7
    shown = columns([row], 10)
    letters = folded(row, shown)
    assert "ECE" in letters
    assert letters.strip("C") == "ECE"


def test_segments_end_where_any_row_changes_sides() -> None:
    assert segments(["CCEE", "CEEE"]) == ((0, 1), (1, 2), (2, 4))
    assert segments(["", ""]) == ()
    assert columns([""], 5) == ()


def test_spans_count_from_one() -> None:
    names = ["input", "conv1", "fc"]
    assert layer_span(names, 1, 2) == "layer 2 (conv1)"
    assert layer_span(names, 0, 3) == "layers 1-3 (input to fc)"


def test_bad_rows_and_widths_are_refused() -> None:
    with pytest.raises(ValueError, match="one length"):
        columns(["CC", "C"], 4)
    with pytest.raises(ValueError, match="at least 1 column"):
        columns(["CC"], 0)
