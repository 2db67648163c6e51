"""The default emulated device: one on which AlexNet takes 1.3 s, as in IONN section 2."""

from __future__ import annotations

from ionn_client.emulate import slowdown_for
from ionn_client.profiled import Profiled, prepare
from layergraph.load import load

ALEXNET_LOCAL_S = 1.3


def device_slowdown(requested: float | None, alexnet: Profiled | None = None) -> float:
    """`requested`, or the factor that makes AlexNet take 1.3 s given its time on this machine.

    alexnet: AlexNet's profile, where it was made already.
    """
    if requested is not None:
        return requested
    if alexnet is None:
        loaded = load("alexnet")
        alexnet = prepare(loaded.model, loaded.args)
    return slowdown_for(ALEXNET_LOCAL_S, alexnet.client_s)
