"""A study whose workers do not see its folder: what they leave in a storage is brought home, and the other way round.

The storage's URL is remembered in the study's folder, so that the next search finds what is there, whatever its engine
(also after a driver that died). While a search runs, finished students are brought by a thread, as they come.
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
    """Bring what an earlier search left in a storage into the study's folder.

    Returns:
        Why it could not be brought, for people; empty where it was, or there is nothing. The trials concerned then
        begin anew.
    """
    directory = study.directory
    remote_folder = None if directory is None else _remembered(directory)
    if directory is None or remote_folder is None:
        return ""
    gone = {trial.number for trial in study.trials() if trial.state in _DISCARDED}
    try:
        _bring(directory, remote_folder, gone)
    except AutodistillError as error:
        return f"{error} Trials whose checkpoints are there begin anew."
    return ""


def url_of(storage: str) -> str:
    """A storage as a URL, also where it was given as a folder.

    Raises:
        UsageError: it cannot be used.
    """
    from autodistill.training.runtime.remote_storage import RemoteFolder

    return RemoteFolder.at(storage).url


@contextlib.contextmanager
def workers_elsewhere(study: Driven, factory: EvaluateFactory, storage: str) -> Iterator[str | None]:
    """Keep the files of trials in ``storage`` while workers elsewhere run them.

    Args:
        study: the study, or a queue that answers as one.
        factory: what the workers run; a user's own function keeps its files itself.
        storage: URL or folder.

    Yields:
        URL for ``WorkerContext.storage``.

    Raises:
        UsageError: the URL cannot be used, or the study has no folder.
        ResourceError: the storage cannot be read or written.
    """
    from autodistill.training.trials.remote_trials import send_inputs, task_of

    task = task_of(factory)
    if task is None:
        yield None
        return
    directory = study.directory
    if directory is None:
        raise UsageError("a storage for checkpoints needs a study in a folder: Study.create(directory=…).")
    remote_folder = _remember(directory, storage, study.name)
    send_inputs(task, remote_folder)
    _send(directory, remote_folder)
    with _errands(study, directory, remote_folder):
        yield remote_folder.url
    _bring(directory, remote_folder, replace=True)


@contextlib.contextmanager
def _errands(study: Driven, directory: Path, remote_folder: RemoteFolder) -> Iterator[None]:
    """After every trial: bring its student, or remove what a trial that failed has left."""
    from autodistill.training.trials.remote_trials import copy_of
    from autodistill.training.trials.trial_files import trial_folder

    if not isinstance(study, Study):  # a queue's runs are looked at when all are done
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
                thread.submit(copy.fetch, replace=True)  # if it cannot, the end of the search tries again, and says so

        study.after = after
        try:
            yield
        finally:
            study.after = before


def _remembered(directory: Path) -> RemoteFolder | None:
    try:
        text = (directory / _FILE).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    from autodistill.training.runtime.remote_storage import RemoteFolder

    return RemoteFolder(str(json.loads(text)["url"]))


def _remember(directory: Path, storage: str, name: str) -> RemoteFolder:
    """The study's own part of a storage: the one that it has there, or a new one that no other study has."""
    from autodistill.training.runtime.remote_storage import RemoteFolder

    given, old = RemoteFolder.at(storage), _remembered(directory)
    if old is not None and given.below(PurePosixPath(old.url.partition("?")[0]).name).url == old.url:
        return old
    remote_folder = given.below(f"{quote(name, safe='')}-{secrets.token_hex(4)}")
    (directory / _FILE).write_text(json.dumps({"url": remote_folder.url}) + "\n", encoding="utf-8")
    return remote_folder


def _bring(directory: Path, remote_folder: RemoteFolder, gone: Collection[int] = (), *, replace: bool = False) -> None:
    """Bring what is newer there; what trials that are ``gone`` left there is removed."""
    from autodistill.training.trials.remote_trials import copy_of
    from autodistill.training.trials.trial_files import trial_folder

    ended = {trial_folder(directory, number) for number in gone}
    for folder, names in _by_folder(directory, remote_folder).items():
        copy = copy_of(remote_folder, folder, directory)
        if folder in ended:
            copy.remote_folder.remove("")
        else:
            copy.fetch(names, replace=replace)


def _send(directory: Path, remote_folder: RemoteFolder) -> None:
    """Make the storage agree with what trials have left in the study's folder."""
    from autodistill.training.trials.remote_trials import copy_of

    there = _by_folder(directory, remote_folder)
    for pattern in _FOLDERS:
        for folder in sorted(directory.glob(pattern)):
            copy_of(remote_folder, folder, directory).send(there.get(folder, []))


def _by_folder(directory: Path, remote_folder: RemoteFolder) -> dict[Path, list[str]]:
    """Folders of trials and runs to the names of what a storage has of them; none of them leads outside."""
    out: dict[Path, list[str]] = {}
    for path in map(PurePosixPath, remote_folder.names()):
        if ".." not in path.parts and any(map(path.parent.match, _FOLDERS)):
            out.setdefault(directory / path.parent, []).append(path.name)
    return out
