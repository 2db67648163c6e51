"""What a query will take: profiles, predictions and their corrections, as the planner's numbers.

The client's layer times come from profiling, the edge's from the edge's own regressions; both
are corrected by the times that queries then really take.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from math import prod

import numpy as np

from ionn_client.activations import Activations, raw_only
from ionn_client.machine.crossings import Crossings, Direction
from ionn_client.machine.layer_times import LayerTimes
from ionn_client.machine.route_sentence import route_sentence
from ionn_client.machine.routing import MOVED, KnownRoute, Routing
from ionn_client.machine.sendable import SendableCuts
from ionn_client.machine.upload import Step
from ionn_client.stay import Stay
from layergraph import Layer, LayerGraph
from layergraph.bfloat16 import roundable_weights
from layergraph.work import work
from planner import (
    LATENCY,
    PRECISION_NOISE,
    CutCoding,
    LayerCosts,
    Link,
    Objective,
    Plane,
    Range,
    Route,
    UploadPlan,
    progressive_plan,
    query_energy_J,
    upload_energy_J,
    upload_plan,
)
from planner.predictor import Predictor
from planner.prices import Where
from planner.upload import Algorithm
from wire import DEFAULT_LIMITS
from wire.float8 import float8_noise
from wire.planes import COARSE


class Forecast:
    """Costs of one model on this client and one edge.

    `activations` are the measured codings of its cuts (none: everything crosses as it is);
    `tolerance` the error that a lossy one may cause in the answer, None for lossless ones only.
    `objective` is what routes minimise.
    """

    def __init__(
        self,
        graph: LayerGraph,
        client_s: Sequence[float],
        activations: Activations | None = None,
        tolerance: float | None = None,
        objective: Objective = LATENCY,
    ) -> None:
        self._graph = graph
        self._objective = objective
        measured = activations or raw_only(graph)
        self._crossings = Crossings(measured.up(tolerance), measured.down(), measured.up(None))
        self._client = LayerTimes(client_s)
        self._edge = LayerTimes(client_s)
        self._sendable = SendableCuts(graph, DEFAULT_LIMITS.max_message_bytes)
        self._kept: frozenset[int] = frozenset()
        # By whether they are of queries that must cross without loss, and of which layer times.
        self._costs: dict[bool, tuple[np.ndarray, LayerCosts]] = {}
        self._routes: dict[bool, KnownRoute] = {}
        # Links for which those costs hold without another look.
        self._costs_hold: dict[bool, Link] = {}

    def keep(self, layers: frozenset[int]) -> None:
        """These layers stay here: no route has them on the edge, no plan uploads them."""
        self._kept = layers
        self._forget_costs()

    def meet_edge(self, predictor: Predictor | None, max_message_bytes: int) -> None:
        """A new edge: its own predictions and limits, and no observations of it yet.

        Without a predictor the edge is taken to be as fast as the client, until it was observed.
        """
        self._sendable = SendableCuts(self._graph, max_message_bytes)
        predicted_s: Sequence[float] = self._client.predicted_s.tolist()
        if predictor is not None:
            predicted_s = [predictor.layer_s(layer) for layer in work(self._graph)]
        self._edge = LayerTimes(predicted_s)
        self._forget_costs()

    def observe_client(self, start: int, stop: int, seconds: float) -> None:
        self._client.observe(start, stop, seconds)
        self._costs_hold.clear()

    def observe_edge(self, start: int, stop: int, seconds: float) -> None:
        self._edge.observe(start, stop, seconds)
        self._costs_hold.clear()

    def observe_crossing_up(
        self, cut: int, coding: str, size: int | None = None, *, encode_s: float | None = None
    ) -> None:
        """What is known of tensors of `cut` that went up: bytes, seconds to code them here."""
        for up in self._crossings.ups:
            if up.observe(cut, coding, size=size, encode_s=encode_s):
                self._forget_costs()

    def observe_crossing_down(
        self, cut: int, coding: str, size: int | None = None, *, decode_s: float | None = None
    ) -> None:
        """What is known of tensors of `cut` that came down: bytes, seconds to decode them here."""
        if self._crossings.down.observe(cut, coding, size=size, decode_s=decode_s):
            self._forget_costs()

    def observe_edge_coding(
        self, start: int, up_coding: str, stop: int, down_coding: str, seconds: float
    ) -> None:
        """The edge decoded the tensors of cut `start` and coded those of `stop` in `seconds`."""
        down = self._crossings.down
        decode_s = self.up_option(start, up_coding).decode_s
        encode_s = down.option(stop, down_coding).encode_s
        if decode_s + encode_s > 0:
            ratio = seconds / (decode_s + encode_s)
            for up in self._crossings.ups:
                up.observe(start, up_coding, decode_s=ratio * decode_s)
            down.observe(stop, down_coding, encode_s=ratio * encode_s)
            self._forget_costs()

    def up_coding(self, cut: int, *, lossless: bool = False) -> CutCoding:
        """How a cut goes up, as chosen for the link of the last route or plan."""
        return self._ways(lossless)[0].chosen[cut]

    def up_option(self, cut: int, coding: str) -> CutCoding:
        """What a coding is expected to make of a cut that goes up."""
        return self._crossings.up.option(cut, coding)

    def down_coding(self, cut: int) -> CutCoding:
        """How a cut comes down, as chosen for the link of the last route or plan."""
        return self._crossings.down.chosen[cut]

    def _ways(self, lossless: bool) -> tuple[Direction, Direction]:
        crossings = self._crossings
        return crossings.exact_up if lossless else crossings.up, crossings.down

    def relax_edge(self) -> None:
        """Nothing was observed of the edge: let what it was observed to do fade."""
        self._edge.relax()
        self._costs_hold.clear()

    @property
    def client_s(self) -> np.ndarray:
        return self._client.corrected_s

    @property
    def edge_s(self) -> np.ndarray:
        return self._edge.corrected_s

    def client_range_s(self, start: int, stop: int) -> float:
        return self._client.range_s(start, stop)

    def edge_range_s(self, start: int, stop: int) -> float:
        return self._edge.range_s(start, stop)

    def local_s(self, start: int = 0) -> float:
        """Time to run everything from cut `start` on, on the client."""
        return self.client_range_s(start, len(self._graph.layers))

    def costs(
        self, link: Link, weight_bytes: Sequence[int] | None = None, *, lossless: bool = False
    ) -> LayerCosts:
        """The planner's numbers, with the codings that suit the link.

        `weight_bytes` as still missing, all of them by default. `lossless`: of a query that may
        not lose anything, whatever the tolerance.
        """
        if weight_bytes is None and self._costs_hold.get(lossless) is link:
            return self._costs[lossless][1]
        if self._crossings.follow(link):
            self._forget_costs()
        client_s, edge_s = self.client_s, self.edge_s
        times = np.concatenate((client_s, edge_s))
        if weight_bytes is None and lossless in self._costs:
            known_times, known = self._costs[lossless]
            if np.abs(times - known_times).sum() <= MOVED * times.sum():
                self._costs_hold[lossless] = link
                return known
        graph, (up, down) = self._graph, (way.chosen for way in self._ways(lossless))
        sizes = graph.weight_bytes if weight_bytes is None else weight_bytes
        costs = LayerCosts(
            client_s,
            edge_s,
            sizes,
            self._sendable.bytes(up),
            self._sendable.bytes(down),
            cut_up_s=[option.coding_s for option in up],
            cut_down_s=[option.coding_s for option in down],
            edges=graph.edges,
            # An owner without missing bytes is there, and keeps nobody waiting.
            shared=[(layer, owner) for layer, owner in graph.shared if sizes[owner]],
            local=self._kept,
        )
        if weight_bytes is None:
            self._costs[lossless] = times, costs
            self._costs_hold[lossless] = link
        return costs

    def _forget_costs(self) -> None:
        self._costs.clear()
        self._costs_hold.clear()

    def route(
        self,
        link: Link,
        uploaded: frozenset[int],
        *,
        lossless: bool = False,
        most_J: float | None = None,
    ) -> Route:
        """Where the layers of a query run; `lossless` as of `costs`.

        A query that tolerates a loss has it where it first crosses, and not again. `most_J`: the
        joules that it may draw; where no route draws so few, it takes the one that draws least.
        """
        costs = self.costs(link, lossless=lossless)
        known = self._routes.get(lossless)
        if known is not None and known.holds(costs, link, uploaded, most_J):
            return known.route
        chosen = self._route(costs, link, uploaded, lossless=lossless, most_J=most_J)
        self._routes[lossless] = KnownRoute(costs, link, uploaded, most_J, chosen)
        return chosen

    def _route(
        self,
        costs: LayerCosts,
        link: Link,
        uploaded: frozenset[int],
        *,
        lossless: bool,
        most_J: float | None,
    ) -> Route:
        routing = Routing(self._objective, link, most_J)
        chosen = routing.best(costs, uploaded)
        crossings = [part for part in chosen.ranges if part.where == "edge"]
        if lossless or len(crossings) < 2 or self._crossings.exact_up is self._crossings.up:
            return chosen
        lossy, exact = self.costs(link), self.costs(link, lossless=True)
        return routing.with_one_loss(chosen, lossy, exact, uploaded)

    def local_route(self) -> Route:
        """Everything on the client."""
        seconds, power = self.local_s(), self._objective.power
        here: Where = "client"
        energy_J = None if power is None else seconds * power.compute_W
        return Route(seconds, (here,) * len(self._graph.layers), energy_J)

    def energy_J(
        self, ran: Iterable[Range], link: Link, vain_bytes: float = 0.0, vain_s: float = 0.0
    ) -> float | None:
        """What the client draws for all layers in these ranges, and to send bytes and to run
        layers for so long in vain.

        None without a power.
        """
        power = self._objective.power
        if power is None:
            return None
        placement = tuple(part.where for part in ran for _ in range(part.start, part.stop))
        ran_J = query_energy_J(self.costs(link), link, power, placement)
        return ran_J + upload_energy_J(vain_bytes, link, power) + vain_s * power.compute_W

    def plan(
        self,
        link: Link,
        missing_bytes: Sequence[int],
        algorithm: Algorithm,
        k: float,
        stay: Stay | None = None,
    ) -> UploadPlan:
        """The order in which to upload what is missing. What is there weighs nothing.

        With a stay, only as much of it as pays back in joules while that lasts.
        """
        costs, objective = self.costs(link, missing_bytes), self._objective
        plan = upload_plan(*objective.as_seconds(costs, link), algorithm=algorithm, k=k)
        return plan if stay is None else stay.worth(costs, link, objective, plan)

    def progressive_plan(
        self, link: Link, missing_bytes: Sequence[tuple[int, int, int]]
    ) -> tuple[tuple[Step, ...], ...]:
        """Steps in upload order, in partitions; `missing_bytes` of coarse, middle and fine planes.

        A layer is usable once its first plane is there, at float8; then bfloat16; then exact.
        """
        planes = [
            [
                Plane(size, noise)
                for size, noise in zip(
                    sizes, (self._float8_noise(layer), *PRECISION_NOISE.values()), strict=True
                )
            ]
            if layer.weights and index not in self._kept
            else []
            for index, (layer, sizes) in enumerate(
                zip(self._graph.layers, missing_bytes, strict=True)
            )
        ]
        costs = self.costs(link, [coarse for coarse, _, _ in missing_bytes])
        # What the edge may compute faster until it is exact, it may compute so much slower then.
        slower = [
            seconds if self._rounded.intersection(layer.weights) else 0.0
            for seconds, layer in zip(self.edge_s.tolist(), self._graph.layers, strict=True)
        ]
        plan = progressive_plan(*self._objective.as_seconds(costs, link), planes, slower)
        return tuple(
            tuple((layer, COARSE + index) for layer, index in part) for part in plan.partitions
        )

    @cached_property
    def _rounded(self) -> frozenset[int]:
        return roundable_weights(self._graph)

    def _float8_noise(self, layer: Layer) -> float:
        """That of its largest weight."""
        shapes = (self._graph.weights[weight].spec.shape for weight in layer.weights)
        return float8_noise(max(map(prod, shapes), default=0))

    def explain(self, chosen: Route, uploaded: frozenset[int]) -> str:
        """One line: which layers run where, and why."""
        here = self.local_route()
        return route_sentence(self._graph, chosen, here, uploaded, self.up_coding, self.down_coding)
