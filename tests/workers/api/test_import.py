"""Importing the package does nothing to the process that does it, and takes next to nothing in."""

import json
import subprocess
import sys
import textwrap

import pytest

import roadstream

STATE = """
import atexit, gc, json, logging, os, signal, sys, threading, warnings
import PIL.Image, cv2

def state():
    handlers = {name: len(logging.getLogger(name).handlers) for name in ("", "PIL", "roadstream")}
    return {
        "environment": dict(os.environ), "path": list(sys.path),
        "signals": [str(signal.getsignal(n)) for n in sorted(signal.valid_signals())],
        "gc": [gc.get_threshold(), gc.get_freeze_count()], "handlers": handlers,
        "filters": [str(one) for one in warnings.filters], "bombs": PIL.Image.MAX_IMAGE_PIXELS,
        "hooks": [str(sys.excepthook), str(threading.excepthook)],
        "threads": threading.active_count(), "cv2": cv2.getNumThreads(),
    }
"""


def said_by(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-P", "-c", textwrap.dedent(code)],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    return done.stdout


def test_importing_it_takes_nothing_else_in() -> None:
    code = "import sys; old = set(sys.modules); import roadstream; print(*(set(sys.modules) - old))"

    modules = set(said_by(code).split())

    assert {name.partition(".")[0] for name in modules} <= {"roadstream", *sys.stdlib_module_names}


def test_every_public_name_is_there_and_changes_nothing_in_the_process() -> None:
    code = """
before, changed = state(), {}
import roadstream
for name in roadstream.__all__:
    assert getattr(roadstream, name) is getattr(roadstream, name)
    after = state()
    for key in before:
        if before[key] != after[key]:
            changed.setdefault(key, [name, before[key], after[key]])
print(json.dumps(changed))
"""

    assert json.loads(said_by(STATE + code)) == {}


@pytest.mark.parametrize("command", ["score", "serve", "produce"])
def test_a_command_that_judges_nothing_itself_loads_nothing_that_decodes(command: str) -> None:
    code = f"import sys, roadstream.workers.commands.{command}; print(*sys.modules)"

    assert not {"av", "cv2", "numpy", "PIL"} & set(said_by(code).split())


def test_names_are_listed_and_others_are_errors() -> None:
    assert set(roadstream.__all__) <= set(dir(roadstream))
    with pytest.raises(AttributeError, match="no attribute 'none_such'"):
        roadstream.none_such  # noqa: B018
