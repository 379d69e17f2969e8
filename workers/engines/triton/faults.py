"""What a Triton server's refusals mean: away, too late, too large, or a fault of the request."""

import re
from typing import Any, Literal

Fault = Literal["away", "late", "memory", "region", "refused"]

# The queue policy's words (core/src/dynamic_batch_scheduler.cc), with the status UNAVAILABLE.
_QUEUE_TIMEOUT = "Request timeout expired"
# Of backends, by text alone: onnxruntime's arenas, the C++ runtime, CUDA, Triton's own pools.
_NO_MEMORY = re.compile(
    r"failed to allocate|bad[_ ]alloc|out of memory|ALLOC_FAILED", re.IGNORECASE
)


def fault_of(error: Any) -> Fault:
    """Tell what an ``InferenceServerException`` means.

    ``away``: the server, or its model, as a whole. ``late``: the request's time was over.
    ``memory``: a smaller batch may do. ``region``: the server knows that shared memory no more.
    ``refused``: this very request.
    """
    status = str(error.status() or "").removeprefix("StatusCode.")
    said = str(error.message() or "")
    if status in {"DEADLINE_EXCEEDED", "CANCELLED"} or _QUEUE_TIMEOUT in said:
        return "late"
    if status == "NOT_FOUND" and "shared memory region" in said:
        return "region"
    if status in {"UNAVAILABLE", "NOT_FOUND", "UNAUTHENTICATED", "PERMISSION_DENIED"}:
        return "away"
    # A message larger than gRPC carries is one of too many pictures.
    if status == "RESOURCE_EXHAUSTED" or _NO_MEMORY.search(said):
        return "memory"
    return "refused"
