"""Which version of the protocol two sides speak, and how an error becomes a message."""

from __future__ import annotations

from wire.errors import RemoteProtocolError
from wire.limits import DEFAULT_LIMITS, Limits
from wire.messages import OLDEST_VERSION, VERSION, Error, Hello, Welcome
from wire.plain_text import printable


def hello(agent: str) -> Hello:
    """The Hello of a client that speaks every version this package knows."""
    return Hello(OLDEST_VERSION, VERSION, agent)


def negotiate(hello: Hello) -> int:
    """The newest version that both sides speak, for the edge's Welcome.

    Raises RemoteProtocolError("version") with a text for the person at the client.
    """
    if hello.version < OLDEST_VERSION:
        raise _no_common_version(hello, "update ionn on the client")
    if hello.oldest_version > VERSION:
        raise _no_common_version(hello, "update ionn on the edge")
    return min(hello.version, VERSION)


def check_welcome(welcome: Welcome) -> int:
    """The version that the edge chose. Raises RemoteProtocolError("version") if not offered."""
    if OLDEST_VERSION <= welcome.version <= VERSION:
        return welcome.version
    raise RemoteProtocolError(
        f"the edge chose protocol version {welcome.version}, "
        f"this client offered {version_span(OLDEST_VERSION, VERSION)}",
        code="version",
    )


def error_message(
    code: str, text: str, query: int | None = None, limits: Limits = DEFAULT_LIMITS
) -> Error:
    """An Error whose text fits the wire: one printable line, cut where it is too long."""
    encoded = " ".join(printable(text, " ").split()).encode()
    if len(encoded) > limits.max_text_bytes:
        encoded = encoded[: limits.max_text_bytes - 3] + b"..."
    return Error(code, encoded.decode(errors="ignore"), query)


def _no_common_version(hello: Hello, remedy: str) -> RemoteProtocolError:
    return RemoteProtocolError(
        f"no protocol version in common: the client speaks "
        f"{version_span(hello.oldest_version, hello.version)}, "
        f"the edge {version_span(OLDEST_VERSION, VERSION)}; {remedy}",
        code="version",
    )


def version_span(oldest: int, newest: int) -> str:
    """As a person reads it: "version 2", "versions 2 to 4"."""
    return f"version {newest}" if oldest == newest else f"versions {oldest} to {newest}"
