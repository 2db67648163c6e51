"""What the client draws from its battery: computing, waiting, and sending over its radio.

The model of JointDNN (TMC'19, section 3) and of Eshratifar and Pedram (GLSVLSI'18): a state draws
constant power, and a radio that moves t Mbit/s draws alpha * t + beta. Joules are the client's;
what the edge draws is not counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from planner.costs import LayerCosts, Link, not_negative
from planner.prices import Prices, Where

_BPS_PER_MBPS = 125e3
_S_PER_H = 3600.0


@dataclass(frozen=True, slots=True)
class Radio:
    """What a radio draws: `base_W` while it moves data, and more the faster it does.

    P = alpha_u * t_u + alpha_d * t_d + beta (Huang et al., MobiSys'12), with t in bytes
    per second. Raises ValueError unless the numbers are finite and not negative.
    """

    up_W_per_Bps: float
    down_W_per_Bps: float
    base_W: float
    name: str = ""

    def __post_init__(self) -> None:
        for field in ("up_W_per_Bps", "down_W_per_Bps", "base_W"):
            not_negative(field, getattr(self, field))

    @classmethod
    def measured(cls, name: str, up_mW: float, down_mW: float, base_mW: float) -> Radio:
        """From the units in which papers print them: mW per Mbit/s twice, and mW."""
        per_Bps = 1e-3 / _BPS_PER_MBPS
        return cls(up_mW * per_Bps, down_mW * per_Bps, base_mW * 1e-3, name)

    def sending_W(self, rate_Bps: float) -> float:
        """Watts while sending at this rate."""
        return self.up_W_per_Bps * rate_Bps + self.base_W

    def receiving_W(self, rate_Bps: float) -> float:
        """Watts while receiving at this rate."""
        return self.down_W_per_Bps * rate_Bps + self.base_W


@dataclass(frozen=True, slots=True)
class Power:
    """What the client draws: while it computes, while it waits, and through its radio.

    `compute_W` and `idle_W` are of the whole board; the radio comes on top of `idle_W` while it
    moves data. Raises ValueError unless the numbers are finite and not negative.
    """

    compute_W: float
    idle_W: float
    radio: Radio

    def __post_init__(self) -> None:
        for field in ("compute_W", "idle_W"):
            not_negative(field, getattr(self, field))


# The parameters of both papers' Tables 2 and 3; the radios are those of Huang et al., MobiSys'12.
# Quoted from memory; of them, 4G's sending and base power were found confirmed. A cellular radio
# stays on for seconds after the last byte (11.6 s on 4G): that tail is in neither paper's model,
# and not in this one.
RADIOS = {
    "3g": Radio.measured("3G", 868.98, 122.12, 817.88),
    "4g": Radio.measured("4G", 438.39, 51.97, 1288.04),
    "wifi": Radio.measured("Wi-Fi", 283.17, 137.01, 132.86),
}
# Average rates by network, from memory of the same tables.
LINKS = {
    "3g": Link(1.1 * _BPS_PER_MBPS, 2.0275 * _BPS_PER_MBPS),
    "4g": Link(5.85 * _BPS_PER_MBPS, 13.76 * _BPS_PER_MBPS),
    "wifi": Link(18.88 * _BPS_PER_MBPS, 54.97 * _BPS_PER_MBPS),
}


def energy_prices(costs: LayerCosts, link: Link, power: Power) -> Prices:
    """Joules of the client: of computing, of waiting for the edge, and of crossing each cut.

    A cut draws idle power and the radio's while its bytes move, idle power for the half round
    trip, and compute power while it is coded (a bound from above: the edge does its share of that).
    """
    sending_J = (power.idle_W + power.radio.sending_W(link.up_Bps)) / link.up_Bps
    receiving_J = (power.idle_W + power.radio.receiving_W(link.down_Bps)) / link.down_Bps
    waiting_J = power.idle_W * link.rtt_s / 2
    return Prices(
        costs.client_s * power.compute_W,
        costs.edge_s * power.idle_W,
        costs.cut_up_bytes * sending_J + waiting_J + costs.cut_up_s * power.compute_W,
        costs.cut_down_bytes * receiving_J + waiting_J + costs.cut_down_s * power.compute_W,
    )


def query_energy_J(
    costs: LayerCosts, link: Link, power: Power, placement: Sequence[Where]
) -> float:
    """Joules that the client draws from a query's input to its answer."""
    return energy_prices(costs, link, power).along(placement)


def upload_energy_J(upload_bytes: float, link: Link, power: Power) -> float:
    """Joules that the radio draws to send these bytes of weights.

    What the board draws meanwhile is not in it: an upload runs beside queries and waiting, which
    are counted where they belong. Raises ValueError when bytes are negative or not finite.
    """
    not_negative("upload_bytes", upload_bytes)
    return upload_bytes / link.up_Bps * power.radio.sending_W(link.up_Bps)


def hourly_energy_J(power: Power, query_J: float, query_s: float, queries_per_h: float) -> float:
    """Joules of an hour in which this many queries run one at a time, and the board waits between.

    Raises ValueError when a number is negative or not finite, and when the queries of an hour take
    longer than an hour.
    """
    given = {"query_J": query_J, "query_s": query_s, "queries_per_h": queries_per_h}
    for name, value in given.items():
        not_negative(name, value)
    busy_s = queries_per_h * query_s
    if busy_s > _S_PER_H:
        raise ValueError(f"queries_per_h: {queries_per_h} queries of {query_s} s exceed an hour")
    return queries_per_h * query_J + (_S_PER_H - busy_s) * power.idle_W
