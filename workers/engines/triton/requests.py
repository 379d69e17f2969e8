"""From a batch to requests and back: cut, sent at once, each within its deadline."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import anyio
from anyio.from_thread import BlockingPortal
from numpy.typing import NDArray
from tritonclient.grpc import InferInput

from roadstream.schemas.errors import DeviceMemoryError, EngineDownError, EngineError, ImageError
from roadstream.schemas.settings.triton import TritonSettings
from roadstream.streams.clock import Clock
from roadstream.workers.engines.triton.contract import Contract
from roadstream.workers.engines.triton.memory import Region, is_local
from roadstream.workers.engines.triton.regions import Regions
from roadstream.workers.engines.triton.server import LateError, LostRegionError, Server

Answer = dict[str, NDArray[Any]]
EXPIRED = "the deadline passed before triton answered"


class PictureRange(NamedTuple):
    """What goes into one request: pictures ``begin`` to ``end`` of a batch."""

    begin: int
    end: int


class Request(NamedTuple):
    """One request: its input, the outputs wanted, its pictures' deadlines, seconds at most."""

    tensor: InferInput
    outputs: tuple[str, ...]
    deadlines: Sequence[float | None]
    timeout: float


class Requests:
    """Asks a server about batches. Thread-safe: each call is made in a thread of its own.

    Args:
        portal: Into the loop that ``server`` lives on.
        server: The member's connection.
        settings: The member's.
        clock: Wall clock for deadlines.
        member: For the log.
    """

    def __init__(
        self,
        portal: BlockingPortal,
        server: Server,
        settings: TritonSettings,
        clock: Clock,
        member: str,
    ) -> None:
        self._portal, self._server, self._settings = portal, server, settings
        self._clock = clock
        self._regions = Regions(
            lambda region: portal.call(server.register, region),
            lambda region: portal.call(server.unregister, region),
            member,
        )
        local = settings.shared_memory == "system" or is_local(settings.url)
        self._sharing = local and settings.shared_memory != "off" and settings.input == "tensor"

    def ask(
        self, data: NDArray[Any], deadlines: Sequence[float | None], timeout: float
    ) -> list[Answer | ImageError]:
        """Return per picture the outputs' values, or its fault.

        Args:
            data: uint8 [N, H, W, 3], or N JPEG files as objects.
            deadlines: Per picture, seconds since the epoch.
            timeout: Seconds after which a request is given up that no deadline ends before.

        Raises:
            ConfigError: The server has another kind of model by now.
            EngineDownError: The server or the model is away, or did not answer in time.
            DeviceMemoryError: A request does not fit into memory, or into a message.
            EngineError: The server refused a request.
        """
        if not len(data):
            return []
        try:
            return self._ask(data, deadlines, timeout)
        except LostRegionError:
            pass
        # The server was started anew between the look at it and the request.
        try:
            return self._ask(data, deadlines, timeout)
        except LostRegionError as error:
            said = f"triton at {self._settings.url} keeps forgetting its shared memory: {error}"
            raise EngineDownError(said) from error

    def close(self) -> None:
        """Give back the shared memory, and hang up."""
        try:
            self._regions.close()
        finally:
            self._portal.call(self._server.close)

    def _spans(self, count: int, contract: Contract) -> list[PictureRange]:
        most = contract.max_batch or count
        step = 1 if self._settings.batching == "server" else min(most, count)
        return [PictureRange(begin, min(begin + step, count)) for begin in range(0, count, step)]

    def _ask(
        self, data: NDArray[Any], deadlines: Sequence[float | None], timeout: float
    ) -> list[Answer | ImageError]:
        contract = self._portal.call(self._server.ready)
        spans = self._spans(len(data), contract)
        epoch, region = self._server.epoch, None
        if self._sharing:
            region = self._regions.take(data.nbytes, epoch)
        try:
            if region is None:
                inputs = [self._tensor(data[span.begin : span.end], contract) for span in spans]
            else:
                region.write(data)
                inputs = [self._reference(region, data, span, contract) for span in spans]
            requests = [
                Request(tensor, contract.outputs, deadlines[span.begin : span.end], timeout)
                for tensor, span in zip(inputs, spans, strict=True)
            ]
            return self._portal.call(self._all, requests)
        finally:
            if region is not None:
                self._regions.give(region, epoch)

    def _tensor(self, data: NDArray[Any], contract: Contract) -> InferInput:
        kind = "UINT8" if self._settings.input == "tensor" else "BYTES"
        shape = (len(data), *contract.per_picture)
        tensor = InferInput(self._settings.input_name, shape, kind)
        tensor.set_data_from_numpy(data.reshape(shape))
        return tensor

    def _reference(
        self, region: Region, data: NDArray[Any], span: PictureRange, contract: Contract
    ) -> InferInput:
        shape = (span.end - span.begin, *contract.per_picture)
        tensor = InferInput(self._settings.input_name, shape, "UINT8")
        each = data[0].nbytes
        tensor.set_shared_memory(region.name, shape[0] * each, offset=span.begin * each)
        return tensor

    async def _all(self, requests: Sequence[Request]) -> list[Answer | ImageError]:
        """Send all requests at once, on the loop; return what came of each picture."""
        results: list[list[Answer | ImageError] | Exception] = [[]] * len(requests)

        async def send(index: int) -> None:
            try:
                results[index] = await self._one(requests[index])
            except (EngineError, LostRegionError) as error:
                results[index] = error

        async with anyio.create_task_group() as tasks:
            for index in range(len(requests)):
                tasks.start_soon(send, index)
        return self._joined(results)

    def _joined(
        self, results: list[list[Answer | ImageError] | Exception]
    ) -> list[Answer | ImageError]:
        """Return what came of all pictures, in order; raise what concerns more than one."""
        for kind in (LostRegionError, EngineDownError, DeviceMemoryError):
            for result in results:
                if isinstance(result, kind):
                    raise result
        found: list[Answer | ImageError] = []
        for result in results:
            if not isinstance(result, Exception):
                found += result
            elif self._settings.batching == "server":
                found.append(ImageError("model_failed", str(result)))
            else:
                raise result
        return found

    async def _one(self, request: Request) -> list[Answer | ImageError]:
        """Send one request; wait for the answer as long as one of its pictures has time."""
        deadlines, timeout, hurried = request.deadlines, request.timeout, False
        if all(deadline is not None for deadline in deadlines):
            last = max(deadline for deadline in deadlines if deadline is not None)
            left = last - self._clock.now()
            timeout, hurried = min(timeout, left), left <= timeout
        try:
            if timeout <= 0:
                raise LateError
            outputs = await self._server.infer([request.tensor], request.outputs, timeout)
        except LateError as error:
            if hurried:
                return [ImageError("expired", EXPIRED) for _ in deadlines]
            self._server.doubt()
            said = f"no answer of triton at {self._settings.url} within {timeout:g} s: {error}"
            raise EngineDownError(said) from error
        return _rows(outputs, len(deadlines))


def _rows(outputs: dict[str, NDArray[Any]], count: int) -> list[Answer | ImageError]:
    """Return the outputs of each picture.

    Raises:
        EngineError: There is another number of them than there are pictures.
    """
    for name, values in outputs.items():
        if len(values) != count:
            raise EngineError(f"expected {count} values of {name}, got {len(values)}")
    return [{name: values[row] for name, values in outputs.items()} for row in range(count)]
