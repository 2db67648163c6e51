"""What reduced precision costs in accuracy, on networks that were really trained.

The networks of benchmarks/trained.py on inputs that they were not trained on, through the
codings as they cross the network: all weights at float8 and bfloat16, as the progressive
upload brings them, with products in float32 and, where edges may ("short"), in bfloat16; and the
activations of each cut at float16 and in 8 bits. Top-1 accuracy, the share of answers that are
the exact network's, and the error of the outputs, relative to their norm (root mean square over
the inputs; the worst input in brackets).

    python benchmarks/accuracy.py [--quick] [--json]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import wire
from benchmarks.trained import Trained, trained
from layergraph import Executor, LayerGraph, capture, tensor_from_buffer, tensor_to_buffer
from layergraph.bfloat16 import roundable_weights
from layergraph.weights import weight_bytes_view

Answer = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Cost:
    """One network one way. `bytes_share`: weights' or live tensors' bytes over their raw ones."""

    network: str
    way: str
    bytes_share: float
    accuracy: float
    agreement: float
    error: float
    worst_error: float


def approximated(weight: torch.Tensor, precision: str) -> tuple[torch.Tensor, int]:
    """The weight as an edge has it once its planes up to `precision` are there; bytes sent."""
    blob, count = weight_bytes_view(weight), weight.numel()
    words, sent_bytes = b"", 0
    for plane in (wire.COARSE, wire.MIDDLE)[: 1 + (precision == "bfloat16")]:
        step, stored = wire.segment_elements("float32", plane), []
        for start in range(0, count, step):
            length = min(step, count - start)
            coded = wire.encode_segment("float32", plane, blob, start, length, "planes")
            sent_bytes += coded.nbytes
            coarse = words[2 * start : 2 * (start + length)]
            stored.append(wire.decode_segment("float32", plane, length, "planes", coded, coarse))
        words = b"".join(stored)
    data = wire.approximate(plane, words)
    return tensor_from_buffer("float32", weight.shape, range(weight.dim()), data), sent_bytes


def with_weights(
    graph: LayerGraph, weights: Mapping[str, torch.Tensor], precision: str
) -> tuple[Answer, Answer, float]:
    """A network whose float32 weights all have `precision`, and the share of bytes that took.

    With products in float32, and with products in bfloat16.
    """
    coarse, sent_bytes, raw_bytes = {}, 0, 0
    for name, weight in weights.items():
        # As the upload has it: vectors go whole.
        coarse[name], coded_bytes = (
            approximated(weight, precision) if weight.dim() > 1 else (weight, weight.nbytes)
        )
        sent_bytes += coded_bytes
        raw_bytes += weight.nbytes
    roundable = roundable_weights(graph)
    names = {graph.weights[index].name for index in roundable}
    short = {name: each.bfloat16() if name in names else each for name, each in coarse.items()}
    executors = Executor(graph, coarse), Executor(graph, short, roundable=roundable)
    return *map(whole, executors), sent_bytes / raw_bytes


def whole(executor: Executor) -> Answer:
    return lambda x: executor.run(0, len(executor.graph.layers), [x])[0]


def across(executor: Executor, cut: int, coding: str, shares: list[float]) -> Answer:
    """The network with what lives at `cut` coded and decoded; notes the share of bytes."""

    def answer(x: torch.Tensor) -> torch.Tensor:
        live = []
        for tensor in executor.run(0, cut, [x]):
            raw = wire.Tensor(*tensor_to_buffer(tensor))
            coded = wire.encode_tensor(raw, coding)
            shares.append(memoryview(coded.data).nbytes / memoryview(raw.data).nbytes)
            back = wire.decode_tensor(coded)
            live.append(tensor_from_buffer(back.dtype, back.shape, back.order, back.data))
        return executor.run(cut, len(executor.graph.layers), live)[0]

    return answer


def cost(net: Trained, answer: Answer, exact: torch.Tensor) -> tuple[float, ...]:
    answers = torch.cat([answer(x) for x in net.inputs[:, None]])
    errors = (answers - exact).norm(dim=1) / exact.norm(dim=1)
    picked = answers.argmax(1)
    return (
        float((picked == net.labels).float().mean()),
        float((picked == exact.argmax(1)).float().mean()),
        float(errors.square().mean().sqrt()),
        float(errors.max()),
    )


def costs(net: Trained) -> Iterator[Cost]:
    graph, weights = capture(net.model, (net.inputs[:1],))
    executor = Executor(graph, weights)
    run = whole(executor)
    exact = torch.cat([run(x) for x in net.inputs[:, None]])
    yield Cost(net.name, "exact", 1.0, *cost(net, run, exact))
    for precision in wire.PRECISIONS[:-1]:
        *answers, share = with_weights(graph, weights, precision)
        for answer, products in zip(answers, ("", ", short"), strict=True):
            way = f"weights {precision}{products}"
            yield Cost(net.name, way, share, *cost(net, answer, exact))
    for cut in range(1, len(graph.layers)):
        for coding in ("planes", "float16", "affine8"):
            shares: list[float] = []
            way = f"{coding} after {graph.layers[cut - 1].name}"
            figures = cost(net, across(executor, cut, coding, shares), exact)
            yield Cost(net.name, way, sum(shares) / len(shares), *figures)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the first two networks, 100 inputs")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    if not options.json:
        print(f"{'network':14}{'way':26}{'bytes':>8}{'top-1':>8}{'as exact':>10}{'error':>10}")
    for net in trained(options.quick):
        if options.quick:
            net = replace(net, inputs=net.inputs[:100], labels=net.labels[:100])
        for row in costs(net):
            rows.append(asdict(row))
            if not options.json:
                print(f"{row.network:14}{row.way:26}{row.bytes_share:>8.3f}{row.accuracy:>8.2%}"
                      f"{row.agreement:>10.2%}{row.error:>10.1e} ({row.worst_error:.1e})",
                      flush=True)  # fmt: skip
    if options.json:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
