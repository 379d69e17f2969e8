"""``roadstream export``: writes what another server needs to run a cascade's models."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from roadstream.schemas.cascade.loading import load_cascade
from roadstream.workers.commands.common import CascadeName, LogLevel
from roadstream.workers.engines.triton.export import (
    REPOSITORY,
    Wanted,
    claim_folder,
    export_members,
)
from roadstream.workers.observe.logging import configure_logging
from roadstream.workers.observe.terminal import console
from roadstream.workers.service.option_checks import MOST_SHOWN, MOST_WORKERS, check_number

export = App(name="export", help="Write what another server needs to run a cascade's models.")


@export.command
def triton(
    *,
    out: Annotated[Path, Parameter(help="Folder to write; it must be empty or not there.")],
    cascade: CascadeName = "lite",
    member: Annotated[
        list[str] | None,
        Parameter(
            negative="",
            help="Export this member; say it again for more. By default, all that can be.",
        ),
    ] = None,
    url: Annotated[
        str, Parameter(help="HOST:PORT of the server's gRPC, for the new cascade file.")
    ] = "127.0.0.1:8001",
    device: Annotated[
        Literal["auto", "cpu", "gpu"],
        Parameter(help="What the models run on; auto: a GPU where the server has one."),
    ] = "auto",
    instances: Annotated[int, Parameter(help="Instances per model (and GPU).")] = 1,
    max_batch: Annotated[
        int | None, Parameter(help="Most pictures per batch; by default, the tier's max_batch.")
    ] = None,
    force: Annotated[
        bool, Parameter(negative="", help="Overwrite what an export wrote there before.")
    ] = False,
    log_level: LogLevel = "warning",
) -> None:
    """Write a Triton model repository of a cascade's members, and a cascade file that uses it.

    ONNX members are copied; torch members (classifiers, and backbones with a head) are exported
    to ONNX and compared with the original. Rules and other engines stay what they are.

    Then start a server on the repository and score with the new cascade file:

    tritonserver --model-repository=FOLDER/models

    roadstream score --cascade FOLDER/cascade.toml PICTURES

    Give `--member NAME` to export some only, and `--url` if the server runs elsewhere; both stand
    in FOLDER/cascade.toml and can be edited there. See docs/guide/triton.md.
    """
    check_number("--instances", instances, 1, MOST_WORKERS, "instances")
    check_number("--max-batch", max_batch, 1, MOST_SHOWN, "pictures")
    configure_logging(log_level)
    loaded = load_cascade(cascade)
    claim_folder(out, force=force)
    wanted = Wanted(member or (), url, f"KIND_{device.upper()}", instances, max_batch)
    shown = console()
    with shown.status(f"exporting {loaded.name}"):
        path = export_members(loaded, wanted, out, shown.print)
    shown.print(f"tritonserver --model-repository={out / REPOSITORY}", soft_wrap=True)
    shown.print(f"roadstream score --cascade {path} PICTURES", soft_wrap=True)
