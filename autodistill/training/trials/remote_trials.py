"""Trials of workers without access to the study's folder; their files are copied to a remote storage.

A worker with ``WorkerContext.storage`` works in its own temporary folder. Every folder that a trial leaves
(checkpoints, student, files of variants) is stored as an object in the storage, a ``RemoteFolder``. So are files that
the task names by a path on the driver's machine: the teacher, a latency table. Images are not copied; the data source
reads them on the worker's machine.
"""

from __future__ import annotations

import contextlib
import shutil
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from autodistill.core.errors import ResourceError, StoreError
from autodistill.core.records import LatencyTarget, Task, TeacherSpec, stable_key
from autodistill.core.scratch import ScratchFolder
from autodistill.training.runtime import durable_files
from autodistill.training.runtime.remote_storage import RemoteFolder
from autodistill.training.trials.trial_files import STUDENT, VARIANTS, student_key, trial_folder
from autodistill.training.weights.source import LOCAL, TRIAL

_STUDENT = f"{STUDENT}-"
_INPUTS, _A_FILE, _A_FOLDER = "inputs", "file", "folder"


@dataclass(frozen=True)
class RemoteCopy:
    """The folder of one trial and its copy in a storage.

    Objects are named like their folders, with the key of the training at the end (``step-STEP-KEY``,
    ``student-KEY``), because a changed teacher or changed images make another training of the same trial.

    Attributes:
        folder: folder of the trial on this machine.
        remote_folder: part of the storage for this trial.
    """

    folder: Path
    remote_folder: RemoteFolder

    def fetch(self, names: Sequence[str] | None = None, *, replace: bool = False) -> None:
        """Download the finished student, and the newest intact checkpoint of each training if it is newer than here.

        Args:
            names: names of the objects in the storage, if already known.
            replace: also replace a local student of another training, because the stored one is newer.

        Raises:
            ResourceError: the storage cannot be reached.
        """
        names = self.remote_folder.names() if names is None else names
        self._fetch_student(names, replace)
        here = durable_files.ranked(durable_files.names(self.folder))
        for key, there in durable_files.ranked(names).items():
            self._fetch_checkpoint(there, here.get(key, []))

    def keep(self, path: Path) -> None:
        """Upload a folder that was just written: a checkpoint, or the finished student, which replaces all checkpoints.

        Raises:
            ResourceError: the student cannot be uploaded.

        Warns:
            UserWarning: a checkpoint cannot be uploaded; the training continues, but a failure would lose more work.
        """
        if path.name == STUDENT:
            self._keep_student(path)
            return
        try:
            self.remote_folder.put(path.name, path)
            for old in durable_files.outdated(path.name, self.remote_folder.names()):
                self.remote_folder.remove(old)
        except ResourceError as error:
            warnings.warn(f"{error} The training continues.", stacklevel=2)

    def send(self, names: Sequence[str]) -> None:
        """Upload the newest checkpoint of each training, and delete stored students that differ from the local one.

        Args:
            names: names of the objects in the storage.
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
        self.remote_folder.put(f"{_STUDENT}{key}", path)  # last: a stored student implies stored variants
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
        """Download the newest intact checkpoint of one training; names are newest first and sort by step."""
        for name in there:
            if any(one >= name for one in here):
                return
            try:
                self.remote_folder.get(name, self.folder / name)
                return
            except StoreError as error:
                warnings.warn(f"{error} The checkpoint before it is used.", stacklevel=2)


def copy_of(remote_folder: RemoteFolder, folder: Path, directory: str | Path) -> RemoteCopy:
    """Return the remote copy of a trial's ``folder`` below the study's ``directory``."""
    return RemoteCopy(folder, remote_folder.below(folder.relative_to(directory).as_posix()))


def no_copy(path: Path) -> None:
    """Do not copy the folder."""


@dataclass(frozen=True)
class RemoteWorkplace:
    """The place where a worker keeps the files of its trials.

    Attributes:
        task: the task with paths that are valid on this worker.
        remote_folder: storage to which files are copied; ``None`` if the worker has access to the study's folder.
    """

    task: Task
    remote_folder: RemoteFolder | None = None

    @contextlib.contextmanager
    def trial(self, folder: Path) -> Iterator[Callable[[Path], None]]:
        """Download a trial's files at the start, and delete them from this machine at the end.

        Yields:
            A function to call with every folder written in the trial's folder: a checkpoint, or the student.
        """
        if self.remote_folder is None:
            yield no_copy
            return
        copy = copy_of(self.remote_folder, folder, self.task.directory)
        copy.fetch()
        try:
            yield copy.keep
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def workplace(task: Task, storage: str | None, owner: object) -> RemoteWorkplace:
    """Return the study's folder, or, with a storage, a temporary folder that exists as long as ``owner``.

    Args:
        task: the task of the study.
        storage: URL of the worker's storage; ``None`` if it has access to the study's folder.
        owner: object at whose end the temporary folder is deleted.

    Raises:
        ResourceError: the storage cannot be reached.
        StoreError: a file that the task needs is damaged in the storage.
    """
    if storage is None:
        return RemoteWorkplace(task)
    scratch = ScratchFolder("work")
    weakref.finalize(owner, scratch.close)
    home = scratch.path
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
    """Upload the files that ``task`` names by a path on this machine.

    Raises:
        ResourceError: the storage cannot be written.
    """

    def send(path: str) -> str:
        place = Path(path).expanduser()
        if place.name and place.exists():
            remote_folder.put(_input(path, _A_FILE if place.is_file() else _A_FOLDER), place)
        return path

    _with_paths(task, send)


def task_of(factory: Any) -> Task | None:
    """Return the task to which an evaluator factory of this package is bound; ``None`` for a user's factory."""
    bound = getattr(factory, "args", ())
    tasks = [getattr(one, "task", one) for one in bound]
    return next((one for one in tasks if isinstance(one, Task)), None)


def _input(path: str, kind: str = "") -> str:
    return f"{_INPUTS}/{stable_key(path)}/{kind}".rstrip("/")


def _with_paths(task: Task, change: Callable[[str], str]) -> Task:
    """Apply ``change`` to every string in the task's teacher, weights and latency target that may be a path."""

    def changed(value: Any) -> Any:
        if isinstance(value, str):
            return _with_path(value, change)
        if isinstance(value, Mapping):
            return {key: changed(one) for key, one in value.items()}
        return [changed(one) for one in value] if isinstance(value, (list, tuple)) else value

    teacher = asdict(task.teacher)
    teacher |= {key: changed(teacher[key]) for key in ("source", "weights", "options")}
    table = task.latency.table
    latency: LatencyTarget = replace(task.latency, table=None if table is None else change(table))
    weights = {name: _with_path(text, change) for name, text in task.weights.items()}
    return replace(task, teacher=TeacherSpec(**teacher), latency=latency, weights=weights)


def _with_path(text: str, change: Callable[[str], str]) -> str:
    """Apply ``change`` to a path, to that of a ``local-dir:``, or to the student's folder of a trial, ``STUDY#12``."""
    if text.startswith(LOCAL):
        return LOCAL + change(text.removeprefix(LOCAL))
    if found := TRIAL.match(text):
        folder = trial_folder(Path(found["study"]).expanduser(), int(found["number"])) / STUDENT
        return change(str(folder))
    return change(text)
