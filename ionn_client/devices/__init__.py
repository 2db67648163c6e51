"""Processors whose speed is stated rather than measured: one TOML file each, beside this one.

A file gives effective operations per second by operator kind, memory bandwidth, the cost of
starting an operation and what the board draws, each figure with its source. Layer times follow by
the roofline: an operation takes its launch, and the longer of computing and moving its bytes.
"""

from __future__ import annotations

import difflib
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from layergraph import LayerGraph, NodeWork, work
from layergraph.ops import KINDS
from planner.power import Power, Radio
from wire import reason

OTHER = "other"
_SHIPPED = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of a profile, and where it is from."""

    value: float
    source: str


@dataclass(frozen=True)
class DeviceProfile:
    """A stated processor.

    flops: operations per second that it reaches, by operator kind (`layergraph.ops.KINDS`), with
    "other" for the kinds that are not named. memory_Bps: bytes per second that it moves.
    launch_s: seconds that each operation costs before it computes. compute_W, idle_W: what the
    whole board draws; None where the profile does not say.
    """

    key: str
    name: str
    flops: Mapping[str, Figure]
    memory_Bps: Figure
    launch_s: Figure
    compute_W: Figure | None = None
    idle_W: Figure | None = None

    def layer_s(self, graph: LayerGraph) -> tuple[float, ...]:
        """Seconds of each layer, by the roofline. What moves nothing (a view) takes no time."""
        return tuple(sum(map(self._node_s, layer)) for layer in work(graph))

    def power(self, radio: Radio) -> Power:
        """What this board draws with that radio. ValueError where the profile does not say."""
        if self.compute_W is None or self.idle_W is None:
            raise ValueError(f"the profile {self.key} has no compute_W and idle_W")
        return Power(self.compute_W.value, self.idle_W.value, radio)

    def _node_s(self, node: NodeWork) -> float:
        if not (node.flops or node.bytes):
            return 0.0
        family = node.kind.partition("/")[0]
        flops = (self.flops.get(family) or self.flops[OTHER]).value
        return self.launch_s.value + max(node.flops / flops, node.bytes / self.memory_Bps.value)


def shipped_devices() -> tuple[str, ...]:
    """Names of the profiles that come with this package."""
    return tuple(sorted(path.stem for path in _SHIPPED.glob("*.toml")))


def load_device(name: str) -> DeviceProfile:
    """The profile of that name, or in that file (a path that ends in .toml).

    Raises ValueError that names the file and the field when there is none, when it is not TOML, or
    when a figure is missing, not a positive number, or without a source.
    """
    if name.endswith(".toml"):
        path = Path(name)
    elif name in shipped_devices():
        path = _SHIPPED / f"{name}.toml"
    else:
        known = shipped_devices()
        near = difflib.get_close_matches(name, known, 1)
        meant = f" Did you mean {near[0]}?" if near else ""
        listed = ", ".join(known)
        raise ValueError(f"no device profile {name!r}; there are {listed}, or FILE.toml.{meant}")
    try:
        plain = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"cannot read the device profile {name}: {reason(error)}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"cannot read the device profile {name}: {error}") from None
    try:
        return _from_plain(path.stem, plain)
    except ValueError as error:
        raise ValueError(f"device profile {name}: {error}") from None


def _from_plain(key: str, plain: Mapping[str, Any]) -> DeviceProfile:
    known = {"name", "flops", "memory_Bps", "launch_s", "compute_W", "idle_W"}
    if unknown := set(plain) - known:
        raise ValueError(f"{min(unknown)} is not a field; there are {', '.join(sorted(known))}")
    name, flops = plain.get("name"), plain.get("flops")
    if not (isinstance(name, str) and name.strip()):
        raise ValueError("name is a text")
    if not isinstance(flops, dict) or OTHER not in flops:
        raise ValueError(f"flops is a table of operator kinds, {OTHER} among them")
    for kind in flops:
        if kind not in (*KINDS, OTHER):
            listed = ", ".join(KINDS)
            raise ValueError(f"flops.{kind} is not an operator kind; there are {listed}, {OTHER}")
    powers = {field: _figure(field, plain[field]) for field in known & {"compute_W", "idle_W"}
              if field in plain}  # fmt: skip
    return DeviceProfile(
        key,
        name,
        MappingProxyType({kind: _figure(f"flops.{kind}", flops[kind]) for kind in flops}),
        _figure("memory_Bps", plain.get("memory_Bps")),
        _figure("launch_s", plain.get("launch_s")),
        **powers,
    )


def _figure(field: str, plain: object) -> Figure:
    if not isinstance(plain, dict) or set(plain) != {"value", "source"}:
        raise ValueError(f"{field} is {{ value = NUMBER, source = TEXT }}")
    value, source = plain["value"], plain["source"]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{field}.value is a number, not {value!r}")
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{field}.value is a positive number, not {value!r}")
    if not (isinstance(source, str) and source.strip()):
        raise ValueError(f"{field}.source says where the figure is from")
    return Figure(float(value), source)
