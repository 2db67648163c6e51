"""What every worker of an edge has in common, known to its server too: imports nothing of torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """Where workers compute and what each of them may use.

    threads: that one query gets. memory_bytes: memory of its own, beyond what all workers share
    and beyond its model's weights. spare_cpu_s: processor seconds that a worker may have used
    beyond its share, which is `threads` (and one that loads weights) while a job is open.
    device_memory_bytes: memory of all workers of one paired device together.
    graph_flops, graph_nodes: operations of one run of a graph's layers, and its operator calls;
    one that wants more, or more memory than `memory_bytes`, is refused when it arrives.
    """

    device: str
    threads: int
    memory_bytes: int = 2 << 30
    spare_cpu_s: float = 30.0
    device_memory_bytes: int = 4 << 30
    graph_flops: int = 10**13
    graph_nodes: int = 20_000

    @property
    def most_threads(self) -> int:
        """Threads that a worker may have: libraries keep pools of their own beside torch's."""
        return 3 * self.threads + 16
