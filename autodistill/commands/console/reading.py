"""Arguments that name a study, and reading of a study without creating, locking or changing it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autodistill.commands.console.output import say
from autodistill.core.errors import UsageError

if TYPE_CHECKING:
    from autodistill.search.study.study import Study

RUNS = Path("runs")

StudyArgument = Annotated[
    Path | None, typer.Argument(metavar="DIR", help="Folder of the study. Default: the newest study in runs/.")
]
DirOption = Annotated[
    Path | None, typer.Option("--dir", metavar="DIR", help="Folder of the study, as the argument DIR.")
]
WeightsOption = Annotated[
    str,
    typer.Option(
        metavar="ORIGIN",
        help="Weights of the search (search), of 'verify' (verified), or auto: verified if there are any.",
    ),
]
FileLatencyOption = Annotated[
    bool, typer.Option(help="Measure the latency of the files; trainings on this machine pause meanwhile.")
]
DataOption = Annotated[
    str | None,
    typer.Option(
        help="Source of the images: digits, image_folder, manifest (CSV), hf (Parquet …), webdataset (tar) … "
        "Default: digits."
    ),
]
DataRootOption = Annotated[
    str | None, typer.Option(metavar="PATH", help="Folder with the image files, or the table or archive of images.")
]
DropDuplicatesOption = Annotated[
    bool,
    typer.Option(
        "--drop-duplicates",
        help="Leave out of the training what has a copy in validation or test, or a copy with another label.",
    ),
]
TrainSizeOption = Annotated[
    int | None, typer.Option(metavar="N", help="Number of training images to use. Default: all.")
]
ResizeOption = Annotated[
    str | None,
    typer.Option(metavar="HOW", help="How to make images square: crop, squash or letterbox. Default: crop."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def folder_of(argument: Path | None, option: Path | None) -> Path:
    """Return the study folder that the argument or the option names, else the newest one in ``runs/``.

    Raises:
        UsageError: Both name different folders, or there is no study in ``runs/``.
    """
    if argument is not None and option is not None and argument != option:
        raise UsageError(f"two study folders are given, {argument} and {option}; give one.")
    given = argument if argument is not None else option
    if given is not None:
        return given
    found = sorted(study_folders(), key=lambda folder: _last_change(folder))
    if not found:
        raise UsageError(
            f"no study is given and there is none in {RUNS}/; give the folder of a study, "
            "or create one with 'autodistill search --data digits --budget 5m'."
        )
    say(f"study {found[-1]}")
    return found[-1]


def study_folders() -> list[Path]:
    """List the studies in ``runs/``."""
    from autodistill.search.storage.study_folder import is_study

    return sorted(folder for folder in RUNS.glob("*") if folder.is_dir() and is_study(folder))


def _last_change(folder: Path) -> float:
    """Return the time of the last change to a study's files; trials in a database server do not count."""
    files = [folder / name for name in ("study.db", "study.yaml", "front.json")]
    return max(path.stat().st_mtime for path in files if path.exists())


def read_study(argument: Path | None, option: Path | None = None) -> Study:
    """Open the study in a folder for reading.

    Raises:
        UsageError: The folder is not a study.
    """
    from autodistill.engines.setup.study_setup import open_to_read

    return open_to_read(folder_of(argument, option))
