"""AlexNet: Krizhevsky et al., NIPS'12, in the form of Caffe's bvlc_alexnet."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from layergraph.networks.preprocess import Photo


class AlexNet(nn.Module):
    """uint8 photo [N, 227, 227, 3] to probabilities [N, 1000].

    Source: BVLC/caffe models/bvlc_alexnet/deploy.prototxt: one tower with grouped convolutions,
    response normalisation before pooling. 60,965,224 parameters, 232.6 MiB; IONN (SoCC'18)
    Table 1 has 233 MB.
    """

    def __init__(self) -> None:
        super().__init__()
        self.photo = Photo()
        self.conv1 = nn.Conv2d(3, 96, 11, stride=4)
        self.conv2 = nn.Conv2d(96, 256, 5, padding=2, groups=2)
        self.conv3 = nn.Conv2d(256, 384, 3, padding=1)
        self.conv4 = nn.Conv2d(384, 384, 3, padding=1, groups=2)
        self.conv5 = nn.Conv2d(384, 256, 3, padding=1, groups=2)
        self.norm = nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75)
        self.pool = nn.MaxPool2d(3, stride=2)
        self.fc6 = nn.Linear(256 * 6 * 6, 4096)
        self.fc7 = nn.Linear(4096, 4096)
        self.fc8 = nn.Linear(4096, 1000)

    def forward(self, photo: Tensor) -> Tensor:
        x = self.photo(photo)
        x = self.pool(self.norm(torch.relu(self.conv1(x))))
        x = self.pool(self.norm(torch.relu(self.conv2(x))))
        x = torch.relu(self.conv3(x))
        x = torch.relu(self.conv4(x))
        x = self.pool(torch.relu(self.conv5(x)))
        x = torch.flatten(x, 1)
        x = torch.relu(self.fc6(x))
        x = torch.relu(self.fc7(x))
        return torch.softmax(self.fc8(x), dim=1)
