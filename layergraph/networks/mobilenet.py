"""MobileNet v1: Howard et al., 2017."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from layergraph.networks.preprocess import Photo


def _conv(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, norm=nn.BatchNorm2d(outputs), relu=nn.ReLU()))


def _separable(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    depthwise = _conv(inputs, inputs, 3, stride, groups=inputs)
    return nn.Sequential(OrderedDict(depthwise=depthwise, pointwise=_conv(inputs, outputs, 1)))


class MobileNet(nn.Module):
    """uint8 photo [N, 224, 224, 3] to probabilities [N, 1000].

    Source: width 1.0 at 224 pixels, as shicai/MobileNet-Caffe, whose layer names are those of
    the profile that IONN's authors publish. 4,231,976 parameters (4,253,864 with the batch
    norms' statistics, 16.2 MiB); IONN (SoCC'18) Table 1 has 16 MB.
    """

    def __init__(self) -> None:
        super().__init__()
        self.photo = Photo()
        self.conv1 = _conv(3, 32, 3, stride=2)
        self.separable = nn.Sequential(
            _separable(32, 64),
            _separable(64, 128, stride=2),
            _separable(128, 128),
            _separable(128, 256, stride=2),
            _separable(256, 256),
            _separable(256, 512, stride=2),
            *(_separable(512, 512) for _ in range(5)),
            _separable(512, 1024, stride=2),
            _separable(1024, 1024),
        )
        self.fc = nn.Linear(1024, 1000)

    def forward(self, photo: Tensor) -> Tensor:
        x = self.separable(self.conv1(self.photo(photo)))
        return torch.softmax(self.fc(x.mean((2, 3))), dim=1)
