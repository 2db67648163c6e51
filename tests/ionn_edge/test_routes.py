"""Who may ask a paired box for what, and that nothing is made for anybody else."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import torch

from ionn_edge.box import AGENT
from ionn_edge.link import Link
from ionn_edge.machine.session import Session
from ionn_edge.workers.isolation import Isolation
from ionn_edge.workers.nursery import Nursery
from tests.ionn_edge.conftest import Serve
from tests.ionn_edge.peer import Peer, blobs, chain, execute
from tests.ionn_edge.visitors import TLS_ERRORS, House, Visitor, house
from tests.wire.example import EXCHANGE, LANE_EXCHANGE
from wire import KINDS, encode, hello, messages

pytestmark = pytest.mark.asyncio(loop_scope="session")

GRAPH, WEIGHTS = chain(2)
# One message of each kind.
SAID = {type(message).__name__: message for _, message, _ in (*EXCHANGE, *LANE_EXCHANGE)}
X = torch.linspace(-1, 1, 8).reshape(1, 8)


class PairedPeer(Peer):
    """A peer that shows its certificate and token."""

    def __init__(self, visitor: Visitor, at: House) -> None:
        super().__init__(at.url())
        self._visitor, self._at = visitor, at

    async def __aenter__(self) -> PairedPeer:
        self._stack = contextlib.AsyncExitStack()
        http = await self._stack.enter_async_context(self._visitor.http(self._at))
        self.socket = await http.ws_connect(
            self._url, headers=self._visitor.headers, compress=0, max_msg_size=1 << 28
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.socket.close()
        await self._stack.aclose()


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was made for a connection."""
    what: list[str] = []
    for kind in (Link, Session):
        original = kind.__init__

        def noted(self: Any, *args: Any, _original: Any = original, **named: Any) -> None:
            what.append(type(self).__name__)
            _original(self, *args, **named)

        monkeypatch.setattr(kind, "__init__", noted)
    return what


async def test_every_kind_is_tried() -> None:
    assert set(SAID) == {kind.__name__ for kind in KINDS.values()}


@pytest.mark.parametrize("kind", SAID)
async def test_no_message_is_heard_from_whom_nobody_knows(
    tmp_path: Path, made: list[str], kind: str
) -> None:
    async with house(tmp_path) as at, Visitor().http(at, shows=False) as http:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
            await http.ws_connect(at.url())
        assert refusal.value.status == 401
        # Nor behind a request for which nobody waited, as a frame of a WebSocket's.
        frames = b"".join(bytes((0x82, len(frame))) + frame for frame in encode(SAID[kind]))
        async with http.get(at.url(), data=frames[:1000]) as answer:
            assert answer.status == 401
        assert (made, at.box.clients) == ([], set())


@pytest.mark.parametrize("kind", SAID)
async def test_no_message_is_heard_at_the_desk(tmp_path: Path, made: list[str], kind: str) -> None:
    async with house(tmp_path) as at, Visitor().at_desk(at) as socket:
        for frame in encode(SAID[kind]):
            with contextlib.suppress(ConnectionError):
                await socket.send_bytes(frame)
        ends = [(await socket.receive(60)).type for _ in range(2)]
        assert ends[-1] in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)
        assert (made, at.box.clients) == ([], set())


@pytest.mark.parametrize(
    "authorization",
    ["", "Bearer", "Bearer ", "Bearer x", "Basic {token}", "{token}", "Bearer {token}x",
     "Bearer {token},Bearer {token}", "bearer \x7f{token}", "Bearer " + "a" * 4000],
)  # fmt: skip
async def test_another_token_is_refused(
    tmp_path: Path, made: list[str], authorization: str
) -> None:
    glasses = Visitor()
    async with house(tmp_path) as at:
        await glasses.pair(at)
        token, glasses.token = glasses.token, ""
        try:
            status, text = await glasses.refused(
                at, Authorization=authorization.format(token=token)
            )
        except ValueError:
            return  # No header, aiohttp says.
        assert status in (400, 401)
        assert token not in text
        assert made == []


async def test_two_tokens_are_none(tmp_path: Path) -> None:
    glasses = Visitor()
    async with house(tmp_path) as at:
        await glasses.pair(at)
        fingerprint, bearer = glasses.id, f"Bearer {glasses.token}"
        assert at.guard.device_of(fingerprint, [bearer]).id == glasses.id
        for headers in ([], [bearer, bearer], ["", bearer]):
            with pytest.raises(Exception, match="not the token") as denied:
                at.guard.device_of(fingerprint, headers)
            assert denied.value.status == 401  # type: ignore[attr-defined]


async def test_another_devices_token_is_refused(tmp_path: Path) -> None:
    one, other = Visitor("one"), Visitor("other")
    async with house(tmp_path) as at:
        await one.pair(at)
        await other.pair(at)
        one.token = other.token
        assert (await one.refused(at))[0] == 401


async def test_an_unpaired_devices_certificate_ends_the_handshake(
    tmp_path: Path, made: list[str]
) -> None:
    stranger = Visitor()
    stranger.token = "x" * 43
    async with house(tmp_path) as at:
        with pytest.raises(TLS_ERRORS):
            await stranger.refused(at)
        assert made == []


async def test_who_is_unpaired_is_cut_off_and_stays_out(tmp_path: Path, nursery: Nursery) -> None:
    glasses, watch = Visitor("glasses"), Visitor("watch")
    async with house(tmp_path, nursery) as at:
        await glasses.pair(at)
        await watch.pair(at)
        async with PairedPeer(glasses, at) as peer, PairedPeer(watch, at) as other:
            await peer.open(GRAPH, WEIGHTS)
            await other.open(GRAPH, WEIGHTS)
            row = (await at.questions["devices"]({}))[0]
            assert (row["name"], row["connections"]) == ("glasses", 1)
            assert row["held_bytes"] >= sum(blob.nbytes for blob in blobs(GRAPH, WEIGHTS))
            gone = await at.questions["unpair"]({"device": "glasses"})
            assert gone["id"] == glasses.id
            # A cut, not a goodbye.
            assert await peer.heard_close() == 1006
            await other.send(messages.Ping(3))
            assert await other.hear(messages.Pong)
            assert [client.device.name for client in at.box.clients] == ["watch"]
        with pytest.raises(TLS_ERRORS):
            await glasses.refused(at)
        held = {row["name"]: row["held_bytes"] for row in await at.questions["devices"]({})}
        assert list(held) == ["watch"]
        assert at.box.store.shelf(glasses.id).used_bytes == 0
    async with house(tmp_path, nursery) as at:
        with pytest.raises(TLS_ERRORS):
            await glasses.refused(at)


async def test_what_an_older_token_opened_ends_where_its_device_pairs_anew(
    tmp_path: Path, nursery: Nursery
) -> None:
    glasses, watch = Visitor("glasses"), Visitor("watch")
    async with house(tmp_path, nursery) as at:
        await glasses.pair(at)
        await watch.pair(at)
        async with PairedPeer(glasses, at) as peer, PairedPeer(watch, at) as other:
            await peer.greet()
            await glasses.pair(at)
            assert await peer.heard_close() == 1006
            await other.greet()
        async with PairedPeer(glasses, at) as peer:
            await peer.greet()


@pytest.mark.parametrize("what", ["paired anew", "unpaired"])
async def test_whose_pairing_ends_while_it_connects_is_not_served_by_it(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    glasses = Visitor()
    async with house(tmp_path) as at:
        await glasses.pair(at)
        (known,) = at.guard.registry.all()
        prepare = aiohttp.web.WebSocketResponse.prepare

        async def slowly(socket: Any, request: Any) -> Any:
            done = await prepare(socket, request)
            if what == "unpaired":
                await at.questions["unpair"]({"device": "glasses"})
            else:
                await at.guard.pair(known.device, known.certificate, "0" * 64)
            return done

        monkeypatch.setattr(aiohttp.web.WebSocketResponse, "prepare", slowly)
        async with glasses.http(at) as http:
            with contextlib.suppress(*TLS_ERRORS):
                async with http.ws_connect(at.url(), headers=glasses.headers) as socket:
                    assert (await socket.receive(60)).type is not aiohttp.WSMsgType.BINARY
        assert not at.box.clients


async def test_devices_that_are_served_are_told_how_apart_they_are_kept(tmp_path: Path) -> None:
    glasses = Visitor()
    async with house(tmp_path) as at:
        await glasses.pair(at)

        async def told(**headers: str) -> tuple[int, Any]:
            async with (
                glasses.http(at) as http,
                http.get(at.url("/about"), headers=headers) as answer,
            ):
                return answer.status, await answer.json() if answer.ok else await answer.text()

        assert await told(**glasses.headers) == (200, {"isolation": None})
        at.box.isolation = Isolation(("no network",), ("no file writes (openat)",))
        here = {"holds": ["no network"], "fails": ["no file writes (openat)"]}
        assert await told(**glasses.headers) == (200, {"isolation": here})
        status, text = await told(Authorization="Bearer " + "x" * 43)
        assert (status, "network" in text) == (401, False)


async def test_a_device_has_so_many_connections_and_others_still_theirs(tmp_path: Path) -> None:
    glasses, watch = Visitor("glasses"), Visitor("watch")
    async with house(tmp_path, device_clients=2) as at:
        await glasses.pair(at)
        await watch.pair(at)
        async with PairedPeer(glasses, at), PairedPeer(glasses, at) as second:
            status, text = await glasses.refused(at)
            assert (status, "2 connections already" in text) == (429, True)
            async with PairedPeer(watch, at) as other:
                await other.greet()
            await second.greet()
        assert not await _left(at)
        with at.guard.seat(at.guard.registry.find("glasses")[0].device):
            pass


async def _left(at: House) -> set[Any]:
    """The box's clients, once those that said goodbye are gone."""
    at.box.drain()
    async with asyncio.timeout(60):
        await at.box.empty.wait()
    return set(at.box.clients)


async def test_one_device_is_told_nothing_of_another(tmp_path: Path, nursery: Nursery) -> None:
    glasses, watch = Visitor("glasses"), Visitor("watch")
    async with house(tmp_path, nursery) as at:
        await glasses.pair(at)
        await watch.pair(at)
        async with PairedPeer(watch, at) as alone:
            welcome = await alone.greet()
            await alone.send(messages.GetLoad())
            before = await alone.hear(messages.Load)
        async with PairedPeer(glasses, at) as peer, PairedPeer(watch, at) as other:
            await peer.open(GRAPH, WEIGHTS)
            beside = await other.greet()
            await other.send(messages.GetLoad())
            after = await other.hear(messages.Load)
            assert (after.clients, after.models, after.used_bytes) == (1, (), 0)
            assert (after, beside.epoch) == (before, welcome.epoch)
            await peer.send(messages.GetLoad())
            own = await peer.hear(messages.Load)
            assert [model.fingerprint for model in own.models] == [GRAPH.fingerprint]


async def test_no_lane_is_joined_to_another_devices_connection(tmp_path: Path) -> None:
    glasses, watch = Visitor("glasses"), Visitor("watch")
    async with house(tmp_path) as at:
        await glasses.pair(at)
        await watch.pair(at)
        async with PairedPeer(glasses, at) as peer, PairedPeer(watch, at) as other:
            lane = (await peer.greet()).lane
            await other.greet()
            text = await other.fails_with("unexpected", messages.Join(lane))
            assert "no connection was told of this lane" in text


async def test_a_device_has_itself_forgotten(tmp_path: Path, nursery: Nursery) -> None:
    glasses, watch = Visitor("glasses"), Visitor("watch")
    async with house(tmp_path, nursery) as at:
        await glasses.pair(at)
        await watch.pair(at)
        for visitor in (glasses, watch):
            async with PairedPeer(visitor, at) as peer:
                await peer.open(GRAPH, WEIGHTS)
        async with (
            Visitor().http(at, shows=False) as http,
            http.post(at.url("/forget")) as answer,
        ):
            assert answer.status == 401
        async with glasses.http(at) as http:
            async with http.post(at.url("/forget"), headers=glasses.headers) as answer:
                assert answer.status == 200
            async with http.get(at.url("/forget"), headers=glasses.headers) as answer:
                assert answer.status == 405
        assert at.box.store.shelf(glasses.id).used_bytes == 0
        assert at.box.store.shelf(watch.id).used_bytes > 0
        async with PairedPeer(glasses, at) as peer:
            await peer.greet()
            assert isinstance(await peer.ask(GRAPH), messages.Unknown)


async def test_strangers_are_told_who_this_is_and_nothing_of_whom_it_serves(
    tmp_path: Path,
) -> None:
    glasses = Visitor()
    async with house(tmp_path) as at, Visitor().http(at, shows=False) as http:
        await glasses.pair(at)
        async with PairedPeer(glasses, at), http.get(at.url("/")) as answer:
            assert await answer.json() == {
                "what": "an IONN edge box",
                "agent": AGENT,
                "protocol": {"path": "/ionn", "oldest": 2, "newest": 2},
                "name": "hall",
                "fingerprint": at.guard.identity.fingerprint,
                "paired_only": True,
            }
            assert answer.headers["Server"] == "ionn"


@pytest.mark.parametrize("path", ["/", "/ionn", "/pair"])
async def test_no_browser_is_talked_to(tmp_path: Path, path: str) -> None:
    origin = {"Origin": "https://example.com"}
    async with (
        house(tmp_path) as at,
        Visitor().http(at, shows=False) as http,
        http.get(at.url(path), headers=origin) as answer,
    ):
        assert answer.status == 403


@pytest.mark.parametrize(
    ("host", "status"),
    [("127.0.0.1:7431", 426), ("[::1]:7431", 426), ("localhost", 426), ("evil.example", 403),
     ("evil.example:7431", 403), ("localhost.evil.example", 403)],
)  # fmt: skip
async def test_an_unpaired_box_answers_to_no_name_that_others_own(
    serve: Serve, host: str, status: int
) -> None:
    async with (
        serve() as (_, url),
        aiohttp.ClientSession() as http,
        http.get(url, headers={"Host": host}) as answer,
    ):
        assert answer.status == status


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "CONNECT", "BREW"])
async def test_other_methods_are_refused(tmp_path: Path, method: str) -> None:
    async with house(tmp_path) as at, Visitor().http(at, shows=False) as http:
        for path in ("/", "/ionn", "/pair"):
            async with http.request(method, at.url(path)) as answer:
                assert answer.status in (400, 404, 405)
        assert not at.box.clients


async def test_a_device_may_ask_so_many_queries_a_second(tmp_path: Path, nursery: Nursery) -> None:
    glasses = Visitor()
    quota = {"device_queries_per_s": 1e-6, "device_burst": 2}
    async with house(tmp_path, nursery, **quota) as at:
        await glasses.pair(at)
        async with PairedPeer(glasses, at) as peer:
            await peer.open(GRAPH, WEIGHTS)
            for number in range(2):
                await peer.run(number, 0, 2, (X,))
        # Neither another connection nor coming back fills the bucket.
        async with PairedPeer(glasses, at) as peer:
            await peer.open(GRAPH, WEIGHTS)
            await peer.send(execute(7, 0, 2, (X,)), hello("t"))
            error = await peer.hear(messages.Error)
            assert (error.code, error.query) == ("overloaded", 7)
            assert "queries a second; ask again in" in error.text


async def test_beside_another_device_all_connections_of_one_have_their_turn(
    tmp_path: Path, nursery: Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ionn_edge.config.usable_threads", lambda: 1)
    glasses, watch = Visitor(), Visitor("watch")
    async with house(tmp_path, nursery) as at:
        for device in (glasses, watch):
            await device.pair(at)
        async with contextlib.AsyncExitStack() as stack:
            first, second, third = [
                await stack.enter_async_context(PairedPeer(glasses, at)) for _ in range(3)
            ]
            other = await stack.enter_async_context(PairedPeer(watch, at))
            for peer in (first, second, third, other):
                await peer.open(GRAPH, WEIGHTS)
            for number in range(4):
                for peer in (first, second, third):
                    await peer.send(execute(number, 0, 2, (X,)))
            # One that leaves with queries in line keeps no place in it.
            await third.socket.close()
            await other.run(1, 0, 2, (X,))
            for peer in (first, second):
                for number in range(4):
                    assert (await peer.hear(messages.Result)).query == number


async def test_nobody_pairs_with_an_unpaired_box(serve: Serve) -> None:
    async with serve() as (_, url), aiohttp.ClientSession() as http:
        async with http.get(url.replace("/ionn", "/pair")) as answer:
            assert (answer.status, "this edge is unpaired" in await answer.text()) == (404, True)
        async with http.get(url.replace("/ionn", "/nothing")) as answer:
            assert answer.status == 404


async def test_pings_are_answered_no_faster_than_small_messages_beside_others(
    tmp_path: Path,
) -> None:
    glasses, watch = Visitor(), Visitor("watch")
    async with house(tmp_path) as at:
        await glasses.pair(at)
        at.desk.open()
        await watch.pair(at)
        async with (
            PairedPeer(glasses, at) as neighbour,
            watch.http(at) as http,
            http.ws_connect(at.url(), headers=watch.headers, autoping=False) as flood,
        ):
            await neighbour.greet()
            loop = asyncio.get_running_loop()
            began_s = loop.time()
            for _ in range(100):
                await flood.ping()
            for _ in range(100):
                answer = await flood.receive(20)
                assert answer.type is aiohttp.WSMsgType.PONG
            assert loop.time() - began_s > 0.1
            # It is a connection like any other afterwards.
            await flood.send_bytes(b"".join(encode(hello("test"))))
            assert (await flood.receive(20)).type is aiohttp.WSMsgType.BINARY
