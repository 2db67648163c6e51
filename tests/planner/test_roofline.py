import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.roofline import TERMS, terms
from planner.work import OperatorWork

MIB = 1 << 20

sizes = st.floats(0, 1e12)
works = st.builds(
    OperatorWork, st.just("conv"), *[sizes] * 8, sizes, st.floats(1, 1e4), st.floats(1, 1e4)
)


@given(works)
def test_terms_are_finite_and_never_negative(work):
    values = terms(work)
    assert len(values) == len(TERMS)
    assert all(math.isfinite(value) and value >= 0 for value in values)


def named(work):
    return dict(zip(TERMS, terms(work), strict=True))


def test_terms_of_a_product():
    # 2 x 3 by 3 x 20, five times over, twice in turn.
    got = named(OperatorWork("linear", 600.0, 7, 8, 9, 5, 2, 3, 20, 2, 1, 1))
    assert got["launch"] == 1
    assert got["operations"] == 600
    assert (got["bytes read"], got["bytes of weights"], got["bytes made"]) == (7, 8, 9)
    assert (got["rows x columns"], got["inner x columns"], got["rows x inner"]) == (200, 300, 30)
    assert (got["rows"], got["columns"], got["inner"], got["batch"]) == (10, 100, 15, 5)
    assert got["product in vectors"] == 5 * 2 * 3 * 32
    assert got["steps"] == 2
    assert got["weights read again"] == 2 * 60


def test_vectors_of_a_transposed_convolution_hold_filters():
    # To 3 channels, by filters of 4 x 4: each place of a filter takes a vector of 16.
    got = named(OperatorWork("transposed_conv/ragged", 1.0, 0, 0, 0, 1, 10, 8, 48, 1, 16, 4))
    assert got["product in vectors"] == 10 * 8 * 16 * 16
    product = named(OperatorWork("conv", 1.0, 0, 0, 0, 1, 10, 8, 48, 1, 16, 4))
    assert product["product in vectors"] == 10 * 8 * 48


def test_channels_of_a_transposed_convolution_are_its_depth():
    def padded(kind, inner, columns):
        got = named(OperatorWork(kind, 1.0, 0, 0, 0, 1, 10, inner, columns, 1, 4, 4))
        return got["product in vectors of channels"]

    assert padded("transposed_conv/ragged", 20, 48) == 10 * 48 * 32
    assert padded("conv", 20 * 4, 48) == 10 * 48 * 32 * 4


@pytest.mark.parametrize(("channels", "kept"), [(16, 1), (96, 6), (304, 1), (288, 6), (70, 5)])
def test_as_many_vectors_of_filters_are_kept_as_divide_all(channels, kept):
    got = named(OperatorWork("transposed_conv", 60.0, 0, 0, 0, 1, 10, 8, channels * 25, 1, 25, 4))
    assert got["operations by vectors kept"] == 60 / kept
    product = named(OperatorWork("conv", 60.0, 0, 0, 0, 1, 10, 8, channels, 1, 25, 4))
    assert product["operations by vectors kept"] == 0


def test_rows_of_a_matrix_begin_within_pages_unless_they_fill_them():
    def within(kind, inner):
        return named(OperatorWork(kind, 1.0, 0, 0, 0, 1, 1, inner, 7))[
            "rows of weights within pages"
        ]

    assert within("linear/vector", 1000) == 7
    assert within("linear/vector", 2048) == 0
    assert within("linear", 1000) == 0


def test_what_a_product_makes_is_displaced_before_it_is_folded():
    def displaced(kind, rows):
        return named(OperatorWork(kind, 1.0, 0, 0, 0, 1, rows, 16, 1024))["products displaced"]

    assert displaced("transposed_conv/product", 2048) == 0
    assert displaced("transposed_conv/product", 8192) == 4 * 8192 * 1024
    assert displaced("transposed_conv", 8192) == 0


@pytest.mark.parametrize(("inner", "paged"), [(1024, 5e6), (2048, 5e6), (1000, 0), (512, 0)])
def test_weights_in_whole_pages_are_told_from_others(inner, paged):
    got = named(OperatorWork("conv", 1.0, 0.0, 5e6, 0.0, 1, 9, inner, 1, 1, 16, 4))
    assert got["weights in rows of whole pages"] == paged
    assert got["weights in columns of whole pages"] == 0


def test_branches_of_few_windows_are_remembered():
    few = named(OperatorWork("pool/max", 9.0, 0, 0, 0, 1, 1000, 1, 8, 1, 9, 4))
    many = named(OperatorWork("pool/max", 9.0, 0, 0, 0, 1, 1000, 1, 10, 1, 9, 4))
    assert few["windows beyond those remembered"] == 0
    assert many["windows beyond those remembered"] == 10000 - 8192
    assert many["operations in windows beyond those remembered"] == 9 * (10000 - 8192)
    product = named(OperatorWork("conv", 9.0, 0, 0, 0, 1, 1000, 90, 10, 1, 9, 4))
    assert product["windows beyond those remembered"] == 0


def test_lines_of_many_pages():
    def elements(rows, columns):
        got = named(OperatorWork("move/permute", 0.0, 0, 0, 0, 1, rows, 1, columns))
        return got["elements of many pages"]

    assert elements(4096, 512) == 0
    assert elements(4096, 1024) == 4096 * 1024
    # Columns that share pages.
    assert elements(256, 1024) == 0


def test_columns_whose_neighbours_lie_whole_pages_apart():
    def apart(rows, columns, inner=1):
        got = named(OperatorWork("move/permute", 0.0, 0, 0, 0, 1, rows, inner, columns))
        return got["elements of lines whole pages apart"]

    assert apart(1024, 16) == 0
    assert apart(1024, 17) == 1024 * 17
    assert apart(1025, 600) == apart(1024, 600, inner=2) == 0


@pytest.mark.parametrize(
    ("rows", "columns"),
    [(256, 1024), (1024, 256), (4096, 64), (576, 4096), (1 << 20, 8), (999, 16384)],
)
def test_columns_for_which_the_2nd_cache_has_no_places(rows, columns):
    def crowded(columns, inner=1):
        got = named(OperatorWork("move/permute", 0.0, 0, 0, 0, 1, rows, inner, columns))
        return got["elements of more lines than the 2nd cache has places for"]

    # Of 8 ways, and 131072 bytes each: lines 1024 bytes apart have 128 places.
    assert crowded(columns) == 0
    assert crowded(columns + 1) == rows * (columns + 1)
    assert crowded(columns + 1, inner=2) == 0


def test_lines_out_of_step_count_where_memory_is_asked_for_them():
    def waited(rows, columns, size):
        work = OperatorWork("move/permute", 0.0, size, 0, size, 1, rows, 1, columns)
        return named(work)["elements of many pages out of step"]

    assert waited(3481, 912, 24 * MIB) == 3481 * 912
    assert waited(3481, 912, 8 * MIB) == 3481 * 912 / 2
    assert waited(3481, 912, 4 * MIB) == waited(3480, 912, 24 * MIB) == 0
    assert waited(3481, 500, 24 * MIB) == 0


@pytest.mark.parametrize(("size", "beyond"), [(1 << 17, 0), (1 << 18, 1 << 18)])
def test_bytes_beyond_a_cache_count_from_where_it_ends(size, beyond):
    got = named(OperatorWork("elementwise", 1.0, float(size), 0.0, float(size)))
    assert got["activations beyond the 1st cache"] == beyond
    assert got["bytes beyond the 3rd cache"] == 0


def test_elements_of_short_lines_are_passed_over_one_by_one():
    def elements(columns, inner=1):
        got = named(OperatorWork("softmax", 0.0, 0, 0, 0, 1, 10, inner, columns))
        return got["elements of short lines"]

    assert elements(15) == 150
    assert elements(16) == 0
    assert elements(15, inner=2) == 0


@pytest.mark.parametrize(("size", "displaced"), [(8, 0), (16, 8), (24, 24), (80, 80)])
def test_bytes_displace_each_other_all_where_they_fill_the_caches_twice(size, displaced):
    passed = named(OperatorWork("elementwise", 1.0, size * MIB / 2, 0, size * MIB / 2, 1, 1, 1, 9))
    assert passed["activations displaced"] == displaced * MIB
    product = named(OperatorWork("conv", 1.0, size * MIB, 0, 0, 1, 1, 2, 9))
    assert product["activations displaced"] == 0
    again = named(OperatorWork("recurrent", 1.0, 0, 0, 0, 1, 1, 256, size << 10, 5))
    assert again["weights read again displaced"] == 5 * displaced * MIB
