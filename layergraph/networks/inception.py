"""The Inception family: GoogLeNet and MXNet's Inception-BN for 21,841 classes."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from layergraph.networks.preprocess import Photo


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2)
    return nn.Sequential(OrderedDict(conv=conv, relu=nn.ReLU()))


def _conv_norm(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2)
    return nn.Sequential(OrderedDict(conv=conv, norm=nn.BatchNorm2d(outputs), relu=nn.ReLU()))


class _Branches(nn.Module):
    """Runs every branch on the same input and joins their channels."""

    def __init__(self, **branches: nn.Module) -> None:
        super().__init__()
        for name, branch in branches.items():
            self.add_module(name, branch)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.children()], dim=1)


def _module(inputs: int, one: int, three: tuple[int, int], five: tuple[int, int], pool: int) -> (
    _Branches
):  # fmt: skip
    return _Branches(
        one=_conv(inputs, one, 1),
        three=nn.Sequential(_conv(inputs, three[0], 1), _conv(*three, 3)),
        five=nn.Sequential(_conv(inputs, five[0], 1), _conv(*five, 5)),
        pool=nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), _conv(inputs, pool, 1)),
    )


class GoogLeNet(nn.Module):
    """uint8 photo [N, 224, 224, 3] to probabilities [N, 1000].

    Source: Szegedy et al., CVPR'15, as BVLC/caffe models/bvlc_googlenet/deploy.prototxt; 152
    layers in the profile that IONN's authors publish (jinevening/IONN-client). 6,998,552
    parameters, 26.7 MiB. The trained Caffe file, which IONN (SoCC'18) measures, is twice that,
    51 MB, because it still holds the two auxiliary classifiers: 6,379,728 parameters that only
    training uses. They are not defined here: no query runs them and no upload needs them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.photo = Photo()
        self.pool = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.norm = nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75)
        self.conv1 = _conv(3, 64, 7, stride=2)
        self.conv2_reduce = _conv(64, 64, 1)
        self.conv2 = _conv(64, 192, 3)
        self.stage3 = nn.Sequential(
            _module(192, 64, (96, 128), (16, 32), 32),
            _module(256, 128, (128, 192), (32, 96), 64),
        )
        self.stage4 = nn.Sequential(
            _module(480, 192, (96, 208), (16, 48), 64),
            _module(512, 160, (112, 224), (24, 64), 64),
            _module(512, 128, (128, 256), (24, 64), 64),
            _module(512, 112, (144, 288), (32, 64), 64),
            _module(528, 256, (160, 320), (32, 128), 128),
        )
        self.stage5 = nn.Sequential(
            _module(832, 256, (160, 320), (32, 128), 128),
            _module(832, 384, (192, 384), (48, 128), 128),
        )
        self.fc = nn.Linear(1024, 1000)

    def forward(self, photo: Tensor) -> Tensor:
        x = self.norm(self.pool(self.conv1(self.photo(photo))))
        x = self.pool(self.norm(self.conv2(self.conv2_reduce(x))))
        x = self.pool(self.stage3(x))
        x = self.pool(self.stage4(x))
        x = self.stage5(x)
        return torch.softmax(self.fc(x.mean((2, 3))), dim=1)


def _same_size(
    inputs: int, one: int, three: tuple[int, int], double: tuple[int, int],
    pool: type[nn.AvgPool2d | nn.MaxPool2d],
    project: int,
) -> _Branches:  # fmt: skip
    return _Branches(
        one=_conv_norm(inputs, one, 1),
        three=nn.Sequential(_conv_norm(inputs, three[0], 1), _conv_norm(*three, 3)),
        twice_three=nn.Sequential(
            _conv_norm(inputs, double[0], 1),
            _conv_norm(*double, 3),
            _conv_norm(double[1], double[1], 3),
        ),
        pool=nn.Sequential(pool(3, stride=1, padding=1), _conv_norm(inputs, project, 1)),
    )


def _half_size(inputs: int, three: tuple[int, int], double: tuple[int, int]) -> _Branches:
    return _Branches(
        three=nn.Sequential(_conv_norm(inputs, three[0], 1), _conv_norm(*three, 3, 2)),
        twice_three=nn.Sequential(
            _conv_norm(inputs, double[0], 1),
            _conv_norm(*double, 3),
            _conv_norm(double[1], double[1], 3, 2),
        ),
        pool=nn.MaxPool2d(3, stride=2, padding=1),
    )


class InceptionBN21k(nn.Module):
    """uint8 photo [N, 224, 224, 3] to probabilities [N, 21841].

    Source: MXNet's full-ImageNet Inception-BN (dmlc/mxnet-model-gallery), layer by layer as in
    its Caffe form pertusa/InceptionBN-21K-for-Caffe, which IONN's authors use. 33,619,969
    parameters (128.3 MiB with the batch norms' statistics); IONN (SoCC'18) Table 1 has 129 MB.
    """

    def __init__(self) -> None:
        super().__init__()
        self.photo = Photo()
        self.conv1 = _conv_norm(3, 96, 7, stride=2)
        self.conv2_reduce = _conv_norm(96, 128, 1)
        self.conv2 = _conv_norm(128, 288, 3)
        self.pool = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.stage3 = nn.Sequential(
            _same_size(288, 96, (96, 96), (96, 144), nn.AvgPool2d, 48),
            _same_size(384, 96, (96, 144), (96, 144), nn.AvgPool2d, 96),
            _half_size(480, (192, 240), (96, 144)),
        )
        self.stage4 = nn.Sequential(
            _same_size(864, 224, (64, 96), (96, 128), nn.AvgPool2d, 128),
            _same_size(576, 192, (96, 128), (96, 128), nn.AvgPool2d, 128),
            _same_size(576, 160, (128, 160), (128, 160), nn.AvgPool2d, 128),
            _same_size(608, 96, (128, 192), (160, 96), nn.AvgPool2d, 128),
            _half_size(512, (128, 192), (192, 256)),
        )
        self.stage5 = nn.Sequential(
            _same_size(960, 352, (192, 320), (160, 224), nn.AvgPool2d, 128),
            _same_size(1024, 352, (192, 320), (192, 224), nn.MaxPool2d, 128),
        )
        self.fc = nn.Linear(1024, 21841)

    def forward(self, photo: Tensor) -> Tensor:
        x = self.pool(self.conv1(self.photo(photo)))
        x = self.pool(self.conv2(self.conv2_reduce(x)))
        x = self.stage5(self.stage4(self.stage3(x)))
        return torch.softmax(self.fc(x.mean((2, 3))), dim=1)
