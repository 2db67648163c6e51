"""Small networks trained in seconds on data that needs no download: what coding costs in accuracy.

scikit-learn's digits (1,797 scans of 8 x 8) for a multilayer perceptron, a small CNN and a
deeper one on scans scaled to 32 x 32, and one with a head as AlexNet and VGG have, whose first
fully connected layer has 16.8 of its 17.9 million weights; and crops of its two photos, each
turned by 0, 90, 180 or 270 degrees, for a CNN that tells photo and turn (Gidaris et al., ICLR'18,
learn features so).
Last, in a minute and a half of one core, a network in the manner of VGG, a quarter as wide, whose
features are richer: it tells patches of photos apart (benchmarks/exemplars.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from benchmarks.exemplars import CLASSES, exemplars, unseen
from layergraph.networks import photos

TEST, PICTURES = 400, 6


@dataclass(frozen=True, slots=True)
class Trained:
    """A network in eval mode, and what it was not trained on: inputs [n, ...], labels [n].

    pictures: what its live tensors are looked at on, [m, ...]; may be larger than the inputs.
    """

    name: str
    model: nn.Module
    inputs: Tensor
    labels: Tensor
    pictures: Tensor


def _convolutions(*widths: int, pool: tuple[int, ...]) -> list[nn.Module]:
    """3 x 3 convolutions with a ReLU each, and a maximum over 2 x 2 after those in `pool`."""
    layers: list[nn.Module] = []
    for index, (inputs, outputs) in enumerate(pairwise(widths)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
        if index in pool:
            layers.append(nn.MaxPool2d(2))
    return [*layers, nn.Flatten()]


def _mlp() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(),
        nn.Linear(128, 10),
    )  # fmt: skip


def _cnn() -> nn.Module:
    return nn.Sequential(
        *_convolutions(1, 32, 64, 64, pool=(1, 2)),
        nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip


def _deep() -> nn.Module:
    return nn.Sequential(
        *_convolutions(1, 16, 16, 32, 32, 64, 64, pool=(1, 3, 5)),
        nn.Linear(1024, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip


def _wide() -> nn.Module:
    return nn.Sequential(
        *_convolutions(1, 16, 32, pool=(0,)),
        nn.Linear(8192, 2048), nn.ReLU(), nn.Linear(2048, 512), nn.ReLU(), nn.Linear(512, 10),
    )  # fmt: skip


def _turns() -> nn.Module:
    return nn.Sequential(
        *_convolutions(3, 16, 32, 32, 64, 64, pool=(0, 1, 2, 4)),
        nn.Linear(1024, 128), nn.ReLU(), nn.Linear(128, 8),
    )  # fmt: skip


def _vgg() -> nn.Module:
    *features, flatten = _convolutions(3, 16, 16, 32, 32, 64, 64, 64, pool=(1, 3, 5))
    for layer in features:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
    return nn.Sequential(*features, nn.AdaptiveAvgPool2d(1), flatten, nn.Linear(64, CLASSES))


def _digits(size: int) -> tuple[Tensor, Tensor]:
    from sklearn.datasets import load_digits

    data = load_digits()
    scans = torch.tensor(data.images, dtype=torch.float32)[:, None] / 16
    scans = nn.functional.interpolate(scans, (size, size), mode="bilinear")
    return scans, torch.tensor(data.target)


def _turned_photos(count: int = 1_200) -> tuple[Tensor, Tensor]:
    source = photos(64, seed=1)
    pictures, labels = [], []
    for index in range(count):
        # photos() takes turns between its two originals.
        turn = index // 2 % 4
        picture = next(source)[0].permute(2, 0, 1)
        pictures.append((torch.rot90(picture, turn, (1, 2)).to(torch.float32) - 117) / 58)
        labels.append(index % 2 * 4 + turn)
    return torch.stack(pictures), torch.tensor(labels)


_RECIPES: tuple[tuple[str, Callable[[], nn.Module], Callable[[], tuple[Tensor, Tensor]], int], ...]
_RECIPES = (
    ("digits-mlp", _mlp, lambda: _digits(8), 40),
    ("digits-cnn", _cnn, lambda: _digits(8), 15),
    ("digits-deep", _deep, lambda: _digits(32), 6),
    ("digits-wide", _wide, lambda: _digits(32), 3),
    ("photos-cnn", _turns, _turned_photos, 14),
    ("photos-vgg", _vgg, lambda: exemplars(32, 64), 12),
)


def trained(quick: bool = False) -> Iterator[Trained]:
    """The networks, one after another as they are trained; the first two if `quick`."""
    for name, architecture, data, epochs in _RECIPES[: 2 if quick else None]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            inputs, labels = data()
            shuffled = torch.randperm(len(inputs))
            inputs, labels = inputs[shuffled], labels[shuffled]
            model = architecture()
            _train(model, inputs[TEST:], labels[TEST:], epochs)
            pictures = unseen(PICTURES) if name == "photos-vgg" else inputs[:PICTURES]
        model.eval().requires_grad_(False)
        yield Trained(name, model, inputs[:TEST], labels[:TEST], pictures)


def untrained(name: str) -> nn.Module:
    """The network of that name as it is before its training, in eval mode."""
    (architecture,) = (each for called, each, _, _ in _RECIPES if called == name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return architecture().eval().requires_grad_(False)


def _train(model: nn.Module, inputs: Tensor, labels: Tensor, epochs: int) -> None:
    batches = -(-len(inputs) // 64)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=epochs * batches)
    for _ in range(epochs):
        for batch in torch.randperm(len(inputs)).chunk(batches):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs[batch]), labels[batch]).backward()
            optimizer.step()
            rate.step()
