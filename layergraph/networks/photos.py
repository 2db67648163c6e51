"""Real photos without a download: crops of the two that scikit-learn carries."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cache

import torch
from torch import Tensor


@cache
def _originals() -> tuple[Tensor, ...]:
    # Here, not above: layergraph as such needs nothing but torch.
    from sklearn.datasets import load_sample_image

    # A copy, because the bundled arrays are read-only.
    return tuple(torch.tensor(load_sample_image(name)) for name in ("china.jpg", "flower.jpg"))


def photos(size: int, seed: int = 0) -> Iterator[Tensor]:
    """Endless different square photos, uint8 [1, size, size, 3]; the same ones for a seed.

    Each is a random crop of scikit-learn's `china.jpg` or `flower.jpg` (427 x 640), in turn,
    scaled to `size` pixels. Raises ImportError where scikit-learn or Pillow is missing.
    """
    draw = random.Random(seed)
    while True:
        for original in _originals():
            yield _crop(original, size, draw)


def _crop(original: Tensor, size: int, draw: random.Random) -> Tensor:
    height, width, _ = original.shape
    side = draw.randint(min(height, width) // 2, min(height, width))
    top, left = draw.randint(0, height - side), draw.randint(0, width - side)
    square = original[top : top + side, left : left + side].permute(2, 0, 1)[None]
    scaled = torch.nn.functional.interpolate(
        square.float(), (size, size), mode="bilinear", antialias=True
    )
    return scaled.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
