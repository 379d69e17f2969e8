"""Which images were answered lately on a partition, and with which content. Pure."""

from collections.abc import Mapping
from math import inf

from roadstream.schemas.records.image import Head

# Answers of a partition that are read back when it is taken over, and at least so many are
# remembered while it is owned. See ``roadstream.sinks.consensus.join`` for what has to fit into it.
ANSWERED_WINDOW = 16_384

Content = bytes | None


class AnsweredIds:
    """The last images answered on one partition: between ``window`` and twice as many.

    Attributes:
        count: Answers since the partition was taken over.
        forgotten_until: An image that was answered later than this is remembered; minus infinity
            if all are.

    Args:
        window: How many are remembered at least.
        restored: Images answered before, oldest first, with the hashes of their content.
        now: When the partition is taken over.
    """

    __slots__ = ("_before", "_new", "_old", "_old_until", "_restored_at", "_window",
                 "forgotten_until")  # fmt: skip

    def __init__(
        self,
        window: int = ANSWERED_WINDOW,
        restored: Mapping[str, Content] | None = None,
        now: float = -inf,
    ) -> None:
        self._window = window
        self._new: dict[str, Content] = {}
        self._old: dict[str, Content] = dict(restored or {})
        self._restored_at = {image_id: i - len(self._old) for i, image_id in enumerate(self._old)}
        self._before = 0
        # Of a window that is not half full, nothing stands before it: answers may stand twice.
        self.forgotten_until = now if len(self._old) > window // 2 else -inf
        self._old_until = now

    def __contains__(self, image_id: str) -> bool:
        """Return whether the image was answered within the window."""
        return image_id in self._new or image_id in self._old

    @property
    def count(self) -> int:
        """Number of answers since the partition was taken over."""
        return self._before + len(self._new)

    def add(self, image_id: str, content_hash: Content = None, now: float = -inf) -> None:
        """Remember an image that is not remembered yet; the oldest are forgotten."""
        self._new[image_id] = content_hash
        if len(self._new) >= self._window:
            self._before += len(self._new)
            if self._old:
                self.forgotten_until = self._old_until
            self._old_until = now
            self._old, self._new = self._new, {}
            self._restored_at = {}

    def content_hash(self, image_id: str) -> Content:
        """Return the hash of an answered image's content, if it is known."""
        return self._new[image_id] if image_id in self._new else self._old.get(image_id)

    def restored_at(self, image_id: str) -> int | None:
        """Return ``count`` when a restored image was answered, negative; ``None`` for others."""
        return self._restored_at.get(image_id)


def differs(known: Content, head: Head) -> bool:
    """Return whether a vote speaks of another picture than the one known under its image's id."""
    return known is not None and head.content_hash is not None and known != head.content_hash
