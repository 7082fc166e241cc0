"""``cache ls|rm``: lists and removes caches and checkpoints to free disk space.

All studies of a user share the decoded images and the caches of teacher outputs in the user's cache folder. Checkpoints
belong to one study. The cache folder also has the list of students that crashed on this machine.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated, Any

import typer

from autodistill.commands.console.output import command, number, print_json, print_table, say
from autodistill.commands.console.reading import JsonOption, study_folders
from autodistill.core.errors import ResourceError, UsageError

app = typer.Typer(no_args_is_help=True, help="List and remove caches: decoded images, teacher outputs.")

_FOLDERS = ("cache", "checkpoints")
_CRASHES = "crashes"


@app.command("ls")
def ls(
    study: Annotated[
        Path | None,
        typer.Argument(metavar="DIR", help="Folder of a study. Default: all studies in runs/, and the shared caches."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List shared caches, and caches and checkpoints of studies, with their size in MB."""
    studies = [study] if study is not None else study_folders()
    for folder in studies:
        _need_study(folder)
    rows: list[dict[str, Any]] = [
        {"study": str(folder), "folder": name, "bytes": _size(folder / name)}
        for folder in studies
        for name in _FOLDERS
        if (folder / name).is_dir()
    ]
    if study is None:
        rows += [*_shared(), *_crashes()]
    if as_json:
        print_json(rows)
        return
    shown = [
        [row["study"] or "shared", row["folder"], row.get("what", ""), number(row["bytes"] / 2**20)] for row in rows
    ]
    print_table(["study", "folder", "", "MB"], shown, right=("MB",))
    if any(row["study"] is None for row in rows):
        say("next:\n  " + command("cache", "rm", "NAME"))


@app.command("rm")
def rm(
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="DIR|NAME", help="Folder of a study, or the name of a shared cache (its first letters suffice)."
        ),
    ] = None,
    checkpoints: Annotated[
        bool,
        typer.Option(
            "--checkpoints",
            help="Also remove the study's checkpoints: trained weights are lost, interrupted trials start over.",
        ),
    ] = False,
    shared: Annotated[
        bool, typer.Option("--shared", help="Remove all shared caches of images and teacher outputs.")
    ] = False,
) -> None:
    """Remove the cache of a study or a shared cache. It is rebuilt when needed; a cache in use is not removed.

    'cache rm crashes' clears the list of students that crashed on this machine; new studies try them again.
    """
    if (target is None) != shared or (checkpoints and shared):
        raise UsageError("cache rm needs exactly one of a study's folder, the name of a shared cache, and --shared.")
    if target is None:
        _remove_shared([row["folder"] for row in _shared()], all_of_them=True)
    elif target == _CRASHES and _crashes():
        _forget_crashes()
    elif (Path(target) / "study.db").is_file():
        _remove_of_study(Path(target), _FOLDERS if checkpoints else _FOLDERS[:1])
    else:
        names = [row["folder"] for row in _shared()]
        matching = [name for name in names if name == target or name.split("/", 1)[1].startswith(target)]
        if len(matching) != 1:
            _need_study(Path(target), "; shared caches: " + (", ".join(matching or names) or "none"))
        _remove_shared(matching)


def _shared() -> list[dict[str, Any]]:
    """List the shared caches: decoded images as ``images/KEY``, teacher outputs as ``teacher/KEY``."""
    from autodistill.training.runtime.cache_folder import cache_folder, teacher_caches
    from autodistill.training.teachers.cache.folders import list_caches

    rows: list[dict[str, Any]] = [
        {"study": None, "folder": f"images/{path.name}", "bytes": _size(path), "what": "decoded images"}
        for path in sorted((cache_folder() / "images").glob("[!.]*"))
        if path.is_dir()
    ]
    for info in list_caches(teacher_caches()):
        share = info.filled / max(1, info.views * info.images)
        what = f"{info.images:,} images x {info.views} views, {info.classes} classes, {share:.0%} filled"
        facts = {"images": info.images, "views": info.views, "filled": info.filled, "used": info.used}
        rows.append({"study": None, "folder": f"teacher/{info.name}", "bytes": info.bytes, "what": what, **facts})
    return rows


def _crashes() -> list[dict[str, Any]]:
    """Return one row about the students that crashed on this machine; empty if there are none."""
    from autodistill.core.wording import counted, student_words
    from autodistill.training.costs.crash_memory import FILE, read
    from autodistill.training.runtime.cache_folder import cache_folder

    path = cache_folder() / FILE
    found = [f"{student_words(row['student'])} ({row['how']})" for row in read(path).values()]
    if not found:
        return []
    what = f"{counted(len(found), 'student')} that crashed their worker: {', '.join(found)}"
    return [{"study": None, "folder": _CRASHES, "bytes": path.stat().st_size, "what": what, "students": found}]


def _forget_crashes() -> None:
    from autodistill.training.costs.crash_memory import FILE
    from autodistill.training.runtime.cache_folder import cache_folder

    (cache_folder() / FILE).unlink(missing_ok=True)
    say("cleared the list of students that crashed their worker; new studies try them again")


def _remove_shared(names: list[str], *, all_of_them: bool = False) -> None:
    """Remove shared caches by name; with ``all_of_them``, print and skip those in use instead of raising an error."""
    from autodistill.training.runtime.cache_folder import cache_folder, teacher_caches
    from autodistill.training.teachers.cache.folders import remove

    for name in names:
        kind, key = name.split("/", 1)
        try:
            if kind == "teacher":
                size = remove(teacher_caches(), key)
            else:
                size = _size(cache_folder() / name)
                shutil.rmtree(cache_folder() / name)
        except ResourceError as error:
            if not all_of_them:
                raise
            say(f"kept {name}: {error}")
        else:
            say(f"removed {name} ({number(size / 2**20)} MB)")


def _remove_of_study(study: Path, names: tuple[str, ...]) -> None:
    from autodistill.search.storage.study_folder import folder_lock

    with folder_lock(study):
        for name in names:
            folder = study / name
            if folder.is_dir():
                size = _size(folder)
                shutil.rmtree(folder)
                say(f"removed {folder} ({number(size / 2**20)} MB)")


def _need_study(folder: Path, more: str = "") -> None:
    from autodistill.search.storage.study_folder import is_study

    if not is_study(folder):
        raise UsageError(
            f"{folder} is not a study: it has no study.db. Give a folder made by 'autodistill search'{more}."
        )


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
