"""The choice of codings follows the link's rate and what was really seen."""

from __future__ import annotations

from ionn_client.machine.crossings import Crossings
from planner import CutCoding, Link

RAW, CODED = CutCoding("raw", 1000, 0, 0), CutCoding("planes", 500, 0.01, 0.01)
CUTS = ((RAW, CODED), (RAW,))
SLOW, FAST = 1e3, 1e6


def chosen(made: Crossings) -> list[str]:
    return [option.coding for option in (*made.up.chosen, *made.down.chosen)]


def test_each_direction_follows_its_own_rate() -> None:
    made = Crossings(CUTS, CUTS)
    assert chosen(made) == ["raw"] * 4
    assert made.follow(Link(SLOW, FAST))
    assert chosen(made) == ["planes", "raw", "raw", "raw"]
    assert made.follow(Link(FAST, SLOW))
    assert chosen(made) == ["raw", "raw", "planes", "raw"]


def test_a_rate_that_hardly_moved_chooses_nothing_new() -> None:
    made = Crossings(CUTS, CUTS)
    made.follow(Link(SLOW, SLOW))
    assert not made.follow(Link(1.05 * SLOW, SLOW))
    assert made.follow(Link(1.2 * SLOW, SLOW))


def test_a_coding_that_turns_out_long_or_slow_is_left() -> None:
    for seen in ({"size": 2000}, {"encode_s": 9.0}, {"decode_s": 9.0}):
        made = Crossings(CUTS, CUTS)
        made.follow(Link(SLOW, SLOW))
        for _ in range(20):
            made.up.observe(0, "planes", **seen)  # type: ignore[arg-type]
        assert chosen(made) == ["raw", "raw", "planes", "raw"]


def test_what_was_not_seen_stays_as_expected() -> None:
    made = Crossings(CUTS, CUTS)
    made.up.observe(0, "planes", size=400)
    option = made.up.option(0, "planes")
    assert 400 < option.bytes < 500
    assert (option.encode_s, option.decode_s) == (0.01, 0.01)
    made.up.observe(0, "raw", size=1, encode_s=5.0)
    assert made.up.option(0, "raw") == RAW
    assert made.up.option(1, "planes") == RAW
