"""What the arguments of recurrent networks and cells must satisfy, and what such a network makes.

Torch trusts their parameters' shapes: an `lstm` with a short weight reads past the end of memory.
See validators for the other operators.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from layergraph.demands import Arguments, demand, demand_shape
from layergraph.nodes import TensorSpec


def check_lstm(a: Arguments) -> None:
    _recurrent(a, gates=4, states=2)


def check_gru(a: Arguments) -> None:
    _recurrent(a, gates=3, states=1)


def check_rnn(a: Arguments) -> None:
    _recurrent(a, gates=1, states=1)


def _recurrent(a: Arguments, *, gates: int, states: int) -> None:
    source, params = a["input"], tuple(a["params"])
    hidden = tuple(a["hx"]) if states == 2 else (a["hx"],)
    layers, directions = a["num_layers"], 2 if a["bidirectional"] else 1
    demand(not a["train"], "training mode needs randomness; capture the model in eval mode")
    demand(len(source.shape) == 3, f"input is {source}, not sequence x batch x features")
    demand(math.prod(source.shape) > 0, f"input {source} is empty")
    demand(len(hidden) == states, f"{len(hidden)} initial states for {states}")
    demand(0 < layers <= 1024, f"{layers} layers")
    batch = source.shape[0] if a["batch_first"] else source.shape[1]
    for state in hidden:
        demand(len(state.shape) == 3, f"an initial state is {state}")
        demand(
            state.shape[:2] == (layers * directions, batch),
            f"an initial state is {state} for {layers} x {directions} layers and {batch} rows",
        )
    _recurrent_params(a, params, hidden, gates=gates, directions=directions)


def _recurrent_params(
    a: Arguments,
    params: Sequence[TensorSpec],
    hidden: Sequence[TensorSpec],
    *,
    gates: int,
    directions: int,
) -> None:
    source, layers = a["input"], a["num_layers"]
    size = hidden[-1].shape[2]
    output = hidden[0].shape[2]
    # A projected LSTM has one more matrix per direction and a shorter output state.
    projected = len(hidden) == 2 and output != size
    per_direction = 2 + 2 * bool(a["has_biases"]) + projected
    demand(
        len(params) == layers * directions * per_direction,
        f"{len(params)} parameters for {layers} layers of {directions} x {per_direction}",
    )
    for spec in (*params, *hidden):
        demand(spec.dtype == source.dtype, f"a parameter is {spec} for input {source}")
    for index in range(layers * directions):
        group = params[index * per_direction : (index + 1) * per_direction]
        features = source.shape[2] if index < directions else output * directions
        demand_shape("an input weight", group[0], gates * size, features)
        demand_shape("a hidden weight", group[1], gates * size, output)
        if a["has_biases"]:
            demand_shape("an input bias", group[2], gates * size)
            demand_shape("a hidden bias", group[3], gates * size)
        if projected:
            demand_shape("a projection", group[-1], output, size)


def check_lstm_cell(a: Arguments) -> None:
    demand(len(a["hx"]) == 2, f"{len(a['hx'])} initial states for 2")
    _cell(a, tuple(a["hx"]), gates=4)


def check_gru_cell(a: Arguments) -> None:
    _cell(a, (a["hx"],), gates=3)


def check_rnn_cell(a: Arguments) -> None:
    _cell(a, (a["hx"],), gates=1)


def _cell(a: Arguments, hidden: Sequence[TensorSpec], *, gates: int) -> None:
    source = a["input"]
    demand(len(source.shape) == 2, f"input is {source}, not batch x features")
    demand(len(hidden[0].shape) == 2, f"an initial state is {hidden[0]}")
    size = hidden[0].shape[1]
    for state in hidden:
        demand_shape("an initial state", state, source.shape[0], size)
    demand_shape("w_ih", a["w_ih"], gates * size, source.shape[1])
    demand_shape("w_hh", a["w_hh"], gates * size, size)
    demand_shape("b_ih", a["b_ih"], gates * size)
    demand_shape("b_hh", a["b_hh"], gates * size)


def recurrent_outputs(a: Arguments) -> tuple[TensorSpec, ...]:
    """What a checked lstm, gru or rnn makes: the sequence and the last states.

    Torch's own shape function unrolls the sequence, step by step, for as long as it is told.
    """
    source = a["input"]
    hidden = tuple(a["hx"]) if isinstance(a["hx"], tuple) else (a["hx"],)
    width = hidden[0].shape[2] * (2 if a["bidirectional"] else 1)
    return (TensorSpec(source.dtype, (*source.shape[:2], width)), *hidden)
