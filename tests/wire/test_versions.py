from __future__ import annotations

import dataclasses

import pytest

import wire
from tests.wire.example import EXCHANGE

WELCOME = EXCHANGE[1][1]


def test_we_understand_ourselves():
    assert wire.negotiate(wire.hello("ionn 0.1.0")) == wire.VERSION


def test_the_newest_common_version_is_chosen():
    assert wire.negotiate(wire.Hello(wire.OLDEST_VERSION, 99, "future")) == wire.VERSION


def test_a_client_too_new_for_this_edge():
    with pytest.raises(wire.RemoteProtocolError) as caught:
        wire.negotiate(wire.Hello(98, 99, "future"))
    assert caught.value.code == "version"
    assert str(caught.value) == (
        "no protocol version in common: the client speaks versions 98 to 99, the edge version 2; "
        "update ionn on the edge"
    )


def test_a_client_too_old_for_this_edge(monkeypatch):
    monkeypatch.setattr("wire.versions.OLDEST_VERSION", 3)
    monkeypatch.setattr("wire.versions.VERSION", 4)
    both = "speaks versions 1 to 2, the edge versions 3 to 4; update"
    with pytest.raises(wire.RemoteProtocolError, match=both):
        wire.negotiate(wire.Hello(1, 2, "past"))


def test_the_client_takes_only_a_version_that_it_offered():
    assert wire.check_welcome(WELCOME) == 2
    with pytest.raises(wire.RemoteProtocolError, match="chose protocol version 1") as caught:
        wire.check_welcome(dataclasses.replace(WELCOME, version=1))
    assert caught.value.code == "version"


@pytest.mark.parametrize(("text", "sent"), [
    ("plain", "plain"),
    ("two\nlines\t and\x1b[31m red", "two lines and [31m red"),
    ("", ""),
    ("lone \ud800 surrogate", "lone surrogate"),
    ("x" * 5000, "x" * 4093 + "..."),
    ("é" * 5000, "é" * 2046 + "..."),
])  # fmt: skip
def test_any_text_fits_an_error(text, sent):
    message = wire.error_message("execution", text, query=3)
    assert message == wire.Error("execution", sent, 3)
    assert wire.encode(message)
