"""Emulation for demonstrations and measurements, on one machine: a wireless link, a slow device.

A run that used any of it must say so. What the link is and is not stands in `relay`.
Knows nothing of models, plans or the protocol.
"""

from ionn_client.emulate.device import SlowDevice, slowdown_for
from ionn_client.emulate.link import LinkSpec, Shaper, parse_rate, parse_size, parse_time
from ionn_client.emulate.process import LinkProcess
from ionn_client.emulate.relay import LinkCounters, LinkEmulator

__all__ = [
    "LinkCounters",
    "LinkEmulator",
    "LinkProcess",
    "LinkSpec",
    "Shaper",
    "SlowDevice",
    "parse_rate",
    "parse_size",
    "parse_time",
    "slowdown_for",
]
