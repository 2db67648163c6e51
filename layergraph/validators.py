"""What an operator's arguments must satisfy beyond its schema, before torch sees them.

Torch trusts some parameter shapes: `batch_norm` with short statistics reads past the end of
memory. Each check takes the arguments by schema name, tensors as TensorSpec, and raises ValueError
with what is wrong. Those of recurrent networks are in recurrent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from layergraph.demands import Arguments, demand, demand_shape
from layergraph.nodes import TensorSpec

MAX_PIECES = 4096
_INDEX_DTYPES = ("int32", "int64")


def _ints(value: int | Sequence[int]) -> tuple[int, ...]:
    return (value,) if isinstance(value, int) else tuple(value)


def check_conv(a: Arguments) -> None:
    source, weight, groups = a["input"], a["weight"], a["groups"]
    rank = len(weight.shape)
    demand(rank in (3, 4, 5), f"weight is {weight}, not a convolution's")
    demand(len(source.shape) in (rank - 1, rank), f"input is {source} for weight {weight}")
    channels = source.shape[-rank + 1]
    demand(groups > 0 and weight.shape[0] % groups == 0, f"{groups} groups for weight {weight}")
    demand(weight.shape[1] * groups == channels, f"weight {weight} for {channels} channels")
    demand(math.prod(weight.shape) > 0, f"weight {weight} is empty")
    demand_shape("bias", a["bias"], weight.shape[0])
    _window(a)


def check_conv_transpose(a: Arguments) -> None:
    source, weight, groups = a["input"], a["weight"], a["groups"]
    rank = len(weight.shape)
    demand(rank in (3, 4, 5), f"weight is {weight}, not a convolution's")
    demand(len(source.shape) in (rank - 1, rank), f"input is {source} for weight {weight}")
    channels = source.shape[-rank + 1]
    demand(groups > 0 and channels % groups == 0, f"{groups} groups for {channels} channels")
    demand(weight.shape[0] == channels, f"weight {weight} for {channels} channels")
    demand(math.prod(weight.shape) > 0, f"weight {weight} is empty")
    demand_shape("bias", a["bias"], weight.shape[1] * groups)
    _window(a)


def _window(a: Arguments) -> None:
    for name in ("kernel_size", "stride", "dilation"):
        if name in a:
            demand(all(n > 0 for n in _ints(a[name])), f"{name} {a[name]} is not positive")
    if "padding" in a and not isinstance(a["padding"], str):
        demand(all(n >= 0 for n in _ints(a["padding"])), f"padding {a['padding']} is negative")


def check_pool(a: Arguments) -> None:
    _window(a)


def check_batch_norm(a: Arguments) -> None:
    source = a["input"]
    demand(len(source.shape) >= 2, f"input is {source}, without channels")
    demand(not a["training"], "training mode needs state; capture the model in eval mode")
    demand(a["running_mean"] is not None, "running_mean is missing")
    demand(a["running_var"] is not None, "running_var is missing")
    for name in ("running_mean", "running_var", "weight", "bias"):
        demand_shape(name, a[name], source.shape[1])


def check_instance_norm(a: Arguments) -> None:
    source = a["input"]
    demand(len(source.shape) >= 2, f"input is {source}, without channels")
    has_stats = a["running_mean"] is not None and a["running_var"] is not None
    demand(a["use_input_stats"] or has_stats, "running_mean and running_var are missing")
    stats = () if a["use_input_stats"] else ("running_mean", "running_var")
    demand(
        not a["use_input_stats"] or a["running_mean"] is None,
        "statistics that are updated need state; capture the model in eval mode",
    )
    for name in (*stats, "weight", "bias"):
        demand_shape(name, a[name], source.shape[1])


def check_layer_norm(a: Arguments) -> None:
    source, normalized = a["input"], _ints(a["normalized_shape"])
    demand(
        0 < len(normalized) <= len(source.shape) and source.shape[-len(normalized) :] == normalized,
        f"normalized_shape {list(normalized)} for input {source}",
    )
    for name in ("weight", "bias"):
        demand_shape(name, a.get(name), *normalized)


def check_group_norm(a: Arguments) -> None:
    source, groups = a["input"], a["num_groups"]
    demand(len(source.shape) >= 2, f"input is {source}, without channels")
    channels = source.shape[1]
    demand(groups > 0 and channels % groups == 0, f"{groups} groups for {channels} channels")
    for name in ("weight", "bias"):
        demand_shape(name, a[name], channels)


def check_linear(a: Arguments) -> None:
    source, weight = a["input"], a["weight"]
    demand(len(weight.shape) == 2, f"weight is {weight}, not a matrix")
    demand(
        len(source.shape) > 0 and source.shape[-1] == weight.shape[1],
        f"input is {source} for weight {weight}",
    )
    demand_shape("bias", a["bias"], weight.shape[0])
    if a["bias"] is not None:
        # The shape function promotes types, and the kernel does not.
        demand(a["bias"].dtype == source.dtype, f"bias is {a['bias']} for input {source}")


def check_embedding(a: Arguments) -> None:
    weight, indices = a["weight"], a["indices"]
    demand(len(weight.shape) == 2, f"weight is {weight}, not a matrix")
    demand(indices.dtype in _INDEX_DTYPES, f"indices are {indices}, not integers")
    demand(not a["sparse"], "sparse gradients have no place in inference")


def check_embedding_bag(a: Arguments) -> None:
    weight, indices, offsets = a["weight"], a["indices"], a["offsets"]
    demand(len(weight.shape) == 2, f"weight is {weight}, not a matrix")
    for name, spec in (("indices", indices), ("offsets", offsets)):
        demand(spec.dtype in _INDEX_DTYPES and len(spec.shape) == 1, f"{name} are {spec}")
    demand(a["mode"] in (0, 1, 2), f"mode {a['mode']}")
    demand(not a["sparse"], "sparse gradients have no place in inference")
    if a["per_sample_weights"] is not None:
        demand_shape("per_sample_weights", a["per_sample_weights"], *indices.shape)


def check_index(a: Arguments) -> None:
    indices = a["indices"]
    demand(len(indices) <= len(a["self"].shape), f"{len(indices)} indices for {a['self']}")
    for index in indices:
        if index is not None:
            demand(index.dtype in (*_INDEX_DTYPES, "bool", "uint8"), f"an index is {index}")
            # How many elements a mask selects is known only once it has run.
            demand(index.dtype not in ("bool", "uint8"), "a mask as index has no fixed size")
    ranks = {len(index.shape) for index in indices if index is not None}
    # The shape function drops the other indices' dimensions; the kernel does not.
    demand(len(ranks) < 2 or 0 not in ranks, "a single number among tensors of indices")


def check_gather(a: Arguments) -> None:
    demand(a["index"].dtype == "int64", f"index is {a['index']}, not int64")
    demand(not a.get("sparse_grad"), "sparse gradients have no place in inference")


def check_grid_sampler(a: Arguments) -> None:
    demand(a["interpolation_mode"] in (0, 1, 2), f"mode {a['interpolation_mode']}")
    demand(a["padding_mode"] in (0, 1, 2), f"padding mode {a['padding_mode']}")


def check_attention(a: Arguments) -> None:
    demand(a["dropout_p"] == 0, "dropout needs randomness; capture the model in eval mode")
    query, key, value = a["query"], a["key"], a["value"]
    for name in ("query", "key", "value"):
        demand(len(a[name].shape) >= 2, f"{name} is {a[name]}")
    demand(query.shape[-1] == key.shape[-1], f"query is {query} for key {key}")
    demand(key.shape[-2] == value.shape[-2], f"key is {key} for value {value}")


def check_unbind(a: Arguments) -> None:
    _few(_extent(a["self"], a["dim"]))


def check_split(a: Arguments) -> None:
    demand(a["split_size"] > 0, f"split size {a['split_size']}")
    _few(-(-_extent(a["self"], a["dim"]) // a["split_size"]))


def check_chunk(a: Arguments) -> None:
    pieces = a["chunks"] if "chunks" in a else a["sections"]
    demand(pieces > 0, f"{pieces} pieces")
    _few(pieces)


def _few(pieces: int) -> None:
    # Each piece is an object, even where it has no elements.
    demand(pieces <= MAX_PIECES, f"{pieces} pieces; the limit is {MAX_PIECES}")


def _extent(spec: TensorSpec, dim: int) -> int:
    rank = len(spec.shape)
    demand(-rank <= dim < rank, f"dim {dim} of {spec}")
    return spec.shape[dim]


def check_diff(a: Arguments) -> None:
    # Torch takes differences of differences one after the other.
    demand(0 <= a["n"] <= MAX_PIECES, f"{a['n']} differences")


def check_slice(a: Arguments) -> None:
    # The kernel adds a step to an end without looking for an overflow; the shape function looks.
    demand(0 < a["step"] < 1 << 31, f"step {a['step']}")


def check_pow(a: Arguments) -> None:
    # The shape function and the kernel disagree about the result's element type.
    demand(not isinstance(a["exponent"], bool), "a bool as exponent")


def check_pixel_unshuffle(a: Arguments) -> None:
    source, factor = a["self"], a["downscale_factor"]
    demand(len(source.shape) >= 3 and factor > 0, f"factor {factor} for {source}")
    demand(math.prod(source.shape) > 0, f"{source} is empty")


def check_softmax(a: Arguments) -> None:
    if a["self"].shape:
        _extent(a["self"], a["dim"])


def check_unfold(a: Arguments) -> None:
    demand(a["size"] >= 0 and a["step"] > 0, f"size {a['size']}, step {a['step']}")


def check_pad(a: Arguments) -> None:
    # Torch leaves parts of such a result as the memory was before.
    demand(
        a["mode"] != "circular" or min(_ints(a["pad"]), default=0) >= 0,
        f"a circular padding of {a['pad']}",
    )


def check_arange(a: Arguments) -> None:
    # The kernel adds them without looking for an overflow; the shape function looks.
    given = [a.get(name, 0) for name in ("start", "end", "step")]
    reach = sum(abs(number) for number in given if isinstance(number, int))
    demand(reach < 1 << 63, f"a range of {given}")
