"""What layers take on this machine: a designed spread of single layers, run as queries run them.

For a worker process. Every layer is its own small graph, run by the Executor that runs
clients' layers. Weights come in several copies that take turns, so that they come from memory
and not from the processor's cache: a query runs each layer once, with weights last touched a
query ago.
"""

from __future__ import annotations


def measure(device: str, seconds: float) -> list[tuple[str, float, float, float]]:
    raise NotImplementedError
