"""The capture cache: a hit equals a capture, and whatever changed is captured anew."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

import layergraph.cache
from layergraph import UnsupportedOperator, capture, capture_cached, flatten_inputs
from tests.layergraph.splitting import assert_same


class Net(nn.Module):
    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.conv = weight_norm(nn.Conv1d(3, 40, 9))
        self.out = nn.Linear(40, 4)
        self.scale = scale

    def forward(self, x: torch.Tensor, flag: bool = False) -> dict[str, torch.Tensor]:
        y = self.conv(x).mean(2) * self.scale
        return {"y": self.out(y), "kept": x, "flag": torch.tensor(float(flag))}


@pytest.fixture
def captures(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """The models that were really captured."""
    calls: list[nn.Module] = []

    def counted(model: nn.Module, *rest: object) -> object:
        calls.append(model)
        return capture(model, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(layergraph.cache, "capture", counted)
    return calls


X = torch.linspace(-1, 1, 60).view(1, 3, 20)


def net(scale: float = 1.0) -> Net:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return Net(scale)


def test_a_hit_equals_a_capture(tmp_path: Path, captures: list[nn.Module]) -> None:
    model = net()
    first, weights = capture_cached(model, (X,), {"flag": True}, tmp_path)
    again, stored = capture_cached(net(), (X,), {"flag": True}, tmp_path)
    assert len(captures) == 1
    assert again == first
    assert again.fingerprint == first.fingerprint
    assert_same(stored, weights)
    assert len(flatten_inputs(again, (X,), {"flag": True})) == 1


def test_own_weights_are_not_written_again(tmp_path: Path) -> None:
    model = nn.Linear(300, 300)
    capture_cached(model, (torch.zeros(1, 300),), directory=tmp_path)
    (file,) = tmp_path.iterdir()
    assert file.stat().st_size < 4000
    _, weights = capture_cached(model, (torch.zeros(1, 300),), directory=tmp_path)
    assert weights["weight"].data_ptr() == model.weight.data_ptr()


def test_changes_are_seen(tmp_path: Path, captures: list[nn.Module]) -> None:
    capture_cached(net(), (X,), directory=tmp_path)
    capture_cached(net(), (X.double().float()[..., :15],), directory=tmp_path)
    capture_cached(net(2.0), (X,), directory=tmp_path)
    capture_cached(net(), (X,), {"flag": True}, tmp_path)
    changed = net()
    with torch.no_grad():
        changed.out.bias.add_(1)
    capture_cached(changed, (X,), directory=tmp_path)
    capture_cached(net().requires_grad_(False), (X,), directory=tmp_path)
    assert len(captures) == 6


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "foreign"])
def test_a_damaged_file_is_replaced(tmp_path: Path, captures: list[nn.Module], damage: str) -> None:
    graph, _ = capture_cached(net(), (X,), directory=tmp_path)
    (file,) = tmp_path.iterdir()
    good = file.read_bytes()
    bad = {
        "cut": good[: len(good) // 2],
        "flipped": good[:-64] + bytes(b ^ 255 for b in good[-64:]),
        "empty": b"",
        "foreign": good.replace(b"aten.conv1d.default", b"aten.conv1d.nothing"),
    }[damage]
    assert bad != good
    file.write_bytes(bad)
    again, _ = capture_cached(net(), (X,), directory=tmp_path)
    assert again == graph
    assert len(captures) == 2
    assert file.read_bytes() == good
    capture_cached(net(), (X,), directory=tmp_path)
    assert len(captures) == 2


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    graph, _ = capture_cached(net(), (X,), directory=tmp_path / "file")
    assert graph.layers


def test_the_default_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    capture_cached(net(), (X,))
    assert len(list((tmp_path / "ionn" / "graphs").iterdir())) == 1


def test_refusals_come_through(tmp_path: Path) -> None:
    class Random(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.rand(2)

    with pytest.raises(UnsupportedOperator):
        capture_cached(Random(), (torch.zeros(2),), directory=tmp_path)
    assert not list(tmp_path.iterdir())
