"""A stand-in for the vLLM process: speaks its protocol, starts at once, answers by grey level.

Run as ``python grey_vllm.py FD``. Its engine arguments say what it is like: ``refuses`` to start,
``mumbles`` while it starts, ``can_sleep``. Grey levels below 10 make it do what is told here.
"""

import os
import socket
import sys

from roadstream.workers.engines.vllm.child import engine_wire as wire

DIES, SILENT, REFUSES, LATE, UNDECIDED, RAISES = 1, 2, 3, 4, 5, 6
YES, NO = 10, 11
# As vLLM logs it: the cause, and then that of the front end, which is none.
CORE_DIED = """\
(EngineCore pid=7) ERROR 12-01 04:13:25 [core.py:1512] RuntimeError: Unsupported head_dim=16
(MainProcess pid=6) ERROR 12-01 04:13:25 [async_llm.py:906] vllm.EngineDeadError: See above.
"""


def answer(ask: wire.Ask) -> wire.FromEngine | None:
    """Return the reply to a request; ``None`` for none."""
    level = ask.pictures[-1].data[0]
    if level == DIES:
        os._exit(3)
    if level == SILENT:
        return None
    if level == RAISES:
        sys.stdout.write(CORE_DIED)
        sys.stdout.flush()
    special: dict[int, wire.FromEngine] = {
        RAISES: wire.Failed("the core of the engine died"),
        REFUSES: wire.Refused(ask.number, "too long"),
        LATE: wire.Late(ask.number),
        UNDECIDED: wire.Undecided(ask.number, "no answer after 5 tokens"),
    }
    share = level / 255
    # Half of what is not yes is no; the other half leaks.
    found = {YES: _log(share), NO: _log((1 - share) / 2)}
    text = f"{len(ask.pictures)} {ask.question}"
    return special.get(level) or wire.Answered(ask.number, found, [], text)


def _log(share: float) -> float:
    from math import inf, log

    return log(share) if share else -inf


def main() -> None:
    """Answer until told to stop, or until nobody asks."""
    sock = socket.socket(fileno=int(sys.argv[1]))
    data = wire.receive(sock)
    load = wire.decode_order(data or b"")
    assert isinstance(load, wire.Load)
    if load.engine_args.get("mumbles"):
        sys.stdout.write("the weights are odd\n")
        sys.stdout.flush()
    if load.engine_args.get("refuses"):
        wire.send(sock, wire.Failed("ValueError: no such model"))
        return
    can_sleep = bool(load.engine_args.get("can_sleep"))
    wire.send(sock, wire.Ready("0", "grey", can_sleep, {"Yes": YES, "No": NO, "so": 12}))
    while (data := wire.receive(sock)) is not None:
        message = wire.decode_order(data)
        match message:
            case wire.Ask():
                if (reply := answer(message)) is not None:
                    wire.send(sock, reply)
                if isinstance(reply, wire.Failed):
                    return
            case wire.Sleep(number=number) | wire.Wake(number=number):
                wire.send(sock, wire.Done(number))
            case wire.Stop():
                return


if __name__ == "__main__":
    main()
