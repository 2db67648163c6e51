"""From what a camera or scanner gives to what a network takes, inside the network.

With the preprocessing inside, the first cut is the photo itself: a quarter of the bytes of the
floats it becomes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Photo(nn.Module):
    """uint8 [N, H, W, C] to float32 [N, C, H, W], about zero mean and unit variance.

    One mean and deviation for all channels, as MXNet's Inception-21k has it: numbers in the
    graph, where a tensor for each channel would be a weight of its own to upload.
    """

    mean = 117.0
    deviation = 58.0

    def forward(self, photo: Tensor) -> Tensor:
        channels_first = photo.permute(0, 3, 1, 2).contiguous()
        return (channels_first.to(torch.float32) - self.mean) / self.deviation
