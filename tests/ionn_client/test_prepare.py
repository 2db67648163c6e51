"""Capturing and profiling a model before it is offloaded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from ionn_client import Options, prepare
from layergraph import UnsupportedOperator, weight_bytes_view
from planner import Link
from wire.planes import WHOLE
from wire.segments import CODED_SHARE, encode_segment, segment_elements


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2)).eval()


def test_every_layer_gets_a_time() -> None:
    profiled = prepare(model(), (torch.ones(1, 8),), options=Options(profile_runs=2))
    assert len(profiled.client_s) == len(profiled.graph.layers)
    assert all(seconds > 0 for seconds in profiled.client_s)


def test_weights_are_expected_to_cross_as_short_as_they_are_coded() -> None:
    torch.manual_seed(0)
    wide = nn.Sequential(nn.Linear(512, 512, bias=False), nn.ReLU()).eval()
    profiled = prepare(wide, (torch.ones(1, 512),), options=Options(profile_runs=1))
    (weight,) = profiled.weights.values()
    blob, step = weight_bytes_view(weight), segment_elements("float32", WHOLE)
    coded_bytes = sum(
        len(encode_segment("float32", WHOLE, blob, start, step, "planes"))
        for start in range(0, weight.numel(), step)
    )
    slow, fast = Link(1e6, 1e6, 0.01), Link(1e9, 1e9, 0.001)
    assert profiled.costs(slow, 1.0).total_bytes == pytest.approx(coded_bytes, rel=0.01)
    assert profiled.costs(slow, 1.0).total_bytes == pytest.approx(CODED_SHARE * blob.nbytes)
    assert profiled.costs(fast, 1.0).total_bytes == blob.nbytes, "no coder keeps up with it"


def test_captures_are_kept_where_asked(tmp_path: Path) -> None:
    options = Options(captures=tmp_path, profile_runs=1)
    first = prepare(model(), (torch.ones(1, 8),), options=options)
    assert list(tmp_path.iterdir())
    again = prepare(model(), (torch.ones(1, 8),), options=options)
    assert again.graph.fingerprint == first.graph.fingerprint


def test_a_model_that_decides_on_its_data_is_refused_by_name() -> None:
    class Deciding(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + 1 if x.sum() > 0 else x - 1

    with pytest.raises(UnsupportedOperator):
        prepare(Deciding(), (torch.ones(1, 8),))
