"""The Triton engine on a real server: scores, JPEG files, deadlines, shared memory, models."""

import os
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import structlog
import trustme

from roadstream.schemas.cascade.loading import load_cascade
from roadstream.schemas.cascade.model import Member
from roadstream.schemas.errors import ConfigError, EngineDownError, ImageError
from roadstream.schemas.settings.local import OnnxSettings
from roadstream.stages.decoding.decode import decode, encode_jpeg
from roadstream.stages.inference import Picture, Pictures, Score, infer_isolated
from roadstream.workers.demo.render import write_drive
from roadstream.workers.engines.onnx import OnnxEngine
from roadstream.workers.engines.triton import memory
from roadstream.workers.engines.triton.engine import TritonEngine
from roadstream.workers.engines.triton.export import (
    REPOSITORY,
    Wanted,
    claim_folder,
    export_members,
)
from tests.kits.fake_engine import picture
from tests.kits.heat_model import SIZE, write_heat_model
from tests.kits.triton_kit import KINDS, SHARED, around, engine_on, grey, noise, raws, triton_member
from tests.kits.triton_server import GATED, GREY, TritonServer

pytestmark = pytest.mark.triton
GLANCE = (256, 160)
OBJECTS = (672, 384)
WAYS = [
    {"shared_memory": "auto"},
    {"shared_memory": "off"},
    {"batching": "server"},
    {"batching": "server", "shared_memory": "off"},
]


@pytest.fixture(scope="module")
def server(triton: TritonServer, triton_lite: Path) -> TritonServer:
    """The session's server, with the models of ``lite`` and one that decodes JPEG files."""
    assert triton_lite.exists()
    if not triton.has("grey"):
        triton.add("grey", GREY, "grey")
        triton.load("grey")
    return triton


@pytest.fixture
def gated(triton: TritonServer) -> Iterator[Path]:
    """Folder of a model that waits for the file ``gate`` there; fresh for each test."""
    folder = triton.repository / "gated" / "1"
    if not folder.exists():
        triton.add("gated", GATED, "gated")
        triton.load("gated")
    yield folder
    (folder / "gate").touch()
    (folder / "gate").unlink()


def local(name: str, batch: Pictures) -> list[Score]:
    """Return what the ``onnx`` engine says."""
    lite = load_cascade("lite")
    member = next(m for t in lite.tiers for m in t.members if m.name == name)
    engine = OnnxEngine(lite, member, SHARED)
    engine.load()
    return [one for one in engine.infer(batch) if isinstance(one, Score)]


@pytest.mark.parametrize("settings", WAYS, ids=str)
def test_scores_are_those_of_the_local_engine(
    server: TritonServer, settings: dict[str, str]
) -> None:
    batch = Pictures(noise(3))
    given = {"kinds": KINDS, "boxes": False, **settings}
    with engine_on(server, "objects", OBJECTS, **given) as engine:
        found = engine.infer(batch)
    assert raws(found) == pytest.approx(raws(local("objects", batch)), abs=1e-4)
    assert not any(one.boxes for one in found if isinstance(one, Score))


def test_boxes_of_a_detector_are_those_of_the_local_engine(
    server: TritonServer, tmp_path: Path
) -> None:
    write_drive(tmp_path, 4, width=640, height=360)
    files = sorted(tmp_path.glob("*.jpg"))
    batch = Pictures(
        [Picture(decode(file.read_bytes(), min_width=672, min_height=384)) for file in files]
    )
    expected = local("objects", batch)
    assert any(one.boxes for one in expected), "the pictures show nothing to compare"
    with engine_on(server, "objects", OBJECTS, kinds=KINDS) as engine:
        found = engine.infer(batch)
    assert [one.boxes for one in found if isinstance(one, Score)] == [e.boxes for e in expected]


def test_boxes_of_evidence_are_those_of_the_local_engine(
    triton: TritonServer, tmp_path: Path
) -> None:
    member = Member(name="heat", engine="onnx", width=SIZE[0], height=SIZE[1],
                    model=str(write_heat_model(tmp_path / "heat.onnx")),
                    settings=OnnxSettings())  # fmt: skip
    claim_folder(tmp_path / "out", force=False)
    export_members(around(member), Wanted(kind="KIND_CPU"), tmp_path / "out", print)
    shutil.copytree(tmp_path / "out" / REPOSITORY, triton.repository, dirs_exist_ok=True)
    triton.load("heat")
    batch = Pictures([bright(1, 3), bright(0, 8)])
    here = OnnxEngine(around(member), member, SHARED)
    here.load()
    with engine_on(triton, "heat", SIZE) as engine:
        found = engine.infer(batch)
    assert found == here.infer(batch)
    assert [len(one.boxes) for one in found if isinstance(one, Score)] == [1, 1]


def bright(first: int, last: int) -> Picture:
    """Return a dark picture in which these columns are white."""
    pixels = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    pixels[:, first:last] = 255
    return Picture(pixels)


@pytest.mark.parametrize("settings", WAYS[:2], ids=str)
def test_a_batch_larger_than_the_model_takes_is_cut(
    server: TritonServer, settings: dict[str, str]
) -> None:
    batch = Pictures(noise(10))  # max_batch_size is the tier's, 4
    with engine_on(server, "glance", GLANCE, **settings) as engine:
        found = engine.infer(batch)
    assert raws(found) == pytest.approx(raws(local("glance", batch)), abs=1e-4)


def test_an_engine_says_what_it_needs_and_where_it_runs(server: TritonServer) -> None:
    with engine_on(server, "glance", GLANCE) as engine:
        assert (engine.needs_pixels, engine.needs_encoded) == (True, False)
        assert engine.device == f"triton:{server.url}"
    with engine_on(server, "grey", input="jpeg") as engine:
        assert (engine.needs_pixels, engine.needs_encoded) == (False, True)


@pytest.mark.parametrize("batching", ["client", "server"])
def test_files_go_as_they_are_and_a_broken_one_fails_alone(
    server: TritonServer, batching: str
) -> None:
    jpeg = encode_jpeg(np.full((16, 16, 3), 96, np.uint8))
    broken, text = jpeg[:40], b"no picture at all"
    batch = Pictures(
        [
            Picture(encoded=memoryview(jpeg)),
            Picture(encoded=broken),
            Picture(encoded=picture(200)),  # PNG
            Picture(encoded=text),
            grey(64),
        ]
    )
    with engine_on(server, "grey", input="jpeg", batching=batching) as engine:
        found = infer_isolated(engine, batch).found

    scores = [one.raw if isinstance(one, Score) else None for one in found]
    assert scores == [
        pytest.approx(expected, abs=0.1) if expected is not None else None
        for expected in (-2.0, None, 4.5, None, -4.0)
    ]
    assert isinstance(found[1], ImageError)
    assert found[1].fault == "model_failed"
    assert "model grey on triton at" in str(found[1])
    assert str(found[3]) == "not_an_image: expected a picture, the file is text"


def test_a_request_whose_deadline_passes_is_cancelled_on_the_server(
    triton: TritonServer, gated: Path
) -> None:
    line = len(triton.said)
    with engine_on(triton, "gated") as engine:
        found = engine.infer(Pictures([grey(1, time.time() + 0.3), grey(2, time.time() + 0.2)]))
    assert [str(one) for one in found] == [
        "expired: the deadline passed before triton answered"
    ] * 2
    assert not (gated / "gate").exists()
    assert triton.says("gated: cancelled", line)


def test_a_deadline_that_passes_harms_no_neighbour(triton: TritonServer, gated: Path) -> None:
    (gated / "gate").touch()
    batch = Pictures([grey(1), grey(2, time.time() - 1), grey(3, time.time() + 30)])
    with engine_on(triton, "gated", batching="server") as engine:
        first, late, last = engine.infer(batch)
    assert first == last == Score(3.0, [])
    assert isinstance(late, ImageError)
    assert late.fault == "expired"


def test_a_server_that_does_not_answer_in_time_counts_as_away(
    triton: TritonServer, gated: Path
) -> None:
    assert not (gated / "gate").exists()
    with (
        engine_on(triton, "gated", timeout=0.2) as engine,
        pytest.raises(EngineDownError, match=r"no answer of triton at .* within 0\.2 s"),
    ):
        engine.infer(Pictures([grey(1, time.time() + 60)]))


def test_several_batches_are_under_way_at_once(
    server: TritonServer, triton: TritonServer, gated: Path
) -> None:
    line = len(triton.said)
    with (
        engine_on(triton, "gated") as slow,
        engine_on(server, "grey", input="jpeg") as quick,
        ThreadPoolExecutor(2) as threads,
    ):
        waiting = [threads.submit(slow.infer, Pictures([grey(n)])) for n in range(2)]
        assert triton.says("gated: begun", line)
        assert raws(quick.infer(Pictures([grey(128)]))) == [pytest.approx(0, abs=0.1)]
        assert not any(one.done() for one in waiting)
        (gated / "gate").touch()
        assert [one.result(20) for one in waiting] == [[Score(3.0, [])]] * 2


def test_tensors_go_by_shared_memory_which_is_given_back(server: TritonServer) -> None:
    before = server.regions()
    with engine_on(server, "glance", GLANCE) as engine:
        for size in (1, 4, 2):
            engine.infer(Pictures(noise(size)))
        assert len(server.regions()) == len(before) + 2  # of 1 and of 4, which serves 2 as well
    assert server.regions() == before
    assert not list(Path("/dev/shm").glob(f"roadstream-triton-{os.getpid()}-*"))


def test_without_shared_memory_tensors_go_by_grpc_and_the_log_says_so(
    server: TritonServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The server looks for the region's name in /dev/shm, as one in another container does.
    monkeypatch.setattr(memory, "FOLDER", tmp_path)
    batch = Pictures(noise(2))
    with structlog.testing.capture_logs() as logs:
        with engine_on(server, "glance", GLANCE, shared_memory="system") as engine:
            found = [engine.infer(batch), engine.infer(batch)]
        (said,) = [one for one in logs if one["event"] == "triton_without_shared_memory"]
    assert found[0] == found[1]
    assert raws(found[0]) == pytest.approx(raws(local("glance", batch)), abs=1e-4)
    assert (said["member"], said["instead"]) == ("m", "gRPC")
    assert "Unable to open shared memory region" in said["error"]
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the certificates of a server, and of the authority that signed them."""
    folder, authority = tmp_path_factory.mktemp("tls"), trustme.CA()
    issued = authority.issue_cert("localhost")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    issued.cert_chain_pems[0].write_to_path(folder / "server.pem")
    trustme.CA().cert_pem.write_to_path(folder / "stranger.pem")
    return folder


def test_a_connection_is_encrypted_where_that_is_wanted(certificates: Path, tmp_path: Path) -> None:
    key, chain = certificates / "key.pem", certificates / "server.pem"
    server = TritonServer(
        tmp_path, "--grpc-use-ssl=true", f"--grpc-server-key={key}", f"--grpc-server-cert={chain}"
    )
    server.add("grey", GREY, "grey")
    server.start("grey")
    server.url = server.url.replace("127.0.0.1", "localhost")
    try:
        with engine_on(
            server, "grey", input="jpeg", tls=True, ca=str(certificates / "ca.pem")
        ) as engine:
            assert raws(engine.infer(Pictures([grey(64)]))) == [pytest.approx(-4, abs=0.1)]
        stranger = str(certificates / "stranger.pem")
        for settings in ({"tls": True, "ca": stranger}, {"tls": False}):
            with pytest.raises(EngineDownError, match="triton at localhost"):
                triton_engine(server, "grey", input="jpeg", **settings).load()
    finally:
        server.kill()


def test_a_model_is_loaded_and_unloaded_where_that_is_wanted(triton: TritonServer) -> None:
    triton.add("onload", GREY, "grey")
    with pytest.raises(EngineDownError, match=r"is not loaded; settings.load would load it"):
        triton_engine(triton, "onload", input="jpeg").load()
    assert not triton.has("onload")
    with engine_on(triton, "onload", input="jpeg", load=True, unload=True) as engine:
        assert triton.has("onload")
        assert raws(engine.infer(Pictures([grey(64)]))) == [pytest.approx(-4, abs=0.1)]
    assert not triton.has("onload")


def triton_engine(
    server: TritonServer, model: str, size: tuple[int, int] = (8, 8), **settings: object
) -> TritonEngine:
    member = triton_member(server, model, size, **settings)
    return TritonEngine(around(member), member, SHARED)


@pytest.mark.parametrize(
    ("model", "size", "settings", "problem"),
    [
        ("nope", GLANCE, {}, r"expected one of the server's models \(.*glance.*\), got no such"),
        ("nope", GLANCE, {"load": True}, r"expected a model that the server can load, got .*nope"),
        ("glance", (8, 8), {}, r"expected one input, images UINT8 \[-1, 8, 8, 3\], got images"),
        ("glance", GLANCE, {"input": "jpeg"}, r"expected one input, images BYTES \[-1, 1\], got"),
        ("glance", GLANCE, {"kinds": ["cone"]}, r"expected outputs boxes FP32 .*, got none"),
        ("objects", OBJECTS, {"output": "scores"}, r"expected an output scores .*, got scores"),
        ("glance", GLANCE, {"sha256": "0" * 64}, r"expected weights of SHA-256 0+, got other"),
        ("glance", GLANCE, {"tls": True, "ca": "x"}, r"settings\.ca: expected a PEM file, got"),
    ],
)
def test_a_member_that_does_not_fit_the_model_is_refused_at_the_start(
    server: TritonServer,
    model: str,
    size: tuple[int, int],
    settings: dict[str, object],
    problem: str,
) -> None:
    engine = triton_engine(server, model, size, **settings)
    with pytest.raises(ConfigError, match=r"^test: member m: .*" + problem):
        engine.load()


def test_a_version_that_is_not_there_is_named(server: TritonServer) -> None:
    with pytest.raises(EngineDownError, match=r"model glance version 7 on .* is not ready"):
        triton_engine(server, "glance", GLANCE, version="7").load()
    with engine_on(server, "glance", GLANCE, version="1") as engine:
        assert len(engine.infer(Pictures(noise(1)))) == 1
