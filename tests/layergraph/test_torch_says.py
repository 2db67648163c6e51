from __future__ import annotations

import logging
import sys
import threading

import pytest
import torch
from torch import nn

from layergraph import UnsupportedOperator, capture
from layergraph.torch_says import torch_aside


class Branches(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.sum() > 0:
            return x * 2
        return x


def test_a_model_that_cannot_be_captured_leaves_our_message_alone_on_the_terminal(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "layergraph")
    with pytest.raises(UnsupportedOperator, match="data-dependent") as caught:
        capture(Branches(), (torch.ones(3),))
    assert capfd.readouterr() == ("", "")
    assert any("def forward" in record.getMessage() for record in caplog.records)
    # Torch's symbols are not in the model, whose line is told.
    assert f"{__file__}:" in str(caught.value)
    assert "u0" not in str(caught.value)


def test_torch_speaks_up_where_it_is_told_to(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_LOGS", "+export")
    with pytest.raises(UnsupportedOperator):
        capture(Branches(), (torch.ones(3),))
    assert "def forward" in capsys.readouterr().err


def test_what_torch_logs_is_kept_from_its_own_handlers(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "layergraph")
    # Pytest gives every logger handlers of its own.
    handlers = [each for each in logging.getLogger("torch").handlers
                if type(each) is logging.StreamHandler]  # fmt: skip
    record = logging.LogRecord("torch", logging.WARNING, "", 0, "a word of torch's", None, None)
    assert handlers
    with torch_aside():
        assert not any(handler.filter(record) for handler in handlers)
    assert {record.getMessage() for record in caplog.records} == {"torch: a word of torch's"}
    assert all(handler.filter(record) for handler in handlers)


def test_other_threads_and_later_words_pass(capsys: pytest.CaptureFixture[str]) -> None:
    with torch_aside():
        sys.stderr.write("ours")
        inside = sys.stderr
        other = threading.Thread(target=lambda: inside.write("another's "))
        other.start()
        other.join()
    # Whoever took stderr meanwhile for good, as a handler of logs does, is heard again.
    inside.write("later")
    assert capsys.readouterr().err == "another's later"
