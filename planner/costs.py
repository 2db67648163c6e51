"""The numbers that every plan is made from: what layers cost, and what the link costs.

Knows nothing of models, sockets or clocks. The arrays are read-only; everything is checked
here once, so that the planners need not.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats: TypeAlias = NDArray[np.float64]
Pairs: TypeAlias = tuple[tuple[int, int], ...]

# What a layer that must stay on the client takes on the edge, at least: more than any model's
# time, and so little that sums with it stay exact to a picosecond.
KEPT_S = 1e3


@dataclass(frozen=True, slots=True)
class Link:
    """A radio link: bytes per second each way, and the round trip of an empty message.

    A transfer of b bytes takes b / rate + rtt_s / 2. Raises ValueError unless the rates are
    positive and the round trip is not negative, all finite.
    """

    up_Bps: float
    down_Bps: float
    rtt_s: float = 0.0

    def __post_init__(self) -> None:
        for name in ("up_Bps", "down_Bps"):
            value = getattr(self, name)
            if not (is_finite(value) and value > 0):
                raise ValueError(f"{name} is a positive number of bytes per second, not {value!r}")
        if not (is_finite(self.rtt_s) and self.rtt_s >= 0):
            raise ValueError(f"rtt_s is a number of seconds from 0, not {self.rtt_s!r}")


@dataclass(frozen=True, eq=False)
class LayerCosts:
    """What each of n layers costs on either side, and what each of n + 1 cuts costs to cross.

    `client_s`, `edge_s` (n): seconds to run layer i. `weight_bytes` (n): what has to be uploaded
    before the edge can run layer i. `cut_up_bytes`, `cut_down_bytes` (n + 1): bytes alive before
    layer i, as encoded in either direction; cut 0 is the input and cut n the answer.
    `cut_up_s`, `cut_down_s` (n + 1, zeros by default): seconds that both sides need to code and
    decode these bytes when the cut is crossed in that direction.

    `edges`: the layer graph as (source, target) pairs with source < target, where -1 is the
    model's input and n its output; only IONN asks for it, to find dominators. A layer without a
    source reads the input, a layer without a target is an output. `shared`: (layer, owner) pairs;
    the layer also uses weights that are counted in the owner's bytes, so the edge can run it only
    once the owner is there too. `local`: layers that must stay on the client; those that share
    weights with one stay too. They have nothing to upload, are never available on the edge, and
    take `KEPT_S` there at least, which keeps planners away that do not ask what is available.
    `names`: n layer names, for people.

    Raises ValueError that names the field when lengths differ or a number is negative, infinite
    or NaN.
    """

    client_s: Floats
    edge_s: Floats
    weight_bytes: Floats
    cut_up_bytes: Floats
    cut_down_bytes: Floats
    cut_up_s: Floats = field(kw_only=True)
    cut_down_s: Floats = field(kw_only=True)
    edges: Pairs | None = field(default=None, kw_only=True)
    shared: Pairs = field(default=(), kw_only=True)
    local: frozenset[int] = field(default=frozenset(), kw_only=True)
    names: tuple[str, ...] | None = field(default=None, kw_only=True)

    def __init__(
        self,
        client_s: ArrayLike,
        edge_s: ArrayLike,
        weight_bytes: ArrayLike,
        cut_up_bytes: ArrayLike,
        cut_down_bytes: ArrayLike,
        *,
        cut_up_s: ArrayLike | None = None,
        cut_down_s: ArrayLike | None = None,
        edges: Iterable[tuple[int, int]] | None = None,
        shared: Iterable[tuple[int, int]] = (),
        local: Iterable[int] = (),
        names: Sequence[str] | None = None,
    ) -> None:
        n = len(numbers("client_s", client_s, None))
        no_coding = np.zeros(n + 1)
        for name, given, length in (
            ("client_s", client_s, n),
            ("edge_s", edge_s, n),
            ("weight_bytes", weight_bytes, n),
            ("cut_up_bytes", cut_up_bytes, n + 1),
            ("cut_down_bytes", cut_down_bytes, n + 1),
            ("cut_up_s", no_coding if cut_up_s is None else cut_up_s, n + 1),
            ("cut_down_s", no_coding if cut_down_s is None else cut_down_s, n + 1),
        ):
            object.__setattr__(self, name, numbers(name, given, length))
        checked = None if edges is None else _pairs("edges", edges, -1, n)
        if checked is not None and any(source >= target for source, target in checked):
            raise ValueError("edges go from a layer to a later one (-1: the input, n: the output)")
        object.__setattr__(self, "edges", checked)
        object.__setattr__(self, "shared", _pairs("shared", shared, 0, n - 1))
        self._keep(local, n)
        if names is not None and len(names) != n:
            raise ValueError(f"names has {len(names)} entries for {n} layers")
        object.__setattr__(self, "names", None if names is None else tuple(names))

    def _keep(self, local: Iterable[int], n: int) -> None:
        try:
            pairs = [(layer, layer) for layer in local]
        except TypeError as error:
            raise ValueError(f"local is a collection of layers: {error}") from None
        kept = {layer for layer, _ in _pairs("local", pairs, 0, n - 1)}
        while tied := {end for pair in self.shared if kept & {*pair} for end in pair} - kept:
            kept |= tied
        object.__setattr__(self, "local", frozenset(kept))
        if kept:
            here = sorted(kept)
            edge_s, weight_bytes = self.edge_s.copy(), self.weight_bytes.copy()
            edge_s[here], weight_bytes[here] = np.maximum(edge_s[here], KEPT_S), 0.0
            edge_s.flags.writeable = weight_bytes.flags.writeable = False
            object.__setattr__(self, "edge_s", edge_s)
            object.__setattr__(self, "weight_bytes", weight_bytes)

    def __len__(self) -> int:
        return len(self.client_s)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, LayerCosts):
            return NotImplemented
        return self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @cached_property
    def weighted(self) -> tuple[int, ...]:
        """Layers that have weights of their own to upload, front to back."""
        return tuple(np.flatnonzero(self.weight_bytes).tolist())

    @cached_property
    def total_bytes(self) -> float:
        """Weight bytes of the whole model."""
        return float(self.weight_bytes.sum())

    @cached_property
    def needs(self) -> tuple[tuple[int, ...], ...]:
        """Per layer, the layers whose weights must be on the edge before it can run there."""
        needed = [{i} if self.weight_bytes[i] else set() for i in range(len(self))]
        for layer, owner in self.shared:
            if self.weight_bytes[owner]:
                needed[layer].add(owner)
        return tuple(tuple(sorted(layers)) for layers in needed)

    def available(self, uploaded: Collection[int]) -> list[bool]:
        """Per layer, whether the edge can run it once the weights of `uploaded` are there."""
        n = len(self)
        here = [False] * n
        try:
            for layer in uploaded:
                if not 0 <= layer < n:
                    raise ValueError(f"uploaded names layer {layer} of {n}")
                here[layer] = True
        except TypeError as error:
            raise ValueError(f"uploaded is a collection of layers: {error}") from None
        result = [h or w for h, w in zip(here, self._weightless, strict=True)]
        if self.shared:
            for layer, _ in self.shared:
                result[layer] = all(here[needed] for needed in self.needs[layer])
        for layer in self.local:
            result[layer] = False
        return result

    def grouped(self, boundaries: Iterable[int]) -> LayerCosts:
        """The same model with adjacent layers merged: layers between two boundaries become one.

        `boundaries` are cuts strictly inside the model, in any order. Times and weights add up;
        the cuts that remain keep their bytes and coding times. Raises ValueError for a cut
        outside 1..n-1.
        """
        n = len(self)
        inner = sorted(set(boundaries))
        if inner and (inner[0] < 1 or inner[-1] >= n):
            raise ValueError(f"boundaries are cuts from 1 to {n - 1}")
        if n == 0:
            return self
        starts = [0, *inner]
        cuts = [*starts, n]
        group = np.repeat(np.arange(len(starts)), np.diff(cuts)).tolist()
        edges = None
        if self.edges is not None:
            place = {-1: -1, n: len(starts), **dict(enumerate(group))}
            merged = {(place[a], place[b]) for a, b in self.edges}
            edges = sorted((a, b) for a, b in merged if a != b)
        shared = {(group[a], group[b]) for a, b in self.shared}
        return LayerCosts(
            np.add.reduceat(self.client_s, starts),
            np.add.reduceat(self.edge_s, starts),
            np.add.reduceat(self.weight_bytes, starts),
            self.cut_up_bytes[cuts],
            self.cut_down_bytes[cuts],
            cut_up_s=self.cut_up_s[cuts],
            cut_down_s=self.cut_down_s[cuts],
            edges=edges,
            shared=sorted((a, b) for a, b in shared if a != b),
            local={group[layer] for layer in self.local},
            names=self.names and [self.names[start] for start in starts],
        )

    @cached_property
    def _weightless(self) -> list[bool]:
        return [size == 0 for size in self.weight_bytes.tolist()]

    @cached_property
    def _key(self) -> tuple[object, ...]:
        arrays = (
            self.client_s, self.edge_s, self.weight_bytes,
            self.cut_up_bytes, self.cut_down_bytes, self.cut_up_s, self.cut_down_s,
        )  # fmt: skip
        return (
            *(tuple(a.tolist()) for a in arrays), self.edges, self.shared, self.local, self.names,
        )  # fmt: skip


def transfer_s(costs: LayerCosts, link: Link) -> tuple[Floats, Floats]:
    """Seconds that each of the n + 1 cuts takes to cross, coding included, up and down."""
    half = link.rtt_s / 2
    return (
        costs.cut_up_bytes / link.up_Bps + half + costs.cut_up_s,
        costs.cut_down_bytes / link.down_Bps + half + costs.cut_down_s,
    )


def numbers(name: str, given: ArrayLike, length: int | None) -> Floats:
    """`given` as a read-only array of finite numbers >= 0; ValueError that says `name` if not."""
    try:
        values = np.array(given, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{name} is a list of numbers: {error}") from None
    if values.ndim != 1:
        raise ValueError(f"{name} is a flat list of numbers, not of shape {values.shape}")
    if length is not None and len(values) != length:
        raise ValueError(f"{name} has {len(values)} entries; {length} are needed")
    wrong = np.flatnonzero(~(np.isfinite(values) & (values >= 0)))
    if len(wrong):
        raise ValueError(f"{name}[{wrong[0]}] is {values[wrong[0]]}; it must be finite and >= 0")
    values += 0.0  # no negative zeros
    values.flags.writeable = False
    return values


def is_finite(value: object) -> bool:
    """Whether this is a number that a float can hold: neither infinite nor NaN."""
    try:
        return math.isfinite(value)  # type: ignore[arg-type]
    except (TypeError, OverflowError):
        return False


def not_negative(name: str, value: float) -> float:
    """`value`; ValueError that says `name` unless it is finite and not negative."""
    if not (is_finite(value) and value >= 0):
        raise ValueError(f"{name} is a finite number from 0, not {value!r}")
    return value


def _pairs(name: str, given: Iterable[tuple[int, int]], low: int, high: int) -> Pairs:
    try:
        pairs = tuple((int(a), int(b)) for a, b in given)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{name} is pairs of layers: {error}") from None
    for pair in pairs:
        if not all(low <= end <= high for end in pair):
            raise ValueError(f"{name} has {pair}, which is outside {low}..{high}")
    return pairs
