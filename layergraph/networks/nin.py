"""Network in Network: Lin et al., ICLR'14."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from layergraph.networks.preprocess import Photo


def _block(first: nn.Conv2d, outputs: int) -> nn.Sequential:
    width = first.out_channels
    return nn.Sequential(
        first,
        nn.ReLU(),
        nn.Conv2d(width, width, 1),
        nn.ReLU(),
        nn.Conv2d(width, outputs, 1),
        nn.ReLU(),
    )


class NiN(nn.Module):
    """uint8 photo [N, 224, 224, 3] to probabilities [N, 1000].

    Source: the ImageNet network of Caffe's model zoo, nin_imagenet/deploy.prototxt. 7,595,176
    parameters, 29.0 MiB. JointDNN (TMC'19) measures it; it gives no size.
    """

    def __init__(self) -> None:
        super().__init__()
        self.photo = Photo()
        self.block1 = _block(nn.Conv2d(3, 96, 11, stride=4), 96)
        self.block2 = _block(nn.Conv2d(96, 256, 5, padding=2), 256)
        self.block3 = _block(nn.Conv2d(256, 384, 3, padding=1), 384)
        self.block4 = _block(nn.Conv2d(384, 1024, 3, padding=1), 1000)
        self.pool = nn.MaxPool2d(3, stride=2, ceil_mode=True)

    def forward(self, photo: Tensor) -> Tensor:
        x = self.pool(self.block1(self.photo(photo)))
        x = self.pool(self.block2(x))
        x = self.pool(self.block3(x))
        return torch.softmax(self.block4(x).mean((2, 3)), dim=1)
