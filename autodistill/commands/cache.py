"""``cache ls|rm``: what studies keep on disk only to be faster, and how to have the space back."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from autodistill.commands.output import number, print_json, print_table, say
from autodistill.commands.reading import JsonOption, study_folders
from autodistill.errors import UsageError

app = typer.Typer(no_args_is_help=True, help="List and remove what can be made again: decoded images, teacher logits.")

_FOLDERS = ("cache", "checkpoints")


@app.command("ls")
def ls(
    study: Annotated[Path | None, typer.Argument(metavar="DIR", help="A study; without it, all below runs/.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List the caches and checkpoints of studies, and the disk they take."""
    studies = [study] if study is not None else study_folders()
    for folder in studies:
        _need_study(folder)
    rows = [(folder, name, _size(folder / name)) for folder in studies for name in _FOLDERS if (folder / name).is_dir()]
    if as_json:
        print_json([{"study": str(folder), "folder": name, "bytes": size} for folder, name, size in rows])
        return
    print_table(
        ["study", "folder", "MB"], [[str(s), name, number(size / 2**20)] for s, name, size in rows], right=("MB",)
    )


@app.command("rm")
def rm(
    study: Annotated[Path, typer.Argument(metavar="DIR", help="The study.")],
    checkpoints: Annotated[
        bool, typer.Option("--checkpoints", help="Also checkpoints: interrupted trials begin anew, weights are gone.")
    ] = False,
) -> None:
    """Remove a study's cache; it is filled again when it is needed. Refused while the study runs."""
    from autodistill.search.store import folder_lock

    _need_study(study)
    with folder_lock(study):
        for name in _FOLDERS if checkpoints else _FOLDERS[:1]:
            folder = study / name
            if folder.is_dir():
                size = _size(folder)
                shutil.rmtree(folder)
                say(f"removed {folder} ({number(size / 2**20)} MB)")


def _need_study(folder: Path) -> None:
    from autodistill.search.store import is_study

    if not is_study(folder):
        raise UsageError(
            f"{folder} is not a study: it has no study.db. Give the folder that 'autodistill search' made."
        )


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
