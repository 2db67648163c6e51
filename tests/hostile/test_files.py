"""Every hostile file is refused by what would read it, in words, or taken for none."""

from __future__ import annotations

from pathlib import Path

import pytest

from pairing.identity import Identity
from tests.hostile.readers import DIRECTORY, READERS, refusal

FILES = sorted(path for path in DIRECTORY.glob("*/*"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_a_hostile_file_is_not_believed(path: Path, tmp_path: Path) -> None:
    text = refusal(path.parent.name, path.read_bytes(), tmp_path)
    assert "\x1b" not in text
    assert len(text) < 2000


def test_every_kind_has_files() -> None:
    assert {path.parent.name for path in FILES} == set(READERS)


def test_a_file_that_is_believed_is_a_finding(tmp_path: Path) -> None:
    known = Identity.load(tmp_path / "kept", "me")
    with pytest.raises(AssertionError, match="was read"):
        refusal("identity", known.key + known.certificate, tmp_path)
