"""What the papers print, as far as it is known here, each figure with where it is known from.

Found: in the abstract, or in a summary of the paper. From memory: remembered from the paper, not
looked up. What is neither is absent: no cell is filled in by guessing.
"""

from __future__ import annotations

from dataclasses import dataclass

FOUND, REMEMBERED = "found", "from memory"


@dataclass(frozen=True, slots=True)
class Printed:
    """One printed figure or decision and how it is known."""

    value: float | str
    known: str


# Neurosurgeon, section 3: AlexNet on each processor, and its photo (152 KB) over each radio, in s.
ALEXNET_s = {
    "jetson-tk1-cpu": Printed(0.382, REMEMBERED),
    "jetson-tk1-gpu": Printed(0.081, FOUND),
    "tesla-k40": Printed(0.006, REMEMBERED),
}
PHOTO_BYTES = 152e3
PHOTO_s = {
    "Wi-Fi": Printed(0.095, REMEMBERED),
    "LTE": Printed(0.180, REMEMBERED),
    "3G": Printed(0.870, FOUND),
}
# Neurosurgeon, section 3: joules of the device for AlexNet on its GPU, and for the photo by LTE.
GPU_J, LTE_J = Printed(0.87, FOUND), Printed(2.41, FOUND)

# Neurosurgeon, section 4: cells of its decision tables. By (objective, device, radio, network).
_POOL5 = Printed("conv5", REMEMBERED)
DECISIONS = {
    ("latency", "jetson-tk1-gpu", "Wi-Fi", "alexnet"): _POOL5,
    ("energy", "jetson-tk1-gpu", "Wi-Fi", "alexnet"): _POOL5,
}
# For networks of fully connected layers alone it says that the best split is at either end.
FULLY_CONNECTED = ("asr", "pos", "ner", "chk")
EITHER_END = Printed("input or end", REMEMBERED)

# Abstracts: Neurosurgeon over all on the server; JointDNN over the status quo (at most);
# Eshratifar and Pedram (GLSVLSI'18) likewise.
SPEEDUP_MEAN, SPEEDUP_MOST = Printed(3.1, FOUND), Printed(40.7, FOUND)
ENERGY_SAVED_MEAN, ENERGY_SAVED_MOST = Printed(0.595, FOUND), Printed(0.947, FOUND)
JOINTDNN_SPEEDUP_MOST, JOINTDNN_ENERGY_MOST = Printed(18.0, FOUND), Printed(32.0, FOUND)

# JointDNN: the patterns of its schedules, by what the network does.
PATTERNS = {
    "discriminative": Printed("client-edge", REMEMBERED),
    "generative": Printed("edge-client", REMEMBERED),
    "autoencoder": Printed("client-edge-client", REMEMBERED),
}
