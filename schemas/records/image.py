"""Images, as they are put on the log.

Every top-level record carries its schema and version in the field ``schema``. A field is only ever
added with a default, so old bytes still decode; anything else is a new version with a new tag.
Times are seconds since the epoch (``…_at``) or plain seconds, as float. Numbers and strings are
bounded by their types, see ``roadstream.schemas.records.bounds``: what lies outside does not
decode.
"""

from typing import Literal

import msgspec

from roadstream.schemas.errors import ImageFault
from roadstream.schemas.records.bounds import (
    Count,
    Digest,
    ImageId,
    Latitude,
    Longitude,
    Text,
    Time,
    Uri,
    Word,
)

Lane = Literal["live", "archive"]
LANES: tuple[Lane, ...] = ("live", "archive")


class Head(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Who an image is: everything about it except its pixels.

    Attributes:
        image_id: Identity of the image; two records with one id are one image.
        uri: Where the picture came from, exactly as the user gave it.
        session_id: The drive or folder it belongs to, if any.
        frame_index: Position in that session, counted from 0.
        captured_at: Seconds into the video, or epoch seconds when the camera says so.
        latitude: Degrees, −90 to 90, if known.
        longitude: Degrees, −180 to 180, if known.
        lane: ``live`` (someone waits) or ``archive`` (throughput matters).
        submitted_at: When the producer sent it; the time of the record if it does not say.
        deadline_at: When an answer is no longer worth anything; ``None`` for never. It passes: the
            answer is ``partial`` with the votes so far, or ``failed``, ``expired``, without any.
        run_id: The job that asked, so that it finds its answers on a shared log.
        sequence: Position in that job's input order, counted from 0.
        content_hash: First 16 bytes of the SHA-256 of the picture's bytes; for a video's frame, of
            what its id tells, as encoders differ. Two records of one id
            with different hashes are two pictures: the second is refused.
    """

    image_id: ImageId
    uri: Uri = ""
    session_id: Uri | None = None
    frame_index: Count | None = None
    captured_at: Time | None = None
    latitude: Latitude | None = None
    longitude: Longitude | None = None
    lane: Lane = "archive"
    submitted_at: Time = 0.0
    deadline_at: Time | None = None
    run_id: Word | None = None
    sequence: Count | None = None
    content_hash: Digest | None = None

    @property
    def key(self) -> bytes:
        """Record key: all frames of a drive, and all votes of an image, share a partition."""
        return (self.session_id or self.image_id).encode()


class Inline(msgspec.Struct, frozen=True, tag_field="kind", tag="inline", gc=False):
    """The encoded picture itself (JPEG, PNG, WebP, …), as bytes; in JSON as base64."""

    data: bytes


class Reference(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="reference", gc=False
):
    """A picture kept outside the log, by file path, or by a scheme that an installed source reads.

    Attributes:
        path: Absolute path of the file; as a URI, ``file:///…``, where it is not UTF-8; or
            ``SCHEME://…``, which a source of another distribution reads.
        size: Its size in bytes when it was sent; another size on reading is an error.
        sha256: Content hash, checked on reading; ``None`` leaves only the size to be checked.
    """

    path: Uri
    size: Count
    sha256: Digest | None = None


class Unreadable(msgspec.Struct, frozen=True, tag_field="kind", tag="unreadable", gc=False):
    """A picture that its source could not read; it still gets its answer, a failed one."""

    fault: ImageFault
    problem: Text


Payload = Inline | Reference | Unreadable


class Image(msgspec.Struct, frozen=True, tag_field="schema", tag="image.v1", gc=False):
    """One picture to be judged, on ``images.live`` or ``images.archive``."""

    head: Head
    payload: Payload
