"""What crosses at a cut after a ReLU, in each coding: how few bytes, and how fast.

Every cut of AlexNet and VGG-16 behind a ReLU, on real photos. Per cut: the share of zeros, and
how many times fewer bytes than raw each coding takes; for the 8-bit ones, also than the 8 bits
themselves ("8 bit + PNG", as JointDNN reports it). Plain zstd and gzip of the raw bytes stand
beside them, in turn on the same tensors. Figures are medians over the photos (spreads: least to
most over photos and cuts).

The weights are seeded, not trained: half of what enters a ReLU is below zero, whatever the
depth, and JointDNN's figure is of trained networks, whose weights cannot be had here. Trained
networks are sparser: `--zeros 0.65` lowers every convolution's biases until that share of its
outputs is zero on other photos. The small networks of benchmarks/trained.py, which really are
trained, come last; of the largest, "photos-vgg", the cuts are of parts of the photos that it was
not trained on, at 224 x 224, and "photos-vgg seeded" is the same network before its training. What
8 bits cost their answers, benchmarks/accuracy.py tells.

The last lines say which coding the planner picks by size and time, at each cut that it may.

    python benchmarks/activations.py [--quick] [--networks alexnet,vgg16] [--photos 3]
                                     [--zeros 0.65,0.8] [--json]
"""

from __future__ import annotations

import argparse
import gzip
import json
import statistics
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import zstandard
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import wire
from benchmarks.trained import trained, untrained
from layergraph import Executor, capture, tensor_to_buffer
from layergraph.networks import NETWORKS, build, photos
from planner import CutCoding, choose_codings

LOSSLESS_TARGET = 2.0
PNG_TARGET = 3.5
EIGHT_BIT = ("affine8", "affine8-png")
LEAST_BYTES = 1000  # Less crosses in one packet, whatever it is coded as.
RATES_Mbit = (18.88, 80.0, 1000.0)
# gzip at the level that the gzip command takes by itself.
GENERAL: dict[str, tuple[Callable[[Any], bytes], Callable[[bytes], bytes]]] = {
    "gzip": (lambda data: gzip.compress(data, 6), gzip.decompress),
    "zstd": (zstandard.ZstdCompressor(level=1).compress, zstandard.ZstdDecompressor().decompress),
}
WAYS = (*GENERAL, *wire.TENSOR_CODINGS[1:])


@dataclass(frozen=True, slots=True)
class Sample:
    """One coding of one tensor: bytes, and seconds each way."""

    raw_bytes: int
    coded_bytes: int
    encode_s: float
    decode_s: float

    @property
    def ratio(self) -> float:
        return self.raw_bytes / self.coded_bytes


@dataclass(frozen=True, slots=True)
class Cut:
    """One cut of one network, over all photos."""

    network: str
    name: str
    shape: tuple[int, ...]
    zeros: float
    samples: dict[str, list[Sample]]

    @property
    def raw_bytes(self) -> int:
        return self.samples["zstd"][0].raw_bytes

    def ratio(self, way: str) -> float:
        return statistics.median(sample.ratio for sample in self.samples[way])


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    began = time.perf_counter()
    result = work()
    return result, time.perf_counter() - began


def sample(tensor: wire.Tensor, way: str) -> Sample:
    """Codes and decodes once; what comes back is checked."""
    raw = memoryview(tensor.data)
    if way in wire.TENSOR_CODINGS:
        coded, encode_s = timed(lambda: wire.encode_tensor(tensor, way))
        decoded, decode_s = timed(lambda: wire.decode_tensor(coded))
        back, coded_bytes = decoded.data, memoryview(coded.data).nbytes
    else:
        compress, decompress = GENERAL[way]
        data, encode_s = timed(lambda: compress(raw))
        back, decode_s = timed(lambda: decompress(data))
        coded_bytes = len(data)
    if way not in wire.LOSSY and back != raw:
        raise SystemExit(f"{way} changed {tensor.dtype}{list(tensor.shape)}")
    return Sample(raw.nbytes, coded_bytes, encode_s, decode_s)


def cuts(name: str, model: nn.Module, pictures: Sequence[torch.Tensor]) -> Iterator[Cut]:
    """Measures the cuts behind a layer with a ReLU, all ways in turn on each tensor.

    Not those of fewer than `LEAST_BYTES`.
    """
    graph, weights = capture(model, (pictures[0],))
    executor = Executor(graph, weights)
    lives = [executor.run(0, 0, [picture]) for picture in pictures]
    for index, layer in enumerate(graph.layers):
        lives = [executor.run(index, index + 1, live) for live in lives]
        if not any("relu" in node.op for node in graph.nodes[layer.start : layer.stop]):
            continue
        if lives[0][0].nbytes < LEAST_BYTES:
            continue
        samples: dict[str, list[Sample]] = defaultdict(list)
        for live in lives:
            for way in WAYS:
                samples[way].append(sample(wire.Tensor(*tensor_to_buffer(live[0])), way))
        zeros = statistics.median(float((live[0] == 0).float().mean()) for live in lives)
        yield Cut(name, layer.name, tuple(lives[0][0].shape), zeros, dict(samples))


def make_sparser(model: nn.Module, pictures: torch.Tensor, zeros: float) -> None:
    """Lowers the biases of each convolution, by one number, so that `zeros` of its ReLU are.

    A stand-in for training, which does about that. Linear layers stay as they are: untrained,
    their outputs differ too little within a photo, and die together on another.
    """

    def lower(module: nn.Module, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
        values = output.flatten()
        step = max(1, values.numel() // 1_000_000)
        threshold = values[::step].quantile(zeros)
        module.bias -= threshold
        return output - threshold

    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    hooks = [module.register_forward_hook(lower) for module in convolutions]
    with torch.no_grad():
        model(pictures)
    for hook in hooks:
        hook.remove()


def networks(
    names: Sequence[str], count: int, sparsities: Sequence[float], quick: bool
) -> Iterator[tuple[str, nn.Module, list[torch.Tensor]]]:
    for name in names:
        size = NETWORKS[name].example()[0].shape[1]
        source = photos(size)
        pictures = [next(source) for _ in range(count)]
        yield name, build(name), pictures
        for zeros in sparsities:
            model = build(name)
            make_sparser(model, torch.cat([next(source) for _ in range(4)]), zeros)
            yield f"{name} {zeros:.0%} zeros", model, pictures
    for net in trained(quick):
        pictures = list(net.pictures[:count, None])
        if net.name == "photos-vgg":
            yield f"{net.name} seeded", untrained(net.name), pictures
        yield net.name, net.model, pictures


def print_cuts(measured: Sequence[Cut]) -> None:
    print(f"\n{measured[0].network:44}{'raw':>8}  times fewer bytes than raw (8 bit: than 8 bit)")
    print(f"{'cut':14}{'shape':20}{'zeros':>10}{'KB':>8}", *(f"{way:>11}" for way in WAYS))
    for cut in measured:
        ratios = [
            f"{cut.ratio(way):>5.2f} ({cut.ratio(way) / 4:.2f})"
            if way in EIGHT_BIT
            else f"{cut.ratio(way):>11.2f}"
            for way in WAYS
        ]
        shape = "x".join(map(str, cut.shape[1:]))
        print(f"{cut.name:14}{shape:20}{cut.zeros:>10.0%}{cut.raw_bytes / 1e3:>8.0f}", *ratios)
    for title, least in (("mean", None), ("least", min)):
        row = []
        for way in WAYS:
            ratios_of = [cut.ratio(way) for cut in measured]
            value = least(ratios_of) if least else statistics.mean(ratios_of)
            row.append(
                f"{value:>5.2f} ({value / 4:.2f})" if way in EIGHT_BIT else f"{value:>11.2f}"
            )
        print(f"{title:52}", *row)


def print_speeds(measured: Sequence[Cut]) -> None:
    print("\nMB/s of raw bytes, tensors of 100 KB and more: median [least, most] over all")
    for way in WAYS:
        samples = [s for cut in measured for s in cut.samples[way] if s.raw_bytes >= 100_000]
        line = f"{way:14}"
        for direction in ("encode_s", "decode_s"):
            rates = [s.raw_bytes / getattr(s, direction) / 1e6 for s in samples]
            if rates:
                middle = statistics.median(rates)
                line += f"{middle:>8.0f} [{min(rates):>4.0f}, {max(rates):>5.0f}]"
        print(line)


def print_verdicts(measured: Sequence[Cut]) -> None:
    """Against the targets, per network; the 8-bit ratios are over the 8-bit size."""
    print(f"\n{'':24}{'lossless, least cut':>22}{'median':>9}{'8 bit + PNG, mean':>20}"
          f"{'8 bit + zstd, mean':>20}")  # fmt: skip
    print(f"{'target':24}{LOSSLESS_TARGET:>22}{'':9}{PNG_TARGET:>20}{'':>20}")
    for network in dict.fromkeys(cut.network for cut in measured):
        of = [cut for cut in measured if cut.network == network]
        lossless = [cut.ratio("planes") for cut in of]
        png, zstd = (
            statistics.mean(cut.ratio(way) / 4 for cut in of) for way in ("affine8-png", "affine8")
        )
        print(f"{network:24}{min(lossless):>22.2f}{statistics.median(lossless):>9.2f}"
              f"{png:>20.2f}{zstd:>20.2f}")  # fmt: skip


def print_choices(measured: Sequence[Cut]) -> None:
    print("\npicked at so many cuts, coded as fast as here")
    for rate in RATES_Mbit:
        for title, ways in (
            ("without loss", [way for way in wire.TENSOR_CODINGS if way not in wire.LOSSY]),
            ("with loss", wire.TENSOR_CODINGS),
        ):
            chosen = choose_codings([options(cut, ways) for cut in measured], rate * 125e3)
            counts = Counter(each.coding for each in chosen).most_common()
            picked = ", ".join(f"{coding} {count}" for coding, count in counts)
            print(f"{rate:>8.2f} Mbit/s {title:14}{picked}")


def options(cut: Cut, ways: Sequence[str]) -> list[CutCoding]:
    """The codings of a cut as the planner gets them: medians over the photos."""
    found = []
    for way in ways:
        of = cut.samples[way] if way != "raw" else [Sample(cut.raw_bytes, cut.raw_bytes, 0, 0)]
        sizes, encode, decode = zip(
            *((each.coded_bytes, each.encode_s, each.decode_s) for each in of), strict=True
        )
        found.append(CutCoding(way, *map(statistics.median, (sizes, encode, decode))))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="AlexNet only, one photo")
    parser.add_argument("--networks", default="alexnet,vgg16")
    parser.add_argument("--photos", type=int, default=3)
    parser.add_argument("--zeros", default="0.65,0.8", help="shares of zeros to lower biases for")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    names = ["alexnet"] if options.quick else options.networks.split(",")
    sparsities = [float(zeros) for zeros in options.zeros.split(",") if zeros]
    count = 1 if options.quick else options.photos
    everything = []
    for name, model, pictures in networks(names, count, sparsities, options.quick):
        measured = list(cuts(name, model, pictures))
        everything += measured
        if not options.json:
            print_cuts(measured)
    if options.json:
        print(json.dumps([asdict(cut) for cut in everything]))
    else:
        print_speeds(everything)
        print_verdicts(everything)
        print_choices(everything)


if __name__ == "__main__":
    main()
