"""Networks that draw: the chair generator and pix2pix."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from layergraph.networks.preprocess import Photo


def _stream(*parts: nn.Module) -> nn.Sequential:
    return nn.Sequential(*(layer for part in parts for layer in (part, nn.LeakyReLU(0.2))))


def _double(inputs: int, outputs: int) -> nn.ConvTranspose2d:
    # Unpooling with zeros and then a 5x5 convolution, as the paper has it, is exactly this.
    return nn.ConvTranspose2d(inputs, outputs, 5, stride=2, padding=2, output_padding=1)


class _Maps(nn.Module):
    """A full connection from a vector to `outputs` maps of 8x8."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.full = nn.Linear(inputs, outputs * 64)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.leaky_relu(self.full(x), 0.2).reshape(x.shape[0], -1, 8, 8)


class ChairGenerator(nn.Module):
    """float32 style [N, 843], view [N, 4], transformation [N, 28] to picture and outline.

    Gives a picture [N, 3, 128, 128] and an outline [N, 1, 128, 128]. Source: Dosovitskiy et al.,
    CVPR'15, section 3, with the input sizes and the picture's widths (8x8x256, 16x16x256,
    32x32x92) of the authors' generation script; the outline's widths, which it does not show,
    are half of those. 31,978,190 parameters, 122.0 MiB. JointDNN (TMC'19) measures it
    as Chair; no published count was found to compare.
    """

    def __init__(self) -> None:
        super().__init__()
        self.style = _stream(nn.Linear(843, 512), nn.Linear(512, 512))
        self.view = _stream(nn.Linear(4, 512), nn.Linear(512, 512))
        self.transformation = _stream(nn.Linear(28, 512), nn.Linear(512, 512))
        self.shared = _stream(nn.Linear(3 * 512, 1024), nn.Linear(1024, 1024))
        self.picture = nn.Sequential(
            _Maps(1024, 256),
            _stream(_double(256, 256), _double(256, 92), _double(92, 48)),
            _double(48, 3),
        )
        self.outline = nn.Sequential(
            _Maps(1024, 128),
            _stream(_double(128, 128), _double(128, 46), _double(46, 24)),
            _double(24, 1),
        )

    def forward(self, style: Tensor, view: Tensor, transformation: Tensor) -> tuple[Tensor, Tensor]:
        parts = [self.style(style), self.view(view), self.transformation(transformation)]
        shared = self.shared(torch.cat(parts, dim=1))
        return self.picture(shared), self.outline(shared)


class Pix2Pix(nn.Module):
    """uint8 photo [N, 256, 256, 3] to a picture [N, 3, 256, 256] in -1 to 1.

    Source: Isola et al., CVPR'17, the U-Net of its appendix, without the biases that its batch
    norms make useless, as in junyanz/pytorch-CycleGAN-and-pix2pix unet_256 (54.4 million there).
    54,413,955 parameters, 207.6 MiB. JointDNN (TMC'19) measures it.
    """

    widths = (64, 128, 256, 512, 512, 512, 512, 512)

    def __init__(self) -> None:
        super().__init__()
        self.photo = Photo()
        self.down = nn.ModuleList()
        for depth, (inputs, outputs) in enumerate(pairwise((3, *self.widths))):
            normed = 0 < depth < len(self.widths) - 1
            self.down.append(
                nn.Sequential(
                    *([nn.LeakyReLU(0.2)] if depth else []),
                    nn.Conv2d(inputs, outputs, 4, stride=2, padding=1, bias=False),
                    *([nn.BatchNorm2d(outputs)] if normed else []),
                )
            )
        self.up = nn.ModuleList()
        for depth in reversed(range(len(self.widths))):
            inputs = self.widths[depth] * (1 if depth == len(self.widths) - 1 else 2)
            outputs = self.widths[depth - 1] if depth else 3
            self.up.append(
                nn.Sequential(
                    nn.ReLU(),
                    nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=not depth),
                    nn.BatchNorm2d(outputs) if depth else nn.Tanh(),
                )
            )

    def forward(self, photo: Tensor) -> Tensor:
        x: Tensor = self.photo(photo)
        skips: list[Tensor] = []
        for down in self.down:
            x = down(x)
            skips.append(x)
        skips.pop()
        for up in self.up:
            x = up(x)
            if skips:
                x = torch.cat([skips.pop(), x], dim=1)
        return x
