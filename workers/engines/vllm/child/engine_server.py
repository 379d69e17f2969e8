"""The process that runs vLLM: ``python engine_server.py FD``, FD being a socket to its worker.

It leads a process group. Whatever ends it, the worker, or the engine's core, ends the whole group,
so that nothing is left behind that holds a device.
"""

import asyncio
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from roadstream.workers.engines.vllm.child import engine_rendering
    from roadstream.workers.engines.vllm.child import engine_wire as wire
    from roadstream.workers.engines.vllm.child.engine_asking import Asker
else:
    # Python leaves the script's folder out where PYTHONSAFEPATH is set, as our commands set it.
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    import engine_rendering
    import engine_wire as wire
    from engine_asking import Asker

# How often the engine's core is looked after while no request would tell of its death.
_LOOK_EVERY = 0.25
_SHUTDOWN = 5.0


def watched_over(sock: socket.socket) -> None:
    """Fork a guardian that ends the process group as soon as this process is gone.

    vLLM's core does not notice the death of its front end by itself.
    """
    reader, writer = os.pipe()
    if os.fork() == 0:
        sock.close()
        os.close(writer)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        os.read(reader, 1)  # returns when nobody holds the other end any more
        end_group()
    os.close(reader)

    def let_go() -> None:
        os.close(writer)
        sock.close()

    # What is forked later must not hold on to what tells of this process's death.
    os.register_at_fork(after_in_child=let_go)


def end_group() -> None:
    """Kill every process of the group, this one included."""
    os.killpg(0, signal.SIGKILL)


def start_engine(load: wire.Load) -> tuple[Any, Any]:
    """Return an ``AsyncLLM``, and what renders for it, both ready.

    Raises:
        Exception: Whatever vLLM finds wrong.
    """
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.platforms import current_platform
    from vllm.v1.engine.async_llm import AsyncLLM

    given = dict(load.engine_args)
    if load.can_sleep and current_platform.is_sleep_mode_available():
        given["enable_sleep_mode"] = True
    forked = current_platform.is_cpu() and load.cpu_threads == 1
    if forked:
        # Two processes less to start. vLLM wants another one for a model on the CPU, as only so it
        # can bind its threads to cores; one thread needs no binding.
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        given.setdefault("distributed_executor_backend", "uni")
    config = AsyncEngineArgs(**given).create_engine_config()
    if forked:
        os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "fork"
    renderers = engine_rendering.rendering_processes(config, load.render_processes)
    return AsyncLLM.from_vllm_config(config, disable_log_stats=True), renderers


class Server:
    """Answers a worker's messages by an engine."""

    def __init__(self, sock: socket.socket, engine: Any, asker: Asker) -> None:
        self._sock, self._engine, self._asker = sock, engine, asker
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self.ended = asyncio.Event()

    def take(self, message: wire.ToEngine) -> None:
        """Act on a message; runs in the event loop."""
        match message:
            case wire.Ask(number=number):
                task = asyncio.create_task(self._answer(message))
                self._tasks[number] = task
                task.add_done_callback(lambda _: self._tasks.pop(number, None))
            case wire.Forget(number=number):
                if (asked := self._tasks.get(number)) is not None:
                    asked.cancel()
            case wire.Sleep(number=number):
                # What still runs is waited for.
                self._do(number, self._engine.sleep(level=1, mode="wait"))
            case wire.Wake(number=number):
                self._do(number, self._engine.wake_up())
            case wire.Stop():
                self.ended.set()

    async def look_after(self) -> None:
        """Return when the engine's core has died."""
        while not self._engine.errored:  # noqa: ASYNC110 - vLLM tells it by no event
            await asyncio.sleep(_LOOK_EVERY)

    def _do(self, number: int, work: Any) -> None:
        async def done() -> None:
            try:
                await work
                self._reply(wire.Done(number))
            except Exception as error:
                self._reply(wire.Refused(number, said(error)))

        self._tasks[number] = asyncio.create_task(done())
        self._tasks[number].add_done_callback(lambda _: self._tasks.pop(number, None))

    async def _answer(self, ask: wire.Ask) -> None:
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        try:
            self._reply(await self._asker.ask(ask))
        except (EngineDeadError, BrokenProcessPool):
            self.ended.set()  # the worker learns it from the end of this process
        except EngineGenerateError as error:
            self._reply(wire.Refused(ask.number, said(error.__cause__ or error)))
        except Exception as error:
            self._reply(wire.Refused(ask.number, said(error)))

    def _reply(self, message: wire.FromEngine) -> None:
        wire.send(self._sock, message)


def said(error: BaseException) -> str:
    """Return an error as one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:1000]


class Mailbox:
    """Takes the worker's messages from the first on, before there is an engine to answer them.

    A thread reads, so that a worker that goes away is noticed even while weights are read.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._guard = threading.Lock()
        self._waiting: list[wire.ToEngine] = []
        self._take: Callable[[wire.ToEngine], None] = self._waiting.append
        threading.Thread(target=self._read, daemon=True).start()

    def deliver(self, take: Callable[[wire.ToEngine], None]) -> None:
        """Hand over what came and what will come; ``take`` is called in this thread's loop."""
        loop = asyncio.get_running_loop()
        with self._guard:
            self._take = lambda message: void(loop.call_soon_threadsafe(take, message))
            for message in self._waiting:
                take(message)

    def _read(self) -> None:
        while (data := wire.receive(self._sock)) is not None:
            with self._guard:
                self._take(wire.decode_order(data))
        end_group()


def void(_: object) -> None:
    """Return nothing of what was returned."""


async def serve(sock: socket.socket, load: wire.Load, mailbox: Mailbox) -> None:
    """Start the engine and answer until it is to stop or dies."""
    try:
        engine, renderers = start_engine(load)
    except Exception as error:
        wire.send(sock, wire.Failed(said(error)))
        return
    server = Server(sock, engine, Asker(engine, renderers))
    mailbox.deliver(server.take)
    wire.send(sock, ready(engine, load))
    ended = asyncio.create_task(server.ended.wait())
    died = asyncio.create_task(server.look_after())
    await asyncio.wait({ended, died}, return_when=asyncio.FIRST_COMPLETED)
    if engine.errored:
        wire.send(sock, wire.Failed("the core of the engine died"))
    else:
        await asyncio.to_thread(engine.shutdown, timeout=_SHUTDOWN)


def ready(engine: Any, load: wire.Load) -> wire.Ready:
    """Return what the worker is to know of the engine."""
    import vllm
    from vllm.platforms import current_platform

    can_sleep = load.can_sleep and current_platform.is_sleep_mode_available()
    vocabulary = engine.get_tokenizer().get_vocab()
    return wire.Ready(vllm.__version__, current_platform.device_type, can_sleep, vocabulary)


def main() -> None:
    """Run until the worker says stop, or is gone."""
    sock = socket.socket(fileno=int(sys.argv[1]))
    sock.set_inheritable(False)
    watched_over(sock)
    data = wire.receive(sock)
    try:
        if data is not None and isinstance(load := wire.decode_order(data), wire.Load):
            mailbox = Mailbox(sock)
            import torch

            # Processes are forked from here, which a pool of threads would not survive.
            torch.set_num_threads(1)
            asyncio.run(serve(sock, load, mailbox))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        end_group()


if __name__ == "__main__":
    main()
