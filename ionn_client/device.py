"""The default emulated device: one on which AlexNet takes 1.3 s, as in IONN section 2."""

from __future__ import annotations

from ionn_client.emulate import slowdown_for
from ionn_client.offload import prepare
from layergraph.load import load

ALEXNET_LOCAL_S = 1.3


def device_slowdown(requested: float | None) -> float:
    """`requested`, or the factor that makes AlexNet take 1.3 s given its time on this machine."""
    if requested is not None:
        return requested
    alexnet = load("alexnet")
    return slowdown_for(ALEXNET_LOCAL_S, prepare(alexnet.model, alexnet.args).client_s)
