"""What every worker of an edge has in common, known to its server too: imports nothing of torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_PASSED_ON = ("PATH", "HOME", "TMPDIR", "LANG", "TZ", "VIRTUAL_ENV", "LD_LIBRARY_PATH")
_PASSED_ON_OF = (
    "LC_", "PYTHON", "OMP_", "GOMP_", "KMP_", "MKL_", "ONEDNN_", "DNNL_", "ATEN_", "TORCH_",
    "PYTORCH_", "CUDA_", "NVIDIA_", "MALLOC_",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """Where workers compute and what each of them may use.

    threads: that one query gets. memory_bytes: memory of its own, beyond what all workers share
    and beyond its model's weights. spare_cpu_s: processor seconds that a worker may have used
    beyond its share, which is `threads` (and one that loads weights) while a job is open.
    device_memory_bytes: memory of all workers of one paired device together.
    graph_flops, graph_nodes, graph_weights: operations of one run of a graph's layers, its operator
    calls and its weights; one that wants more, or more memory than `memory_bytes`, is refused when
    it arrives.
    """

    device: str
    threads: int
    memory_bytes: int = 2 << 30
    spare_cpu_s: float = 30.0
    device_memory_bytes: int = 4 << 30
    graph_flops: int = 10**13
    graph_nodes: int = 20_000
    graph_weights: int = 8_192

    @property
    def most_threads(self) -> int:
        """Threads that a worker may have: libraries keep pools of their own beside torch's."""
        return 3 * self.threads + 16

    def environment(self, servers: Mapping[str, str]) -> dict[str, str]:
        """Theirs, of the server's, which may hold its secrets: only what libraries are set by."""
        environment = {
            name: value
            for name, value in servers.items()
            if name in _PASSED_ON or name.startswith(_PASSED_ON_OF)
        }
        # Threads of the forkserver's would be lost in every fork; workers set their number.
        environment["OPENBLAS_NUM_THREADS"] = "1"
        if self.device == "cuda":
            # Asking CUDA itself whether it is there would break it for every fork.
            environment["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
        else:
            environment["CUDA_VISIBLE_DEVICES"] = ""
        return environment
