"""The session's machine, told that its edge is not to be trusted: it stays here, asking no more."""

from __future__ import annotations

import pytest

from ionn_client.errors import CertificateChanged, OffloadError
from ionn_client.machine import events
from tests.ionn_client.test_session import Bench

ERROR = CertificateChanged("another certificate")


def kinds(commands: list[events.Command]) -> set[type]:
    return {type(command) for command in commands} - {events.Record}


def distrusted(bench: Bench, error: OffloadError = ERROR) -> list[events.Command]:
    return bench.step(events.EdgeDistrusted(error))


def test_before_the_first_word() -> None:
    bench = Bench()
    bench.step(events.Started())
    assert kinds(distrusted(bench)) <= {events.AbortConnection}
    assert bench.session.phase == "rejected"
    assert bench.session.error is ERROR
    assert bench.session.wake_at is None, "nothing is tried again"
    assert "another certificate" in bench.session.explanation()


def test_what_comes_late_changes_nothing() -> None:
    bench = Bench()
    bench.step(events.Started())
    distrusted(bench)
    assert kinds(bench.step(events.ConnectionLost("gone"))) == set()
    assert kinds(bench.step(events.Connected())) == {events.CloseConnection}
    assert bench.session.phase == "rejected"


@pytest.mark.parametrize("uploaded", [False, True])
def test_in_the_middle_of_things(uploaded: bool) -> None:
    bench = Bench()
    if uploaded:
        bench.upload_all()
    else:
        bench.greet()
    commands = distrusted(bench, OffloadError("the edge was asked to forget this device"))
    assert events.AbortConnection in kinds(commands)
    assert events.OpenConnection not in kinds(commands)
    assert not any(isinstance(command, events.SendMessage) for command in commands)


def test_once_it_is_closed_it_stays_closed() -> None:
    bench = Bench()
    bench.step(events.Started())
    bench.step(events.Stopped())
    assert distrusted(bench) == []
    assert bench.session.phase == "closed"
