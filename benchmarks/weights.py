"""How small weights get on the wire, and how fast: coded bytes over raw, MB/s each way.

Four codings take turns on the same segments: "whole" (exact mode), "planes" (progressive mode:
COARSE, MIDDLE and FINE together), and what they have to beat: zstd at level 1 on the bytes as they
are, and on byte planes without rotation (byte shuffle). Of large networks, each weight is sampled
at evenly spaced segments and counts with all of its bytes. Speeds are of one thread, by its own
clock: the median of the rounds and, after it, the slowest and the fastest.

`python benchmarks/weights.py [--quick] [--json FILE]` exits 1 when seeded or trained float32
weights take more than 1/1.12 of raw, or planes more than 1% above whole. `--quick` takes the
small networks only.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy
import torch
import zstandard
from numpy.typing import NDArray

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

import wire
from benchmarks.trained import trained
from layergraph.networks import NETWORKS

SEEDED = ("alexnet", "resnet50", "vgg16")
SAMPLES = 6  # segments per weight
ROUNDS = 7
MOST_OF_RAW = 1 / 1.12
MOST_OF_WHOLE = 1.01

Bytes = NDArray[numpy.uint8]


@dataclass(frozen=True, slots=True)
class Case:
    """One network's weights: (dtype, bytes) of each. `bound` where the share of raw must hold."""

    name: str
    weights: tuple[tuple[str, Bytes], ...]
    bound: bool = False


@dataclass(frozen=True, slots=True)
class Piece:
    """A sampled segment's elements, and how many bytes of the network it stands for."""

    dtype: str
    blob: Bytes
    stands_for_bytes: float


@dataclass(frozen=True, slots=True)
class Scheme:
    """`encode(dtype, blob)` gives what crosses; `decode(dtype, count, coded)` the bytes again."""

    name: str
    encode: Callable[[str, Bytes], list[bytes | memoryview]]
    decode: Callable[[str, int, list[bytes | memoryview]], bytes | memoryview]


def whole_encode(dtype: str, blob: Bytes) -> list[bytes | memoryview]:
    return [_shorter(dtype, wire.WHOLE, blob)]


def whole_decode(dtype: str, count: int, coded: list[bytes | memoryview]) -> memoryview:
    return _decoded(dtype, wire.WHOLE, count, coded[0])


def planes_encode(dtype: str, blob: Bytes) -> list[bytes | memoryview]:
    return [_shorter(dtype, plane, blob) for plane in wire.progressive_planes(dtype)]


def planes_decode(dtype: str, count: int, coded: list[bytes | memoryview]) -> memoryview:
    stored: list[memoryview] = []
    for plane, each in zip(wire.progressive_planes(dtype), coded, strict=True):
        beside = stored[0] if plane == wire.MIDDLE else None
        stored.append(_decoded(dtype, plane, count, each, beside))
    return wire.merge(*stored[1:]) if len(stored) == 3 else stored[0]


def _shorter(dtype: str, plane: int, blob: Bytes) -> memoryview:
    count = blob.size // wire.DTYPE_BYTES[dtype]
    coded = wire.encode_segment(dtype, plane, blob.data, 0, count, "planes")
    # How long MIDDLE is as it is depends on COARSE.
    if plane == wire.MIDDLE or coded.nbytes < wire.max_coded_bytes(dtype, plane, count, "raw"):
        return coded
    return wire.encode_segment(dtype, plane, blob.data, 0, count, "raw")


def _decoded(
    dtype: str,
    plane: int,
    count: int,
    coded: bytes | memoryview,
    beside: memoryview | None = None,
) -> memoryview:
    raw_bytes = wire.max_coded_bytes(dtype, plane, count, "raw")
    coding = "raw" if plane != wire.MIDDLE and len(coded) == raw_bytes else "planes"
    return wire.decode_segment(dtype, plane, count, coding, coded, beside)


_zip = zstandard.ZstdCompressor(level=1).compress
_unzip = zstandard.ZstdDecompressor().decompress


def _zipped(part: Bytes) -> bytes | memoryview:
    return min(part.data, _zip(part.data), key=len)


def _unzipped(coded: bytes | memoryview, size: int) -> Bytes:
    return numpy.frombuffer(coded if len(coded) == size else _unzip(coded), numpy.uint8)


def zstd_encode(_dtype: str, blob: Bytes) -> list[bytes | memoryview]:
    return [_zipped(blob)]


def zstd_decode(dtype: str, count: int, coded: list[bytes | memoryview]) -> memoryview:
    return _unzipped(coded[0], count * wire.DTYPE_BYTES[dtype]).data


def shuffle_encode(dtype: str, blob: Bytes) -> list[bytes | memoryview]:
    columns = blob.reshape(-1, wire.DTYPE_BYTES[dtype])
    return [_zipped(plane) for plane in numpy.ascontiguousarray(columns.T)]


def shuffle_decode(_dtype: str, count: int, coded: list[bytes | memoryview]) -> memoryview:
    columns = numpy.empty((count, len(coded)), numpy.uint8)
    for at, part in enumerate(coded):
        columns[:, at] = _unzipped(part, count)
    return columns.reshape(-1).data


SCHEMES = (
    Scheme("whole", whole_encode, whole_decode),
    Scheme("planes", planes_encode, planes_decode),
    Scheme("zstd -1", zstd_encode, zstd_decode),
    Scheme("shuffle + zstd -1", shuffle_encode, shuffle_decode),
)


def cases(quick: bool) -> Iterator[Case]:
    small = {each.name: each.model for each in trained(quick=True)}
    for name, model in small.items():
        yield Case(f"{name} (trained)", _weights(model), bound=True)
    state = small["digits-cnn"].state_dict()
    for dtype in (torch.bfloat16, torch.float16):
        short = {name: value.to(dtype) for name, value in state.items()}
        yield Case(f"digits-cnn as {str(dtype)[6:]}", _plain(short))
        widened = {name: value.float() for name, value in short.items()}
        yield Case(f"digits-cnn, {str(dtype)[6:]} in float32", _plain(widened))
    yield Case("digits-cnn as int8", _plain({k: _quantised(v) for k, v in state.items()}))
    pruned = {name: _pruned(value, 0.8) for name, value in state.items()}
    yield Case("digits-cnn, 80% pruned", _plain(pruned))
    # Swin's table of relative positions (Liu et al., ICCV'21), for windows of 12 x 12.
    yield Case("positions as int64", _plain({"positions": _positions(12)}))
    if not quick:
        for name in SEEDED:
            yield Case(f"{name} (seeded)", _weights(NETWORKS[name].build()), bound=True)


def _weights(model: torch.nn.Module) -> tuple[tuple[str, Bytes], ...]:
    return _plain(dict(model.state_dict()))


def _plain(state: dict[str, torch.Tensor]) -> tuple[tuple[str, Bytes], ...]:
    return tuple(
        (str(value.dtype)[6:], value.detach().contiguous().view(-1).view(torch.uint8).numpy())
        for value in state.values()
        if value.ndim
    )


def _quantised(weight: torch.Tensor) -> torch.Tensor:
    rows = weight.reshape(len(weight), -1)
    step = rows.abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / 127
    return (rows / step).round().to(torch.int8)


def _pruned(weight: torch.Tensor, share: float) -> torch.Tensor:
    if weight.ndim < 2:
        return weight
    return torch.where(weight.abs() < weight.abs().flatten().quantile(share), 0.0, weight)


def _positions(size: int) -> torch.Tensor:
    at = torch.cartesian_prod(torch.arange(size), torch.arange(size))
    apart = at[:, None] - at[None] + size - 1
    return apart[..., 0] * (2 * size - 1) + apart[..., 1]


def pieces(case: Case) -> list[Piece]:
    found = []
    for dtype, blob in case.weights:
        size = wire.segment_elements(dtype, wire.WHOLE) * wire.DTYPE_BYTES[dtype]
        starts = list(range(0, blob.size, size))
        chosen = starts if len(starts) <= SAMPLES else starts[:: -(-len(starts) // SAMPLES)]
        sampled = [blob[start : start + size] for start in chosen]
        scale = blob.size / sum(map(len, sampled)) if sampled else 0.0
        found += [Piece(dtype, part, part.size * scale) for part in sampled]
    return found


@dataclass(frozen=True, slots=True)
class Row:
    """One scheme on one case: coded bytes over raw, and MB/s of raw bytes of each round."""

    case: str
    scheme: str
    share: float
    encode_MBps: list[float]
    decode_MBps: list[float]


def measure(case: Case, rounds: int) -> list[Row]:
    sample = pieces(case)
    sampled_MB = sum(piece.blob.size for piece in sample) / 1e6
    raw_bytes = sum(piece.stands_for_bytes for piece in sample)
    rows = [Row(case.name, scheme.name, _share(scheme, sample, raw_bytes), [], [])
            for scheme in SCHEMES]  # fmt: skip
    for _ in range(rounds):
        for scheme, row in zip(SCHEMES, rows, strict=True):
            began = time.thread_time()
            coded = [scheme.encode(piece.dtype, piece.blob) for piece in sample]
            between = time.thread_time()
            for piece, parts in zip(sample, coded, strict=True):
                scheme.decode(piece.dtype, _count(piece), parts)
            ended = time.thread_time()
            row.encode_MBps.append(sampled_MB / (between - began))
            row.decode_MBps.append(sampled_MB / (ended - between))
    return rows


def _count(piece: Piece) -> int:
    return piece.blob.size // wire.DTYPE_BYTES[piece.dtype]


def _share(scheme: Scheme, sample: list[Piece], raw_bytes: float) -> float:
    """Coded over raw; also the proof that every bit comes back."""
    coded_bytes = 0.0
    for piece in sample:
        parts = scheme.encode(piece.dtype, piece.blob)
        if bytes(scheme.decode(piece.dtype, _count(piece), parts)) != piece.blob.tobytes():
            raise AssertionError(f"{scheme.name} changed {piece.dtype} elements")
        coded_bytes += sum(map(len, parts)) * piece.stands_for_bytes / piece.blob.size
    return coded_bytes / raw_bytes


def report(case: Case, rows: list[Row]) -> list[str]:
    """Print one case; what does not hold."""
    megabytes = sum(blob.size for _, blob in case.weights) / 1e6
    print(f"{case.name}, {megabytes:.2f} MB")
    for row in rows:
        speeds = "".join(f"{_spread(each):>24}" for each in (row.encode_MBps, row.decode_MBps))
        print(f"  {row.scheme:18}{row.share:>8.4f}{speeds}")
    whole, planes = rows[0].share, rows[1].share
    faults = []
    if case.bound and whole > MOST_OF_RAW:
        faults.append(f"{case.name}: {whole:.4f} of raw, at most {MOST_OF_RAW:.4f}")
    if case.bound and planes > MOST_OF_WHOLE * whole:
        faults.append(f"{case.name}: planes take {planes / whole:.4f} of whole")
    return faults


def _spread(rates: list[float]) -> str:
    return f"{statistics.median(rates):,.0f} ({min(rates):,.0f}..{max(rates):,.0f})"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small networks only, two rounds")
    parser.add_argument("--json", type=Path, help="write every figure there")
    options = parser.parse_args()
    torch.set_num_threads(1)
    began = os.getloadavg()[0]
    print(f"{'':20}{'of raw':>8}{'encode MB/s':>24}{'decode MB/s':>24}")
    faults, written = [], []
    for case in cases(options.quick):
        rows = measure(case, 2 if options.quick else ROUNDS)
        faults += report(case, rows)
        written += [{name: getattr(row, name) for name in Row.__dataclass_fields__} for row in rows]
    print(f"load average {began:.1f} before, {os.getloadavg()[0]:.1f} after")
    if options.json:
        options.json.write_text(json.dumps(written, indent=1))
    for fault in faults:
        print(f"DOES NOT HOLD: {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
