"""`ionn edge publish` and `unpublish`: models that every device finds here, and uploads no more."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ionn_edge.commands.devices import Json, State
from ionn_edge.commands.failing import complaining, give_up
from ionn_edge.config import Config, default_state, default_store, format_bytes
from ionn_edge.doors.control import Handler, NotRunning, ask, claimed
from ionn_edge.doors.devices import LOOPBACK, Registry

if TYPE_CHECKING:
    from collections.abc import Iterable

    import torch

    from layergraph import LayerGraph, Weight

# Asks a box, running or not. Raises ControlError.
Ask = Callable[..., Any]
StoreDirectory = Annotated[
    Path | None,
    typer.Option("--store", help="The box's directory of weights, as for serve; if it is stopped."),
]


def publish(
    model: Annotated[
        str,
        typer.Argument(
            help="A network as ionn run takes it, or a file that layergraph.save_captured wrote."
        ),
    ],
    device: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="Publish what this device uploaded; MODEL is then a fingerprint, as ionn edge"
            " cache ls has it.",
        ),
    ] = None,
    state: State = None,
    store: StoreDirectory = None,
    as_json: Json = False,
) -> None:
    """Put a model on the box for every device: none of them has to upload its weights any more.

    A running box has it at once, a stopped one when it starts. Who offers the same weights can
    tell that they are published.
    """
    with complaining():
        if device is not None:
            asked = {"device": device, "model": model}
            done = _conversed(state, store, lambda tell: tell("publish from", **asked))
        else:
            done = _publish_here(model, state, store)
    print(json.dumps(done) if as_json else _text(model, done))


def unpublish(
    model: Annotated[
        str,
        typer.Argument(
            help="Its name, or the beginning of its fingerprint: see ionn edge cache ls."
        ),
    ],
    state: State = None,
    store: StoreDirectory = None,
    as_json: Json = False,
) -> None:
    """Drop a published model: devices that use it upload it for themselves."""
    with complaining():
        done = _conversed(state, store, lambda tell: tell("unpublish", model=model))
    print(json.dumps(done) if as_json else f"{done['fingerprint'][:16]} is not published any more.")


def _publish_here(what: str, state: Path | None, store: Path | None) -> dict[str, Any]:
    """Publish what this process captures, or reads from a file."""
    from layergraph.errors import GraphError
    from layergraph.load import UnknownModel

    try:
        graph, weights = _captured(what)
        name = Path(what).name
        return _conversed(state, store, lambda tell: _bring(tell, name, graph, weights))
    except GraphError as error:
        mistyped = isinstance(error, UnknownModel)
        give_up(" ".join(str(error).split()), 2 if mistyped else 1)


def _captured(what: str) -> tuple[LayerGraph, Callable[[], Iterable[tuple[Weight, torch.Tensor]]]]:
    """The graph, and its weights one after the other. Raises GraphError."""
    from layergraph.capture import capture
    from layergraph.captured import read_graph, read_weights
    from layergraph.load import load

    path = Path(what)
    if path.is_file() or path.suffix in (".safetensors", ".pt", ".pt2", ".pth"):
        graph = read_graph(path)
        return graph, partial(read_weights, path, graph)
    loaded = load(what)
    graph, weights = capture(loaded.model, loaded.args, loaded.kwargs)
    return graph, lambda: ((weight, weights[weight.name]) for weight in graph.weights)


def _bring(
    tell: Ask,
    name: str,
    graph: LayerGraph,
    weights: Callable[[], Iterable[tuple[Weight, torch.Tensor]]],
) -> dict[str, Any]:
    import msgpack

    from ionn_edge.storage.staging import GRAPH, put, staging
    from layergraph.weights import weight_bytes_view

    fingerprint = graph.fingerprint
    total_bytes = sum({weight.digest: weight.spec.nbytes for weight in graph.weights}.values())
    said = {"fingerprint": fingerprint, "total_bytes": total_bytes}
    there = tell("published", **said)
    if not there["published"]:
        with staging(Path(there["store"]), total_bytes) as directory:
            put(directory / GRAPH, [msgpack.packb(graph.to_plain())])
            for weight, tensor in weights():
                put(directory / weight.digest.hex(), [weight_bytes_view(tensor)])
            tell("publish", fingerprint=fingerprint, name=name)
    return {**said, "was_published": there["published"]}


def _conversed(
    state: Path | None, store: Path | None, conversation: Callable[[Ask], dict[str, Any]]
) -> dict[str, Any]:
    """What comes of it, with the running box or, where none runs, with its files."""
    directory = state or default_state()
    try:
        return conversation(partial(ask, directory))
    except NotRunning:
        with claimed(directory), _at_rest(directory, store or default_store()) as tell:
            return conversation(tell)


@contextlib.contextmanager
def _at_rest(state: Path, store: Path) -> Iterator[Ask]:
    """Asks a box that serves nobody, and evicts nothing: what its budget is, only `serve` knows."""
    from ionn_edge.box import Box
    from ionn_edge.cache import in_use
    from ionn_edge.commands.cache import device_id
    from ionn_edge.storage.blobs import StoreInUse
    from ionn_edge.storage.publishing import PublishingQuestions

    registry = Registry(state)
    registry.open()
    box = Box(Config(store=store, state=state, memory_bytes=1 << 62, threads=1))
    try:
        box.open([LOOPBACK.id, *(each.device.id for each in registry.all())])
    except StoreInUse:
        raise in_use(store) from None
    try:
        handlers = PublishingQuestions(box, lambda what: device_id(registry, what)).handlers()
        with asyncio.Runner() as runner:
            try:
                yield lambda question, **asked: runner.run(_answer(handlers[question], asked))
            finally:
                runner.run(box.nursery.close())
    finally:
        box.close()


async def _answer(handler: Handler, asked: dict[str, Any]) -> Any:
    return await handler(asked)


def _text(model: str, done: dict[str, Any]) -> str:
    size, name = format_bytes(done["total_bytes"]), done["fingerprint"][:16]
    if done.get("was_published"):
        return f"{model} is published already: {size} of weights, fingerprint {name}."
    return (
        f"Published {model}: {size} of weights, fingerprint {name}.\n"
        "A device with the same model uploads nothing; one whose weights differ uploads those.\n"
        "It takes of the box's memory (ionn edge serve --memory), and of no device's quota."
    )
