"""DeepFace: Taigman et al., CVPR'14. Most of it is locally connected layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from layergraph.networks.preprocess import Photo


class LocallyConnected(nn.Module):
    """A convolution with a kernel of its own at each place, over a square input of `size`."""

    def __init__(self, inputs: int, outputs: int, size: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.side = (size - kernel) // stride + 1
        self.fan_in = inputs * kernel * kernel
        self.weight = nn.Parameter(torch.empty(self.side**2, outputs, self.fan_in))
        self.bias = nn.Parameter(torch.empty(outputs, self.side, self.side))

    def forward(self, x: Tensor) -> Tensor:
        patches = nn.functional.unfold(x, self.kernel, stride=self.stride)
        # Places lead, so that each is one matrix product: [L, O, K] @ [L, K, N].
        y = torch.bmm(self.weight, patches.permute(2, 1, 0)).permute(2, 1, 0)
        return y.reshape(*y.shape[:2], self.side, self.side) + self.bias


class DeepFace(nn.Module):
    """uint8 face [N, 152, 152, 3] to probabilities [N, 4030], one for each person.

    Source: the paper's section 3.2; shapes as claritylab/djinn face.prototxt, by Neurosurgeon's
    authors, which ends in fewer classes. 118,923,774 parameters, 453.7 MiB; the paper says "more
    than 120 million". Neurosurgeon (ASPLOS'17) Table 3 lists it as FACE, without a size.
    """

    def __init__(self) -> None:
        super().__init__()
        self.photo = Photo()
        self.conv1 = nn.Conv2d(3, 32, 11)
        self.pool = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.conv3 = nn.Conv2d(32, 16, 9)
        self.local4 = LocallyConnected(16, 16, 63, 9)
        self.local5 = LocallyConnected(16, 16, 55, 7, stride=2)
        self.local6 = LocallyConnected(16, 16, 25, 5)
        self.fc7 = nn.Linear(16 * 21 * 21, 4096)
        self.fc8 = nn.Linear(4096, 4030)

    def forward(self, face: Tensor) -> Tensor:
        x = self.pool(torch.relu(self.conv1(self.photo(face))))
        x = torch.relu(self.conv3(x))
        x = torch.relu(self.local4(x))
        x = torch.relu(self.local5(x))
        x = torch.relu(self.local6(x))
        x = torch.relu(self.fc7(torch.flatten(x, 1)))
        return torch.softmax(self.fc8(x), dim=1)
