"""The public API with a real edge process, over real sockets."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import torch
from aiohttp import web
from torch import nn

import ionn_client
from ionn_client import Options, Profiled, local, prepare
from ionn_client.emulate import LinkProcess, LinkSpec
from ionn_client.processes import EdgeProcess
from layergraph import InvalidInput
from planner import Link
from tests.support import know_box, quick_edge
from wire import encode, messages

# A device so slow that the edge always pays, and is waited for however busy this machine is.
SLOW = Options(
    device_slowdown=2000.0, assumed_link=Link(1e7, 1e7, 0.001), profile_runs=1, hedging=False
)
NOWHERE = "ionn://127.0.0.1:9"


class TwoHeads(nn.Module):
    """Two inputs, a skip connection, a dict of results: nothing that is a plain chain."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(64, 256)
        self.second = nn.Linear(256, 256)
        self.third = nn.Linear(256, 10)

    def forward(self, x: torch.Tensor, scale: torch.Tensor) -> dict[str, torch.Tensor]:
        hidden = self.first(x).relu()
        deeper = self.second(hidden).relu() + hidden
        return {"logits": self.third(deeper) * scale, "features": hidden}


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return TwoHeads().eval()


ARGS = (torch.linspace(-1, 1, 64).reshape(1, 64), torch.tensor(2.0))


@pytest.fixture(scope="module")
def profiled(model: nn.Module) -> Profiled:
    return prepare(model, ARGS, options=SLOW)


def assert_equal(ours: Any, reference: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == reference.keys()
    for name, tensor in reference.items():
        assert torch.equal(ours[name], tensor), name


async def failed(net: ionn_client.Offload) -> None:
    """Until the first attempt to reach the edge has failed, however busy this machine is."""
    async with asyncio.timeout(60):
        while net.status.error is None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_answers_that_are_there_at_once_keep_nobody_else_waiting(
    model: nn.Module, profiled: Profiled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "BRIEF_S", 60.0)
    before, turns = torch.get_num_threads(), 0
    torch.set_num_threads(1)

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    with torch.inference_mode():
        reference = model(*ARGS)
    async with ionn_client.connect(profiled, ARGS, edge=NOWHERE, options=Options()) as net:
        assert_equal(await net(*ARGS), reference)
        other = asyncio.create_task(others())
        for _ in range(20):
            assert_equal(await net(*ARGS), reference)
        other.cancel()
    torch.set_num_threads(before)
    assert turns >= 20


async def test_answers_before_during_and_after_the_upload_equal_the_models(
    model: nn.Module, edge: EdgeProcess
) -> None:
    with torch.inference_mode():
        reference = model(*ARGS)
    async with ionn_client.connect(model, ARGS, edge=edge.address, options=SLOW) as net:
        assert_equal(await net(*ARGS), reference)
        await net.uploaded(timeout_s=60)
        result = await net.query(*ARGS, deadline_s=60)
        assert_equal(result.value, reference)
        assert result.served_by in ("edge", "both")
        assert result.fallback_reason is None
        status = net.status
        assert status.phase == "ready"
        assert status.uploaded_layers == status.weighted_layers == 3
        assert status.held_bytes == status.total_bytes


async def test_a_second_visit_sends_nothing(profiled: Profiled, edge: EdgeProcess) -> None:
    for _ in range(2):
        async with ionn_client.connect(profiled, ARGS, edge=edge.address, options=SLOW) as net:
            await net.uploaded(timeout_s=60)
            status = net.status
    assert status.sent_bytes == 0
    assert status.skipped_bytes == status.total_bytes


async def test_two_devices_that_upload_one_model_help_each_other(edge: EdgeProcess) -> None:
    torch.manual_seed(0)
    twins = nn.Sequential(*[nn.Linear(512, 512, bias=False) for _ in range(4)]).eval()
    x = torch.randn(1, 512)
    shared = prepare(twins, (x,), options=SLOW)
    with torch.inference_mode():
        reference = twins(x)
    # So far apart that a busy machine does not make them equal.
    seen: dict[str, list[dict[str, Any]]] = {"32mbit": [], "4mbit": []}

    async def upload(rate: str) -> ionn_client.Status:
        options = Options(
            device_slowdown=400.0, profile_runs=1, silence_s=10.0, trace=seen[rate].append
        )
        with LinkProcess(LinkSpec.parse(rate, rtt="10ms"), edge.address) as link:
            address = f"{link.host}:{link.port}"
            async with ionn_client.connect(shared, (x,), edge=address, options=options) as net:
                await net.uploaded(timeout_s=60)
                assert torch.equal(await net(x), reference)
                return net.status

    statuses = await asyncio.gather(*map(upload, seen))
    for records in seen.values():
        phases = [record["phase"] for record in records if record["event"] == "phase"]
        assert phases == ["greeting", "offering", "uploading", "ready", "closed"]
    for status in statuses:
        assert status.held_bytes == status.total_bytes
        assert status.resent_bytes == 0
    # Whoever of them was faster, or there first: the other one need not send that.
    assert sum(each.skipped_bytes for each in statuses) > 0.3 * statuses[0].total_bytes


async def test_many_queries_at_once_get_their_own_answers(
    model: nn.Module, profiled: Profiled, edge: EdgeProcess
) -> None:
    inputs = [(ARGS[0] * k, ARGS[1]) for k in range(1, 9)]
    with torch.inference_mode():
        references = [model(*args) for args in inputs]
    async with ionn_client.connect(profiled, ARGS, edge=edge.address, options=SLOW) as net:
        await net.uploaded(timeout_s=60)
        answers = await asyncio.gather(*(net(*args) for args in inputs))
    for answer, reference in zip(answers, references, strict=True):
        assert_equal(answer, reference)


async def test_without_an_edge_queries_are_answered_here_and_the_status_says_why(
    profiled: Profiled,
) -> None:
    async with ionn_client.connect(profiled, ARGS, edge=NOWHERE) as net:
        result = await net.query(*ARGS)
        assert result.served_by == "client"
        await failed(net)
        with pytest.raises(ionn_client.EdgeUnreachable, match="no edge at ionn://127"):
            await net.uploaded(timeout_s=0.1)
        assert net.status.phase == "connecting"
        assert "no edge at" in (net.status.error or "")
        assert "all here" in net.status.reason


async def test_inputs_unlike_the_example_are_refused_clearly(profiled: Profiled) -> None:
    async with ionn_client.connect(profiled, ARGS, edge=NOWHERE) as net:
        with pytest.raises(InvalidInput, match=r"\[1, 64\]"):
            await net(torch.zeros(2, 64), ARGS[1])
        with pytest.raises(InvalidInput, match="float32"):
            await net(ARGS[0].double(), ARGS[1])
        with pytest.raises(InvalidInput):
            await net(ARGS[0])
        with pytest.raises(ValueError, match="deadline_s"):
            await net.query(*ARGS, deadline_s=0)
        with pytest.raises(ValueError, match="deadline_s"):
            await net.query(*ARGS, deadline_s=float("inf"))
        assert (await net.query(*ARGS)).served_by == "client"


async def test_a_deadline_that_nobody_can_keep_is_the_callers_error(profiled: Profiled) -> None:
    options = Options(device_slowdown=1e4, profile_runs=1)
    async with ionn_client.connect(profiled, ARGS, edge=NOWHERE, options=options) as net:
        with pytest.raises(ionn_client.DeadlineExceeded):
            await net.query(*ARGS, deadline_s=0.01)


async def test_an_edge_killed_or_stopped_costs_no_answer_and_the_upload_resumes(
    model: nn.Module, profiled: Profiled, tmp_path: Path
) -> None:
    with torch.inference_mode():
        reference = model(*ARGS)
    store = str(tmp_path)
    spec = LinkSpec.parse("2mbit", rtt="2ms")
    edge = quick_edge(store).__enter__()
    port = int(edge.address.rpartition(":")[2])
    try:
        with LinkProcess(spec, edge.address) as link:
            address = f"{link.host}:{link.port}"
            options = Options(device_slowdown=200.0, profile_runs=1)
            async with ionn_client.connect(profiled, ARGS, edge=address, options=options) as net:
                while net.status.held_bytes < net.status.total_bytes // 3:
                    assert_equal(await net(*ARGS), reference)
                held = net.status.held_bytes
                edge.kill()
                assert_equal(await net(*ARGS), reference)
                edge = await asyncio.to_thread(quick_edge(store, port).__enter__)
                await net.uploaded(timeout_s=60)
                assert_equal(await net(*ARGS), reference)
                status = net.status
                # One that is stopped says so.
                await asyncio.to_thread(edge.__exit__, None, None, None)
                result = await net.query(*ARGS)
                assert_equal(result.value, reference)
                assert result.served_by == "client"
                assert net.status.phase == "connecting"
        assert status.resent_bytes <= 128 << 10
        # Coded, and nothing twice but what was on its way.
        assert 0.8 * status.total_bytes < status.sent_bytes - status.resent_bytes
        assert status.sent_bytes - status.resent_bytes < 0.98 * status.total_bytes
        assert held > 0
    finally:
        edge.__exit__(None, None, None)


async def test_an_edge_of_another_protocol_version_is_an_explained_stop(
    profiled: Profiled,
) -> None:
    async def other_version(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        await socket.receive_bytes()
        text = "no protocol version in common: the edge speaks versions 7 to 9"
        for frame in encode(messages.Error("version", text)):
            await socket.send_bytes(frame)
        await socket.close()
        return socket

    async with (
        _Server(other_version) as address,
        ionn_client.connect(profiled, ARGS, edge=address) as net,
    ):
        with pytest.raises(ionn_client.VersionMismatch, match="the edge speaks versions 7 to 9"):
            await net.uploaded(timeout_s=60)
        assert (await net.query(*ARGS)).served_by == "client"
        assert net.status.phase == "rejected"


@pytest.mark.parametrize("reply", [b"\xff\xff\xff", b"", "text"], ids=["junk", "empty", "text"])
async def test_a_server_that_is_no_edge_costs_no_answer(
    profiled: Profiled, reply: bytes | str
) -> None:
    async def junk(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        await (socket.send_str(reply) if isinstance(reply, str) else socket.send_bytes(reply))
        async for _ in socket:
            pass
        return socket

    async with (
        _Server(junk) as address,
        ionn_client.connect(profiled, ARGS, edge=address) as net,
    ):
        await failed(net)
        with pytest.raises(ionn_client.EdgeUnreachable, match="the edge"):
            await net.uploaded(timeout_s=0.1)
        assert (await net.query(*ARGS)).served_by == "client"


async def test_a_trace_that_fails_costs_no_answer(profiled: Profiled) -> None:
    told: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))

    def full_disk(_: dict[str, object]) -> None:
        raise OSError("no space left on device")

    options = ionn_client.Options(trace=full_disk)
    async with ionn_client.connect(profiled, ARGS, edge="127.0.0.1:9", options=options) as net:
        assert (await net.query(*ARGS)).served_by == "client"
    assert [context["message"] for context in told] == [
        "Options.trace failed; nothing more is traced"
    ]


async def test_a_plain_web_server_is_no_edge(profiled: Profiled) -> None:
    async def page(_: web.Request) -> web.Response:
        return web.Response(text="hello")

    async with (
        _Server(page) as address,
        ionn_client.connect(profiled, ARGS, edge=address) as net,
    ):
        await failed(net)
        with pytest.raises(ionn_client.EdgeUnreachable, match="no edge at"):
            await net.uploaded(timeout_s=0.1)


async def test_a_server_that_never_answers_is_given_up_and_tried_again(
    profiled: Profiled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ionn_client.boxes.connection.CONNECT_TIMEOUT_S", 0.1)
    accepted: list[asyncio.StreamWriter] = []
    twice = asyncio.Event()

    async def freeze(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.append(writer)
        if len(accepted) == 2:
            twice.set()

    async with await asyncio.start_server(freeze, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with ionn_client.connect(profiled, ARGS, edge=f"127.0.0.1:{port}") as net:
            await asyncio.wait_for(twice.wait(), 60)
            assert "no answer" in (net.status.error or "")
            assert (await net.query(*ARGS)).served_by == "client"
        for writer in accepted:
            writer.close()


async def test_a_host_name_that_cannot_be_is_only_an_unreachable_edge(
    profiled: Profiled, tmp_path: Path
) -> None:
    know_box(tmp_path, f"ionn://{'a' * 70}:1")
    async with ionn_client.connect(
        profiled, ARGS, edge="box", options=Options(state=tmp_path)
    ) as net:
        await failed(net)
        with pytest.raises(ionn_client.EdgeUnreachable):
            await net.uploaded(timeout_s=0.1)
        assert (await net.query(*ARGS)).served_by == "client"


async def test_abandoned_queries_do_not_keep_the_device_busy(profiled: Profiled) -> None:
    # The model takes about half a second on this device; nobody waits longer than 50 ms. They are
    # so many that a busy machine does not take as long.
    abandoned = 60
    slowdown = 0.5 / sum(profiled.client_s)
    options = Options(device_slowdown=slowdown, profile_runs=1)
    async with ionn_client.connect(profiled, ARGS, edge=NOWHERE, options=options) as net:
        late = await asyncio.gather(
            *(net.query(*ARGS, deadline_s=0.05) for _ in range(abandoned)),
            return_exceptions=True,
        )
        assert {type(error) for error in late} == {ionn_client.DeadlineExceeded}
        result = await net.query(*ARGS)
    # Abandoned runs of half a second each would be in front of it.
    assert result.latency_s < abandoned * 0.5 / 2


async def test_a_closed_session_says_so(profiled: Profiled) -> None:
    async with ionn_client.connect(profiled, ARGS, edge=NOWHERE) as net:
        pass
    with pytest.raises(ionn_client.OffloadError, match="closed"):
        await net(*ARGS)


async def test_one_that_was_never_entered_says_so(profiled: Profiled) -> None:
    net = ionn_client.connect(profiled, ARGS, edge=NOWHERE)
    for use in (lambda: net(*ARGS), net.uploaded, net.forget):
        with pytest.raises(RuntimeError, match="inside `async with"):
            await use()
    for look in (lambda: net.status, lambda: net.graph):
        with pytest.raises(RuntimeError, match="inside `async with"):
            look()


def test_the_blocking_api_says_that_it_was_not_entered_or_was_left(profiled: Profiled) -> None:
    net = ionn_client.connect_sync(profiled, ARGS, edge=NOWHERE)
    with pytest.raises(RuntimeError, match="inside `with"):
        net(*ARGS)
    with net:
        net(*ARGS)
    for late in (net.query, net.forget, net.uploaded, lambda: net.status):
        with pytest.raises(RuntimeError, match="inside `with"):
            late()


@pytest.mark.parametrize("edge", [None, 7431, ("127.0.0.1", 7431)])
def test_an_edge_that_is_no_text_is_refused_at_once(profiled: Profiled, edge: Any) -> None:
    for connected in (ionn_client.connect, ionn_client.connect_sync):
        with pytest.raises(ValueError, match="edge is a paired box's name, or an address"):
            connected(profiled, ARGS, edge=edge)


@pytest.mark.parametrize(
    ("model", "args", "message"),
    [
        (nn.Linear(3, 2), torch.ones(1, 3), r"\(x,\) and no Tensor"),
        (nn.Linear(3, 2), "x", "and no str"),
        (nn.Linear(3, 2), None, "and no NoneType"),
        (lambda x: x, (torch.ones(1, 3),), "and no function"),
        (nn.Linear, (torch.ones(1, 3),), "and no type"),
    ],
)
def test_another_kind_of_model_or_inputs_is_refused_at_once(
    model: Any, args: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ionn_client.connect(model, args, edge=NOWHERE)


def test_the_blocking_api_gives_the_same(model: nn.Module, edge: EdgeProcess) -> None:
    with torch.inference_mode():
        reference = model(*ARGS)
    with ionn_client.connect_sync(model, ARGS, edge=edge.address, options=SLOW) as net:
        assert_equal(net(*ARGS), reference)
        net.uploaded(timeout_s=60)
        assert_equal(net.query(*ARGS).value, reference)
        assert net.status.phase == "ready"


@pytest.mark.parametrize(
    "address",
    ["", "ionn://", "http://127.0.0.1:7431", "127.0.0.1:port", "ionn://h:99999", "ionn://h/path",
     "ionn://user@h"],
)  # fmt: skip
def test_a_malformed_address_is_refused_at_once(model: nn.Module, address: str) -> None:
    with pytest.raises(ValueError, match="address"):
        ionn_client.connect(model, ARGS, edge=address)


class _Server:
    """An aiohttp server on loopback that is not an edge."""

    def __init__(self, handler: Any) -> None:
        self._app = web.Application()
        self._app.router.add_get("/ionn", handler)

    async def __aenter__(self) -> str:
        self._runner = web.AppRunner(self._app, shutdown_timeout=0.1)
        await self._runner.setup()
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        await web.SockSite(self._runner, listener).start()
        return f"ionn://127.0.0.1:{listener.getsockname()[1]}"

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()


async def test_ps_lists_what_the_edge_holds(profiled: Profiled, edge: EdgeProcess) -> None:
    from ionn_client.boxes.access import Access
    from ionn_client.commands.ps import ask_load

    async with ionn_client.connect(profiled, ARGS, edge=edge.address, options=SLOW) as net:
        await net.uploaded(timeout_s=60)
        welcome, load = await ask_load(Access.to(edge.address))
        assert welcome.device == "cpu"
        (model_load,) = [m for m in load.models if m.fingerprint == net.graph.fingerprint]
        assert model_load.held_bytes == model_load.total_bytes
        assert model_load.clients == 1
    with pytest.raises(ionn_client.EdgeUnreachable):
        await ask_load(Access.to(NOWHERE))


async def test_http_get_says_what_the_box_is(edge: EdgeProcess) -> None:
    async with aiohttp.ClientSession() as http, http.get(f"http://{edge.address}/") as response:
        assert response.status == 200
        assert "ionn" in (await response.text()).lower()
