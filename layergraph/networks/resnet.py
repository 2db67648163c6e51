"""ResNet-50: He et al., CVPR'16."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from layergraph.networks.preprocess import Photo
from layergraph.networks.seeding import ScaledNorm


def _unit(
    inputs: int, outputs: int, kernel: int, stride: int = 1, gain: float = 1.0
) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, norm=ScaledNorm(outputs, gain)))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions beside a shortcut; the stride sits on the first, as published."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = 4 * width
        self.reduce = _unit(inputs, width, 1, stride)
        self.conv = _unit(width, width, 3)
        # Sixteen branches add up: at full strength the sum would grow 256-fold.
        self.expand = _unit(width, outputs, 1, gain=0.4)
        changes = stride != 1 or inputs != outputs
        self.shortcut = _unit(inputs, outputs, 1, stride, 0.7) if changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.reduce(x))
        y = torch.relu(self.conv(y))
        return torch.relu(self.expand(y) + self.shortcut(x))


class ResNet50(nn.Module):
    """uint8 photo [N, 224, 224, 3] to probabilities [N, 1000].

    Source: the paper's Table 1 as KaimingHe/deep-residual-networks has it, without biases before
    batch norms. 25,557,032 parameters (25,610,152 with the batch norms' statistics, 97.7 MiB);
    IONN (SoCC'18) Table 1 has 98 MB.
    """

    def __init__(self) -> None:
        super().__init__()
        self.photo = Photo()
        self.conv1 = _unit(3, 64, 7, stride=2)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.stage2 = self._stage(64, 64, 3, stride=1)
        self.stage3 = self._stage(256, 128, 4, stride=2)
        self.stage4 = self._stage(512, 256, 6, stride=2)
        self.stage5 = self._stage(1024, 512, 3, stride=2)
        self.fc = nn.Linear(2048, 1000)

    @staticmethod
    def _stage(inputs: int, width: int, blocks: int, stride: int) -> nn.Sequential:
        first = Bottleneck(inputs, width, stride)
        rest = [Bottleneck(4 * width, width, 1) for _ in range(blocks - 1)]
        return nn.Sequential(first, *rest)

    def forward(self, photo: Tensor) -> Tensor:
        x = self.photo(photo)
        x = self.pool(torch.relu(self.conv1(x)))
        x = self.stage5(self.stage4(self.stage3(self.stage2(x))))
        return torch.softmax(self.fc(x.mean((2, 3))), dim=1)
