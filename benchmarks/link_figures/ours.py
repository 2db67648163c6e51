"""Our side: the real client with a network that is all link.

Its first layer takes the query's bytes and always runs on the edge, because its profile says so;
what follows is ballast to upload: tables of which a query reads one row, which costs nothing here.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ionn_client import Offload, Options, Profiled, connect
from layergraph import capture
from planner import Link

# Few, because a query's lookups are the one thing that it does here, loaded and idle alike.
TABLES = 4
COLUMNS = 1_024
# The first layer on the client: so slow that no correction makes the client worth it.
NEVER_HERE_S = 100.0
TIMEOUT_S = 600.0


class Ballast(nn.Module):
    """uint8 [n] -> float32 [1]; the tables are looked up, never computed with."""

    def __init__(self, tables: list[Tensor]) -> None:
        super().__init__()
        for index, table in enumerate(tables):
            self.register_buffer(f"table{index}", table)
        self._tables = len(tables)

    def forward(self, query: Tensor) -> Tensor:
        index = query[:1].long().clamp(max=0)
        answer = index.float()
        for number in range(self._tables):
            row = functional.embedding(index, getattr(self, f"table{number}"))
            answer = answer + row[:, 0].float()
        return answer


class Touch(nn.Module):
    """uint8 [n] -> float32 [1]: one layer that is next to free, and reads a byte of its query."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("factor", torch.full((1,), 2.0))

    def forward(self, query: Tensor) -> Tensor:
        return query[:1].float() * self.factor


def tables(size: int, seed: int, dtype: torch.dtype = torch.uint8) -> list[Tensor]:
    """About `size` bytes: random bytes, which no coding shortens, or weights drawn like any."""
    generator = torch.Generator().manual_seed(seed)
    rows = max(1, size // (TABLES * COLUMNS * dtype.itemsize))
    if dtype == torch.uint8:
        return [_bytes(rows, generator) for _ in range(TABLES)]
    return [0.02 * torch.randn(rows, COLUMNS, generator=generator) for _ in range(TABLES)]


def _bytes(rows: int, generator: torch.Generator) -> Tensor:
    return torch.randint(0, 256, (rows, COLUMNS), dtype=torch.uint8, generator=generator)


def network(query_bytes: int, ballast: list[Tensor]) -> tuple[Profiled, Tensor]:
    """The captured network with its profile made by hand, and a query."""
    query = query_of(query_bytes)
    return captured(Ballast(ballast).eval(), (query,)), query


def query_of(size: int) -> Tensor:
    # Random, so that no coding of live tensors makes it smaller than it says.
    generator = torch.Generator().manual_seed(size)
    return torch.randint(0, 256, (size,), dtype=torch.uint8, generator=generator)


def captured(model: nn.Module, args: tuple[Any, ...], rest_s: float = 0.0) -> Profiled:
    """Any model with that profile. rest_s: what each layer but the first takes on the client."""
    graph, weights = capture(model, args)
    return Profiled(graph, weights, (NEVER_HERE_S, *(rest_s for _ in graph.layers[1:])))


@dataclass
class Session:
    """A connected client, when it entered each phase (time.monotonic seconds), and what each range
    took on the edge (seconds)."""

    net: Offload
    times: dict[str, float] = field(default_factory=dict)
    computed_s: list[float] = field(default_factory=list)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def note(self, record: dict[str, Any]) -> None:
        if record["event"] == "phase":
            self.times[record["phase"]] = time.monotonic()
            self._changed.set()
        elif record["event"] == "hop":
            self.computed_s.append(record["compute_s"])

    async def reached(self, phase: str) -> None:
        async with asyncio.timeout(TIMEOUT_S):
            while phase not in self.times:
                self._changed.clear()
                await self._changed.wait()

    @property
    def upload_s(self) -> float:
        return self.times["ready"] - self.times["uploading"]


@contextlib.asynccontextmanager
async def session(
    profiled: Profiled, query: Any, address: str, rate_Bps: float, **options: Any
) -> AsyncIterator[Session]:
    """Connected and on its way; everything is uploaded, front to back.

    Unless asked for, nothing is hedged: the first layer takes this machine no time, whatever its
    profile says.
    """
    holder: list[Session] = []
    chosen = Options(
        algorithm="all-at-once",
        assumed_link=Link(rate_Bps, rate_Bps, 0.001),
        trace=lambda record: holder[0].note(record),
        **{"hedging": False, **options},
    )
    net = connect(
        profiled, query if isinstance(query, tuple) else (query,), edge=address, options=chosen
    )
    holder.append(Session(net))
    async with net:
        yield holder[0]
