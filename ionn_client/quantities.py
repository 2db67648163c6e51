"""Numbers with their units, as people read them: three digits, and a prefix that suits."""

from __future__ import annotations


def seconds(value: float) -> str:
    """ "1.23 s", "45.6 ms", "789 µs" """
    if value == 0:
        return "0 s"
    if value >= 1:
        return f"{_three(value)} s"
    return f"{_three(value * 1e3)} ms" if value >= 1e-3 else f"{_three(value * 1e6)} µs"


def duration(value: float) -> str:
    """ "45.6 s", "10.0 min", "3.50 h", "12.0 days": of stays rather than queries"""
    for unit_s, name in ((86_400, "days"), (3_600, "h"), (60, "min")):
        if value >= 2 * unit_s:
            return f"{_three(value / unit_s)} {name}"
    return seconds(value)


def joules(value: float) -> str:
    """ "1.23 J", "45.6 mJ" """
    if value == 0:
        return "0 J"
    return f"{_three(value)} J" if abs(value) >= 1 else f"{_three(value * 1e3)} mJ"


def byte_count(value: float) -> str:
    """ "1.23 MB", "45.6 KB", "789 B"; in thousands"""
    if value >= 1e6:
        return f"{_three(value / 1e6)} MB"
    return f"{_three(value / 1e3)} KB" if value >= 1e3 else f"{value:.0f} B"


def bit_rate(rate_Bps: float) -> str:
    """ "18.9 Mbit/s", "820 kbit/s", from bytes per second"""
    bits = rate_Bps * 8
    return f"{_three(bits / 1e6)} Mbit/s" if bits >= 1e6 else f"{_three(bits / 1e3)} kbit/s"


def times(value: float) -> str:
    """ "2.34 times" """
    return f"{_three(value)} times"


def _three(value: float) -> str:
    """Three digits, without an exponent, unless there are more before the point."""
    whole = len(str(int(abs(value)))) if abs(value) >= 1 else 1
    return f"{value:.{max(0, 3 - whole)}f}"
