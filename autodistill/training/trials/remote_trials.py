"""Trials of workers that do not see the study's folder: what they leave is kept in a storage too, and found there.

A worker with ``WorkerContext.storage`` works in a temporary folder of its own; every folder that a trial would leave
(checkpoints, student, files of variants) is an object in the storage, which is a ``RemoteFolder``. So is what the task
names by a path of the driver's: the teacher, a table of latencies. Images are not; a data source reads them where the
worker is.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from autodistill.core.errors import ResourceError, StoreError
from autodistill.core.records import LatencyTarget, Task, TeacherSpec, stable_key
from autodistill.training.runtime import durable_files
from autodistill.training.runtime.remote_storage import RemoteFolder
from autodistill.training.trials.trial_files import STUDENT, VARIANTS, student_key

_STUDENT = f"{STUDENT}-"
_INPUTS, _A_FILE, _A_FOLDER = "inputs", "file", "folder"


@dataclass(frozen=True)
class RemoteCopy:
    """The folder of one trial and what is kept of it in a storage.

    Objects are called as their folders are, with the key of what was trained at their end (``step-STEP-KEY``,
    ``student-KEY``): a teacher or images that have changed make another training of the same trial.

    Attributes:
        folder: the trial's, on this machine.
        remote_folder: the storage's part for this trial.
    """

    folder: Path
    remote_folder: RemoteFolder

    def fetch(self, names: Sequence[str] | None = None, *, replace: bool = False) -> None:
        """Bring what is newer there: the finished student, and of every training the newest checkpoint that is whole.

        Args:
            names: what is there, where that is known already.
            replace: bring the student also in the place of one of another training, since it is the later one.

        Raises:
            ResourceError: the storage does not answer.
        """
        names = self.remote_folder.names() if names is None else names
        self._fetch_student(names, replace)
        here = durable_files.ranked(durable_files.names(self.folder))
        for key, there in durable_files.ranked(names).items():
            self._fetch_checkpoint(there, here.get(key, []))

    def keep(self, path: Path) -> None:
        """Keep a folder that was just written: the finished student in the place of all checkpoints, or a checkpoint.

        Raises:
            ResourceError: the student cannot be kept.

        Warns:
            UserWarning: a checkpoint cannot be kept; the training goes on, and would lose a little more work.
        """
        if path.name == STUDENT:
            self._keep_student(path)
            return
        try:
            self.remote_folder.put(path.name, path)
            for old in durable_files.outdated(path.name, self.remote_folder.names()):
                self.remote_folder.remove(old)
        except ResourceError as error:
            warnings.warn(f"{error} The training goes on.", stacklevel=2)

    def send(self, names: Sequence[str]) -> None:
        """Keep the newest checkpoint of every training; a student there that is not the one here goes.

        Args:
            names: what is there.
        """
        for newest, *_ in durable_files.ranked(durable_files.names(self.folder)).values():
            self.keep(self.folder / newest)
        here = student_key(self.folder)
        if here is not None:
            self._remove_students(names, but=here)

    def _keep_student(self, path: Path) -> None:
        key, names = student_key(self.folder), self.remote_folder.names()
        if (self.folder / VARIANTS).is_dir():
            self.remote_folder.put(VARIANTS, self.folder / VARIANTS)
        self._remove_students(names, but=key)
        self.remote_folder.put(f"{_STUDENT}{key}", path)  # last: where it is, everything is
        for old in durable_files.ranked(names).values():
            for name in old:
                self.remote_folder.remove(name)

    def _remove_students(self, names: Sequence[str], *, but: str | None) -> None:
        for name in names:
            if name.startswith(_STUDENT) and name != f"{_STUDENT}{but}":
                self.remote_folder.remove(name)

    def _fetch_student(self, names: Sequence[str], replace: bool) -> None:
        there = next((name for name in names if name.startswith(_STUDENT)), None)
        here = student_key(self.folder)
        if there is None or (here is not None and (not replace or there == f"{_STUDENT}{here}")):
            return
        try:
            if VARIANTS in names:
                self.remote_folder.get(VARIANTS, self.folder / VARIANTS)
            self.remote_folder.get(there, self.folder / STUDENT)
            for name in durable_files.ranked(durable_files.names(self.folder)).get(there.removeprefix(_STUDENT), ()):
                shutil.rmtree(self.folder / name, ignore_errors=True)
        except StoreError as error:
            warnings.warn(f"{error} Without it the student has to be trained again.", stacklevel=2)

    def _fetch_checkpoint(self, there: Sequence[str], here: Sequence[str]) -> None:
        """The newest of one training; names are newest first, and sort by step."""
        for name in there:
            if any(one >= name for one in here):
                return
            try:
                self.remote_folder.get(name, self.folder / name)
                return
            except StoreError as error:
                warnings.warn(f"{error} The checkpoint before it is used.", stacklevel=2)


def copy_of(remote_folder: RemoteFolder, folder: Path, directory: str | Path) -> RemoteCopy:
    """The copy of a trial's ``folder`` below the study's ``directory``."""
    return RemoteCopy(folder, remote_folder.below(folder.relative_to(directory).as_posix()))


def nowhere(path: Path) -> None:
    """Keeps a folder nowhere else."""


@dataclass(frozen=True)
class RemoteWorkplace:
    """Where a worker's trials are at home.

    Attributes:
        task: as this worker has to read it.
        remote_folder: where their files are kept too; ``None`` where the study's own folder is at hand.
    """

    task: Task
    remote_folder: RemoteFolder | None = None

    @contextlib.contextmanager
    def trial(self, folder: Path) -> Iterator[Callable[[Path], None]]:
        """A trial's stay: its files are brought before it, and do not pile up on this machine after it.

        Yields:
            To be called with every folder that was written in the trial's: a checkpoint, or the student.
        """
        if self.remote_folder is None:
            yield nowhere
            return
        copy = copy_of(self.remote_folder, folder, self.task.directory)
        copy.fetch()
        try:
            yield copy.keep
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def workplace(task: Task, storage: str | None, owner: object) -> RemoteWorkplace:
    """The study's folder, or a temporary one that lives as long as ``owner`` where the worker has a storage.

    Raises:
        ResourceError, StoreError: what the task needs cannot be brought from there.
    """
    if storage is None:
        return RemoteWorkplace(task)
    home = Path(tempfile.mkdtemp(prefix="ad-work-"))
    weakref.finalize(owner, shutil.rmtree, home, ignore_errors=True)
    remote_folder = RemoteFolder(storage)
    known = set(remote_folder.names(_INPUTS))

    def here(path: str) -> str:
        place = home / _input(path) / Path(path).name
        kinds = {_input(path, kind): folder for kind, folder in ((_A_FILE, place.parent), (_A_FOLDER, place))}
        for name in known & set(kinds):
            if not place.exists():
                remote_folder.get(name, kinds[name])
            return str(place)
        return path

    return RemoteWorkplace(replace(_with_paths(task, here), directory=str(home)), remote_folder)


def send_inputs(task: Task, remote_folder: RemoteFolder) -> None:
    """Keep in the storage what ``task`` names by a path of this machine.

    Raises:
        ResourceError: it cannot be written.
    """

    def send(path: str) -> str:
        place = Path(path).expanduser()
        if place.name and place.exists():
            remote_folder.put(_input(path, _A_FILE if place.is_file() else _A_FOLDER), place)
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
