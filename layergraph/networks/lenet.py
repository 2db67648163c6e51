"""LeNet for handwritten digits: LeCun et al. 1998, in Caffe's form (Neurosurgeon's DIG)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from layergraph.networks.preprocess import Photo


class LeNet(nn.Module):
    """uint8 scan [N, 28, 28, 1] to probabilities [N, 10].

    Source: BVLC/caffe examples/mnist/lenet.prototxt. 431,080 parameters, 1.64 MiB. Neurosurgeon
    (ASPLOS'17) Table 3 lists it as DIG, "MNIST", 9 layers, without a size.
    """

    def __init__(self) -> None:
        super().__init__()
        self.photo = Photo()
        self.conv1 = nn.Conv2d(1, 20, 5)
        self.conv2 = nn.Conv2d(20, 50, 5)
        self.pool = nn.MaxPool2d(2)
        self.fc1 = nn.Linear(800, 500)
        self.fc2 = nn.Linear(500, 10)

    def forward(self, scan: Tensor) -> Tensor:
        x = self.photo(scan)
        x = self.pool(self.conv1(x))
        x = self.pool(self.conv2(x))
        x = torch.relu(self.fc1(torch.flatten(x, 1)))
        return torch.softmax(self.fc2(x), dim=1)
