"""A network on its device, and how a batch goes through it: as it is, compiled, or as graphs."""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence

import structlog
import torch
from torch import Tensor

from roadstream.schemas.errors import DeviceMemoryError
from roadstream.schemas.settings.torch import TorchSettings
from roadstream.workers.engines.torch.device_link import CudaLink, DeviceLink
from roadstream.workers.engines.torch.memory import memory_told

logger = structlog.get_logger()

Tensors = dict[str, Tensor]
Call = Callable[[Tensors], Tensors]
# Dynamo keeps so many variants per function, and runs the rest uncompiled; functions are counted by
# their code, which all members of a family share.
VARIANTS = 128


class Buckets:
    """The batch sizes that a network is run with.

    Args:
        sizes: In any order; empty: every size as it comes.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes = sorted(set(sizes))

    @classmethod
    def up_to(cls, largest: int) -> "Buckets":
        """Return 1, 2, 4, … and ``largest``."""
        return cls([*(1 << i for i in range(largest.bit_length()) if 1 << i < largest), largest])

    def cut(self, size: int) -> Iterator[tuple[int, int, int]]:
        """Yield the parts of a batch: where each begins and ends, and the size it is run with."""
        if not self.sizes:
            yield 0, size, size
            return
        most = self.sizes[-1]
        for begin in range(0, size, most):
            end = min(begin + most, size)
            yield begin, end, self.sizes[bisect_left(self.sizes, end - begin)]


# Runs before recording, in which libraries choose kernels and take their workspaces.
REHEARSALS = 3


class Graph:
    """A function recorded as a CUDA graph for one batch size, with buffers of its own.

    Args:
        call: What is recorded. It must not wait for the device.
        inputs: Of the batch size that it is recorded for.
        link: To the device; a turn on it is held.
    """

    def __init__(
        self,
        call: Callable[[dict[str, Tensor]], dict[str, Tensor]],
        inputs: dict[str, Tensor],
        link: CudaLink,
    ) -> None:
        self._inputs = {name: value.clone() for name, value in inputs.items()}
        for _ in range(REHEARSALS):
            call(self._inputs)
        torch.cuda.synchronize()
        self._graph = torch.cuda.CUDAGraph()
        # Other threads may copy meanwhile; only what this one does is recorded.
        with torch.cuda.graph(
            self._graph,
            pool=link.pool,
            stream=link.compute,
            capture_error_mode="thread_local",
        ):
            self._outputs = call(self._inputs)

    def run(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the outputs for a batch of at most the size recorded; they are the caller's."""
        size = 0
        for name, value in inputs.items():
            size = len(value)
            self._inputs[name][:size].copy_(value, non_blocking=True)
        self._graph.replay()
        return {name: value[:size].clone() for name, value in self._outputs.items()}


class Network:
    """Runs a function over batches.

    Args:
        call: Takes tensors whose first dimension is the batch, and returns such. What it gives for
            a picture does not depend on the others, but for rounding: libraries choose their
            kernels by the batch size.
        settings: Whether it is compiled or recorded, and its batch sizes.
        link: To its device.
    """

    def __init__(self, call: Call, settings: TorchSettings, link: DeviceLink) -> None:
        self._call, self._link = call, link
        self._compiled, self._recorded = settings.compile, settings.cuda_graphs
        self._given = settings.buckets
        self._graphs: dict[int, Graph] = {}
        self._run: Call = call
        self.buckets = Buckets(settings.buckets)

    def warm_up(self, blank: Callable[[int], Tensors], largest: int) -> None:
        """Compile, record, or simply run each batch size once. Within a turn.

        A size that does not fit into memory is left out, with all above it, if a smaller one does.

        Args:
            blank: Gives inputs of a batch size.
            largest: Largest batch to be expected.

        Raises:
            DeviceMemoryError: Not even one picture fits.
        """
        self.reset()
        if self._compiled:
            torch._dynamo.config.recompile_limit = VARIANTS
            self._run = torch.compile(self._call, dynamic=False)
        if not self._given and (self._compiled or self._recorded):
            self.buckets = Buckets.up_to(largest)
        for size in self.buckets.sizes or sorted({1, largest}):
            try:
                with memory_told():
                    self._ready(blank(size), size)
            except DeviceMemoryError as error:
                if size == min(self.buckets.sizes or [1]):
                    raise
                self.buckets = Buckets([one for one in self.buckets.sizes if one < size])
                logger.warning("batch_does_not_fit", size=size, error=str(error))
                return

    def reset(self) -> None:
        """Forget what was compiled and recorded: the function gives something else from now on."""
        self._graphs.clear()
        self._run = self._call

    def _ready(self, inputs: Tensors, size: int) -> None:
        if self._recorded:
            assert isinstance(self._link, CudaLink)
            self._graphs[size] = Graph(self._run, inputs, self._link)
        else:
            self._run(inputs)

    def run(self, inputs: Tensors) -> Tensors:
        """Return the outputs for a batch. Within a turn."""
        size = len(next(iter(inputs.values())))
        parts = [self._part(inputs, *cut) for cut in self.buckets.cut(size)]
        if len(parts) == 1:
            return parts[0]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _part(self, inputs: Tensors, begin: int, end: int, bucket: int) -> Tensors:
        graph = self._graphs.get(bucket)
        part = {name: value[begin:end] for name, value in inputs.items()}
        if graph is not None:
            return graph.run(part)
        if bucket > end - begin:
            part = {name: _filled_up(value, bucket) for name, value in part.items()}
        return {name: value[: end - begin] for name, value in self._run(part).items()}


def _filled_up(value: Tensor, size: int) -> Tensor:
    blank = value.new_zeros((size - len(value), *value.shape[1:]))
    return torch.cat([value, blank])
