"""Fills a network with seeded weights that keep activations at a useful size.

The papers' trained weights are not needed: latency, bytes and plans depend on shapes only, and
equality of answers on arithmetic only. What matters is that values neither die out nor overflow
on the way, so that a wrong layer shows in the answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn


class ScaledNorm(nn.BatchNorm2d):
    """A batch norm whose seeded scale is about `gain`, for branches that add up."""

    def __init__(self, channels: int, gain: float) -> None:
        super().__init__(channels)
        self.gain = gain


def seeded(architecture: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """The network in eval mode, its weights a function of `seed` alone.

    Construction happens on the meta device, so no time goes into default weights that would be
    overwritten; torch's global random state is left as it was.
    """
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        network = architecture()
    network.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in network.modules():
            _fill(module, generator)
    return network.eval().requires_grad_(False)


def _fill(module: nn.Module, generator: torch.Generator) -> None:
    gain = module.gain if isinstance(module, ScaledNorm) else 1.0
    for name, parameter in module.named_parameters(recurse=False):
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            middle, spread = (gain, 0.1 * gain) if name == "weight" else (0.0, 0.1)
            parameter.normal_(middle, spread, generator=generator)
        elif "bias" in name:
            parameter.normal_(0.0, 0.05, generator=generator)
        else:
            parameter.normal_(0.0, _weight_std(module, parameter), generator=generator)
    for name, buffer in module.named_buffers(recurse=False):
        if name == "running_mean":
            buffer.normal_(0.0, 0.1, generator=generator)
        elif name == "running_var":
            buffer.uniform_(0.8, 1.2, generator=generator)
        else:
            buffer.zero_()


def _weight_std(module: nn.Module, weight: torch.Tensor) -> float:
    match module:
        case nn.Embedding():
            return 1.0
        case nn.LSTM() | nn.GRU() | nn.RNN():
            return 1.0 / math.sqrt(module.hidden_size)
        case nn.ConvTranspose2d():
            # Only one in stride x stride taps of the kernel meets an input value.
            taps = weight[0, 0].numel() / (module.stride[0] * module.stride[1])
            return math.sqrt(2.0 / (weight.shape[0] * taps))
        case _:
            # He et al., ICCV'15: keeps the second moment through a layer and a ReLU.
            return math.sqrt(2.0 / getattr(module, "fan_in", weight[0].numel()))
