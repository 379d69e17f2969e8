"""vLLM's own OpenAI server, run by vLLM's interpreter: ``python vllm_server.py [arguments]``.

It is the server as it ships but for how its core is started: forked, as on a GPU. Spawned, as on a
CPU, it would import everything once more, which takes a test half a minute.
"""

import os
import runpy
import sys
from typing import Any


def main() -> None:
    """Serve until killed."""
    import torch
    from vllm.platforms.cpu import CpuPlatform

    torch.set_num_threads(1)  # a pool of threads would not survive the fork
    configure = CpuPlatform.check_and_update_config

    def forked(vllm_config: Any) -> None:
        configure(vllm_config)
        os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "fork"

    CpuPlatform.check_and_update_config = staticmethod(forked)
    sys.argv[0] = "api_server"
    runpy.run_module("vllm.entrypoints.openai.api_server", run_name="__main__")


if __name__ == "__main__":
    main()
