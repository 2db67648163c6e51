"""The form of an edge's address. Imports nothing that computes: what only talks to boxes starts at
once.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

DEFAULT_PORT = 7431


@dataclass(frozen=True, slots=True)
class EdgeAddress:
    """Where an edge box listens."""

    host: str
    port: int = DEFAULT_PORT

    @classmethod
    def parse(cls, text: str) -> EdgeAddress:
        """From "ionn://host:port", "host:port" or "host". Raises ValueError for anything else."""
        parts = urlsplit(text if "://" in text else f"ionn://{text}")
        try:
            port = parts.port
        except ValueError as error:
            raise ValueError(f"the edge address {text!r} has a bad port: {error}") from None
        if parts.scheme != "ionn" or not parts.hostname or parts.path.strip("/"):
            raise ValueError(f"an edge address looks like ionn://192.0.2.7:7431, not {text!r}")
        # It is printed, and terminals obey some characters.
        plain = parts.hostname.isprintable()
        if not plain or parts.query or parts.fragment or parts.username is not None:
            raise ValueError(f"an edge address is a host and a port, not {text!r}")
        return cls(parts.hostname, DEFAULT_PORT if port is None else port)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"ionn://{host}:{self.port}"
