"""What calibration measures: a spread of every kind of layer, run as clients' layers are."""

from __future__ import annotations

from itertools import islice

import pytest

from ionn_edge.calibration.measure import Bench, _graph, measure, undisturbed
from ionn_edge.calibration.probes import Probe, example, size
from ionn_edge.calibration.spread import MOST_ELEMENTS, MOST_FLOPS, MOST_WEIGHTS, spread
from layergraph import capture, check_graph, work
from layergraph.networks import NETWORKS
from layergraph.nodes import TensorSpec
from layergraph.ops import KINDS

# IONN, SoCC'18, Table 3 (dropout is nothing at inference, and not in a graph), and what it lacks.
TYPES = {
    "convolution", "fully connected", "max pooling", "average pooling", "ReLU", "response norm",
    "batch norm", "softmax", "concat", "element-wise", "scale", "flatten",
    "depthwise conv.", "transposed conv.", "LSTM", "GRU", "attention", "layer norm", "embedding",
}  # fmt: skip


def probes(rounds: int, seed: int = 0) -> list[Probe]:
    return [probe for some in islice(spread(seed), rounds) for probe in some]


def test_every_round_has_every_type_and_every_kind() -> None:
    for some in islice(spread(), 2):
        assert {probe.type for probe in some} >= TYPES
        kinds = {each.kind for probe in some for each in work(_graph(probe, 1))[0]}
        assert {kind.partition("/")[0] for kind in kinds} == set(KINDS)


def test_all_layers_are_sound_and_none_too_large() -> None:
    for probe in probes(3):
        graph = _graph(probe, 2)
        check_graph(graph)
        (layer,) = work(graph)
        assert layer[: len(probe.calls)] == layer[len(probe.calls) :]
        assert probe.flops <= MOST_FLOPS
        # What is said of a layer's size is what it computes, where that is what counts.
        if probe.flops:
            assert sum(each.flops for each in layer[: len(probe.calls)]) == pytest.approx(
                probe.flops, rel=0.01
            )
        assert all(each.made_bytes <= 4 * MOST_ELEMENTS for each in layer)


def test_the_same_seed_gives_the_same_layers_and_another_others() -> None:
    assert probes(2) == probes(2)
    shared = set(probes(2)) & set(probes(2, seed=1))
    assert len(shared) < 5


def test_a_beginning_of_the_spread_covers_all_sizes() -> None:
    sizes = sorted(probe.flops for probe in probes(8) if probe.type == "convolution")
    assert sizes[0] < 1e6
    assert sizes[-1] > 5e8


def test_a_quarter_of_the_runs_is_faster_than_what_counts() -> None:
    assert undisturbed([9.0, 1.0, 3.0, 2.0, 50.0]) == 2
    assert undisturbed([4.0]) == 4
    with pytest.raises(ValueError, match="no run"):
        undisturbed([])


def test_channels_are_whole_vectors_mostly_and_round_numbers_often() -> None:
    counts = [
        count
        for probe in probes(40)
        if probe.type == "convolution"
        for count in probe.weights[0][:2]
        if count > 48
    ]
    assert sum(count % 16 == 0 for count in counts) > len(counts) / 2
    assert sum(count in (64, 96, 128, 192, 256, 384, 512, 768) for count in counts) > 20


@pytest.mark.parametrize("smooth", [True, False])
def test_pools_read_maps_half_of_which_is_0_and_neighbours_are_alike_in_some(smooth: bool) -> None:
    pools = [p for p in probes(20) if p.type == "max pooling"]
    assert 10 < sum(p.smooth for p in pools) < 30
    probe = next(p for p in pools if p.smooth == smooth and min(p.inputs[0][1:]) > 20)
    made = example(TensorSpec("float32", probe.inputs[0]), probe)
    assert made.shape == probe.inputs[0]
    assert 0.3 < float((made == 0).float().mean()) < 0.7
    beside, apart = (made[..., step:] - made[..., :-step] for step in (1, 9))
    assert (float(beside.abs().mean()) < 0.6 * float(apart.abs().mean())) == smooth


def test_all_rows_of_a_table_are_looked_up() -> None:
    probe = next(
        p
        for p in probes(20)
        if p.type == "embedding" and p.weights[0][0] > 1000 < size(p.inputs[0]) * 10
    )
    made = example(TensorSpec("int64", probe.inputs[0]), probe)
    rows = probe.weights[0][0]
    assert 0 <= int(made.min()) < rows / 4
    assert rows * 3 / 4 < int(made.max()) < rows


def test_some_convolutions_have_as_many_weights_as_the_largest_of_networks() -> None:
    weights = [p.weights[0] for p in probes(40) if p.type.endswith(("volution", "conv."))]
    assert 32 << 20 < max(map(size, weights)) * 4 <= 4 * MOST_WEIGHTS


def test_other_layers_read_noise_of_both_signs() -> None:
    probe = next(p for p in probes(1) if p.type == "ELU")
    made = example(TensorSpec("float32", (1, 64, 30, 30)), probe)
    assert 0.4 < float((made < 0).float().mean()) < 0.6


@pytest.fixture(scope="module")
def measured() -> set[tuple[str, float, float, float]]:
    return {
        (each.kind, each.flops, each.read_bytes, each.weight_bytes)
        for probe in probes(84)
        for each in work(_graph(probe, 1))[0]
    }


@pytest.mark.parametrize("name", ["alexnet", "lenet", "mobilenet", "pix2pix", "resnet50"])
def test_no_layer_is_a_networks_own(
    name: str, measured: set[tuple[str, float, float, float]]
) -> None:
    graph, _ = capture(NETWORKS[name].build(), NETWORKS[name].example())
    own = {
        (each.kind, each.flops, each.read_bytes, each.weight_bytes)
        for layer in work(graph)
        for each in layer
        if each.flops > 1e6
    }
    assert not own & measured


def test_rows_are_of_every_layer_of_at_least_three_rounds() -> None:
    rows, entry_s = measure("cpu", 0.0)
    assert [row[0] for row in rows] == [probe.type for probe in probes(3)]
    assert all(seconds > 0 and joules is None for _, _, seconds, joules in rows)
    assert entry_s > 0


class Meter:
    """Counts a joule per reading."""

    def lap_J(self) -> float:
        return 1.0


def test_joules_are_of_one_layer() -> None:
    bench = Bench("cpu", Meter())  # type: ignore[arg-type]
    probe = next(probe for probe in probes(9) if probe.type == "flatten" and len(probe.calls) == 1)
    joules = bench.measured(probe).joules
    assert joules is not None
    # A flatten takes microseconds, and so many fit into the time that a counter needs.
    assert 0 < joules < 0.1
