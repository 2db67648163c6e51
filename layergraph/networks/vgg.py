"""VGG-16: Simonyan and Zisserman, ICLR'15."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from layergraph.networks.preprocess import Photo


def _block(inputs: int, outputs: int, convolutions: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for index in range(convolutions):
        layers += [nn.Conv2d(outputs if index else inputs, outputs, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.MaxPool2d(2))


class VGG16(nn.Module):
    """uint8 photo [N, 224, 224, 3] to probabilities [N, 1000].

    Source: configuration D of the paper. 138,357,544 parameters, 527.8 MiB; the paper has 138
    million. Neurosurgeon (ASPLOS'17) Table 3 lists it as VGG, without a size.
    """

    def __init__(self) -> None:
        super().__init__()
        self.photo = Photo()
        self.features = nn.Sequential(
            _block(3, 64, 2),
            _block(64, 128, 2),
            _block(128, 256, 3),
            _block(256, 512, 3),
            _block(512, 512, 3),
        )
        self.fc6 = nn.Linear(512 * 7 * 7, 4096)
        self.fc7 = nn.Linear(4096, 4096)
        self.fc8 = nn.Linear(4096, 1000)

    def forward(self, photo: Tensor) -> Tensor:
        x = torch.flatten(self.features(self.photo(photo)), 1)
        x = torch.relu(self.fc6(x))
        x = torch.relu(self.fc7(x))
        return torch.softmax(self.fc8(x), dim=1)
