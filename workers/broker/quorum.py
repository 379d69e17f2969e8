"""Asks a broker which node is the active controller, by Kafka's ``DescribeQuorum`` request.

The metadata that every client gets names any broker that is alive as controller, since all of them
forward requests to it; only the quorum itself says who it is. The request is KIP-595's, version 0.
"""

from struct import pack, unpack_from

import anyio

_DESCRIBE_QUORUM = 55
_TOPIC = b"__cluster_metadata"
_TIMEOUT = 2.0
"""Seconds for connecting and for the answer."""


async def quorum_leader(host: str, port: int) -> int | None:
    """Return the node id of the quorum's leader; ``None`` if this broker does not know one."""
    try:
        with anyio.fail_after(_TIMEOUT):
            async with await anyio.connect_tcp(host, port) as stream:
                await stream.send(_request())
                answer = b""
                while len(answer) < 4 or len(answer) < 4 + unpack_from(">i", answer)[0]:
                    answer += await stream.receive()
    except (OSError, TimeoutError, anyio.EndOfStream, anyio.BrokenResourceError):
        return None
    return _leader(answer[4:])


def _request() -> bytes:
    """Return the request: header version 2, then one topic with one partition.

    Lengths of the compact format are one more than they say, and each struct ends with its tags.
    """
    client = b"roadstream"
    header = pack(">hhih", _DESCRIBE_QUORUM, 0, 1, len(client)) + client + b"\0"
    partition = pack(">i", 0) + b"\0"
    topic = bytes([len(_TOPIC) + 1]) + _TOPIC + b"\x02" + partition + b"\0"
    body = header + b"\x02" + topic + b"\0"
    return pack(">i", len(body)) + body


def _leader(answer: bytes) -> int | None:
    """Return the leader that an answer names: correlation id, tags, then error and topics."""
    (error,) = unpack_from(">h", answer, 5)
    start = 5 + 2 + 1 + 1 + len(_TOPIC) + 1
    if error or len(answer) < start + 10:
        return None
    _, error, leader = unpack_from(">ihi", answer, start)
    return None if error or leader < 0 else int(leader)
