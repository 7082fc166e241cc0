"""Trials of workers that do not see the study's folder: what they leave is kept in a storage too, and found there.

A worker with ``WorkerContext.storage`` works in a temporary folder of its own; every folder that a trial would leave
(checkpoints, student, files of variants) is an object of the same name in the storage, which is a ``Mirror``. So is
what the task names by a path of the driver's: the teacher, a table of latencies. Images are not; a data source reads
them where the worker is.
"""

from __future__ import annotations

import contextlib
import fnmatch
import shutil
import tempfile
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from autodistill.errors import ResourceError, StoreError
from autodistill.records import LatencyTarget, Task, TeacherSpec, stable_key
from autodistill.training import checkpoint
from autodistill.training.mirror import Mirror

CHECKPOINTS = "step-*"
_STUDENT, _VARIANTS = "student", "variants"
_INPUTS, _A_FILE, _A_FOLDER = "inputs", "file", "folder"
_KEEP = 2  # checkpoints, as on a disk


@dataclass(frozen=True)
class Copy:
    """The folder of one trial and what is kept of it in a storage.

    Attributes:
        folder: the trial's, on this machine.
        mirror: the storage's part for this trial.
    """

    folder: Path
    mirror: Mirror

    def fetch(self) -> None:
        """Bring what is newer there: the finished student, else the newest checkpoint that is whole.

        Raises:
            ResourceError: the storage does not answer.
        """
        if (self.folder / _STUDENT).is_dir():
            return
        names = self.mirror.names()
        if _STUDENT in names:
            try:
                for name in (_VARIANTS, _STUDENT):  # the student last: where it is, everything is
                    if name in names:
                        self.mirror.get(name, self.folder / name)
                checkpoint.clear(self.folder)
            except StoreError as error:
                warnings.warn(f"{error} Without it the student has to be trained again.", stacklevel=2)
            return
        for name in _steps(names):
            if any(one.name >= name for one in self.folder.glob(CHECKPOINTS)):
                return
            try:
                self.mirror.get(name, self.folder / name)
                return
            except StoreError as error:
                warnings.warn(f"{error} The checkpoint before it is used.", stacklevel=2)

    def store(self) -> None:
        """Keep what is newest here: the finished student in the place of all checkpoints, else the last checkpoint.

        Raises:
            ResourceError: the student cannot be kept.

        Warns:
            UserWarning: a checkpoint cannot be kept; the training goes on, and would lose a little more work.
        """
        if (self.folder / _STUDENT).is_dir():
            for name in (_VARIANTS, _STUDENT):
                if (self.folder / name).is_dir():
                    self.mirror.put(name, self.folder / name)
            self._thin(0)
            return
        newest = max(self.folder.glob(CHECKPOINTS), default=None)
        if newest is not None:
            try:
                self.mirror.put(newest.name, newest)
                self._thin(_KEEP)
            except ResourceError as error:
                warnings.warn(f"{error} The training goes on.", stacklevel=2)

    def _thin(self, keep: int) -> None:
        for name in _steps(self.mirror.names())[keep:]:
            self.mirror.remove(name)


def _steps(names: list[str]) -> list[str]:
    """The checkpoints among ``names``, newest first."""
    return sorted(fnmatch.filter((one for one in names if "/" not in one), CHECKPOINTS), reverse=True)


def copy_of(mirror: Mirror, folder: Path, directory: str | Path) -> Copy:
    """The copy of a trial's ``folder`` below the study's ``directory``."""
    return Copy(folder, mirror.below(folder.relative_to(directory).as_posix()))


def nowhere() -> None:
    """Keeps a changed folder nowhere else."""


@dataclass(frozen=True)
class Workplace:
    """Where a worker's trials are at home.

    Attributes:
        task: as this worker has to read it.
        mirror: where their files are kept too; ``None`` where the study's own folder is at hand.
    """

    task: Task
    mirror: Mirror | None = None

    @contextlib.contextmanager
    def trial(self, folder: Path) -> Iterator[Callable[[], None]]:
        """A trial's stay: its files are brought before it, and do not pile up on this machine after it.

        Yields:
            To be called whenever the folder has changed.
        """
        if self.mirror is None:
            yield nowhere
            return
        copy = copy_of(self.mirror, folder, self.task.directory)
        copy.fetch()
        try:
            yield copy.store
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def workplace(task: Task, storage: str | None, owner: object) -> Workplace:
    """The study's folder, or a temporary one that lives as long as ``owner`` where the worker has a storage.

    Raises:
        ResourceError, StoreError: what the task needs cannot be brought from there.
    """
    if storage is None:
        return Workplace(task)
    home = Path(tempfile.mkdtemp(prefix="ad-work-"))
    weakref.finalize(owner, shutil.rmtree, home, ignore_errors=True)
    mirror = Mirror(storage)
    known = set(mirror.names(_INPUTS))

    def here(path: str) -> str:
        place = home / _input(path) / Path(path).name
        kinds = {_input(path, kind): folder for kind, folder in ((_A_FILE, place.parent), (_A_FOLDER, place))}
        for name in known & set(kinds):
            if not place.exists():
                mirror.get(name, kinds[name])
            return str(place)
        return path

    return Workplace(replace(_with_paths(task, here), directory=str(home)), mirror)


def send_inputs(task: Task, mirror: Mirror) -> None:
    """Keep in the storage what ``task`` names by a path of this machine.

    Raises:
        ResourceError: it cannot be written.
    """

    def send(path: str) -> str:
        place = Path(path).expanduser()
        if place.name and place.exists():
            mirror.put(_input(path, _A_FILE if place.is_file() else _A_FOLDER), place)
        return path

    _with_paths(task, send)


def task_of(factory: Any) -> Task | None:
    """The task that a factory of evaluators of this package is bound to; ``None`` for a user's own."""
    bound = getattr(factory, "args", ())
    tasks = [getattr(one, "task", one) for one in bound]
    return next((one for one in tasks if isinstance(one, Task)), None)


def _input(path: str, kind: str = "") -> str:
    return f"{_INPUTS}/{stable_key(path)}/{kind}".rstrip("/")


def _with_paths(task: Task, change: Callable[[str], str]) -> Task:
    """``task`` with every text that may be a path, in its teacher and its latency target, put through ``change``."""

    def changed(value: Any) -> Any:
        if isinstance(value, str):
            return change(value)
        if isinstance(value, Mapping):
            return {key: changed(one) for key, one in value.items()}
        return [changed(one) for one in value] if isinstance(value, (list, tuple)) else value

    teacher = asdict(task.teacher)
    teacher |= {key: changed(teacher[key]) for key in ("source", "weights", "options")}
    table = task.latency.table
    latency: LatencyTarget = replace(task.latency, table=None if table is None else change(table))
    return replace(task, teacher=TeacherSpec(**teacher), latency=latency)
