"""Where a user's files are: the same rule for both sides."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pairing.directories import cache_of, state_of

BOTH = pytest.mark.parametrize(
    ("variable", "below_home", "of"),
    [("XDG_STATE_HOME", ".local/state", state_of), ("XDG_CACHE_HOME", ".cache", cache_of)],
)
Of = Callable[[str], Path]


@BOTH
@pytest.mark.parametrize("said", [None, "", "relative", "../up"])
def test_it_is_below_home_unless_said(
    variable: str, below_home: str, of: Of, said: str | None,
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv(variable, raising=False)
    if said is not None:
        monkeypatch.setenv(variable, said)
    assert of("edge") == tmp_path / "home" / below_home / "ionn" / "edge"
    monkeypatch.setenv(variable, str(tmp_path / "said"))
    assert of("client") == tmp_path / "said" / "ionn" / "client"


@pytest.mark.parametrize("of", [state_of, cache_of])
def test_who_has_no_home_is_told_what_to_say(of: Of, monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError

    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(ValueError, match="set HOME"):
        of("edge")
