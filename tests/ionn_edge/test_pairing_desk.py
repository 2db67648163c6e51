"""Pairing with a box over a real socket: who gets in, who does not, and what it costs to try."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import threading
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from ionn_edge.doors import guard
from pairing.exchange import EdgeExchange
from pairing.frames import PairingFailed, Step
from pairing.identity import IdentityError
from pairing.tokens import token_digest
from tests.ionn_edge.visitors import Visitor, granted, heard, house, wrong


@pytest.mark.parametrize("how", ["code", "secret"])
async def test_a_device_is_known_once_both_have_stored_it(tmp_path: Path, how: str) -> None:
    glasses = Visitor()
    async with house(tmp_path) as at:
        shown = {at.desk.code, at.desk.secret}
        await glasses.pair(at, how=how)  # type: ignore[arg-type]
        paired = at.guard.registry.get(glasses.id)
        assert paired is not None
        assert paired.device.name == "glasses"
        assert paired.certificate == glasses.identity.certificate
        assert not {at.desk.code, at.desk.secret} & shown, "one code is for one device"
    (row,) = json.loads((tmp_path / "state" / "devices.json").read_bytes())["devices"]
    assert row["token_digest"] == token_digest(glasses.token)
    assert glasses.token not in (tmp_path / "state" / "devices.json").read_text()
    async with (
        house(tmp_path) as at,
        glasses.http(at) as http,
        http.ws_connect(at.url(), headers=glasses.headers),
    ):
        assert [client.device.id for client in at.box.clients] == [glasses.id]


async def test_a_wrong_code_spends_it_and_the_fifth_in_a_row_closes_pairing(tmp_path: Path) -> None:
    async with house(tmp_path) as at:
        for number in range(5):
            code, secret = at.desk.code, at.desk.secret
            assert code is not None
            # The fifth would otherwise go and read a code that is not shown.
            told = "takes no pairings now" if number == 4 else "code or secret is not the box's"
            with pytest.raises(PairingFailed, match=told):
                await Visitor().pair(at, wrong(code))
            assert (at.desk.code, at.desk.secret) != (code, secret)
        assert (at.desk.code, at.desk.secret) == (None, None)
        with pytest.raises(PairingFailed, match="takes no pairings now"):
            await Visitor().pair(at, "00000000")
        assert not at.guard.registry.all()
        shown = await at.questions["pair"]({})
        assert shown["failures"] == 0
        await Visitor().pair(at, shown["code"])


async def test_a_spent_code_is_wrong_even_if_it_was_right(tmp_path: Path) -> None:
    async with house(tmp_path) as at:
        code = at.desk.code
        assert code is not None
        with pytest.raises(PairingFailed):
            await Visitor().pair(at, wrong(code))
        with pytest.raises(PairingFailed):
            await Visitor().pair(at, code)
        await Visitor().pair(at)
        assert at.desk.failures == 0


async def test_two_at_once_are_served_one_after_the_other(tmp_path: Path) -> None:
    first, second = Visitor("first"), Visitor("second")
    async with house(tmp_path) as at, first.at_desk(at) as socket:
        assert at.desk.code is not None
        exchange = first.exchange(at, at.desk.code)
        await socket.send_bytes(exchange.start())
        answer = await heard(socket)
        with pytest.raises(PairingFailed, match="pairing with somebody else"):
            await second.pair(at)
        step = exchange.receive(answer)
        assert step.send is not None
        await socket.send_bytes(step.send)
        exchange.receive(await heard(socket))
        await socket.send_bytes(exchange.stored())
        assert exchange.receive(await heard(socket)).done
        await second.pair(at)
        names = [paired.device.name for paired in at.guard.registry.all()]
        assert names == ["first", "second"]


async def test_many_who_guess_at_once_have_five_guesses_in_all(tmp_path: Path) -> None:
    told: list[str] = []
    async with house(tmp_path, max_guests_per_address=64) as at:
        shown = [at.desk.code]
        at.desk.changed = lambda: shown.append(at.desk.code)

        async def guess() -> None:
            while at.desk.code is not None:
                with pytest.raises(PairingFailed) as failed:
                    await Visitor().pair(at, wrong(at.desk.code))
                if "with somebody else" not in str(failed.value):
                    told.append(str(failed.value))

        await asyncio.gather(*(guess() for _ in range(6)))
        assert len(set(shown)) == 6, "five codes, each for one guess, and then none"
        assert (at.desk.code, at.desk.failures) == (None, 5)
        assert sum("is not the box's" in each for each in told) == 4, "the fifth hears of the end"
        assert not at.guard.registry.all()


def held_up(patched: pytest.MonkeyPatch) -> tuple[threading.Event, threading.Event]:
    """Each look at a frame waits: set once one has begun, and to be set for them to go on."""
    looking, go_on = threading.Event(), threading.Event()
    receive = EdgeExchange.receive

    def slow(exchange: EdgeExchange, frame: bytes) -> Step:
        looking.set()
        assert go_on.wait(60)
        return receive(exchange, frame)

    patched.setattr(EdgeExchange, "receive", slow)
    return looking, go_on


async def test_the_desk_is_taken_until_a_guess_was_looked_at_whoever_gave_up_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house(tmp_path) as at:
        code, changed = at.desk.code, asyncio.Event()
        assert code is not None
        at.desk.changed = changed.set
        with monkeypatch.context() as patched:
            looking, go_on = held_up(patched)
            async with Visitor().at_desk(at) as socket:
                await socket.send_bytes(Visitor().exchange(at, wrong(code)).start())
                await asyncio.to_thread(looking.wait, 20)
            with pytest.raises(PairingFailed, match="pairing with somebody else"):
                await Visitor().pair(at, code)
            assert at.desk.code == code
            go_on.set()
            async with asyncio.timeout(20):
                await changed.wait()
        assert (at.desk.failures, at.desk.code == code) == (1, False)
        await Visitor().pair(at)


async def test_an_attempt_that_is_cancelled_while_it_is_looked_at_was_a_guess(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Socket:
        closed = False

        def __init__(self, frame: bytes) -> None:
            self._frame = frame

        async def receive(self) -> aiohttp.WSMessage:
            return aiohttp.WSMessage(aiohttp.WSMsgType.BINARY, self._frame, None)

    async with house(tmp_path) as at:
        code = at.desk.code
        assert code is not None
        looking, go_on = held_up(monkeypatch)
        socket: Any = Socket(Visitor().exchange(at, wrong(code)).start())
        serving = asyncio.create_task(at.desk.serve(socket, lambda: None))
        await asyncio.to_thread(looking.wait, 20)
        serving.cancel()
        await asyncio.sleep(0)
        with pytest.raises(PairingFailed):
            at.desk.begin()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await serving
        assert (at.desk.failures, at.desk.code == code) == (1, False)


async def test_frames_of_another_pairing_are_worth_nothing(tmp_path: Path) -> None:
    glasses = Visitor()
    async with house(tmp_path) as at:
        assert at.desk.code is not None
        exchange = glasses.exchange(at, at.desk.code)
        said = [exchange.start()]
        async with glasses.at_desk(at) as socket:
            await socket.send_bytes(said[0])
            step = exchange.receive(await heard(socket))
            assert step.send is not None
            said.append(step.send)
            await socket.send_bytes(said[1])
            exchange.receive(await heard(socket))
            said.append(exchange.stored())
            await socket.send_bytes(said[2])
            await heard(socket)
        await at.guard.unpair(at.guard.registry.all()[0].device)
        async with glasses.at_desk(at) as socket:
            await socket.send_bytes(said[0])
            await heard(socket)
            await socket.send_bytes(said[1])
            assert await heard(socket) == bytes((0, 0)), "refused as wrong"
        assert not at.guard.registry.all()


@pytest.mark.parametrize("frame", [b"", b"\x01", b"\x06", b"\x01\x09\x00" + bytes(65), b"x" * 4096])
async def test_who_does_not_speak_of_pairing_spends_no_code(tmp_path: Path, frame: bytes) -> None:
    async with house(tmp_path) as at:
        code = at.desk.code
        async with Visitor().at_desk(at) as socket:
            await socket.send_bytes(frame)
            assert (await heard(socket))[0] == 0
        assert at.desk.code == code
        async with Visitor().at_desk(at) as socket:
            await socket.send_str("hello")
            assert (await heard(socket))[0] == 0
        await Visitor().pair(at)


async def test_an_attempt_that_is_broken_off_spends_the_code(tmp_path: Path) -> None:
    glasses = Visitor()
    async with house(tmp_path) as at:
        code, changed = at.desk.code, asyncio.Event()
        assert code is not None
        at.desk.changed = changed.set
        async with glasses.at_desk(at) as socket:
            await socket.send_bytes(glasses.exchange(at, code).start())
            await heard(socket)
        async with asyncio.timeout(60):
            await changed.wait()
        assert (at.desk.failures, at.desk.code == code) == (1, False)


async def test_an_attempt_that_never_ends_is_ended(tmp_path: Path) -> None:
    glasses = Visitor()
    async with house(tmp_path, pairing_timeout_s=0.2) as at:
        assert at.desk.code is not None
        async with glasses.at_desk(at) as socket:
            await socket.send_bytes(glasses.exchange(at, at.desk.code).start())
            # First there is an answer, unless a busy machine ends it before.
            with pytest.raises(PairingFailed):
                [await heard(socket) for _ in range(2)]
        at.box.config = dataclasses.replace(at.box.config, pairing_timeout_s=60.0)
        await glasses.pair(at)


async def test_a_device_that_cannot_be_kept_is_told_so(tmp_path: Path) -> None:
    glasses = Visitor()
    async with house(tmp_path) as at:
        (tmp_path / "state" / "devices.json").mkdir()
        with pytest.raises(PairingFailed, match="could not keep the pairing"):
            await glasses.pair(at)
        assert at.guard.registry.get(glasses.id) is None
        (tmp_path / "state" / "devices.json").rmdir()
        await glasses.pair(at)


async def test_a_certificate_that_tls_does_not_take_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise IdentityError("not a certificate")

    glasses = Visitor()
    async with house(tmp_path) as at:
        with monkeypatch.context() as patched:
            patched.setattr(guard, "trust", refuse)
            with pytest.raises(PairingFailed, match="does not speak"):
                await glasses.pair(at)
        assert not at.guard.registry.all()
        await glasses.pair(at)
    async with house(tmp_path) as at:
        assert len(at.guard.registry.all()) == 1, "and the box starts again"


async def test_a_name_that_is_longer_in_its_normal_form_is_not_kept(tmp_path: Path) -> None:
    glasses = Visitor()
    async with house(tmp_path) as at, glasses.at_desk(at) as socket:
        exchange = glasses.exchange(at, at.desk.code or "")
        # 64 bytes, and 192 when normal: such a file would not be believed when the box starts.
        exchange._name = "\U0001d160" * 16
        with pytest.raises(PairingFailed, match="does not speak"):
            await granted(socket, exchange)
        assert not at.guard.registry.all()


async def test_nonsense_at_the_desk_leaves_nobody_uncounted(tmp_path: Path) -> None:
    async with (
        house(tmp_path, max_guests_per_address=4) as at,
        contextlib.AsyncExitStack() as stack,
    ):
        # Each is refused at once, and does not hang up.
        for _ in range(4):
            socket = await stack.enter_async_context(Visitor().at_desk(at))
            await socket.send_bytes(b"\x01")
            assert (await heard(socket))[0] == 0
            assert len(at.door.guests) >= 1
        assert len(at.door.guests) == 4


async def test_pairing_anew_gives_a_new_token_and_the_old_one_is_nothing(tmp_path: Path) -> None:
    glasses = Visitor()
    async with house(tmp_path) as at:
        await glasses.pair(at)
        old = glasses.token
        await glasses.pair(at)
        assert len(at.guard.registry.all()) == 1
        assert (await glasses.refused(at, Authorization=f"Bearer {old}"))[0] == 401


async def test_who_holds_the_desk_gives_way_to_no_crowd(tmp_path: Path) -> None:
    glasses = Visitor()
    async with house(tmp_path, max_guests_per_address=4) as at, glasses.at_desk(at) as socket:
        assert at.desk.code is not None
        exchange = glasses.exchange(at, at.desk.code)
        await socket.send_bytes(exchange.start())
        step = exchange.receive(await heard(socket))
        crowd = [await asyncio.open_connection("127.0.0.1", at.port) for _ in range(20)]
        assert step.send is not None
        await socket.send_bytes(step.send)
        exchange.receive(await heard(socket))
        await socket.send_bytes(exchange.stored())
        assert exchange.receive(await heard(socket)).done
        assert len(at.door.guests) <= 4
        for _, writer in crowd:
            writer.transport.abort()


async def test_the_desk_hears_nothing_before_its_own_protocol(tmp_path: Path) -> None:
    async with house(tmp_path) as at, Visitor().http(at, shows=False) as http:
        async with http.get(at.url("/pair")) as answer:
            assert answer.status == 426
        async with http.post(at.url("/pair")) as answer:
            assert answer.status == 405
