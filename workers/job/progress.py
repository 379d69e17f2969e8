"""Shows how a run goes: a live display on a terminal, plain lines otherwise."""

import time
from collections import deque
from types import TracebackType

import msgspec
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from roadstream.streams.ledgers.run_ledger import Count

PLAIN_INTERVAL = 5.0
RATE_WINDOW = 30.0


class Tally(msgspec.Struct):
    """Running counts of a scoring run.

    Attributes:
        submitted: Images found so far.
        expected: Images counted ahead of the search; videos' frames are not among them.
        found_all: Whether the search for images is over, so that ``submitted`` is the total.
        answered: Terminal answers so far, by status.
        exits: Answers by the tier they left at, failures apart.
        roadwork: Answers whose label is roadwork.
        vanished: Files that are gone; what they were answered stays.
    """

    submitted: int = 0
    expected: int = 0
    found_all: bool = False
    answered: dict[str, int] = msgspec.field(default_factory=dict)
    exits: dict[str, int] = msgspec.field(default_factory=dict)
    roadwork: int = 0
    vanished: int = 0

    @property
    def total(self) -> int:
        """Images in all, as far as is known."""
        return self.submitted if self.found_all else max(self.submitted, self.expected)

    @property
    def total_answered(self) -> int:
        """Answers of every status."""
        return sum(self.answered.values())

    def count(self, group: Count) -> None:
        """Add a group of images, or take one away where their number is negative."""
        self.submitted += group.images
        if group.status is not None:
            self.add(group.status, group.exit_tier, group.label, group.images)

    def add(self, status: str, exit_tier: str | None, label: str | None, images: int = 1) -> None:
        """Add answers of one kind."""
        self.answered[status] = self.answered.get(status, 0) + images
        if status != "failed" and exit_tier is not None:
            self.exits[exit_tier] = self.exits.get(exit_tier, 0) + images
        if label == "roadwork":
            self.roadwork += images


class Progress:
    """Draws a tally every now and then; use it as a context manager.

    Args:
        tally: What is drawn.
        tiers: Names of the tiers, in order.
        console: Where to.
    """

    def __init__(self, tally: Tally, tiers: list[str], console: Console) -> None:
        self._tally, self._tiers, self._console = tally, tiers, console
        self._live = Live(console=console, transient=True, auto_refresh=False)
        self._history: deque[tuple[float, int]] = deque()
        self._plain_at = time.monotonic()

    def __enter__(self) -> "Progress":
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def refresh(self) -> None:
        """Draw, if it is time to."""
        now = time.monotonic()
        self._history.append((now, self._tally.total_answered))
        while now - self._history[0][0] > RATE_WINDOW:
            self._history.popleft()
        if self._console.is_terminal:
            self._live.update(self._display(), refresh=True)
        elif now - self._plain_at >= PLAIN_INTERVAL:
            self._plain_at = now
            self._console.print(self._line(), soft_wrap=True)

    def say(self, line: str) -> None:
        """Print a line above the display."""
        self._console.print(Text(line), soft_wrap=True)

    @property
    def rate(self) -> float:
        """Answers per second lately; answers that new content has replaced count for nothing."""
        (then, before), (now, answered) = self._history[0], self._history[-1]
        return max(0.0, (answered - before) / (now - then)) if now > then else 0.0

    def _time_left(self) -> str:
        rate = self.rate
        known = self._tally.found_all or self._tally.expected
        if not known or rate <= 0:
            return "–"
        seconds = round((self._tally.total - self._tally.total_answered) / rate)
        minutes, seconds = divmod(seconds, 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"

    def _shares(self) -> list[tuple[str, float]]:
        total = max(1, sum(self._tally.exits.values()))
        return [(tier, self._tally.exits.get(tier, 0) / total) for tier in self._tiers]

    def _line(self) -> str:
        tally = self._tally
        more = "" if tally.found_all else "+"
        shares = ", ".join(f"{tier} {share:.0%}" for tier, share in self._shares())
        return (
            f"{tally.total_answered:,} of {tally.total:,}{more} images, {self.rate:.1f}/s, "
            f"leaving at {shares}; {tally.answered.get('failed', 0):,} failed, "
            f"time left {self._time_left()}"
        )

    def _display(self) -> Group:
        tally = self._tally
        done = tally.total_answered
        width = max(10, min(40, self._console.width - 40))
        share = done / tally.total if tally.total else 0.0
        more = "" if tally.found_all else "+"
        bar = Text("━" * round(share * width), style="green")
        bar.append("━" * (width - round(share * width)), style="bright_black")
        bar.append(f"  {done:,} of {tally.total:,}{more}", style="bold")
        table = Table.grid(padding=(0, 3))
        failed = tally.answered.get("failed", 0)
        table.add_row(
            Text(f"{self.rate:,.1f} images/s", style="cyan"),
            f"time left {self._time_left()}",
            Text(f"roadwork {tally.roadwork:,}"),
            Text(f"failed {failed:,}", style="red" if failed else ""),
        )
        exits = "   ".join(f"{tier} {share:.0%}" for tier, share in self._shares())
        return Group(bar, table, Text(f"leaving at  {exits}", style="bright_black"))
