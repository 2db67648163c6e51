"""Private files: whole or not at all, and never believed when others could have written them."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from pairing import private
from pairing.private import StateError, locked, read_private, write_private


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "state" / "deep" / "file"
    assert write_private(path, b"one")
    assert write_private(path, b"two")
    assert read_private(path) == b"two"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert [file.name for file in path.parent.iterdir()] == ["file"]


def test_nothing_is_none(tmp_path: Path) -> None:
    assert read_private(tmp_path / "none" / "file") is None


def test_what_killed_writers_left_goes_and_nothing_else(tmp_path: Path) -> None:
    old, new = tmp_path / f".file.{'0' * 16}", tmp_path / f".other.{'f' * 16}"
    others = [tmp_path / name for name in (".lock", ".file.old", "file.0123456789abcdef")]
    directory = tmp_path / f".file.{'1' * 16}"
    directory.mkdir()
    for path in (old, new, *others):
        path.write_bytes(b"secret")
    for path in (old, directory, *others):
        os.utime(path, (1e9, 1e9))
    assert write_private(tmp_path / "file", b"one")
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"file", new.name, directory.name, *(path.name for path in others)}


def test_what_is_there_can_be_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert write_private(path, b"first", replace=False)
    assert not write_private(path, b"second", replace=False)
    assert read_private(path) == b"first"
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620, 0o602, 0o660])
def test_what_others_can_open_is_not_believed(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "file"
    write_private(path, b"secret")
    path.chmod(mode)
    with pytest.raises(StateError, match="chmod 600"):
        read_private(path)


def test_what_is_no_plain_file_is_not_believed(tmp_path: Path) -> None:
    real, link, pipe = tmp_path / "real", tmp_path / "link", tmp_path / "pipe"
    write_private(real, b"secret")
    link.symlink_to(real)
    os.mkfifo(pipe, 0o600)
    for path in (link, pipe, tmp_path):
        with pytest.raises(StateError):
            read_private(path)


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
def test_another_users_file_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_private(path, b"secret")
    os.chown(path, 12345, -1)
    with pytest.raises(StateError, match="another user"):
        read_private(path)


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o1777, 0o722])
def test_nothing_is_kept_where_others_can_change_it(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(mode)
    with pytest.raises(StateError, match="chmod 700"):
        write_private(tmp_path / "file", b"secret")
    with pytest.raises(StateError, match="chmod 700"), locked(tmp_path):
        pass
    assert not list(tmp_path.iterdir())
    tmp_path.chmod(0o755)
    assert write_private(tmp_path / "file", b"secret")


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives directories away")
def test_nothing_is_kept_in_another_users_directory(tmp_path: Path) -> None:
    os.chown(tmp_path, 12345, -1)
    with pytest.raises(StateError, match="chmod 700"):
        write_private(tmp_path / "file", b"secret")


def test_a_long_file_is_not_ours(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_private(path, b"x" * (private.MAX_BYTES + 1))
    with pytest.raises(StateError, match="longer"):
        read_private(path)


def test_a_directory_that_cannot_be_is_told(tmp_path: Path) -> None:
    in_the_way = tmp_path / "state"
    in_the_way.write_text("a file")
    with pytest.raises(StateError, match="cannot write"):
        write_private(in_the_way / "file", b"")
    with pytest.raises(StateError, match="cannot keep"), locked(in_the_way):
        pass
    with pytest.raises(StateError, match="cannot read"):
        read_private(in_the_way / "file")


def test_a_crash_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_private(path, b"before")

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    for step in ("fsync", "replace"):
        with monkeypatch.context() as patched:
            patched.setattr(os, step, crash)
            with pytest.raises(KeyboardInterrupt):
                write_private(path, b"after")
        assert read_private(path) == b"before"


def test_changes_take_turns(tmp_path: Path) -> None:
    path = tmp_path / "count"
    write_private(path, b"0")

    def count() -> None:
        for _ in range(5):
            with locked(tmp_path):
                write_private(path, str(int(read_private(path) or b"0") + 1).encode())

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read_private(path) == b"20"
