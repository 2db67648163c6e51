"""What an operator's arguments must satisfy beyond its schema, before torch sees them.

Torch trusts some parameter shapes: `lstm` with a short weight and `batch_norm` with short
statistics read past the end of memory. Each check takes the arguments by schema name, tensors
as TensorSpec, and raises ValueError with what is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from layergraph.nodes import TensorSpec

Arguments = Mapping[str, Any]

MAX_PIECES = 4096
_INDEX_DTYPES = ("int32", "int64")


def _demand(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _shape(name: str, spec: TensorSpec | None, *expected: int) -> None:
    if spec is not None:
        _demand(spec.shape == expected, f"{name} is {spec}, not of shape {list(expected)}")


def _ints(value: int | Sequence[int]) -> tuple[int, ...]:
    return (value,) if isinstance(value, int) else tuple(value)


def check_conv(a: Arguments) -> None:
    source, weight, groups = a["input"], a["weight"], a["groups"]
    rank = len(weight.shape)
    _demand(rank in (3, 4, 5), f"weight is {weight}, not a convolution's")
    _demand(len(source.shape) in (rank - 1, rank), f"input is {source} for weight {weight}")
    channels = source.shape[-rank + 1]
    _demand(groups > 0 and weight.shape[0] % groups == 0, f"{groups} groups for weight {weight}")
    _demand(weight.shape[1] * groups == channels, f"weight {weight} for {channels} channels")
    _demand(math.prod(weight.shape) > 0, f"weight {weight} is empty")
    _shape("bias", a["bias"], weight.shape[0])
    _window(a)


def check_conv_transpose(a: Arguments) -> None:
    source, weight, groups = a["input"], a["weight"], a["groups"]
    rank = len(weight.shape)
    _demand(rank in (3, 4, 5), f"weight is {weight}, not a convolution's")
    _demand(len(source.shape) in (rank - 1, rank), f"input is {source} for weight {weight}")
    channels = source.shape[-rank + 1]
    _demand(groups > 0 and channels % groups == 0, f"{groups} groups for {channels} channels")
    _demand(weight.shape[0] == channels, f"weight {weight} for {channels} channels")
    _demand(math.prod(weight.shape) > 0, f"weight {weight} is empty")
    _shape("bias", a["bias"], weight.shape[1] * groups)
    _window(a)


def _window(a: Arguments) -> None:
    for name in ("kernel_size", "stride", "dilation"):
        if name in a:
            _demand(all(n > 0 for n in _ints(a[name])), f"{name} {a[name]} is not positive")
    if "padding" in a and not isinstance(a["padding"], str):
        _demand(all(n >= 0 for n in _ints(a["padding"])), f"padding {a['padding']} is negative")


def check_pool(a: Arguments) -> None:
    _window(a)


def check_batch_norm(a: Arguments) -> None:
    source = a["input"]
    _demand(len(source.shape) >= 2, f"input is {source}, without channels")
    _demand(not a["training"], "training mode needs state; capture the model in eval mode")
    _demand(a["running_mean"] is not None, "running_mean is missing")
    _demand(a["running_var"] is not None, "running_var is missing")
    for name in ("running_mean", "running_var", "weight", "bias"):
        _shape(name, a[name], source.shape[1])


def check_instance_norm(a: Arguments) -> None:
    source = a["input"]
    _demand(len(source.shape) >= 2, f"input is {source}, without channels")
    has_stats = a["running_mean"] is not None and a["running_var"] is not None
    _demand(a["use_input_stats"] or has_stats, "running_mean and running_var are missing")
    stats = () if a["use_input_stats"] else ("running_mean", "running_var")
    _demand(
        not a["use_input_stats"] or a["running_mean"] is None,
        "statistics that are updated need state; capture the model in eval mode",
    )
    for name in (*stats, "weight", "bias"):
        _shape(name, a[name], source.shape[1])


def check_layer_norm(a: Arguments) -> None:
    source, normalized = a["input"], _ints(a["normalized_shape"])
    _demand(
        0 < len(normalized) <= len(source.shape) and source.shape[-len(normalized) :] == normalized,
        f"normalized_shape {list(normalized)} for input {source}",
    )
    for name in ("weight", "bias"):
        _shape(name, a.get(name), *normalized)


def check_group_norm(a: Arguments) -> None:
    source, groups = a["input"], a["num_groups"]
    _demand(len(source.shape) >= 2, f"input is {source}, without channels")
    channels = source.shape[1]
    _demand(groups > 0 and channels % groups == 0, f"{groups} groups for {channels} channels")
    for name in ("weight", "bias"):
        _shape(name, a[name], channels)


def check_linear(a: Arguments) -> None:
    source, weight = a["input"], a["weight"]
    _demand(len(weight.shape) == 2, f"weight is {weight}, not a matrix")
    _demand(
        len(source.shape) > 0 and source.shape[-1] == weight.shape[1],
        f"input is {source} for weight {weight}",
    )
    _shape("bias", a["bias"], weight.shape[0])
    if a["bias"] is not None:
        # The shape function promotes types, and the kernel does not.
        _demand(a["bias"].dtype == source.dtype, f"bias is {a['bias']} for input {source}")


def check_embedding(a: Arguments) -> None:
    weight, indices = a["weight"], a["indices"]
    _demand(len(weight.shape) == 2, f"weight is {weight}, not a matrix")
    _demand(indices.dtype in _INDEX_DTYPES, f"indices are {indices}, not integers")
    _demand(not a["sparse"], "sparse gradients have no place in inference")


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
    _demand(not a["train"], "training mode needs randomness; capture the model in eval mode")
    _demand(len(source.shape) == 3, f"input is {source}, not sequence x batch x features")
    _demand(math.prod(source.shape) > 0, f"input {source} is empty")
    _demand(len(hidden) == states, f"{len(hidden)} initial states for {states}")
    _demand(0 < layers <= 1024, f"{layers} layers")
    batch = source.shape[0] if a["batch_first"] else source.shape[1]
    for state in hidden:
        _demand(len(state.shape) == 3, f"an initial state is {state}")
        _demand(
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
    _demand(
        len(params) == layers * directions * per_direction,
        f"{len(params)} parameters for {layers} layers of {directions} x {per_direction}",
    )
    for spec in (*params, *hidden):
        _demand(spec.dtype == source.dtype, f"a parameter is {spec} for input {source}")
    for index in range(layers * directions):
        group = params[index * per_direction : (index + 1) * per_direction]
        features = source.shape[2] if index < directions else output * directions
        _shape("an input weight", group[0], gates * size, features)
        _shape("a hidden weight", group[1], gates * size, output)
        if a["has_biases"]:
            _shape("an input bias", group[2], gates * size)
            _shape("a hidden bias", group[3], gates * size)
        if projected:
            _shape("a projection", group[-1], output, size)


def check_lstm_cell(a: Arguments) -> None:
    _demand(len(a["hx"]) == 2, f"{len(a['hx'])} initial states for 2")
    _cell(a, tuple(a["hx"]), gates=4)


def check_gru_cell(a: Arguments) -> None:
    _cell(a, (a["hx"],), gates=3)


def check_rnn_cell(a: Arguments) -> None:
    _cell(a, (a["hx"],), gates=1)


def _cell(a: Arguments, hidden: Sequence[TensorSpec], *, gates: int) -> None:
    source = a["input"]
    _demand(len(source.shape) == 2, f"input is {source}, not batch x features")
    _demand(len(hidden[0].shape) == 2, f"an initial state is {hidden[0]}")
    size = hidden[0].shape[1]
    for state in hidden:
        _shape("an initial state", state, source.shape[0], size)
    _shape("w_ih", a["w_ih"], gates * size, source.shape[1])
    _shape("w_hh", a["w_hh"], gates * size, size)
    _shape("b_ih", a["b_ih"], gates * size)
    _shape("b_hh", a["b_hh"], gates * size)


def check_embedding_bag(a: Arguments) -> None:
    weight, indices, offsets = a["weight"], a["indices"], a["offsets"]
    _demand(len(weight.shape) == 2, f"weight is {weight}, not a matrix")
    for name, spec in (("indices", indices), ("offsets", offsets)):
        _demand(spec.dtype in _INDEX_DTYPES and len(spec.shape) == 1, f"{name} are {spec}")
    _demand(a["mode"] in (0, 1, 2), f"mode {a['mode']}")
    _demand(not a["sparse"], "sparse gradients have no place in inference")
    if a["per_sample_weights"] is not None:
        _shape("per_sample_weights", a["per_sample_weights"], *indices.shape)


def recurrent_outputs(a: Arguments) -> tuple[TensorSpec, ...]:
    """What a checked lstm, gru or rnn makes: the sequence and the last states.

    Torch's own shape function unrolls the sequence, step by step, for as long as it is told.
    """
    source = a["input"]
    hidden = tuple(a["hx"]) if isinstance(a["hx"], tuple) else (a["hx"],)
    width = hidden[0].shape[2] * (2 if a["bidirectional"] else 1)
    return (TensorSpec(source.dtype, (*source.shape[:2], width)), *hidden)


def check_index(a: Arguments) -> None:
    indices = a["indices"]
    _demand(len(indices) <= len(a["self"].shape), f"{len(indices)} indices for {a['self']}")
    for index in indices:
        if index is not None:
            _demand(index.dtype in (*_INDEX_DTYPES, "bool", "uint8"), f"an index is {index}")
            # How many elements a mask selects is known only once it has run.
            _demand(index.dtype not in ("bool", "uint8"), "a mask as index has no fixed size")
    ranks = {len(index.shape) for index in indices if index is not None}
    # The shape function drops the other indices' dimensions; the kernel does not.
    _demand(len(ranks) < 2 or 0 not in ranks, "a single number among tensors of indices")


def check_gather(a: Arguments) -> None:
    _demand(a["index"].dtype == "int64", f"index is {a['index']}, not int64")
    _demand(not a.get("sparse_grad"), "sparse gradients have no place in inference")


def check_grid_sampler(a: Arguments) -> None:
    _demand(a["interpolation_mode"] in (0, 1, 2), f"mode {a['interpolation_mode']}")
    _demand(a["padding_mode"] in (0, 1, 2), f"padding mode {a['padding_mode']}")


def check_attention(a: Arguments) -> None:
    _demand(a["dropout_p"] == 0, "dropout needs randomness; capture the model in eval mode")
    query, key, value = a["query"], a["key"], a["value"]
    for name in ("query", "key", "value"):
        _demand(len(a[name].shape) >= 2, f"{name} is {a[name]}")
    _demand(query.shape[-1] == key.shape[-1], f"query is {query} for key {key}")
    _demand(key.shape[-2] == value.shape[-2], f"key is {key} for value {value}")


def check_unbind(a: Arguments) -> None:
    _few(_extent(a["self"], a["dim"]))


def check_split(a: Arguments) -> None:
    _demand(a["split_size"] > 0, f"split size {a['split_size']}")
    _few(-(-_extent(a["self"], a["dim"]) // a["split_size"]))


def check_chunk(a: Arguments) -> None:
    pieces = a["chunks"] if "chunks" in a else a["sections"]
    _demand(pieces > 0, f"{pieces} pieces")
    _few(pieces)


def _few(pieces: int) -> None:
    # Each piece is an object, even where it has no elements.
    _demand(pieces <= MAX_PIECES, f"{pieces} pieces; the limit is {MAX_PIECES}")


def _extent(spec: TensorSpec, dim: int) -> int:
    rank = len(spec.shape)
    _demand(-rank <= dim < rank, f"dim {dim} of {spec}")
    return spec.shape[dim]


def check_diff(a: Arguments) -> None:
    # Torch takes differences of differences one after the other.
    _demand(0 <= a["n"] <= MAX_PIECES, f"{a['n']} differences")


def check_slice(a: Arguments) -> None:
    # The kernel adds a step to an end without looking for an overflow; the shape function looks.
    _demand(0 < a["step"] < 1 << 31, f"step {a['step']}")


def check_pow(a: Arguments) -> None:
    # The shape function and the kernel disagree about the result's element type.
    _demand(not isinstance(a["exponent"], bool), "a bool as exponent")


def check_pixel_unshuffle(a: Arguments) -> None:
    source, factor = a["self"], a["downscale_factor"]
    _demand(len(source.shape) >= 3 and factor > 0, f"factor {factor} for {source}")
    _demand(math.prod(source.shape) > 0, f"{source} is empty")


def check_softmax(a: Arguments) -> None:
    if a["self"].shape:
        _extent(a["self"], a["dim"])


def check_unfold(a: Arguments) -> None:
    _demand(a["size"] >= 0 and a["step"] > 0, f"size {a['size']}, step {a['step']}")


def check_pad(a: Arguments) -> None:
    # Torch leaves parts of such a result as the memory was before.
    _demand(
        a["mode"] != "circular" or min(_ints(a["pad"]), default=0) >= 0,
        f"a circular padding of {a['pad']}",
    )


def check_arange(a: Arguments) -> None:
    # The kernel adds them without looking for an overflow; the shape function looks.
    given = [a.get(name, 0) for name in ("start", "end", "step")]
    reach = sum(abs(number) for number in given if isinstance(number, int))
    _demand(reach < 1 << 63, f"a range of {given}")
