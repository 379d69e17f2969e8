"""A function recorded as a CUDA graph for one batch size: launched by one call instead of many."""

from collections.abc import Callable

import torch
from torch import Tensor

from roadstream.workers.engines.torch.device_link import CudaLink

# Runs before recording, in which libraries choose kernels and take their workspaces.
REHEARSALS = 3


class Graph:
    """A recording; it reads and writes buffers of its own.

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
