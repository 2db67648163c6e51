"""The public API: connect a model to an edge box, and query it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any

import msgpack
import torch

from ionn_client.boxes.access import Access
from ionn_client.boxes.forget import forget
from ionn_client.config import Options
from ionn_client.driver import Driver
from ionn_client.emulate import SlowDevice
from ionn_client.errors import EdgeUnreachable, OffloadError
from ionn_client.local import LocalRunner
from ionn_client.machine.forecast import Forecast
from ionn_client.machine.kept import kept_layers, shown_graph
from ionn_client.machine.query import QueryResult
from ionn_client.machine.session import Session
from ionn_client.profiled import Profiled, prepare
from ionn_client.status import Status
from ionn_client.stream import DEFAULT_TOKENS, StreamResult, stream
from layergraph import (
    LayerGraph,
    flatten_inputs,
    unflatten_outputs,
    weight_bytes_view,
)
from wire import PRECISIONS


class Offload:
    """A model that runs together with an edge box. Made by `connect`; an async context manager."""

    def __init__(
        self,
        model: torch.nn.Module | Profiled,
        args: Sequence[Any],
        kwargs: Mapping[str, Any] | None,
        access: Access,
        options: Options,
    ) -> None:
        if isinstance(args, (torch.Tensor, str)) or not isinstance(args, Sequence):
            raise ValueError(
                f"args is a tuple of the model's inputs, as in model(*args): (x,) and no"
                f" {type(args).__name__}"
            )
        if not isinstance(model, (torch.nn.Module, Profiled)):
            raise ValueError(
                f"model is a torch.nn.Module, or what prepare() gave, and no {type(model).__name__}"
            )
        self._model = model
        self._args = tuple(args)
        self._kwargs = dict(kwargs or {})
        self._access = access
        self._options = options
        self._entered = False

    async def __aenter__(self) -> Offload:
        profiled = self._model
        if not isinstance(profiled, Profiled):
            profiled = await asyncio.to_thread(
                prepare, profiled, self._args, self._kwargs, self._options
            )
        self._graph = profiled.graph
        options = self._options
        slow = options.device_slowdown
        device = SlowDevice(slow, profiled.client_s) if slow > 1 else None
        self._runner = LocalRunner(self._graph, profiled.weights, options.threads, device)
        shown = shown_graph(self._graph, kept_layers(self._graph, options.keep_local))
        session = Session(
            shown,
            msgpack.packb(shown.to_plain()),
            [weight_bytes_view(profiled.weights[w.name]) for w in shown.weights],
            Forecast(
                shown,
                [slow * seconds for seconds in profiled.client_s],
                profiled.activations,
                options.activation_tolerance,
                options.objective,
            ),
            options,
        )
        self._driver = Driver(session, self._access, self._runner, options)
        self._running = asyncio.create_task(self._driver.run())
        await self._driver.started()
        self._entered = True
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._runner:
            await self._driver.close()
            self._running.cancel()
            try:
                await self._running
            except asyncio.CancelledError:
                if (task := asyncio.current_task()) is not None and task.cancelling():
                    raise

    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The model's answer, in the structure that the model itself returns."""
        return (await self._ask(args, kwargs, None, None)).value

    async def query(
        self,
        *args: Any,
        deadline_s: float | None = None,
        precision: str | None = None,
        **kwargs: Any,
    ) -> QueryResult:
        """The model's answer, with where, how fast and how exactly it was computed.

        precision: the least that the weights used must have, "float8", "bfloat16" or "exact";
        None takes the best that is there now, in a session with precision="progressive", and
        demands "exact" in others. Given "exact", the activations cross without loss too,
        whatever the session's activation_tolerance.

        Raises layergraph.InvalidInput if the arguments are not like those that the model was
        connected with, DeadlineExceeded after `deadline_s`, and what the model itself raises;
        never anything about the edge.
        """
        return await self._ask(args, kwargs, deadline_s, precision)

    def stream(
        self, source: AsyncIterable[Any] | Iterable[Any], tokens: int = DEFAULT_TOKENS
    ) -> AsyncGenerator[StreamResult, None]:
        """Answers to a stream of frames, of which the newest wins when they come too fast.

        source: frames, each a tensor or a tuple of the model's arguments; a plain iterable may
        block, as a camera does. At most `tokens` frames are open at once. See ionn_client.stream.
        """
        return stream(self, source, tokens)

    async def _ask(
        self,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        deadline_s: float | None,
        precision: str | None,
    ) -> QueryResult:
        if deadline_s is not None and not 0 < deadline_s < math.inf:
            raise ValueError(f"deadline_s is a positive number of seconds, not {deadline_s}")
        least = self._options.least_precision if precision is None else precision
        if least not in PRECISIONS:
            raise ValueError(f"precision is one of {', '.join(PRECISIONS)}, not {least!r}")
        self._check_entered()
        live = flatten_inputs(self._graph, args, kwargs)
        lossless = precision == PRECISIONS[-1]
        answer = await self._driver.ask(live, deadline_s, least, lossless)
        return QueryResult(
            unflatten_outputs(self._graph, answer.live),
            answer.served_by,
            answer.ranges,
            answer.latency_s,
            answer.predicted_s,
            answer.fallback_reason,
            answer.precision,
            answer.lossy,
            answer.energy_J,
        )

    def _check_entered(self) -> None:
        if not self._entered:
            raise RuntimeError("this is for use inside `async with connect(...) as net:`")

    @property
    def threads(self) -> int:
        """Of local execution."""
        return self._options.threads

    @property
    def graph(self) -> LayerGraph:
        self._check_entered()
        return self._graph

    @property
    def status(self) -> Status:
        """Where the session stands now."""
        self._check_entered()
        session = self._driver.session
        least = self._options.least_precision
        upload, chosen = session.upload, session.route(least)
        rate = session.pacer.mean_rate_Bps if session.pacer else None
        uploading = session.phase == "uploading"
        return Status(
            phase=session.phase,
            edge=str(self._access),
            uploaded_layers=len(session.usable(least)),
            exact_layers=len(session.usable(PRECISIONS[-1])),
            weighted_layers=sum(bool(layer.weights) for layer in self._graph.layers),
            held_bytes=upload.held_bytes,
            total_bytes=upload.total_bytes,
            sent_bytes=upload.sent_bytes,
            skipped_bytes=upload.skipped_bytes,
            resent_bytes=upload.resent_bytes,
            partitions_done=upload.partitions_done,
            partitions=len(upload.partitions),
            link=session.link,
            rate_Bps=rate,
            time_left_s=upload.pending_bytes / rate if rate and uploading else None,
            route=chosen.ranges,
            reason=session.explanation(),
            predicted_latency_s=chosen.latency_s,
            local_latency_s=session.forecast.local_s(),
            error=str(session.error) if session.error else session.last_failure,
            battery_J=session.queries.rations.left_J,
            edge_name=None if self._access.box is None else self._access.box.name,
            exposed_bytes=upload.exposed_bytes,
            **session.health(self._driver.now),
        )

    async def forget(self) -> None:
        """Have the edge wipe the weights and graphs that it holds of this device's.

        Queries run here from then on. Raises EdgeUnreachable if the edge has not said that it did
        so, and PairingError if it is not to be trusted; the edge is not used any more all the same.
        """
        self._check_entered()
        self._driver.give_up(OffloadError("the edge was asked to forget this device"))
        await forget(self._access)

    async def uploaded(self, timeout_s: float | None = None) -> None:
        """Wait until the upload is complete.

        Raises EdgeRejected (or VersionMismatch) if the edge will not run this model, and
        EdgeUnreachable if it is not complete after `timeout_s`.
        """
        self._check_entered()
        try:
            async with asyncio.timeout(timeout_s):
                await self._uploaded()
        except TimeoutError:
            reason = self._driver.session.last_failure or "the upload takes longer"
            raise EdgeUnreachable(f"not uploaded within {timeout_s} s: {reason}") from None

    async def _uploaded(self) -> None:
        session = self._driver.session
        while session.phase != "ready":
            if session.error is not None:
                raise session.error
            if session.phase == "closed" or self._running.done():
                raise OffloadError("the session was closed")
            await self._driver.changed()


def connect(
    model: torch.nn.Module | Profiled,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    edge: str,
    options: Options | None = None,
) -> Offload:
    """Run a model together with an edge box.

    edge: the name of a box that this device is paired with, or its address, "ionn://host:port".
    An edge on this very machine may be unpaired.

    model: a module, which is set to eval mode, or what `prepare` made of one. args (a tuple),
    kwargs: an example input; queries take inputs of the same structure, shapes and element
    types. Queries are answered from the start: by the client alone while no edge is there.

    Raises at once ValueError for a malformed address, or a model or inputs of another kind, and
    PairingError for a box that is not known; layergraph.GraphError on entry if the model cannot
    be captured. What it returns raises RuntimeError where it is used without being entered.
    """
    if not isinstance(edge, str):
        raise ValueError(
            "edge is a paired box's name, or an address such as ionn://127.0.0.1:7431, and no"
            f" {type(edge).__name__}"
        )
    options = options or Options()
    return Offload(model, args, kwargs, Access.to(edge, options.state), options)
