"""Every network of the seed papers: its size, its health, and every cut of it.

Why few runs prove many splits. The loop runs the network layer by layer and keeps what is live
at every cut; its end equals the eager module's answer. Then, bitwise each:

- the chain: every layer from the live tensors at the cut before it, taken through their wire
  form, gives the loop's live tensors at the cut behind it. So at every cut the other side can
  go on from what it is sent, at the cost of one run in all;
- whole splits: from the wire form at a cut, everything behind it in one range gives the answer.
  At every cut of the networks with few layers, at five of the others;
- whole fronts: everything before a cut in one range gives the loop's live tensors there.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch

from layergraph import (
    Executor,
    LayerGraph,
    capture,
    flatten_inputs,
    tensor_from_buffer,
    tensor_to_buffer,
    unflatten_outputs,
)
from layergraph.networks import NETWORKS, NetworkInfo, build, photos

Live = tuple[torch.Tensor, ...]


@dataclass
class Captured:
    info: NetworkInfo
    parameters: int
    buffers: int
    eager: Live
    graph: LayerGraph
    executor: Executor
    loop: list[Live]


@pytest.fixture(scope="module", params=NETWORKS)
def network(request: pytest.FixtureRequest) -> Captured:
    # Module scope with parameters: pytest holds one network at a time.
    info = NETWORKS[request.param]
    model, args = info.build(), info.example()
    with torch.inference_mode():
        eager = as_tuple(model(*args))
    graph, weights = capture(model, args)
    executor = Executor(graph, weights)
    loop = [flatten_inputs(graph, args)]
    for layer in range(len(graph.layers)):
        loop.append(executor.run(layer, layer + 1, loop[-1]))
    return Captured(
        info,
        sum(tensor.numel() for tensor in model.parameters()),
        sum(tensor.numel() for tensor in model.buffers()),
        eager,
        graph,
        executor,
        loop,
    )


def as_tuple(result: torch.Tensor | Live) -> Live:
    return result if isinstance(result, tuple) else (result,)


def answer(network: Captured, live: Live) -> Live:
    return as_tuple(unflatten_outputs(network.graph, live))


def over_the_wire(live: Live) -> Live:
    # A copy, so that nothing of the sender's memory is left.
    forms = [tensor_to_buffer(tensor) for tensor in live]
    return tuple(tensor_from_buffer(*form, bytearray(data)) for *form, data in forms)


def equal(left: Live, right: Live) -> bool:
    return len(left) == len(right) and all(map(torch.equal, left, right))


def chosen(cuts: Sequence[int], count: int) -> list[int]:
    if len(cuts) <= count:
        return list(cuts)
    return [cuts[round(number * (len(cuts) - 1) / (count - 1))] for number in range(count)]


def test_the_size_is_the_papers(network: Captured) -> None:
    info = network.info
    assert network.parameters == info.parameters
    assert sum(network.graph.weight_bytes) >= 4 * info.parameters
    if info.megabytes is not None:
        values = network.parameters + network.buffers + info.training_parameters
        assert 4 * values / 2**20 == pytest.approx(info.megabytes, rel=0.02)


def test_activations_neither_vanish_nor_explode(network: Captured) -> None:
    for cut, live in enumerate(network.loop[:-1]):
        for tensor in live:
            if tensor.is_floating_point() and cut:
                assert torch.isfinite(tensor).all()
                assert 0.01 < tensor.square().mean().sqrt() < 100, network.graph.layers[cut].name


def test_the_first_cut_is_no_larger_than_any_before_the_first_weights(network: Captured) -> None:
    first = next(number for number, size in enumerate(network.graph.weight_bytes) if size)
    assert network.graph.cut_bytes[0] == min(network.graph.cut_bytes[: first + 1])


def test_the_loop_equals_the_eager_module(network: Captured) -> None:
    assert equal(answer(network, network.loop[-1]), network.eager)


def test_every_layer_continues_from_what_crossed_the_wire(network: Captured) -> None:
    live = network.loop[0]
    for layer, expected in enumerate(network.loop[1:]):
        live = network.executor.run(layer, layer + 1, over_the_wire(live))
        assert equal(live, expected), network.graph.layers[layer].name
    assert equal(answer(network, live), network.eager)


def test_a_split_answers_as_the_loop_does(network: Captured) -> None:
    last = len(network.graph.layers)
    for cut in chosen(range(last + 1), 5):
        live = network.executor.run(cut, last, over_the_wire(network.loop[cut]))
        assert equal(answer(network, live), network.eager), cut


def test_the_front_of_a_split_in_one_range_equals_the_loop(network: Captured) -> None:
    last = len(network.graph.layers)
    for cut in (1, last // 2, last):
        assert equal(network.executor.run(0, cut, network.loop[0]), network.loop[cut]), cut


def test_weights_come_from_the_seed_alone() -> None:
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    first, second, other = build("lenet"), build("lenet"), build("lenet", seed=1)
    assert torch.equal(torch.random.get_rng_state(), state)
    for name, weight in first.state_dict().items():
        assert torch.equal(weight, second.state_dict()[name])
        assert not torch.equal(weight, other.state_dict()[name])


def test_an_example_is_the_same_each_time_and_new() -> None:
    for info in NETWORKS.values():
        first, second = info.example(), info.example()
        assert equal(first, second)
        assert all(a.data_ptr() != b.data_ptr() for a, b in zip(first, second, strict=True))


def test_answers_tell_photos_apart() -> None:
    model = build("mobilenet")
    with torch.inference_mode():
        answers = [model(photo) for photo in itertools.islice(photos(224), 3)]
    for left, right in itertools.combinations(answers, 2):
        assert not torch.allclose(left, right, rtol=0.01)


def test_photos_are_real_different_and_repeatable() -> None:
    first, again, other = (list(itertools.islice(photos(64, seed), 6)) for seed in (0, 0, 1))
    for photo in first:
        assert photo.shape == (1, 64, 64, 3)
        assert photo.dtype is torch.uint8
        # Neighbouring pixels of a photo are alike, unlike those of noise (which differ by 85).
        values = photo.int()
        assert (values[:, 1:] - values[:, :-1]).abs().float().mean() < 40
        assert values.float().std() > 10
    assert all(map(torch.equal, first, again))
    assert not any(map(torch.equal, first, other))
    assert len({photo.numpy().tobytes() for photo in first}) == len(first)


def test_nothing_but_torch_is_imported_before_it_is_needed() -> None:
    check = (
        "import sys, layergraph.load; print({'sklearn', 'PIL', 'transformers'} & {*sys.modules})"
    )
    run = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
