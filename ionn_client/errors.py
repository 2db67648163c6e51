"""What a caller can be told.

OffloadError
├── EdgeUnreachable        nothing answers at the edge's address
├── EdgeRejected           the edge answered, and will not run this model
│   └── VersionMismatch    the two sides share no protocol version
└── DeadlineExceeded       the caller's own deadline passed before there was an answer

None of the first three is ever raised by a query: a query runs on the client then.
"""

from __future__ import annotations


class OffloadError(Exception):
    """Something about running a model together with an edge box."""


class EdgeUnreachable(OffloadError):
    """No edge box answers at this address."""


class EdgeRejected(OffloadError):
    """The edge box answered, and will not run this model. `code` is the protocol's error code."""

    def __init__(self, text: str, code: str) -> None:
        super().__init__(text)
        self.code = code


class VersionMismatch(EdgeRejected):
    """The edge box speaks no protocol version that this client speaks."""


class DeadlineExceeded(OffloadError, TimeoutError):
    """The query's deadline passed before either side had the answer."""
