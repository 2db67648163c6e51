"""Numbers with their units, as people read them: three digits, and a prefix that suits."""

from __future__ import annotations

import math

_SMALL = ((1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"))
_LARGE = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


def seconds(value: float) -> str:
    """ "1.23 s", "45.6 ms", "789 µs", "12.0 ns" """
    return _prefixed(value, "s", _SMALL)


def duration(value: float) -> str:
    """ "45.6 s", "10.0 min", "3.50 h", "12.0 days": of stays rather than queries"""
    for unit_s, name in ((86_400, "days"), (3_600, "h"), (60, "min")):
        if value >= 2 * unit_s:
            return f"{_three(value / unit_s)} {name}"
    return seconds(value)


def joules(value: float) -> str:
    """ "1.23 J", "45.6 mJ", "789 µJ" """
    return _prefixed(value, "J", _SMALL)


def byte_count(value: float) -> str:
    """ "1.23 MB", "45.6 KB", "789 B"; in thousands"""
    if _rounded(value) < 1e3:
        return f"{value:.0f} B"
    return f"{_three(value / 1e6)} MB" if _rounded(value) >= 1e6 else f"{_three(value / 1e3)} KB"


def bit_rate(rate_Bps: float) -> str:
    """ "1.00 Gbit/s", "18.9 Mbit/s", "820 kbit/s", "96.0 bit/s", from bytes per second"""
    return _prefixed(rate_Bps * 8, "bit/s", (*_LARGE, (1.0, "")))


def times(value: float) -> str:
    """ "2.34 times" """
    return f"{_three(value)} times"


def _prefixed(value: float, unit: str, prefixes: tuple[tuple[float, str], ...]) -> str:
    """With the first prefix that leaves at least 1 once rounded, or the last one."""
    if value == 0:
        return f"0 {unit}"
    of_three = abs(_rounded(value))
    size, prefix = next((each for each in prefixes if of_three >= each[0]), prefixes[-1])
    return f"{_three(value / size)} {prefix}{unit}"


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")


def _three(value: float) -> str:
    """Three digits, or more before the point; with an exponent where that would be far away."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    exponent = math.floor(math.log10(abs(_rounded(value))))
    if not -4 <= exponent < 9:
        return f"{value:.2e}"
    return f"{value:.{max(0, 2 - exponent)}f}"
