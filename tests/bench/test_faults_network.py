"""The relay of the fault campaign: it passes on, cuts, refuses, and falls silent."""

from contextlib import AsyncExitStack

import anyio
import anyio.lowlevel
import pytest
from anyio.abc import SocketStream

from roadstream.bench.faults.network import HERE, THERE, Relay, ports_in_a_row, relayed


async def echo(stream: SocketStream) -> None:
    async with stream:
        async for data in stream:
            await stream.send(data)


async def reached(port: int, stack: AsyncExitStack) -> SocketStream:
    """Connect as soon as somebody listens."""
    while True:
        try:
            return await stack.enter_async_context(await anyio.connect_tcp(HERE, port))
        except OSError:
            await anyio.lowlevel.checkpoint()


async def said(stream: SocketStream, word: bytes) -> bytes:
    await stream.send(word)
    return await stream.receive()


@pytest.fixture
def port() -> int:
    return ports_in_a_row(1)[0]


async def scenario(relay: Relay, port: int, stack: AsyncExitStack) -> None:
    first = await reached(port, stack)
    assert await said(first, b"a") == b"a"
    relay.set("refused")
    with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
        await said(first, b"b")
    refused = await reached(port, stack)
    with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
        await said(refused, b"c")
    relay.set("open")
    second = await reached(port, stack)
    assert await said(second, b"d") == b"d"
    relay.set("silent")
    await second.send(b"e")
    with anyio.move_on_after(0.05) as waited:
        await second.receive()
    assert waited.cancelled_caught
    relay.set("open")  # what was silent is cut: nobody knows it any more
    with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
        await said(second, b"f")
    third = await reached(port, stack)
    assert await said(third, b"g") == b"g"


async def test_it_passes_on_cuts_refuses_and_falls_silent(port: int) -> None:
    async with (
        await anyio.create_tcp_listener(local_host=THERE, local_port=port) as listener,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(listener.serve, echo)
        async with relayed([port]) as relays, AsyncExitStack() as stack:
            await scenario(relays[0], port, stack)
        tasks.cancel_scope.cancel()
