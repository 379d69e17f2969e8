"""What a scan came by and did not give to be judged, and why."""

from dataclasses import dataclass, field

from roadstream.streams.sources.identity import display

_MOST_NOTES = 50


@dataclass(slots=True)
class LeftOut:
    """Files by reason, and remarks on videos.

    Attributes:
        files: Per reason, how many there are and the first path of them.
        notes: What is missing of videos, each with its path; of very many, the first ones.
        more_notes: How many there are beyond them.
    """

    files: dict[str, tuple[int, str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    more_notes: int = 0

    def add(self, reason: str, path: str) -> None:
        """Count a file or folder that is left out."""
        number, first = self.files.get(reason, (0, path))
        self.files[reason] = (number + 1, min(first, path))

    def note(self, path: str, remark: str) -> None:
        """Keep a remark on a video."""
        if len(self.notes) < _MOST_NOTES:
            self.notes.append(f"{display(path)}: {remark}")
        else:
            self.more_notes += 1

    def lines(self) -> list[str]:
        """Say all of it for a person."""
        lines = list(self.notes)
        if self.more_notes:
            lines.append(f"… and {self.more_notes:,} more remarks on videos")
        for reason, (number, path) in sorted(self.files.items()):
            example = display(path) if number == 1 else f"e.g. {display(path)}"
            lines.append(f"{number:,} left out: {reason} ({example})")
        return lines
