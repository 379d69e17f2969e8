"""A Triton server as a member sees it, over gRPC. Lives on the event loop of the remote engines."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import structlog
import tritonclient.grpc.aio as grpc_client
from tritonclient.utils import InferenceServerException

from roadstream.schemas.errors import ConfigError, DeviceMemoryError, EngineDownError, EngineError
from roadstream.schemas.settings.triton import TritonSettings
from roadstream.workers.engines.nearby import on_this_machine
from roadstream.workers.engines.triton.contract import Contract, Served, Tensor, agree
from roadstream.workers.engines.triton.faults import fault_of
from roadstream.workers.engines.triton.memory import Region

T = TypeVar("T")
logger = structlog.get_logger()
# A healthy server tells of itself at once; one that is starting may take some seconds.
ASKING = 5.0
# Between two looks at a server that is not there yet.
PAUSE = 0.2
# A region is in use for a moment after the answer that it was used for.
RELEASING = 1.0
_CHANNEL = [
    # Batches are cut to what the model takes; gRPC's own 4 MiB would be two large pictures.
    ("grpc.max_send_message_length", (1 << 31) - 1),
    ("grpc.max_receive_message_length", (1 << 31) - 1),
    # Requests fail at once while gRPC waits to connect anew, by default for up to two minutes. A
    # server that is back is to be found by the next trial of the member's circuit breaker.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 250),
]


def _channel(url: str) -> list[tuple[str, int]]:
    """Return the options of a channel; a server on this machine is reached without a proxy."""
    host = url.rpartition(":")[0]
    return [*_CHANNEL, ("grpc.enable_http_proxy", int(not on_this_machine(host)))]


class LateError(Exception):
    """A request's time was over before its answer came."""


class LostRegionError(Exception):
    """The server knows a region of shared memory no more."""


class Target(NamedTuple):
    """Which model of which server, for whom.

    Attributes:
        model: Its name.
        size: Width and height in pixels of the member's pictures.
        where: Names the member in errors.
        folder: What file names in the settings are relative to.
    """

    model: str
    size: tuple[int, int]
    where: str
    folder: Path


class Server:
    """One member's connection.

    Args:
        settings: The member's.
        target: What it asks for.

    Attributes:
        epoch: Counts the times that the server was found to be in order: what it was told before,
            such as regions of shared memory, may be unknown to it now.
    """

    def __init__(self, settings: TritonSettings, target: Target) -> None:
        self._settings, self._target = settings, target
        self._client = grpc_client.InferenceServerClient(
            settings.url, channel_args=_channel(settings.url), **_tls(settings, target)
        )
        self._checking = asyncio.Lock()
        self._contract: Contract | None = None
        self._loaded = False
        self.epoch = 0
        version = f" version {settings.version}" if settings.version else ""
        self._what = f"model {target.model}{version} on triton at {settings.url}"
        self._where = f"{target.where}: {self._what}"

    async def wait(self, seconds: float) -> Contract:
        """Return how to ask the model, as soon as it can be asked.

        Raises:
            ConfigError: The server has no such model, or another kind of model.
            EngineDownError: The server is not there after ``seconds``.
        """
        until = time.monotonic() + seconds
        waiting = False
        while True:
            try:
                return await self.ready()
            except EngineDownError as error:
                if time.monotonic() >= until:
                    raise
                if not waiting:
                    logger.warning("triton_awaited", error=str(error), seconds=seconds)
                waiting = True
                await asyncio.sleep(PAUSE)

    async def ready(self) -> Contract:
        """Return how to ask the model; look at the server first unless it is known to be well.

        Raises:
            ConfigError: The server has no such model, or another kind of model.
            EngineDownError: The server or the model is not ready.
        """
        async with self._checking:
            if self._contract is None:
                await self._look()
                self._contract = await self._describe()
                self.epoch += 1
            return self._contract

    async def infer(
        self, inputs: list[Any], outputs: tuple[str, ...], timeout: float
    ) -> dict[str, Any]:
        """Ask the model once; cancel the request when its time is over.

        Args:
            inputs: ``InferInput`` objects.
            outputs: Names of the outputs that are wanted.
            timeout: Seconds, above 0; told to the server too, so that it drops the request from
                its queue by then.

        Returns:
            Per output an array.

        Raises:
            LateError: The time was over.
            LostRegionError: The server knows the shared memory of an input no more.
            EngineDownError: The server or the model is away.
            DeviceMemoryError: The request does not fit into memory, or into a message.
            EngineError: The server refused the request.
        """
        wanted = [grpc_client.InferRequestedOutput(name) for name in outputs]
        settings = self._settings
        try:
            result = await self._client.infer(
                self._target.model,
                inputs,
                model_version=settings.version,
                outputs=wanted,
                client_timeout=timeout,
                timeout=max(1, int(timeout * 1e6)),
            )
        except InferenceServerException as error:
            raise self._failed(error) from error
        return {name: result.as_numpy(name) for name in outputs}

    def doubt(self) -> None:
        """Look at the server before the next request: it has not answered one in time."""
        self._contract = None

    async def register(self, region: Region) -> None:
        """Tell the server of shared memory.

        Raises:
            EngineDownError: The server is away.
            EngineError: It cannot open it.
        """
        await self._ask(
            self._client.register_system_shared_memory, region.name, region.key, region.size
        )

    async def unregister(self, region: Region) -> None:
        """Let the server forget shared memory, if it is there and knows it."""
        until = time.monotonic() + RELEASING
        while True:
            try:
                await self._ask(self._client.unregister_system_shared_memory, region.name)
                return
            except (EngineDownError, LostRegionError):
                return  # a server that is away or began anew has no regions
            except EngineError as error:
                if time.monotonic() >= until:
                    logger.debug("triton_unregister_failed", region=region.name, error=str(error))
                    return
            await asyncio.sleep(0.01)

    async def close(self) -> None:
        """Unload the model if that is wanted, and hang up."""
        if self._loaded and self._settings.unload:
            try:
                await self._ask(self._client.unload_model, self._target.model)
            except EngineError as error:
                logger.warning("triton_unload_failed", what=self._what, error=str(error))
        await self._client.close()

    async def _look(self) -> None:
        """Check that server and model are ready; load the model if that is wanted."""
        if await self._model_ready():
            return
        if self._settings.load:
            await self._load()
            if await self._model_ready():
                return
        ready = await self._ask(self._client.is_server_ready)
        raise EngineDownError(
            f"{self._what} is not ready"
            + ("" if ready else ", nor is the server")
            + await self._reason()
        )

    async def _model_ready(self) -> bool:
        if not await self._ask(self._client.is_server_live):
            raise EngineDownError(f"triton at {self._settings.url} is not live")
        client, target = self._client, self._target
        ready = await self._ask(client.is_model_ready, target.model, self._settings.version)
        return bool(ready)

    async def _load(self) -> None:
        began = time.monotonic()
        logger.info("triton_loading", what=self._what)
        load = self._client.load_model
        try:
            await self._ask(load, self._target.model, timeout=self._settings.load_timeout)
        except EngineDownError:
            raise
        except EngineError as error:
            raise ConfigError(self._where, "a model that the server can load", str(error)) from None
        self._loaded = True
        logger.info("triton_loaded", what=self._what, seconds=time.monotonic() - began)

    async def _reason(self) -> str:
        """Return what the server says of a model that is not ready, or nothing."""
        index = await self._ask(self._client.get_model_repository_index)
        found = [entry for entry in index.models if entry.name == self._target.model]
        if not found:
            there = ", ".join(sorted({entry.name for entry in index.models})) or "none"
            raise ConfigError(self._where, f"one of the server's models ({there})", "no such model")
        states = [f"{e.version} {e.state} {e.reason}".strip() for e in found]
        said = "; ".join(state for state in states if state)
        hint = "" if said or self._settings.load else "; settings.load would load it"
        return f": {said}{hint}" if said else f": it is not loaded{hint}"

    async def _describe(self) -> Contract:
        """Read what the model takes and gives, and compare it with what the member asks."""
        client, name, version = self._client, self._target.model, self._settings.version
        told = await self._ask(client.get_model_metadata, name, version)
        config = (await self._ask(client.get_model_config, name, version)).config
        served = Served(
            tuple(Tensor(t.name, t.datatype, tuple(t.shape)) for t in told.inputs),
            tuple(Tensor(t.name, t.datatype, tuple(t.shape)) for t in told.outputs),
            config.max_batch_size,
            config.parameters["sha256"].string_value if "sha256" in config.parameters else None,
        )
        return agree(served, self._settings, self._target.size, self._where)

    async def _ask(
        self, call: Callable[..., Awaitable[T]], *args: Any, timeout: float = ASKING
    ) -> T:
        """Make a call other than inference.

        Raises:
            EngineDownError: The server is away, or does not answer in time.
            EngineError: It refuses.
        """
        try:
            return await call(*args, client_timeout=timeout)
        except InferenceServerException as error:
            failed = self._failed(error)
        if isinstance(failed, LateError):
            raise EngineDownError(f"{self._what}: no answer within {timeout:g} s")
        raise failed

    def _failed(self, error: Any) -> Exception:
        """Return what an error of the client means here."""
        said = " ".join(str(error.message() or error.status()).split())
        match fault_of(error):
            case "away":
                self._contract = None
                return EngineDownError(f"{self._what}: {said}")
            case "late":
                return LateError(said)
            case "region":
                self._contract = None
                return LostRegionError(said)
            case "memory":
                return DeviceMemoryError(f"{self._what}: {said}")
            case "refused":
                return EngineError(f"{self._what}: {said}")


def _tls(settings: TritonSettings, target: Target) -> dict[str, Any]:
    """Return the client's arguments for an encrypted connection."""
    if not settings.tls:
        return {}
    files = {"ca": settings.ca, "certificate": settings.certificate, "key": settings.key}
    paths: dict[str, str | None] = {}
    for key, name in files.items():
        path = None if name is None else target.folder / name
        if path is not None and not path.is_file():
            where = f"{target.where}: settings.{key}"
            raise ConfigError(where, "a PEM file", f"{path}, which does not exist")
        paths[key] = None if path is None else str(path)
    return {
        "ssl": True,
        "root_certificates": paths["ca"],
        "certificate_chain": paths["certificate"],
        "private_key": paths["key"],
    }
