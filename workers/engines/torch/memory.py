"""Errors of too little memory, told from all others."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from roadstream.schemas.errors import DeviceMemoryError

# What PyTorch and the libraries below it say in a plain RuntimeError: c10/core/impl/alloc_cpu.cpp,
# oneDNN's primitives, aten/src/ATen/cuda/CUDABlas.cpp, the CUDA runtime.
_NO_MEMORY = re.compile(
    r"can't allocate memory|could not create a memory|not enough memory|out of memory"
    r"|ALLOC_FAILED|bad[_ ]alloc",
    re.IGNORECASE,
)


def _is_of_memory(error: Exception) -> bool:
    told = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return told or _NO_MEMORY.search(str(error)) is not None


@contextmanager
def memory_told() -> Iterator[None]:
    """Turn an error of too little memory into `DeviceMemoryError`; let all others pass.

    What PyTorch's allocator keeps for later is given back to the device, as the next attempt needs
    blocks of other sizes.

    Raises:
        DeviceMemoryError: A batch did not fit.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not _is_of_memory(error):
            raise
        # Does nothing where no CUDA device is in use.
        torch.cuda.empty_cache()
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DeviceMemoryError(said) from error
