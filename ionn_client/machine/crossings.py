"""Which coding each cut takes in each direction, and what crossing it then costs.

The choice follows the link's rate, and the sizes and times that are really seen.
"""

from __future__ import annotations

from dataclasses import replace

from ionn_client.activations import Codings
from planner import CutCoding, Link, choose_codings

# Rates that differ by less than this choose alike.
RATE_CHANGE = 0.1
WEIGHT = 0.3


class Direction:
    """The codings that may cross one way, per cut, and the one chosen of each."""

    def __init__(self, offered: Codings) -> None:
        self._offered = [list(cut) for cut in offered]
        self._rate_Bps: float | None = None
        self.chosen: list[CutCoding] = [cut[0] for cut in offered]

    def follow(self, rate_Bps: float) -> bool:
        """Choose for a link of this rate. Whether anything may have changed."""
        known = self._rate_Bps
        if known is not None and abs(rate_Bps - known) <= RATE_CHANGE * known:
            return False
        self._rate_Bps = rate_Bps
        self.chosen = list(choose_codings(self._offered, rate_Bps))
        return True

    def option(self, cut: int, coding: str) -> CutCoding:
        """What a coding is expected to make of a cut; raw where it is not offered there."""
        offered = self._offered[cut]
        return next((each for each in offered if each.coding == coding), offered[0])

    def observe(
        self,
        cut: int,
        coding: str,
        *,
        size: int | None = None,
        encode_s: float | None = None,
        decode_s: float | None = None,
    ) -> bool:
        """Tensors of `cut` took so many bytes, and seconds, as far as seen.

        Whether anything may have changed: raw needs no measuring.
        """
        if coding == "raw":
            return False
        offered = self._offered[cut]
        for index, option in enumerate(offered):
            if option.coding == coding:
                offered[index] = replace(
                    option,
                    bytes=_towards(option.bytes, size),
                    encode_s=_towards(option.encode_s, encode_s),
                    decode_s=_towards(option.decode_s, decode_s),
                )
        if self._rate_Bps is not None:
            self.chosen[cut] = choose_codings([offered], self._rate_Bps)[0]
        return True


def _towards(expected: float, seen: float | None) -> float:
    return expected if seen is None else expected + WEIGHT * (seen - expected)


class Crossings:
    """Both directions. `exact_up` is the way up of queries that must cross without loss.

    exact_up: the codings that may carry those; None where `up` has nothing lossy.
    """

    def __init__(self, up: Codings, down: Codings, exact_up: Codings | None = None) -> None:
        self.up = self.exact_up = Direction(up)
        self.down = Direction(down)
        if exact_up is not None and exact_up != up:
            self.exact_up = Direction(exact_up)

    @property
    def ups(self) -> set[Direction]:
        """Every way up, each once."""
        return {self.up, self.exact_up}

    def follow(self, link: Link) -> bool:
        """Choose for this link. Whether anything may have changed."""
        changed = [up.follow(link.up_Bps) for up in self.ups]
        return self.down.follow(link.down_Bps) or any(changed)
