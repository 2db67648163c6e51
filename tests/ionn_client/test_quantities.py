"""Numbers with their units."""

from __future__ import annotations

import pytest

from ionn_client.quantities import bit_rate, byte_count, duration, joules, seconds, times


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0 s"),
        (12.345, "12.3 s"),
        (1234.5, "1234 s"),
        (0.0456, "45.6 ms"),
        (0.001, "1.00 ms"),
        (7.89e-4, "789 µs"),
        (1.5e-7, "150 ns"),
        (1e-12, "0.00100 ns"),
        (1e-15, "1.00e-06 ns"),
        (-0.0456, "-45.6 ms"),
        (1e12, "1.00e+12 s"),
        (float("inf"), "inf s"),
    ],
)
def test_seconds(value: float, text: str) -> None:
    assert seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.99996, "1.00 s"),
        (9.9996, "10.0 s"),
        (99.96, "100 s"),
        (9.994, "9.99 s"),
        (0.0099996, "10.0 ms"),
        (9.9996e-4, "1.00 ms"),
        (9.9994e-7, "1.00 µs"),
    ],
)
def test_rounding_up_takes_the_next_digit_and_prefix(value: float, text: str) -> None:
    assert seconds(value) == text


def test_the_others() -> None:
    assert [joules(value) for value in (0.0, 2.345, 0.0123, 4.5e-6, 0.9999)] == [
        "0 J",
        "2.35 J",
        "12.3 mJ",
        "4.50 µJ",
        "1.00 J",
    ]
    assert [byte_count(value) for value in (0, 999, 999.7, 4000, 999_960, 1.5e6)] == [
        "0 B",
        "999 B",
        "1.00 KB",
        "4.00 KB",
        "1.00 MB",
        "1.50 MB",
    ]
    assert bit_rate(2.36e6) == "18.9 Mbit/s"
    assert bit_rate(1e4) == "80.0 kbit/s"
    assert bit_rate(12) == "96.0 bit/s"
    assert bit_rate(125e6) == "1.00 Gbit/s"
    assert [duration(value) for value in (0.0, 119.0, 600.0, 9e3, 1e6)] == [
        "0 s",
        "119 s",
        "10.0 min",
        "2.50 h",
        "11.6 days",
    ]
    assert [times(value) for value in (2.0, 0.48, 0.001)] == [
        "2.00 times",
        "0.480 times",
        "0.00100 times",
    ]
