"""The layers that are measured: a designed spread over every type, from a few bytes to many MB.

Each type draws its shapes from a low-discrepancy sequence over the logarithms of its dimensions,
so that any beginning of the spread covers the whole range evenly, and more time only makes it
denser. No shape is any network's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from ionn_edge.calibration import maps, products
from ionn_edge.calibration.probes import Point, Probe, size

MOST_FLOPS = 2e9
MOST_ELEMENTS = 1 << 22
MOST_WEIGHTS = 24 << 20
_DIMENSIONS = 7


def spread(seed: int = 0) -> Iterator[tuple[Probe, ...]]:
    """Endless rounds of probes: every type in each of them, more often the more it depends on.

    Other seeds give other shapes of the same types.
    """
    sequence: Any = torch.quasirandom.SobolEngine
    draws = {
        make: sequence(_DIMENSIONS, scramble=True, seed=seed * 1000 + number)
        for number, (make, _) in enumerate(_TYPES)
    }
    while True:
        yield tuple(_drawn(make, draws[make]) for make, times in _TYPES for _ in range(times))


def _drawn(make: Callable[[Point], Probe], draw: Any) -> Probe:
    while True:
        probe = make(tuple(draw.draw(1)[0].tolist()))
        if _fits(probe):
            return probe


def _fits(probe: Probe) -> bool:
    """Not too large for a short calibration; the coefficients carry further than the sizes."""
    made = [shape for call in probe.calls for shape in call.outputs]
    return (
        probe.flops <= MOST_FLOPS
        and all(size(shape) <= MOST_ELEMENTS for shape in (*probe.inputs, *made))
        and sum(map(size, probe.weights)) <= MOST_WEIGHTS
    )


_TYPES: tuple[tuple[Callable[[Point], Probe], int], ...] = (
    (products.conv, 6),
    (products.pointwise_conv, 3),
    (products.shallow_conv, 2),
    (products.depthwise_conv, 2),
    (products.transposed_conv, 4),
    (products.vector_linear, 2),
    (products.linear, 4),
    (products.batch_product, 2),
    (products.batch_vector_product, 2),
    (products.permuted_product, 4),
    (products.attention, 2),
    (products.recurrent("aten.lstm.input", "LSTM", 4), 2),
    (products.recurrent("aten.gru.input", "GRU", 3), 2),
    (products.recurrent("aten.rnn_relu.input", "plain RNN", 1), 2),
    (products.embedding, 2),
    (maps.batch_norm, 2),
    (maps.layer_norm, 2),
    (maps.response_norm, 1),
    (maps.channel_average, 1),
    (maps.pool("aten.max_pool2d.default", "max pooling"), 2),
    (maps.pool("aten.avg_pool2d.default", "average pooling"), 1),
    (maps.global_average, 1),
    (maps.argmax, 1),
    (maps.nearest, 2),
    (maps.bilinear, 2),
    (maps.softmax, 1),
    (maps.unary("ReLU", ("aten.relu.default", ()), ("aten.leaky_relu.default", ())), 2),
    (maps.addition, 2),
    (maps.scale, 2),
    (maps.unary("number", ("aten.add.Tensor", (0.5,)), ("aten.mul.Tensor", (0.5,))), 1),
    (maps.unary("exponential", ("aten.exp.default", ())), 1),
    (maps.unary("ELU", ("aten.elu.default", ())), 1),
    (maps.unary("sigmoid", ("aten.sigmoid.default", ())), 1),
    (maps.unary("tanh", ("aten.tanh.default", ())), 1),
    (maps.unary("GELU", ("aten.gelu.default", ())), 1),
    (maps.unary("power", ("aten.pow.Tensor_Scalar", (0.7,))), 1),
    (maps.concat, 2),
    (maps.pad, 2),
    (maps.permuted, 2),
    (maps.flatten, 2),
    (maps.windows, 1),
    (maps.converted, 1),
)
