"""OverFeat: Sermanet et al., ICLR'14."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from layergraph.networks.preprocess import Photo


class OverFeat(nn.Module):
    """uint8 photo [N, 231, 231, 3] to probabilities [N, 1000].

    Source: the paper's "fast" network, layer by layer as in soumith/convnet-benchmarks
    overfeat.lua. 145,920,872 parameters, 556.6 MiB; the paper has 145 million. JointDNN (TMC'19)
    measures it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.photo = Photo()
        self.conv1 = nn.Conv2d(3, 96, 11, stride=4)
        self.conv2 = nn.Conv2d(96, 256, 5)
        self.conv3 = nn.Conv2d(256, 512, 3, padding=1)
        self.conv4 = nn.Conv2d(512, 1024, 3, padding=1)
        self.conv5 = nn.Conv2d(1024, 1024, 3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.fc6 = nn.Linear(1024 * 6 * 6, 3072)
        self.fc7 = nn.Linear(3072, 4096)
        self.fc8 = nn.Linear(4096, 1000)

    def forward(self, photo: Tensor) -> Tensor:
        x = self.pool(torch.relu(self.conv1(self.photo(photo))))
        x = self.pool(torch.relu(self.conv2(x)))
        x = torch.relu(self.conv3(x))
        x = torch.relu(self.conv4(x))
        x = self.pool(torch.relu(self.conv5(x)))
        x = torch.relu(self.fc6(torch.flatten(x, 1)))
        x = torch.relu(self.fc7(x))
        return torch.softmax(self.fc8(x), dim=1)
