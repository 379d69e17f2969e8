"""Turns a question and pictures into what vLLM's engine takes, here or in processes of its own.

vLLM prepares the pictures of a front end on one thread, which more threads would not help, as most
of the work holds the interpreter. So rendering may run in forked processes, each with the model's
own chat template and image processor: ``vllm.renderers``, the part that vLLM's own server uses.
"""

import multiprocessing
from concurrent.futures import Executor, ProcessPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from roadstream.workers.engines.vllm.child import engine_wire as wire
else:
    import engine_wire as wire

# Of a rendering process; set before it is forked.
_renderer: Any = None


def conversation(ask: wire.Ask) -> list[dict[str, Any]]:
    """Return the chat messages of a request."""
    shown: list[dict[str, Any]] = [
        {"type": "image_pil", "image_pil": _image(one)} for one in ask.pictures
    ]
    text: list[dict[str, Any]] = [{"type": "text", "text": ask.question}]
    content = [*text, *shown] if ask.how.order == "text_first" else [*shown, *text]
    chat: list[dict[str, Any]] = [{"role": "user", "content": content}]
    system = ask.how.system
    return [{"role": "system", "content": system}, *chat] if system else chat


def _image(shown: wire.Shown) -> Image.Image:
    flat = np.frombuffer(shown.data, np.uint8)
    return Image.fromarray(flat.reshape(shown.height, shown.width, 3))


def chat_params(ask: wire.Ask) -> Any:
    """Return vLLM's ``ChatParams`` for a prompt that the model is to go on from."""
    from vllm.renderers.params import ChatParams

    return ChatParams(chat_template_kwargs={"add_generation_prompt": True, **ask.how.template})


def rendering_processes(config: Any, count: int) -> Executor | None:
    """Fork so many rendering processes; before vLLM starts a thread.

    Args:
        config: A ``VllmConfig``.
        count: 0 for none.
    """
    if not count:
        return None
    from vllm.renderers import renderer_from_config

    global _renderer  # noqa: PLW0603 - forked processes take it over from here
    _renderer = renderer_from_config(config)
    pool = ProcessPoolExecutor(count, multiprocessing.get_context("fork"))
    pool.submit(int).result()  # forks them all
    return pool


def render(asked: bytes) -> Any:
    """Return the engine input of an encoded ``Ask``; runs in a rendering process.

    PyTorch hands its tensors over in shared memory.
    """
    ask = wire.decode_order(asked)
    assert isinstance(ask, wire.Ask)
    _, (prompt,) = _renderer.render_chat([conversation(ask)], chat_params(ask))
    return prompt
