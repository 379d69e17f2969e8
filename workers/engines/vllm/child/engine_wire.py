"""What passes between a worker and its vLLM process: length-prefixed msgpack over a socket pair.

Both sides load this file: the worker as a module of Roadstream, the vLLM process by its place
beside the script, as Roadstream is not installed where vLLM is. So it needs nothing but msgspec.
"""

import socket
import struct
from typing import Any

import msgspec

_LENGTH = struct.Struct(">Q")
MAX_FRAME = 1 << 30


class Load(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """First message: which engine to start.

    Attributes:
        engine_args: Of vLLM's ``AsyncEngineArgs``.
        render_processes: Processes that prepare pictures; 0 leaves it to the front end.
        cpu_threads: Threads of a model on the CPU; 1 lets the engine be forked, which starts it in
            half the time.
        can_sleep: Whether sleep mode is wanted, where the platform has it.
    """

    engine_args: dict[str, Any]
    render_processes: int = 0
    cpu_threads: int = 1
    can_sleep: bool = False


class How(msgspec.Struct, frozen=True, kw_only=True):
    """How a member asks.

    Attributes:
        order: ``text_first`` or ``images_first``.
        system: System prompt; empty for none.
        template: Arguments for the chat template.
        tokens: Ids of the tokens whose log-probabilities are wanted.
        top_logprobs: Tells so many likeliest tokens instead, unless 0.
        reasoning_tokens: Tokens of reasoning before the answer; 0 for none.
        reasoning_end: Text that ends the reasoning.
        reasoning_cut: ``close`` or ``abstain``.
        reasoning_kept: Characters kept.
        reasoning_temperature: 0 for greedy.
    """

    order: str
    system: str
    template: dict[str, Any]
    tokens: list[int]
    top_logprobs: int
    reasoning_tokens: int
    reasoning_end: str
    reasoning_cut: str
    reasoning_kept: int
    reasoning_temperature: float


class Shown(msgspec.Struct, frozen=True, array_like=True):
    """A picture: uint8 RGB [height, width, 3], row by row."""

    width: int
    height: int
    data: memoryview


class Ask(msgspec.Struct, frozen=True, tag=True):
    """Ask the model about pictures.

    Attributes:
        number: Of the request; replies bear it.
        how: The member's way of asking.
        question: The text.
        pictures: In order; the last one counts.
        patience: Seconds until the answer is worth nothing; ``None`` for never.
    """

    number: int
    how: How
    question: str
    pictures: list[Shown]
    patience: float | None = None


class Forget(msgspec.Struct, frozen=True, tag=True):
    """Abort a request that nobody waits for any more."""

    number: int


class Sleep(msgspec.Struct, frozen=True, tag=True):
    """Give the device back; ``Done`` says when."""

    number: int


class Wake(msgspec.Struct, frozen=True, tag=True):
    """Take the device again; ``Done`` says when."""

    number: int


class Stop(msgspec.Struct, frozen=True, tag=True):
    """Shut down and exit."""


class Ready(msgspec.Struct, frozen=True, tag=True):
    """The engine runs.

    Attributes:
        vllm: Its version.
        platform: ``cpu``, ``cuda``, …
        can_sleep: Whether ``Sleep`` works here.
        vocabulary: Id per token, spelled as the tokenizer does.
    """

    vllm: str
    platform: str
    can_sleep: bool
    vocabulary: dict[str, int]


class Failed(msgspec.Struct, frozen=True, tag=True):
    """The engine cannot start, or has died."""

    problem: str


class Answered(msgspec.Struct, frozen=True, tag=True):
    """The answer's log-probabilities.

    Attributes:
        number: Of the request.
        exact: By token id, those of the tokens asked for; empty if ``top`` is told.
        top: Token and log-probability of the likeliest tokens.
        text: What the model reasoned.
    """

    number: int
    exact: dict[int, float]
    top: list[tuple[str, float]]
    text: str = ""


class Late(msgspec.Struct, frozen=True, tag=True):
    """The request's patience ended before its answer; it was aborted."""

    number: int


class Undecided(msgspec.Struct, frozen=True, tag=True):
    """The model gave no answer, and nobody is at fault."""

    number: int
    reason: str


class Refused(msgspec.Struct, frozen=True, tag=True):
    """The engine cannot do this request; others are not concerned."""

    number: int
    problem: str


class Done(msgspec.Struct, frozen=True, tag=True):
    """A ``Sleep`` or ``Wake`` has been done."""

    number: int


ToEngine = Load | Ask | Forget | Sleep | Wake | Stop
FromEngine = Ready | Failed | Answered | Late | Undecided | Refused | Done

encode = msgspec.msgpack.Encoder().encode
decode_order = msgspec.msgpack.Decoder(ToEngine).decode
decode_reply = msgspec.msgpack.Decoder(FromEngine).decode


def send(sock: socket.socket, message: ToEngine | FromEngine) -> None:
    """Send one message. Two threads must not send at once.

    Raises:
        OSError: The other side is gone.
    """
    data = encode(message)
    sock.sendall(_LENGTH.pack(len(data)))
    sock.sendall(data)


def receive(sock: socket.socket) -> bytearray | None:
    """Return one message's bytes, or ``None`` when the other side is gone.

    Raises:
        OSError: The socket was closed on this side.
    """
    head = _exactly(sock, _LENGTH.size)
    if head is None:
        return None
    (length,) = _LENGTH.unpack(head)
    if length > MAX_FRAME:
        return None
    return _exactly(sock, length)


def _exactly(sock: socket.socket, size: int) -> bytearray | None:
    data = bytearray(size)
    view, got = memoryview(data), 0
    while got < size:
        try:
            count = sock.recv_into(view[got:])
        except ConnectionResetError:
            return None
        if not count:
            return None
        got += count
    return data
