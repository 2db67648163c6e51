"""The networks that the seed papers measure with, as our own definitions with seeded weights.

`NETWORKS` lists them; `build` makes one. Every image network takes the photo itself (uint8) and
prepares it inside, so that the first cut is small. Nothing here is trained: the answers mean
nothing, but they are the same each time, and sensitive to every layer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from layergraph.networks.alexnet import AlexNet
from layergraph.networks.lenet import LeNet
from layergraph.networks.photos import photos
from layergraph.networks.resnet import ResNet50
from layergraph.networks.seeding import seeded

__all__ = ["NETWORKS", "NetworkInfo", "build", "photos"]


@dataclass(frozen=True, slots=True)
class NetworkInfo:
    """One benchmark network and what its paper says about it.

    `parameters` counts learned values; `megabytes` is the size in the paper's table, in MiB of
    float32 (None where it gives none). `inputs` is "photo", "scan", "frames" or "words".
    """

    name: str
    title: str
    architecture: Callable[[], nn.Module]
    example: Callable[[], tuple[Any, ...]]
    paper: str
    parameters: int
    megabytes: float | None = None
    inputs: str = "photo"

    def build(self, seed: int = 0) -> nn.Module:
        """The network in eval mode with weights drawn from `seed`."""
        return seeded(self.architecture, seed)


def _photo(size: int) -> Callable[[], tuple[Tensor]]:
    return lambda: (_random((1, size, size, 3), 256, torch.uint8),)


def _random(shape: tuple[int, ...], stop: int, dtype: torch.dtype) -> Tensor:
    return torch.randint(stop, shape, generator=torch.Generator().manual_seed(1), dtype=dtype)


_IONN = "IONN, SoCC'18, Table 1"
_NEUROSURGEON = "Neurosurgeon, ASPLOS'17, Table 3"

NETWORKS: dict[str, NetworkInfo] = {
    info.name: info
    for info in (
        NetworkInfo("alexnet", "AlexNet", AlexNet, _photo(227), _IONN, 60_965_224, 233),
        NetworkInfo("resnet50", "ResNet-50", ResNet50, _photo(224), _IONN, 25_557_032, 98),
        NetworkInfo(
            "lenet",
            "LeNet (MNIST)",
            LeNet,
            lambda: (_random((1, 28, 28, 1), 256, torch.uint8),),
            _NEUROSURGEON,
            431_080,
            inputs="scan",
        ),
    )
}


def build(name: str, seed: int = 0) -> nn.Module:
    """The network called `name`, in eval mode. Raises KeyError for an unknown name."""
    return NETWORKS[name].build(seed)
