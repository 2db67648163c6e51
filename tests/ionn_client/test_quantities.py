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
        (1.5e-7, "0.15 µs"),
    ],
)
def test_seconds(value: float, text: str) -> None:
    assert seconds(value) == text


def test_the_others() -> None:
    assert [joules(value) for value in (0.0, 2.345, 0.0123)] == ["0 J", "2.35 J", "12.3 mJ"]
    assert [byte_count(value) for value in (0, 999, 4000, 1.5e6)] == [
        "0 B",
        "999 B",
        "4.00 KB",
        "1.50 MB",
    ]
    assert bit_rate(2.36e6) == "18.9 Mbit/s"
    assert bit_rate(1e4) == "80.0 kbit/s"
    assert [duration(value) for value in (0.0, 119.0, 600.0, 9e3, 1e6)] == [
        "0 s",
        "119 s",
        "10.0 min",
        "2.50 h",
        "11.6 days",
    ]
    assert times(2.0) == "2.00 times"
