"""Records of the release before versions, tags and evidence: they decode, and are answered."""

from base64 import b64decode

from roadstream.schemas import codec
from roadstream.schemas.records.partial import (
    decode_partial_answer,
    decode_partial_escalation,
    decode_partial_votes,
)
from roadstream.schemas.records.votes import NO_EVIDENCE
from roadstream.schemas.topics import ANSWERS
from roadstream.streams.log import Output
from tests.kits.consensus_kit import answers, consensus, prepared, running, send

# As revision 807faac wrote them: votes of two tiers, an escalation and an answer.
ONE = (
    "h6ZzY2hlbWGodm90ZXMudjGkdGllcqNvbmWnY2FzY2FkZaR0ZXN0rGNhc2NhZGVfaGFzaLAwMTIzNDU2Nzg5YWJjZGVm"
    "p3NlbnRfYXTLP/AAAAAAAACkcnVuc5KWpWNvbmVzoTHLP/AAAAAAAADDyz/AAAAAAAAAApalc2hhZGWhMcsAAAAAAAAA"
    "AMLLP8AAAAAAAAACpmltYWdlc5Kcg6hpbWFnZV9pZKFho3VyaaVhLmpwZ6xzdWJtaXR0ZWRfYXTLQI8YAAAAAACSyz/4"
    "AAAAAAAAwJLLP+mZmZmZmZrAo3R3b6diZWNhdXNlyz+5mZmZmZmayz/JmZmZmZmayz/TMzMzMzMzkpGWyz+5mZmZmZma"
    "yz+5mZmZmZmayz/gAAAAAAAAyz/gAAAAAAAAyz/szMzMzMzNpGNvbmWQwJKgpmEgc2lnbpGWyz+5mZmZmZmayz+5mZmZ"
    "mZmayz/gAAAAAAAAyz/gAAAAAAAAyz/szMzMzMzNpGNvbmWcgahpbWFnZV9pZKFikstAAAAAAAAAAMs/8AAAAAAAAJLL"
    "P+zMzMzMzM3LP+ZmZmZmZmbAoMsAAAAAAAAAAMsAAAAAAAAAAMsAAAAAAAAAAMDAwMA="
)
TWO = (
    "h6ZzY2hlbWGodm90ZXMudjGkdGllcqN0d2+nY2FzY2FkZaR0ZXN0rGNhc2NhZGVfaGFzaLAwMTIzNDU2Nzg5YWJjZGVm"
    "p3NlbnRfYXTLQAAAAAAAAACkcnVuc5GWpWNvbmVzoTHLP/AAAAAAAADDyz/AAAAAAAAAAqZpbWFnZXORnIOoaW1hZ2Vf"
    "aWShYaN1cmmlYS5qcGesc3VibWl0dGVkX2F0y0CPGAAAAAAAkcs/8AAAAAAAAJHLP+ZmZmZmZmbAoMsAAAAAAAAAAMsA"
    "AAAAAAAAAMsAAAAAAAAAAMDAwMA="
)
ESCALATION = (
    "haZzY2hlbWGtZXNjYWxhdGlvbi52MaRoZWFkg6hpbWFnZV9pZKFho3VyaaVhLmpwZ6xzdWJtaXR0ZWRfYXTLQI8YAAAA"
    "AACncGF5bG9hZIKka2luZKZpbmxpbmWkZGF0YcQE/9j/2aV2b3Rlc5GTpWNvbmVzyz/wAAAAAAAAyz/pmZmZmZmapnJl"
    "YXNvbqdiZWNhdXNl"
)
ANSWER = (
    "3gAQpnNjaGVtYalhbnN3ZXIudjGkaGVhZIOoaW1hZ2VfaWShYaN1cmmlYS5qcGesc3VibWl0dGVkX2F0y0CPGAAAAAAA"
    "pnN0YXR1c6hhbnN3ZXJlZKVsYWJlbKhyb2Fkd29ya6twcm9iYWJpbGl0ecs/6ZmZmZmZmqpjb25maWRlbmNlyz/jMzMz"
    "MzMzqXRocmVzaG9sZMs/4AAAAAAAAKlleGl0X3RpZXKjb25lpXRpZXJzkZqjb25lkpalY29uZXOhMcs/8AAAAAAAAMPL"
    "P8AAAAAAAAAClqVzaGFkZaExywAAAAAAAAAAwss/wAAAAAAAAAKSyz/4AAAAAAAAwJLLP+mZmZmZmZrAyz+5mZmZmZma"
    "yz/JmZmZmZmayz/TMzMzMzMzkpGWyz+5mZmZmZmayz+5mZmZmZmayz/gAAAAAAAAyz/gAAAAAAAAyz/szMzMzMzNpGNv"
    "bmWQkqCmYSBzaWdukZbLP7mZmZmZmZrLP7mZmZmZmZrLP+AAAAAAAADLP+AAAAAAAADLP+zMzMzMzM2grGRpc2FncmVl"
    "bWVudMs/uZmZmZmZmqVmbGFnc5GoZGVncmFkZWSnY2FzY2FkZaR0ZXN0rGNhc2NhZGVfaGFzaLAwMTIzNDU2Nzg5YWJj"
    "ZGVmq2Fuc3dlcmVkX2F0y0CPQAAAAAAApHRvb2vLQBQAAAAAAACnam9pbmluZ8s/4AAAAAAAAA=="
)


def test_they_decode_with_what_they_lack_at_its_default() -> None:
    pack = codec.decode_votes(b64decode(ONE))
    assert [(said.tags, said.down) for said in pack.images] == [(None, None)] * 2
    escalation = codec.decode_escalation(b64decode(ESCALATION))
    assert (escalation.cascade_hash, escalation.evidence) == ("", NO_EVIDENCE)
    answer = codec.decode_answer(b64decode(ANSWER))
    assert (answer.missing_tiers, answer.missing, answer.flags) == ([], ["shade"], ["degraded"])
    assert [(tier.tags, tier.reason) for tier in answer.tiers] == [(None, "")]


def test_they_decode_in_part() -> None:
    assert decode_partial_votes(b64decode(ONE)).cascade_hash == "0123456789abcdef"
    assert decode_partial_escalation(b64decode(ESCALATION)).cascade_hash == ""
    answer = decode_partial_answer(b64decode(ANSWER))
    assert [tier.tier for tier in answer.tiers] == ["one"]


async def test_their_votes_are_answered() -> None:
    log = await prepared()
    async with running(consensus(log)):
        await send(log, b64decode(ONE), b64decode(TWO))
        found = {answer.head.image_id: answer for answer in await answers(log, 2)}

    assert {name: one.status for name, one in found.items()} == {"a": "answered", "b": "answered"}
    assert [vote.tier for vote in found["a"].votes] == ["one", "two"]
    assert found["a"].missing_tiers == []
    assert found["a"].flags == []


async def test_what_they_answered_is_not_answered_again() -> None:
    log = await prepared()
    log.append([Output(ANSWERS, b"k", b64decode(ANSWER), 0)])
    async with running(member := consensus(log)):
        await send(log, b64decode(ONE), b64decode(TWO))
        found = await answers(log, 2)

    assert [answer.head.image_id for answer in found] == ["a", "b"]
    assert found[0] == codec.decode_answer(b64decode(ANSWER))
    assert member.stats.join.late_votes == 2
