"""Relays between clients and brokers, whose connections can be cut, refused and silenced.

Brokers tell their clients to come to 127.0.0.2, where a relay listens on each broker's port and
passes on to the broker itself at 127.0.0.1 (Linux answers on all of 127.0.0.0/8). Brokers speak to
each other the same way, so a cut is one for them too.
"""

import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Literal

import anyio
from anyio.abc import SocketStream

Mode = Literal["open", "refused", "silent"]
HERE, THERE = "127.0.0.2", "127.0.0.1"
ADVERTISED = {"advertised.listeners": f"PLAINTEXT://{HERE}:{{port}}"}
_GONE = (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError, OSError)


class Relay:
    """Passes bytes between clients and one broker.

    Args:
        port: The broker's, and its own.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._mode: Mode = "open"
        self._opened = anyio.Event()
        self._open: set[anyio.CancelScope] = set()

    @property
    def address(self) -> str:
        """Where clients come."""
        return f"{HERE}:{self._port}"

    def set(self, mode: Mode) -> None:
        """Pass on, refuse, or fall silent: connections stay and nothing comes through.

        Refusing cuts what is open. So does opening again after a silence, as a router does that has
        forgotten its connections.
        """
        if mode == "refused" or self._mode == "silent":
            for scope in list(self._open):
                scope.cancel()
        self._mode = mode
        if mode == "open":
            self._opened.set()
            self._opened = anyio.Event()

    async def serve(self) -> None:
        """Pass on until cancelled."""
        listener = await anyio.create_tcp_listener(local_host=HERE, local_port=self._port)
        async with listener:
            await listener.serve(self._connection)

    async def _connection(self, client: SocketStream) -> None:
        with anyio.CancelScope() as scope, suppress(*_GONE):
            self._open.add(scope)
            try:
                async with client:
                    if self._mode != "refused":
                        await self._pass_on(client)
            finally:
                self._open.discard(scope)

    async def _pass_on(self, client: SocketStream) -> None:
        async with (
            await anyio.connect_tcp(THERE, self._port) as broker,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(self._pump, client, broker, tasks.cancel_scope)
            tasks.start_soon(self._pump, broker, client, tasks.cancel_scope)

    async def _pump(
        self, source: SocketStream, target: SocketStream, both: anyio.CancelScope
    ) -> None:
        with suppress(*_GONE):
            while True:
                data = await source.receive()
                while self._mode == "silent":
                    await self._opened.wait()
                await target.send(data)
        both.cancel()


def ports_in_a_row(count: int) -> list[int]:
    """Return ports that follow each other, on which nobody listens just now.

    Raises:
        OSError: There are none.
    """
    for first in range(23_000, 32_000, count):
        ports = list(range(first, first + count))
        if all(_is_free(host, port) for host in (HERE, THERE) for port in ports):
            return ports
    raise OSError(f"{count} free ports in a row: expected some between 23000 and 32000")


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


@asynccontextmanager
async def relayed(ports: Sequence[int]) -> AsyncIterator[list[Relay]]:
    """Run a relay before each of some brokers."""
    relays = [Relay(port) for port in ports]
    async with AsyncExitStack() as stack:
        tasks = await stack.enter_async_context(anyio.create_task_group())
        for relay in relays:
            tasks.start_soon(relay.serve)
        try:
            yield relays
        finally:
            tasks.cancel_scope.cancel()
