"""Judged pictures from what ``roadstream score`` wrote.

python -m training.answers ANSWERS DATA JUDGED [--families melb oiv] [--raw]
"""

import argparse
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path, PurePosixPath

from roadstream.sinks.columns import AnswerRow
from roadstream.sinks.files.readers import read_answers
from roadstream.stages.voting.vote import log_odds
from training.judged import Judged, read_truth, write_judged


def judged_answers(answers: Path, pictures: Iterable[Judged], raw: bool = False) -> list[Judged]:
    """Return the pictures that were answered, in their own order.

    An answer belongs to the picture whose folder and name its uri ends with.

    Args:
        answers: A file of answers, in any format.
        pictures: See ``read_truth``.
        raw: Whether ``votes`` hold raw scores instead of calibrated log-odds.

    Raises:
        UsageError: The file is none of answers.
        ValueError: None of the pictures was answered.
    """
    rows = {
        _name(row["uri"]): row for row in read_answers(answers) if row["probability"] is not None
    }
    found = [_answered(one, rows[one.file], raw) for one in pictures if one.file in rows]
    if not found:
        raise ValueError(f"{answers}: expected answers about labelled pictures, got none")
    return found


def _name(uri: str) -> str:
    return "/".join(PurePosixPath(uri).parts[-2:])


def _answered(one: Judged, row: AnswerRow, raw: bool) -> Judged:
    votes = {
        vote["member"]: vote["raw"] if raw else log_odds(vote["probability"])
        for vote in row["votes"]
        if vote["probability"] is not None
    }
    told = {name: value for name, value in votes.items() if value is not None}
    assert row["probability"] is not None
    return replace(one, probability=row["probability"], tier=row["exit_tier"] or "", votes=told)


def main() -> None:
    """Join answers with the truth and write judged pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("answers", type=Path, help="what roadstream score wrote")
    parser.add_argument("data", type=Path, help="folder with manifest.csv and boxes.csv")
    parser.add_argument("judged", type=Path, help="file to write")
    parser.add_argument("--families", nargs="*", help="only pictures of these source families")
    parser.add_argument("--raw", action="store_true", help="votes hold raw scores")
    options = parser.parse_args()
    wanted = options.families
    pictures = [p for p in read_truth(options.data) if not wanted or p.family in wanted]
    write_judged(options.judged, judged_answers(options.answers, pictures, options.raw))


if __name__ == "__main__":
    main()
