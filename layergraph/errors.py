"""What can be wrong with a model: GraphError -> UnsupportedOperator, InvalidGraph, InvalidInput."""


class GraphError(Exception):
    """Something about the model or its inputs keeps it from running layer by layer."""


class UnsupportedOperator(GraphError):
    """The model needs an operator, or a Python construct, that cannot be captured as data."""


class InvalidGraph(GraphError):
    """The graph is not well formed: a bad reference, a bad argument, a weight that does not fit."""


class InvalidInput(GraphError):
    """The live tensors do not have the structure, shapes or element types that the graph takes."""
