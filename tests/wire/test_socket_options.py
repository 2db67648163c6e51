"""An option is set, or the socket is closed, and nobody hears of it twice."""

from __future__ import annotations

import socket

from wire.socket_options import set_option

OPTION = socket.SOL_SOCKET, socket.SO_KEEPALIVE


class Ended:
    """As uvloop shows a socket that is closed."""

    def setsockopt(self, *_: int) -> None:
        raise ValueError("the transport is closed")


def test_an_option_is_set_while_the_socket_is_open() -> None:
    with socket.socket() as link:
        assert set_option(link, *OPTION, 1)
        assert link.getsockopt(*OPTION) == 1
    assert not set_option(link, *OPTION, 1)
    assert not set_option(Ended(), *OPTION, 1)
