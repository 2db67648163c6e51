"""What can go wrong on the wire.

ProtocolError -> LocalProtocolError (our bug), RemoteProtocolError (the peer's)
"""

from __future__ import annotations


class ProtocolError(Exception):
    """A message breaks the protocol."""


class LocalProtocolError(ProtocolError):
    """This side tried to send something that the protocol forbids: a bug here."""


class RemoteProtocolError(ProtocolError):
    """The peer sent something that the protocol forbids. `code` is what to answer it with."""

    def __init__(self, text: str, code: str = "malformed") -> None:
        super().__init__(text)
        self.code = code
