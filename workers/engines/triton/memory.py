"""Shared memory between this process and a Triton server on the same machine.

A region is a file under ``/dev/shm``, mapped here and, once it is registered, by the server too.
Its name is removed then, so that nothing is left behind when either process is killed.
"""

import ipaddress
import mmap
import os
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FOLDER = Path("/dev/shm")


class Region:
    """Memory that is shared under a name.

    Args:
        size: Bytes, at least 1; rounded up to whole pages.

    Attributes:
        path: Its file, until it is hidden.
        size: Bytes.

    Raises:
        OSError: This machine has no such memory, or not enough.
    """

    def __init__(self, size: int) -> None:
        self.size = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        handle, name = tempfile.mkstemp(prefix=f"roadstream-triton-{os.getpid()}-", dir=FOLDER)
        self.path = Path(name)
        try:
            # Takes the pages now: a full /dev/shm is an error here, and no SIGBUS later.
            os.posix_fallocate(handle, 0, self.size)
            self._memory = mmap.mmap(handle, self.size)
        except OSError:
            self.hide()
            raise
        finally:
            os.close(handle)

    @property
    def name(self) -> str:
        """What the server calls it."""
        return self.path.name

    @property
    def key(self) -> str:
        """What ``shm_open`` calls it."""
        return f"/{self.path.name}"

    def write(self, data: NDArray[np.uint8]) -> None:
        """Copy an array to its beginning."""
        view = np.frombuffer(self._memory, np.uint8, data.size)
        np.copyto(view, data.reshape(-1))

    def hide(self) -> None:
        """Take away its name; who has mapped it keeps it."""
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Give it back."""
        self.hide()
        self._memory.close()


def is_local(url: str) -> bool:
    """Tell whether a URL is of this machine by its form."""
    host = url.rpartition(":")[0].strip("[]")
    if url.startswith("unix:") or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
