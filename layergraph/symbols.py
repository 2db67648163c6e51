"""Torch's element types, memory formats and layouts by the names that graphs have for them."""

from __future__ import annotations

from typing import Any

import torch

from layergraph.errors import InvalidGraph
from layergraph.nodes import Symbol, TensorSpec

DTYPES: dict[str, torch.dtype] = {
    "bool": torch.bool, "uint8": torch.uint8, "int8": torch.int8, "int16": torch.int16,
    "int32": torch.int32, "int64": torch.int64, "float16": torch.float16,
    "bfloat16": torch.bfloat16, "float32": torch.float32, "float64": torch.float64,
    "complex64": torch.complex64, "complex128": torch.complex128,
}  # fmt: skip
DTYPE_NAMES: dict[torch.dtype, str] = {dtype: name for name, dtype in DTYPES.items()}

MEMORY_FORMATS: dict[str, torch.memory_format] = {
    "contiguous_format": torch.contiguous_format,
    "preserve_format": torch.preserve_format,
    "channels_last": torch.channels_last,
    "channels_last_3d": torch.channels_last_3d,
}
MEMORY_FORMAT_NAMES = {value: name for name, value in MEMORY_FORMATS.items()}

LAYOUTS: dict[str, torch.layout] = {"strided": torch.strided}


def symbol_value(symbol: Symbol, device: torch.device) -> Any:
    """The torch object that a symbol names; `device` for a device."""
    match symbol.kind:
        case "dtype":
            return DTYPES[symbol.name]
        case "memory_format":
            return MEMORY_FORMATS[symbol.name]
        case "layout":
            return LAYOUTS[symbol.name]
        case _:
            return device


def spec_of(tensor: torch.Tensor) -> TensorSpec:
    """The tensor's element type and shape. Raises InvalidGraph for a type that has no name here."""
    name = DTYPE_NAMES.get(tensor.dtype)
    if name is None or tensor.layout is not torch.strided:
        raise InvalidGraph(f"a {tensor.layout} tensor of {tensor.dtype} cannot be described")
    if not all(type(n) is int for n in tensor.shape):
        raise InvalidGraph("the size of a result depends on a tensor's values")
    return TensorSpec(name, tuple(tensor.shape))
