"""Exchange of files with workers that cannot read the study's folder: both sides copy files through a storage.

The URL of the storage is stored in the study's folder, so that the next search finds the files with any engine, even if
the driver died. While a search runs, a thread downloads every student when it is finished.
"""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import quote

from autodistill.core.errors import AutodistillError, UsageError
from autodistill.core.records import EvaluateFactory, State
from autodistill.engines.driving.driven import Driven
from autodistill.search.study.study import Study

if TYPE_CHECKING:
    from autodistill.training.runtime.remote_storage import RemoteFolder

_FILE = "storage.json"
_FOLDERS = ("checkpoints/*", "verify/runs/*")
_DISCARDED = (State.PRUNED, State.FAIL)


def fetch_files(study: Study) -> str:
    """Download the files that an earlier search left in a storage into the study's folder.

    Returns:
        Why the download failed; empty if it succeeded or there is nothing to download. After a failure the affected
        trials start over.
    """
    directory = study.directory
    remote_folder = None if directory is None else _stored_folder(directory)
    if directory is None or remote_folder is None:
        return ""
    discarded = {trial.number for trial in study.trials() if trial.state in _DISCARDED}
    try:
        _fetch(directory, remote_folder, discarded)
    except AutodistillError as error:
        return f"{error} Trials whose checkpoints are there start over."
    return ""


def url_of(storage: str) -> str:
    """Return the URL of a storage, given as a URL or a folder.

    Raises:
        UsageError: The storage cannot be used.
    """
    from autodistill.training.runtime.remote_storage import RemoteFolder

    return RemoteFolder.at(storage).url


@contextlib.contextmanager
def workers_elsewhere(study: Driven, factory: EvaluateFactory, storage: str) -> Iterator[str | None]:
    """Keep the files of trials in ``storage`` while workers on other machines run the trials.

    Args:
        study: The study, or a queue with the same methods.
        factory: Factory of the workers' evaluators; a user's own function manages its files itself.
        storage: URL or folder.

    Yields:
        URL for ``WorkerContext.storage``; ``None`` for a user's own function.

    Raises:
        UsageError: The URL cannot be used, or the study has no folder.
        ResourceError: The storage cannot be read or written.
    """
    from autodistill.training.trials.remote_trials import send_inputs, task_of

    task = task_of(factory)
    if task is None:
        yield None
        return
    directory = study.directory
    if directory is None:
        raise UsageError("a storage for checkpoints needs a study in a folder: Study.create(directory=…).")
    remote_folder = _own_folder(directory, storage, study.name)
    send_inputs(task, remote_folder)
    _send(directory, remote_folder)
    with _fetching_after_trials(study, directory, remote_folder):
        yield remote_folder.url
    _fetch(directory, remote_folder, replace=True)


@contextlib.contextmanager
def _fetching_after_trials(study: Driven, directory: Path, remote_folder: RemoteFolder) -> Iterator[None]:
    """After every trial, download its student, or remove the files of a discarded trial."""
    from autodistill.training.trials.remote_trials import copy_of
    from autodistill.training.trials.trial_files import trial_folder

    if not isinstance(study, Study):  # the runs of a queue are downloaded when all are done
        yield
        return
    before = study.after
    with ThreadPoolExecutor(1, "storage") as thread:

        def after(number: int, state: State) -> None:
            before(number, state)
            copy = copy_of(remote_folder, trial_folder(directory, number), directory)
            if state in _DISCARDED:
                thread.submit(copy.remote_folder.remove, "")
            elif state is State.COMPLETE:
                thread.submit(
                    copy.fetch, replace=True
                )  # after a failure, the end of the search tries again, and reports

        study.after = after
        try:
            yield
        finally:
            study.after = before


def _stored_folder(directory: Path) -> RemoteFolder | None:
    """Read the storage that is stored in the study's folder; ``None`` if there is none."""
    try:
        text = (directory / _FILE).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    from autodistill.training.runtime.remote_storage import RemoteFolder

    return RemoteFolder(str(json.loads(text)["url"]))


def _own_folder(directory: Path, storage: str, name: str) -> RemoteFolder:
    """Return the study's own folder in a storage: the existing one, or a new one with a unique name."""
    from autodistill.training.runtime.remote_storage import RemoteFolder

    given, old = RemoteFolder.at(storage), _stored_folder(directory)
    if old is not None and given.below(PurePosixPath(old.url.partition("?")[0]).name).url == old.url:
        return old
    remote_folder = given.below(f"{quote(name, safe='')}-{secrets.token_hex(4)}")
    (directory / _FILE).write_text(json.dumps({"url": remote_folder.url}) + "\n", encoding="utf-8")
    return remote_folder


def _fetch(
    directory: Path, remote_folder: RemoteFolder, discarded: Collection[int] = (), *, replace: bool = False
) -> None:
    """Download files that are newer in the storage; remove there the files of ``discarded`` trials."""
    from autodistill.training.trials.remote_trials import copy_of
    from autodistill.training.trials.trial_files import trial_folder

    ended = {trial_folder(directory, number) for number in discarded}
    for folder, names in _by_folder(directory, remote_folder).items():
        copy = copy_of(remote_folder, folder, directory)
        if folder in ended:
            copy.remote_folder.remove("")
        else:
            copy.fetch(names, replace=replace)


def _send(directory: Path, remote_folder: RemoteFolder) -> None:
    """Upload the files of trials in the study's folder, so that the storage has the same state."""
    from autodistill.training.trials.remote_trials import copy_of

    there = _by_folder(directory, remote_folder)
    for pattern in _FOLDERS:
        for folder in sorted(directory.glob(pattern)):
            copy_of(remote_folder, folder, directory).send(there.get(folder, []))


def _by_folder(directory: Path, remote_folder: RemoteFolder) -> dict[Path, list[str]]:
    """Map local folders of trials and runs to their file names in the storage; paths that lead outside are ignored."""
    out: dict[Path, list[str]] = {}
    for path in map(PurePosixPath, remote_folder.names()):
        if ".." not in path.parts and any(map(path.parent.match, _FOLDERS)):
            out.setdefault(directory / path.parent, []).append(path.name)
    return out
