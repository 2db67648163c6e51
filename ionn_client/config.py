"""All options of a client, with units and defaults."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from ionn_client.machine.battery import Battery
from ionn_client.machine.kept import KeepLocal, checked_keep_local
from ionn_client.stay import Stay
from planner import LATENCY, Link, Objective
from planner.upload import Algorithm
from wire import PRECISIONS

ALGORITHMS: tuple[str, ...] = get_args(Algorithm)


@dataclass(frozen=True, slots=True)
class Options:
    """How a client uploads and queries.

    algorithm: planner.upload_plan's; `k` is IONN's K.
    acknowledge: "layer", or "partition" to use a layer only once its whole partition is there,
        as SoCC'18 does.
    assumed_link: taken for true until acknowledgements say better.
    precision: "exact" uploads weights as they are; "progressive" uploads the high bits of all
        weights first, so that queries run on the edge sooner, with answers a little off, until
        the rest follows. Each result says its precision, and a query may demand "exact".
    activation_tolerance: the error in an answer, relative to its largest element, that coding
        live tensors on their way up may cause; measured on the example when the model is
        profiled. None, the default, codes them only as exactly as they are.
    objective: what routes minimise: seconds, the device's joules, or a mix. With a power in it,
        every result tells its joules. Uploads are ordered by it too.
    battery: joules that so many queries may draw; each takes the best route within its share of
        what is left, or the least hungry one. Needs the objective's power.
    stay: how long the client stays near an edge, and how many queries an hour it asks: only as
        much is uploaded as pays back in joules until it leaves, judged by `assumed_link` until
        acknowledgements say better. Needs the objective's power, and exact precision.
    keep_local: how many first and last layers stay on the device, for privacy: the edge gets none
        of their weights and never runs them. With first layers kept, it never sees the raw input.
    lane: whether to upload over a second connection, so that queries overtake weights where the
        queue of this machine's own interface is the narrowest place and honours priorities.
        Small queries gain a millisecond or two by it, large ones lose more, because TCP starts
        slowly on a connection that was idle.
    replan: whether plans follow the measurements.
    device_slowdown: emulated slow device; each local layer takes this many times its profiled
        time, by sleeping. 1 is this machine as it is.
    threads: of local execution. One thread computes the same bits everywhere. Ranges too short for
        a thread's turn run in the event loop's, where torch computes with as many there: see
        `torch.set_num_threads`.
    silence_s: an edge that says nothing for so long, though pinged, is given up, and so is a
        connection whose bytes nobody acknowledges for so long.
    hedging: whether the client runs a query too while its reply is late: later than 95 of 100
        were, for their predicted times. The first valid answer wins.
    patience: a reply is waited for this many times its predicted time (and half a second) at
        most. Without hedging, the edge's query is then cancelled.
    audit_share: of the edge's answers, the share that the client computes again when it has
        nothing else to do. An edge that is caught lying is not used any more.
    state: directory with this device's identity and the boxes that it knows; None takes the
        user's, $XDG_STATE_HOME/ionn/client or ~/.local/state/ionn/client.
    captures: directory in which captured graphs are kept; None captures anew each time.
    trace: called with one plain dict per notable event, for JSONL logs.
    """

    algorithm: Algorithm = "efficiency"
    k: float = 0.5
    acknowledge: str = "layer"
    assumed_link: Link = field(default_factory=lambda: Link(1e6, 1e6, 0.02))
    precision: str = "exact"
    activation_tolerance: float | None = None
    objective: Objective = LATENCY
    battery: Battery | None = None
    stay: Stay | None = None
    keep_local: KeepLocal = (0, 0)
    lane: bool = False
    replan: bool = True
    device_slowdown: float = 1.0
    threads: int = 1
    profile_runs: int = 5
    silence_s: float = 1.8
    hedging: bool = True
    patience: float = 3.0
    audit_share: float = 0.01
    backoff_s: float = 0.1
    max_backoff_s: float = 2.0
    state: Path | None = None
    captures: Path | None = None
    trace: Callable[[dict[str, Any]], None] | None = None

    def __post_init__(self) -> None:
        if self.algorithm not in ALGORITHMS:
            raise ValueError(f"algorithm is one of {', '.join(ALGORITHMS)}, not {self.algorithm!r}")
        if self.acknowledge not in ("layer", "partition"):
            raise ValueError(f"acknowledge is 'layer' or 'partition', not {self.acknowledge!r}")
        if self.precision not in ("exact", "progressive"):
            raise ValueError(f"precision is 'exact' or 'progressive', not {self.precision!r}")
        published = self.acknowledge != "layer" or self.algorithm != "efficiency"
        if self.precision == "progressive" and published:
            raise ValueError("precision 'progressive' has its own order, and counts by layer")
        tolerance = self.activation_tolerance
        if tolerance is not None and not 0 < tolerance < math.inf:
            raise ValueError(f"activation_tolerance is None or a positive number, not {tolerance}")
        for name in ("battery", "stay"):
            if getattr(self, name) is not None and self.objective.power is None:
                raise ValueError(f"{name} needs an objective with a power: Objective(power=...)")
        if self.stay is not None and self.precision != "exact":
            raise ValueError("stay needs precision 'exact': whole layers are judged")
        checked_keep_local(self.keep_local)
        if not self.device_slowdown >= 1:
            raise ValueError(f"device_slowdown is 1 or more, not {self.device_slowdown}")
        if not self.silence_s > 0:
            raise ValueError(f"silence_s is a positive number of seconds, not {self.silence_s}")
        if not self.patience >= 1:
            raise ValueError(f"patience is 1 or more, not {self.patience}")
        if not 0 <= self.audit_share <= 1:
            raise ValueError(f"audit_share is from 0 to 1, not {self.audit_share}")
        if self.threads < 1 or self.profile_runs < 1:
            raise ValueError("threads and profile_runs are 1 or more")

    @property
    def least_precision(self) -> str:
        """What a query accepts that demands nothing."""
        return PRECISIONS[-1] if self.precision == "exact" else PRECISIONS[0]
