"""Judges pictures in this process: ``python examples/score_one.py photo.jpg``."""

import sys

import roadstream

with roadstream.open("lite") as judge:
    for answer in judge(sys.argv[1:]):
        if answer.status == "failed":
            print(answer.head.uri, "could not be judged:", answer.error)
            continue
        print(f"{answer.head.uri}: {answer.label}, probability {answer.probability:.2f}")
        for vote in answer.votes:
            print(f"  {vote.tier} {vote.member}: {vote.probability:.2f}")
