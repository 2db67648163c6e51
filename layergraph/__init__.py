"""What a model is, as plain data, and how to run a piece of it. Knows torch, and no network."""

from layergraph.budget import Budget
from layergraph.buffers import tensor_from_buffer, tensor_to_buffer
from layergraph.cache import capture_cached
from layergraph.capture import capture
from layergraph.captured import save_captured
from layergraph.check import check_graph
from layergraph.errors import GraphError, InvalidGraph, InvalidInput, UnsupportedOperator
from layergraph.execute import Executor, check_live, execute
from layergraph.export import slow_attention
from layergraph.graph import LayerGraph
from layergraph.nodes import Layer, Node, TensorSpec, Weight
from layergraph.signature import Signature, flatten_inputs, unflatten_outputs
from layergraph.weights import (
    load_weights,
    save_weights,
    tensor_from_weight_bytes,
    weight_bytes_view,
    weight_digest,
)
from layergraph.work import LayerWork, NodeWork, work

__all__ = [
    "Budget",
    "Executor",
    "GraphError",
    "InvalidGraph",
    "InvalidInput",
    "Layer",
    "LayerGraph",
    "LayerWork",
    "Node",
    "NodeWork",
    "Signature",
    "TensorSpec",
    "UnsupportedOperator",
    "Weight",
    "capture",
    "capture_cached",
    "check_graph",
    "check_live",
    "execute",
    "flatten_inputs",
    "load_weights",
    "save_captured",
    "save_weights",
    "slow_attention",
    "tensor_from_buffer",
    "tensor_from_weight_bytes",
    "tensor_to_buffer",
    "unflatten_outputs",
    "weight_bytes_view",
    "weight_digest",
    "work",
]
