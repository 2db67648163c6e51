"""Stated device profiles: their figures, the times that follow, and files that are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from ionn_client.devices import DeviceProfile, load_device, shipped_devices
from layergraph import LayerGraph, capture, work
from layergraph.networks import NETWORKS
from planner.power import RADIOS

GOOD = """
name = "a board"
memory_Bps = { value = 1e9, source = "its manual" }
launch_s = { value = 1e-6, source = "its manual" }
[flops]
conv = { value = 2e9, source = "measured" }
other = { value = 1e9, source = "measured" }
"""
# What the papers print for AlexNet on each device, which the profiles are derived from.
ALEXNET_S = {
    "jetson-tk1-cpu": 0.382,
    "jetson-tk1-gpu": 0.081,
    "tesla-k40": 0.006,
    "odroid-xu4": 1.3,
}


def graph_of(name: str) -> LayerGraph:
    return capture(NETWORKS[name].build(), NETWORKS[name].example(), {})[0]


@pytest.fixture(scope="module")
def alexnet() -> LayerGraph:
    return graph_of("alexnet")


def test_every_shipped_profile_gives_a_source_for_each_figure() -> None:
    assert len(shipped_devices()) >= 6
    for key in shipped_devices():
        device = load_device(key)
        figures = [*device.flops.values(), device.memory_Bps, device.launch_s]
        assert all(figure.value > 0 and figure.source for figure in figures)
        assert (device.compute_W is None) == (device.idle_W is None)


@pytest.mark.parametrize("key", ALEXNET_S)
def test_a_profile_takes_as_long_as_its_paper_says(key: str, alexnet: LayerGraph) -> None:
    assert sum(load_device(key).layer_s(alexnet)) == pytest.approx(ALEXNET_S[key], rel=0.03)


def test_a_layer_takes_its_launches_and_the_longer_of_computing_and_moving(
    tmp_path: Path,
) -> None:
    device = _from_text(GOOD, tmp_path)
    graph = graph_of("lenet")
    for layer, seconds in zip(work(graph), device.layer_s(graph), strict=True):
        expected = 0.0
        for node in layer:
            if node.flops or node.bytes:
                rate = 2e9 if node.kind.startswith("conv") else 1e9
                expected += 1e-6 + max(node.flops / rate, node.bytes / 1e9)
        assert seconds == pytest.approx(expected)


def test_power_is_known_where_the_profile_states_it(tmp_path: Path) -> None:
    power = load_device("jetson-tx2").power(RADIOS["wifi"])
    assert power.compute_W > power.idle_W > 0
    assert power.radio is RADIOS["wifi"]
    with pytest.raises(ValueError, match="compute_W"):
        _from_text(GOOD, tmp_path).power(RADIOS["wifi"])


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"a board"', '""', "name"),
        ("[flops]", "[flop]", "flop is not a field"),
        ("conv =", "convolution =", "flops.convolution"),
        ("other =", "linear =", "other"),
        ("2e9", "-2e9", "flops.conv.value"),
        ("2e9", "0", "flops.conv.value"),
        ("2e9", "nan", "flops.conv.value"),
        ("2e9", "inf", "flops.conv.value"),
        ("2e9", "true", "flops.conv.value"),
        ("2e9", '"fast"', "flops.conv.value"),
        ('"measured"', '" "', "flops.conv.source"),
        ('{ value = 1e-6, source = "its manual" }', "1e-6", "launch_s"),
        ("launch_s", "launch_ms", "launch_ms is not a field"),
        ("[flops]", "[flops", "cannot read"),
        ('memory_Bps = { value = 1e9, source = "its manual" }', "", "memory_Bps"),
    ],
)
def test_a_wrong_profile_is_refused_by_field(old: str, new: str, said: str, tmp_path: Path) -> None:
    assert old in GOOD
    with pytest.raises(ValueError, match=said) as refused:
        _from_text(GOOD.replace(old, new, 1), tmp_path)
    assert "board.toml" in str(refused.value)


def test_an_unknown_profile_is_told_with_those_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Did you mean jetson-tx2") as refused:
        load_device("jetson-tx")
    assert "odroid-xu4" in str(refused.value)
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(ValueError, match=r"no device profile|cannot read"):
            load_device(str(path))
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="cannot read"):
        load_device(str(tmp_path / "bytes.toml"))


def _from_text(text: str, folder: Path) -> DeviceProfile:
    path = folder / "board.toml"
    path.write_text(text)
    return load_device(str(path))
