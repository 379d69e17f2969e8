"""The last frames of each drive, so that a model can be shown what came before a picture.

What is remembered is what this member saw in this process: a frame that exited at an earlier tier,
went to another process or came before a restart is not there. So a member with earlier frames may
score a picture otherwise on a second run; without them it does not.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence

from roadstream.schemas.records.image import Head
from roadstream.stages.inference import Pictures, Pixels


class Sessions:
    """Remembers the last frames of a bounded number of sessions. Threads may share it.

    Args:
        frames: Earlier frames that a picture is shown with, at most.
        sessions: Sessions remembered; the one unseen for longest is forgotten.
    """

    def __init__(self, frames: int, sessions: int) -> None:
        self._frames, self._sessions = frames, sessions
        self._seen: OrderedDict[str, dict[int, Pixels]] = OrderedDict()
        self._guard = threading.Lock()

    def with_earlier(self, batch: Pictures, pixels: Sequence[Pixels]) -> list[list[Pixels]]:
        """Return per picture the frames before it, in order, and the picture itself last.

        The batch is remembered first, so that its own order does not matter.

        Args:
            batch: For who the pictures are; one without session or frame index stands alone.
            pixels: What is shown of each: uint8 RGB [h, w, 3].
        """
        if not self._frames:
            return [[one] for one in pixels]
        with self._guard:
            places = [_place(picture.head) for picture in batch]
            for place, shown in zip(places, pixels, strict=True):
                if place is not None:
                    self._remember(*place, shown)
            found = [
                [*([] if place is None else self._before(*place)), shown]
                for place, shown in zip(places, pixels, strict=True)
            ]
            self._trim()
        return found

    def _remember(self, session: str, index: int, shown: Pixels) -> None:
        self._seen.setdefault(session, {})[index] = shown
        self._seen.move_to_end(session)

    def _before(self, session: str, index: int) -> list[Pixels]:
        seen = self._seen[session]
        return [seen[i] for i in sorted(i for i in seen if i < index)[-self._frames :]]

    def _trim(self) -> None:
        for seen in self._seen.values():
            for index in sorted(seen)[: -self._frames]:
                del seen[index]
        while len(self._seen) > self._sessions:
            self._seen.popitem(last=False)


def _place(head: Head | None) -> tuple[str, int] | None:
    """Return session and frame of a picture, if it has both."""
    if head is None or not head.session_id or head.frame_index is None:
        return None
    return head.session_id, head.frame_index
