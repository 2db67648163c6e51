"""Which coding the activations take at each cut: the one that is across soonest.

Knows sizes and times only; what the codings do, and which may be offered, is decided elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real


@dataclass(frozen=True, slots=True)
class CutCoding:
    """One way to carry a cut: `bytes` on the wire, `encode_s` before and `decode_s` behind it.

    Raises ValueError that names the field unless all three are finite and not negative and
    `coding` is a name.
    """

    coding: str
    bytes: float
    encode_s: float
    decode_s: float

    def __post_init__(self) -> None:
        if not (isinstance(self.coding, str) and self.coding):
            raise ValueError(f"coding is a name, not {self.coding!r}")
        for field in ("bytes", "encode_s", "decode_s"):
            value = getattr(self, field)
            if not (isinstance(value, Real) and 0 <= float(value) < math.inf):
                raise ValueError(f"{field} is a finite number from 0, not {value!r}")

    @property
    def coding_s(self) -> float:
        """Seconds for coding and decoding together, as in `LayerCosts.cut_up_s`."""
        return self.encode_s + self.decode_s


def choose_codings(
    options: Sequence[Sequence[CutCoding]], rate_Bps: float
) -> tuple[CutCoding, ...]:
    """Per cut, the option that crosses a link of `rate_Bps` soonest; on a tie the first.

    `options` has the codings offered at each cut, in order of preference (raw first: it can
    always be sent). Raises ValueError for a cut without options and for a rate that is not
    positive and finite.
    """
    if not 0 < rate_Bps < math.inf:
        raise ValueError(f"rate_Bps is a positive number of bytes per second, not {rate_Bps!r}")
    chosen = []
    for cut, offered in enumerate(options):
        if not offered:
            raise ValueError(f"options[{cut}] is empty; a cut needs at least one coding")
        seconds = [o.bytes / rate_Bps + o.encode_s + o.decode_s for o in offered]
        chosen.append(offered[seconds.index(min(seconds))])
    return tuple(chosen)
