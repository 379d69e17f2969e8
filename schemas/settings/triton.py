"""Settings of the ``triton`` engine: where the server is, and how a member talks to it."""

from typing import Annotated, Literal

from msgspec import Meta

from roadstream.schemas.records.bounds import NonNegative, Positive
from roadstream.schemas.settings.base import EngineSettings, TagsGiven

Text = Annotated[str, Meta(min_length=1, max_length=400)]


class TritonSettings(EngineSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the ``triton`` engine. The member's ``model`` is the model's name on the server.

    Attributes:
        url: ``host:port`` of the server's gRPC endpoint, or ``unix:/path``.
        version: Version of the model; empty lets the server's version policy choose.
        sha256: Of the model's file, as `roadstream export triton` wrote it into the model's
            configuration; a server with other weights is refused.
        input: What the model takes: ``tensor`` (uint8 RGB [N, height, width, 3]) or ``jpeg`` (the
            bytes of one JPEG file per picture; other formats are encoded as JPEG here).
        input_name: Its name.
        output: Name of the output with one score per picture.
        score: What that output is: log-odds of roadwork, or a probability.
        heat: Name of the output with evidence per place, [N, h, w], from which boxes are drawn; a
            model need not have it.
        kinds: Names of what a detector finds, by number. With them, boxes are drawn from its
            outputs ``boxes``, ``scores`` and ``kinds``, as the ``onnx`` engine has them.
        box_threshold: Score, above 0 and at most 1, from which on things that it finds are drawn.
        boxes: Whether boxes are drawn.
        batching: Who makes batches: ``client`` sends one request per batch, cut to what the model
            takes at once; ``server`` sends one request per picture, for the server's dynamic
            batcher, and each has a deadline of its own.
        timeout: Seconds after which a request without an earlier deadline is given up, and the
            member counts as down.
        shared_memory: Whether tensors reach the server by system shared memory: ``auto`` where the
            URL is of this machine, ``system`` always, ``off`` never. Where the server cannot open
            it, they go over gRPC.
        load: Whether the model is loaded by the repository API when it is not ready, for a server
            under ``--model-control-mode explicit``.
        unload: Whether it is unloaded at the end, if it was loaded from here. Others that use it
            lose it until they load it again.
        load_timeout: Seconds that loading may take.
        wait: Seconds that the start waits for the server and the model.
        required: Whether the start fails when they are not there by then; if not, the member counts
            as down until they are.
        jpeg_quality: Of pictures that are encoded here, 1 to 100.
        tls: Whether the connection is encrypted.
        ca: File of the authorities to be trusted, PEM, relative to the cascade file; the system's
            if absent.
        certificate: File of the client's certificate chain, PEM, for servers that ask for one.
        key: File of its private key.
    """

    url: Text = "127.0.0.1:8001"
    version: Annotated[str, Meta(pattern=r"^[0-9]{0,18}$")] = ""
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")] | None = None
    input: Literal["tensor", "jpeg"] = "tensor"
    input_name: Text = "images"
    output: Text = "logit"
    score: Literal["log_odds", "probability"] = "log_odds"
    heat: Text = "heat"
    kinds: list[Text] = []
    box_threshold: Annotated[float, Meta(gt=0, le=1)] = 0.3
    boxes: bool = True
    batching: Literal["client", "server"] = "client"
    timeout: Positive = 30.0
    shared_memory: Literal["auto", "system", "off"] = "auto"
    load: bool = False
    unload: bool = False
    load_timeout: Positive = 300.0
    wait: NonNegative = 30.0
    required: bool = True
    jpeg_quality: Annotated[int, Meta(ge=1, le=100)] = 92
    tls: bool = False
    ca: Text | None = None
    certificate: Text | None = None
    key: Text | None = None

    def given_tags(self) -> TagsGiven:
        """Return the tags that a member with them may give."""
        return {}
