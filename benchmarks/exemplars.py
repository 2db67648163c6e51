"""Patches of photos as classes, to train features on two photos: exemplars.

Each class is one patch of scikit-learn's two photos, seen moved, turned, scaled and recoloured;
telling them apart teaches a network features that serve elsewhere, without labels (A. Dosovitskiy
et al., "Discriminative unsupervised feature learning with convolutional neural networks",
NIPS'14). Patches come from the left of the photos, so that crops of the right were never seen.
"""

from __future__ import annotations

from functools import cache

import numpy
import torch
from torch import Tensor
from torch.nn import functional

CLASSES = 128
MEAN, SPREAD = 117, 58  # of the photos' bytes
_SEEN = 0.6  # of a photo's width, from the left


@cache
def _originals() -> Tensor:
    """scikit-learn's photos, normalised: [2, 3, 427, 640]."""
    from sklearn.datasets import load_sample_images

    stacked = torch.tensor(numpy.stack(load_sample_images().images), dtype=torch.float32)
    return (stacked.permute(0, 3, 1, 2) - MEAN) / SPREAD


def unseen(count: int, size: int = 224) -> Tensor:
    """Crops of the photos' right, in turn: [count, 3, size, size]."""
    right = _originals()[..., round(_originals().shape[-1] * _SEEN) :]
    height, width = right.shape[-2] - size, right.shape[-1] - size
    tops, lefts = (torch.randint(0, most + 1, (count,)) for most in (height, width))
    return torch.stack([
        right[index % len(right), :, top : top + size, left : left + size]
        for index, (top, left) in enumerate(zip(tops.tolist(), lefts.tolist(), strict=True))
    ])  # fmt: skip


def exemplars(size: int, views: int) -> tuple[Tensor, Tensor]:
    """`views` of each class as [n, 3, size, size], and the classes [n]."""
    photo_of = torch.arange(CLASSES) % 2
    centre = torch.rand(CLASSES, 2) * torch.tensor([0.5, 0.7]) + torch.tensor([0.05, 0.15])
    half_height = 0.06 + 0.1 * torch.rand(CLASSES)  # of a photo's height
    labels = torch.arange(CLASSES * views) % CLASSES
    inputs = torch.empty(len(labels), 3, size, size)
    for photo, original in enumerate(_originals()[..., : round(640 * _SEEN)]):
        mine = photo_of[labels] == photo
        inputs[mine] = _views(original, centre[labels[mine]], half_height[labels[mine]], size)
    return inputs, labels


def _views(photo: Tensor, centre: Tensor, half_height: Tensor, size: int) -> Tensor:
    def within(most: float, *shape: int) -> Tensor:
        return (torch.rand(len(centre), *shape) * 2 - 1) * most

    angle, scale = within(0.35), half_height * within(0.35).exp()
    # grid_sample counts from -1 to 1, so that halves of the height are units.
    aspect = photo.shape[-2] / photo.shape[-1]
    cos, sin = angle.cos() * scale * 2, angle.sin() * scale * 2
    x, y = ((centre + within(0.25, 2) * scale[:, None]) * 2 - 1).unbind(1)
    turn = torch.stack([cos * aspect, -sin * aspect, x, sin, cos, y], 1).reshape(-1, 2, 3)
    grid = functional.affine_grid(turn, [len(centre), 3, size, size], align_corners=False)
    # All views in one tall grid, so that the photo is not copied for each.
    seen = functional.grid_sample(
        photo[None], grid.reshape(1, -1, size, 2), padding_mode="reflection", align_corners=False
    )
    views = seen.reshape(3, len(centre), size, size).transpose(0, 1)
    return views * (1 + within(0.3, 3, 1, 1)) + within(0.3, 1, 1, 1)
