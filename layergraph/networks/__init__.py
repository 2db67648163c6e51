"""The networks that the seed papers measure with, as our own definitions with seeded weights.

`NETWORKS` lists them; `build` makes one. Every image network takes the photo itself (uint8) and
prepares it inside, so that the first cut is small. Nothing here is trained: the answers mean
nothing, but they are the same each time, and sensitive to every layer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from layergraph.networks import senna
from layergraph.networks.alexnet import AlexNet
from layergraph.networks.deepface import DeepFace
from layergraph.networks.generators import ChairGenerator, Pix2Pix
from layergraph.networks.inception import GoogLeNet, InceptionBN21k
from layergraph.networks.lenet import LeNet
from layergraph.networks.mobilenet import MobileNet
from layergraph.networks.nin import NiN
from layergraph.networks.overfeat import OverFeat
from layergraph.networks.photos import photos
from layergraph.networks.resnet import ResNet50
from layergraph.networks.seeding import seeded
from layergraph.networks.speech import DeepSpeech, KaldiASR
from layergraph.networks.vgg import VGG16

__all__ = ["NETWORKS", "NetworkInfo", "build", "photos"]


@dataclass(frozen=True, slots=True)
class NetworkInfo:
    """One benchmark network and what its paper says about it.

    `parameters` counts learned values; `megabytes` is the size in the paper's table, in MiB of
    float32 (None where it gives none), and `training_parameters` are learned values which that
    size includes and no inference uses. `inputs` is "photo", "scan", "frames", "words" or
    "numbers".
    """

    name: str
    title: str
    architecture: Callable[[], nn.Module]
    example: Callable[[], tuple[Any, ...]]
    paper: str
    parameters: int
    megabytes: float | None = None
    training_parameters: int = 0
    inputs: str = "photo"

    def build(self, seed: int = 0) -> nn.Module:
        """The network in eval mode with weights drawn from `seed`."""
        return seeded(self.architecture, seed)


def _photo(size: int) -> Callable[[], tuple[Tensor]]:
    return lambda: (_random((1, size, size, 3), 256, torch.uint8),)


def _random(shape: tuple[int, ...], stop: int, dtype: torch.dtype) -> Tensor:
    return torch.randint(stop, shape, generator=torch.Generator().manual_seed(1), dtype=dtype)


def _scan() -> tuple[Tensor]:
    return (_random((1, 28, 28, 1), 256, torch.uint8),)


def _frames(count: int, width: int) -> Callable[[], tuple[Tensor]]:
    def example() -> tuple[Tensor]:
        return (torch.randn(count, width, generator=torch.Generator().manual_seed(1)),)

    return example


def _sentence(*tables: int) -> Callable[[], tuple[Tensor, ...]]:
    # 28 words, as in Tonic, the suite that Neurosurgeon takes its applications from.
    return lambda: tuple(_random((28,), size, torch.int64) for size in (senna.WORDS, *tables))


def _chair() -> tuple[Tensor, Tensor, Tensor]:
    angles = torch.tensor([0.35, 5.25])
    view = torch.stack([angles.sin(), angles.cos()], dim=1).reshape(1, 4)
    style = torch.nn.functional.one_hot(torch.tensor([5]), 843).to(torch.float32)
    transformation = torch.randn(1, 28, generator=torch.Generator().manual_seed(1))
    return style, view, transformation


_IONN = "IONN, SoCC'18, Table 1"
_NEUROSURGEON = "Neurosurgeon, ASPLOS'17, Table 3"
_JOINTDNN = "JointDNN, TMC'19"

_ALL = (
    NetworkInfo("alexnet", "AlexNet", AlexNet, _photo(227), _IONN, 60_965_224, 233),
    NetworkInfo(
        "inception21k", "Inception-BN-21k", InceptionBN21k, _photo(224), _IONN, 33_619_969, 129
    ),
    NetworkInfo("resnet50", "ResNet-50", ResNet50, _photo(224), _IONN, 25_557_032, 98),
    NetworkInfo("googlenet", "GoogLeNet", GoogLeNet, _photo(224), _IONN, 6_998_552, 51, 6_379_728),
    NetworkInfo("mobilenet", "MobileNet v1", MobileNet, _photo(224), _IONN, 4_231_976, 16),
    NetworkInfo("vgg16", "VGG-16", VGG16, _photo(224), _NEUROSURGEON, 138_357_544),
    NetworkInfo("deepface", "DeepFace", DeepFace, _photo(152), _NEUROSURGEON, 118_923_774),
    NetworkInfo("lenet", "LeNet (MNIST)", LeNet, _scan, _NEUROSURGEON, 431_080, inputs="scan"),
    NetworkInfo(
        "asr", "Kaldi ASR", KaldiASR, _frames(548, 40), _NEUROSURGEON, 25_380_522, inputs="frames"
    ),
    NetworkInfo(
        "pos",
        "SENNA part of speech",
        senna.SennaPOS,
        _sentence(senna.CAPITALS, senna.SUFFIXES),
        _NEUROSURGEON,
        6_606_145,
        inputs="words",
    ),
    NetworkInfo(
        "ner",
        "SENNA named entities",
        senna.SennaNER,
        _sentence(senna.CAPITALS, *[senna.GAZETTEER] * 4),
        _NEUROSURGEON,
        6_618_002,
        inputs="words",
    ),
    NetworkInfo(
        "chk",
        "SENNA chunking",
        senna.SennaCHK,
        _sentence(senna.CAPITALS, senna.TAGS),
        _NEUROSURGEON,
        6_603_197,
        inputs="words",
    ),
    NetworkInfo("overfeat", "OverFeat (fast)", OverFeat, _photo(231), _JOINTDNN, 145_920_872),
    NetworkInfo("nin", "Network in Network", NiN, _photo(224), _JOINTDNN, 7_595_176),
    NetworkInfo(
        "deepspeech",
        "Deep Speech",
        DeepSpeech,
        _frames(200, 81),
        _JOINTDNN,
        32_587_805,
        inputs="frames",
    ),
    NetworkInfo(
        "chair", "Chair generator", ChairGenerator, _chair, _JOINTDNN, 31_978_190, inputs="numbers"
    ),
    NetworkInfo("pix2pix", "Pix2Pix", Pix2Pix, _photo(256), _JOINTDNN, 54_413_955),
)
NETWORKS: dict[str, NetworkInfo] = {info.name: info for info in _ALL}


def build(name: str, seed: int = 0) -> nn.Module:
    """The network called `name`, in eval mode. Raises KeyError for an unknown name."""
    return NETWORKS[name].build(seed)
