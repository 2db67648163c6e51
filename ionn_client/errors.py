"""What a caller can be told.

OffloadError
├── EdgeUnreachable        nothing answers at the edge's address
├── EdgeRejected           the edge answered, and will not run this model
│   └── VersionMismatch    the two sides share no protocol version
├── PairingError           the edge cannot be trusted, or does not trust this device
│   ├── NotPaired          this device is not paired with the edge, or is so no more
│   ├── CertificateChanged who answers at the edge's address is not who was paired
│   └── EdgeQuarantined    the edge was caught lying, and is not used until it is paired anew
└── DeadlineExceeded       the caller's own deadline passed before there was an answer

None but the last is ever raised by a query: a query runs on the client then.
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


class PairingError(OffloadError):
    """Who is who is not known, or not to be believed. Nothing was sent. Trying again is no help."""


class NotPaired(PairingError):
    """This device is not paired with the edge box, or is so no more."""


class CertificateChanged(PairingError):
    """Who answers at the edge's address has another certificate than was paired."""


class EdgeQuarantined(PairingError):
    """The edge box was caught lying. It is not used until somebody pairs it anew."""


class DeadlineExceeded(OffloadError, TimeoutError):
    """The query's deadline passed before either side had the answer."""
