"""How pixels get to a device and results come back: one link per device and process.

A CUDA link has two streams. Pixels are written into one of a few pinned buffers and copied from
there on the copy stream, while the compute stream is busy with the batch before; the compute stream
waits for that copy by an event. Results are copied into pinned memory on the compute stream, and
the thread that wants them sleeps until an event says that they are there. The event loop does none
of this.
"""

import threading
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from roadstream.stages.inference import Pixels

# PyTorch's streams and events lack types.
_CUDA: Any = torch.cuda
# Batches whose pixels may be on their way: one that is copied, and one that is written meanwhile;
# a third keeps a slow writer from holding up the second.
RING = 3


class Upload(NamedTuple):
    """Pixels on a device, or on their way.

    Attributes:
        images: uint8 [N, height, width, 3].
        ready: Says when they are there; ``None`` if they are.
    """

    images: Tensor
    ready: torch.cuda.Event | None = None


class DeviceLink(ABC):
    """Takes pixels to a device, gives turns on it, and fetches results."""

    @abstractmethod
    def upload(self, pixels: Pixels) -> Upload:
        """Start to copy pixels [N, height, width, 3] to the device; the array is free afterwards.

        Any thread may call this, at any time.
        """

    @abstractmethod
    def settle(self) -> None:
        """Wait for what was put on the device outside a turn, such as weights."""

    @abstractmethod
    def turn(self, upload: Upload | None = None) -> AbstractContextManager[None]:
        """Return what is to be entered to run networks, on these pixels. One thread at a time."""

    @abstractmethod
    def download(self, outputs: dict[str, Tensor]) -> dict[str, NDArray[np.float32]]:
        """Return results as float32 arrays on the host, once they are there. Within a turn."""


class HostLink(DeviceLink):
    """The CPU: nothing is copied.

    PyTorch's number of threads counts for the whole process, not for one call: whoever takes a turn
    sets it to what the worker was given.

    Args:
        threads: Threads per call.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads

    def upload(self, pixels: Pixels) -> Upload:
        """Return the same memory as a tensor."""
        return Upload(torch.from_numpy(pixels))

    def settle(self) -> None:
        """Nothing to wait for."""

    @contextmanager
    def turn(self, upload: Upload | None = None) -> Iterator[None]:
        """Run without gradients, on as many threads as there may be."""
        del upload
        if torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)
        with torch.inference_mode():
            yield

    def download(self, outputs: dict[str, Tensor]) -> dict[str, NDArray[np.float32]]:
        """Return them as they are, if they are float32."""
        return {name: value.float().numpy() for name, value in outputs.items()}


class _Slot:
    """A pinned buffer, and the copy that reads it.

    Attributes:
        guard: Held by who writes it.
    """

    def __init__(self) -> None:
        self.guard = threading.Lock()
        self._buffer = torch.empty(0, dtype=torch.uint8)
        self._read: torch.cuda.Event | None = None

    def write(self, pixels: Pixels) -> Tensor:
        """Return the pixels in pinned memory, once the copy before has read the buffer."""
        if self._read is not None:
            self._read.synchronize()
        if self._buffer.numel() < pixels.size:
            self._buffer = torch.empty(pixels.size, dtype=torch.uint8, pin_memory=True)
        return self._buffer[: pixels.size].view(pixels.shape).copy_(torch.from_numpy(pixels))

    def read_until(self, copied: torch.cuda.Event) -> None:
        """Note what tells that the buffer has been read."""
        self._read = copied


class CudaLink(DeviceLink):
    """A CUDA device.

    Args:
        device: With its index.

    Attributes:
        compute: The stream that networks run on.
        pool: Memory that its CUDA graphs share, as they never run at once.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.compute: Any = _CUDA.Stream(device)
        self._copy: Any = _CUDA.Stream(device)
        self.pool: Any = torch.cuda.graph_pool_handle()
        self._ring = [_Slot() for _ in range(RING)]
        self._turns = 0
        self._guard = threading.Lock()

    def upload(self, pixels: Pixels) -> Upload:
        """Write the pixels into pinned memory and start the copy."""
        with self._guard:
            slot = self._ring[self._turns % RING]
            self._turns += 1
        with slot.guard, torch.cuda.device(self._device):
            staged = slot.write(pixels)
            with torch.cuda.stream(self._copy):
                images = staged.to(self._device, non_blocking=True)
                copied = _event(self._copy)
            slot.read_until(copied)
        # The compute stream reads what the allocator thinks of as the copy stream's.
        images.record_stream(self.compute)
        return Upload(images, copied)

    def settle(self) -> None:
        """Wait for all streams: the compute stream does not wait for the one of the weights."""
        torch.cuda.synchronize(self._device)

    @contextmanager
    def turn(self, upload: Upload | None = None) -> Iterator[None]:
        """Run without gradients on the compute stream, after the upload."""
        with (
            torch.inference_mode(),
            torch.cuda.device(self._device),
            torch.cuda.stream(self.compute),
        ):
            if upload is not None and upload.ready is not None:
                self.compute.wait_event(upload.ready)
            yield

    def download(self, outputs: dict[str, Tensor]) -> dict[str, NDArray[np.float32]]:
        """Copy the results into pinned memory, and sleep until they are there."""
        found: dict[str, Tensor] = {}
        for name, value in outputs.items():
            host = torch.empty(value.shape, dtype=torch.float32, pin_memory=True)
            found[name] = host.copy_(value.float(), non_blocking=True)
        _event(self.compute).synchronize()
        return {name: value.numpy() for name, value in found.items()}


def _event(stream: Any) -> torch.cuda.Event:
    """Return an event recorded on a stream; who waits for it sleeps instead of spinning."""
    event: torch.cuda.Event = _CUDA.Event(blocking=True)
    event.record(stream)
    return event


def link_for(device: torch.device, threads: int, shared: dict[Hashable, Any]) -> DeviceLink:
    """Return this process's link to a device."""
    key = ("torch-link", device)
    if key not in shared:
        shared[key] = CudaLink(device) if device.type == "cuda" else HostLink(threads)
    link: DeviceLink = shared[key]
    return link
