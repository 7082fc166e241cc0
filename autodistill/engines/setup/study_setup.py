"""Creation, resuming and reading of a :class:`Study` from a file, a folder or keywords.

A study can only be resumed with the same settings: changed settings that would make its trials incomparable are refused
and listed.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autodistill.config.study_file import CHOSEN, MAY_CHANGE, StudyConfig, differences, known_pixels
from autodistill.core.errors import ConfigError, UsageError
from autodistill.core.resource_errors import as_resource_error
from autodistill.core.strict_yaml import dump
from autodistill.core.teacher_choice import with_parameter
from autodistill.search.objectives.objectives import objectives as registered
from autodistill.search.objectives.objectives import parse_constraint, resolve
from autodistill.search.rungs.levels import Rungs
from autodistill.search.space.builtin import compose
from autodistill.search.space.builtin import load_space as load_space
from autodistill.search.space.fitting.to_study import fitted
from autodistill.search.space.space import Space
from autodistill.search.storage import study_folder as store
from autodistill.search.study.warm_start import warm_start

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

    from autodistill.search.study.study import Study

STUDY_FILE = store.STUDY_FILE


def open_to_read(folder: Path) -> Study:
    """Open the study in a folder for reading; nothing is created, locked or changed.

    Raises:
        UsageError: The folder is not a study.
    """
    from autodistill.search.study.study import Study

    storage = store.read_folder(folder)
    if not (folder / STUDY_FILE).is_file():
        raise UsageError(f"{folder} has no {STUDY_FILE}; it was not made by autodistill.")
    config = _as_run(folder, StudyConfig.load(folder / STUDY_FILE))
    names = [config.name] if config.storage else [summary.study_name for summary in storage.get_all_studies()]
    name = config.name if config.name in names or not names else names[0]
    study = Study(storage, name, directory=folder, seed=config.seed, **study_parts(config))
    study.config = config
    return study


def _as_run(folder: Path, config: StudyConfig) -> StudyConfig:
    """Return the configuration that a folder's trials were run under, with what may change from its study file."""
    made = _run_under(folder)
    changed = [] if made is None else differences(made, config)
    if made is None or not changed:
        return config
    warnings.warn(
        f"{folder / STUDY_FILE} was changed since its trials were run; what they were run under is used: "
        + "; ".join(line.replace("this run asks for", "the file has") for line in changed),
        stacklevel=3,
    )
    return made.model_copy(update={key: getattr(config, key) for key in MAY_CHANGE})


def _run_under(folder: Path) -> StudyConfig | None:
    """Return the configuration in a folder's SQLite database; ``None`` where there is none that can be read."""
    stored = store.stored_configuration(folder)
    try:
        return None if stored is None else StudyConfig.load(stored, {})
    except ConfigError:  # of another version
        return None


def open_other(directory: Path | None, folder: Path) -> Study:
    """Open the study in ``folder``, from which the study in ``directory`` is to be warm-started.

    Raises:
        UsageError: The folder is not a study, or it is ``directory`` itself.
    """
    if directory is not None and folder.resolve() == directory.resolve():
        raise UsageError(f"study {folder} cannot be warm-started from itself; give another study's folder.")
    return open_to_read(folder)


def study_from(source: Any, changes: Mapping[str, Any]) -> Study:
    """Create or resume a study; see :func:`autodistill.api.open_study`."""
    keys = dict(changes)
    directory = keys.pop("directory", None)
    if isinstance(source, Mapping):
        source = dict(source)
        directory = source.pop("directory", directory)
    elif Path(source).is_dir():
        directory = directory or source
        source = Path(source) / STUDY_FILE
        if not source.is_file():
            store.read_folder(Path(directory))  # raises an error if the folder is no study at all
            raise UsageError(f"{directory} has no {STUDY_FILE}; it was not made by autodistill.")
    config = StudyConfig.load(source, keys)
    folder = None if directory is None else Path(directory).resolve()
    return build_study(config, folder)


def build_study(config: StudyConfig, directory: Path | None, *, say: Callable[[str], None] | None = None) -> Study:
    """Check the settings of a configuration and its folder, and create or resume its study.

    Args:
        config: Configuration of the study; if ``epochs`` of a new study are ``None``, its budget determines them.
        directory: Folder of the study; ``None`` keeps it in memory.
        say: Called with each step of the work, in words.

    Raises:
        ConfigError: Some names are not registered, or the images are missing; nothing is written then.
        UsageError: The folder holds another study.
        ResourceError: Disk space or permissions are missing.
        StudyInUseError: Another process creates this study at this moment.
    """
    from autodistill.engines.setup.check_names import check_first

    check_first(config, resumed=directory is not None and (directory / STUDY_FILE).is_file())
    checked = config if directory is None else check_same(directory, config)
    return build_checked_study(checked, directory, say=say)


def build_checked_study(
    config: StudyConfig, directory: Path | None, *, say: Callable[[str], None] | None = None
) -> Study:
    """Create or resume the study of a configuration that passed ``check_first`` and :func:`check_same`.

    Arguments and errors are those of :func:`build_study`.
    """
    from autodistill.engines.setup.check_names import check_study
    from autodistill.engines.setup.initial_weights import InitialWeights, with_weights
    from autodistill.engines.setup.served_task import leave_out_unusable
    from autodistill.engines.timing.top_rung import Length, choose_length

    resumed = directory is not None and (directory / STUDY_FILE).is_file()
    notes: list[str] = []
    if not resumed:
        config, notes = leave_out_unusable(config, config_space(config))
    parts = study_parts(config)
    check_study(config, parts["space"], resumed=resumed)
    initial = InitialWeights()
    if config.data is not None:
        fresh = not resumed
        parts["space"], initial = with_weights(parts["space"], config.training, ask=fresh, strict=fresh)
    length = Length(config) if resumed else choose_length(config, parts["space"], say=say)
    parts["rungs"] = config_rungs(length.config)
    with as_resource_error("the study could not be opened"), _creating(directory, resumed=resumed):
        made_meanwhile = not resumed and directory is not None and (directory / STUDY_FILE).is_file()
        study = None if made_meanwhile else _stored(length.config, directory, parts)
    if study is None:  # another process made it while this one chose its settings
        return build_study(config, directory, say=say)
    study.charge(length.seconds)
    study.expect_epoch_times(length.times.timed if length.times is not None else ())
    study.notes += [*notes, *initial.notes, *([length.message] if length.message else [])]
    return study


@contextlib.contextmanager
def _creating(directory: Path | None, *, resumed: bool) -> Iterator[None]:
    """Hold the folder of a study that is not there yet, so that one process at a time makes its tables and files.

    Raises:
        StudyInUseError: another process makes the study.
    """
    if directory is None or resumed:
        yield
        return
    store.make_folder(directory)
    with store.folder_lock(directory):
        yield


def _stored(config: StudyConfig, directory: Path | None, parts: Mapping[str, Any]) -> Study:
    """Create or open folder and storage of a study whose configuration has been checked."""
    from autodistill.search.study.study import Study

    if directory is not None:
        store.make_folder(directory)
    storage = store.open_storage(directory, config.storage)
    if config.storage is not None:
        _check_same_in_database(storage, config)
    study = Study(storage, config.name, directory=directory, seed=config.seed, **parts)
    study.config = config
    kept = config.storage is not None or directory is not None
    if kept and store.CONFIGURATION not in study.optuna.user_attrs:
        study.optuna.set_user_attr(store.CONFIGURATION, config.resolved())
    study.budget = config.limits
    for folder in map(Path, config.warm_start):
        if note := warm_start(study, open_other(directory, folder), folder):
            study.notes.append(note)
    if directory is not None:
        store.write_atomically(directory / STUDY_FILE, dump(config.resolved()))
    return study


def study_parts(config: StudyConfig) -> dict[str, Any]:
    """Return space, objectives, constraints, rungs and sampler of a configuration, as keywords of :class:`Study`.

    Raises:
        ConfigError: Some of them cannot be parsed.
    """
    space = config_space(config)
    objectives = resolve(config.objectives, measured=config.measures)
    names = [o.name for o in objectives]
    if config.data is not None:
        names += [*registered.names(), *config.measures]
    constraints = []
    problems = []
    for text in config.constraints:
        try:
            constraints.append(parse_constraint(text, names))
        except UsageError as error:
            problems.append(str(error))
    if problems:
        raise ConfigError(problems, "constraints")
    return {
        "space": space,
        "objectives": objectives,
        "constraints": tuple(constraints),
        "within": config.within == "auto",
        "rungs": config_rungs(config),
        "sampler": config.sampler,
    }


def config_space(config: StudyConfig) -> Space:
    """Return the search space of a configuration, with its restrictions."""
    named = not isinstance(config.space, Mapping)
    mapping = load_space(config.space) if named else compose(config.space)
    space = fitted(
        with_parameter(mapping, config.teacher),
        f"search space {config.space}" if named else "space",
        choices=config.set,
        image_size=None if config.data is None else known_pixels(vars(config.data)),
    )
    space = space.restrict(config.set) if config.set else space
    return without(space, config.left_out) if config.left_out else space


def without(space: Space, left_out: Mapping[str, Sequence[Any]]) -> Space:
    """Return a space without some choices of its parameters.

    Args:
        space: the space.
        left_out: parameter name to the choices that are left out; unknown names and choices are ignored.
    """
    from optuna.distributions import CategoricalDistribution

    kept: dict[str, Any] = {}
    for parameter in space.parameters:
        given, out = parameter.distribution, left_out.get(parameter.name, ())
        if isinstance(given, CategoricalDistribution) and any(choice in out for choice in given.choices):
            kept[parameter.name] = [choice for choice in given.choices if choice not in out]
    return space.restrict(kept, "left_out") if kept else space


def config_rungs(config: StudyConfig) -> Rungs:
    """Return the rungs of a configuration."""
    top = int(config.epochs or 1)
    if config.rungs == "off":
        return Rungs.off(top)
    if config.rungs == "auto":
        return Rungs.geometric(top)
    settings = dict(config.rungs)
    if "levels" in settings:
        return Rungs(tuple(int(level) for level in settings["levels"]), int(settings.get("eta", 3)))
    return Rungs.geometric(top, eta=int(settings.get("eta", 3)), lowest_share=float(settings.get("lowest", 0.05)))


def check_same(directory: Path, config: StudyConfig) -> StudyConfig:
    """Check that a folder is new or holds the same study, and return the configuration with the stored name and epochs.

    Raises:
        UsageError: The folder holds another study; all keys that differ are listed, with both values.
    """
    stored = directory / STUDY_FILE
    made = _run_under(directory)
    if made is None and not stored.is_file():
        return config
    old = made or StudyConfig.load(stored, {})
    if config.epochs is None:  # epochs and the settings that depend on them were chosen when the study was created
        kept = {key: old.training[key] for key in CHOSEN if key in old.training}
        rungs = old.rungs if config.rungs == "auto" else config.rungs
        chosen = {"epochs": old.epochs, "rungs": rungs, "training": {**kept, **config.training}}
        config = config.model_copy(update=chosen)
    if not config.left_out:  # filled in when the study was created
        config = config.model_copy(update={"left_out": old.left_out})
    changed = differences(old, config)
    if changed:
        if made is not None and stored.is_file() and config == StudyConfig.load(stored, {}):
            raise UsageError(_edited(stored, changed))
        raise UsageError(
            f"{directory} holds a study with other settings:\n"
            + "\n".join(f"  - {line}" for line in changed)
            + "\nUse the same settings to resume it, or another --dir for a new study."
        )
    return config.model_copy(update={"name": old.name})


def _edited(file: Path, changed: Sequence[str]) -> str:
    """Say that a study file differs from what its trials were run under, and how to go on."""
    return (
        f"{file} was changed since its trials were run:\n"
        + "\n".join(f"  - {line}" for line in changed)
        + "\nPut the old values back to resume it, or copy the file and give another --dir for a new study."
    )


def _check_same_in_database(storage: BaseStorage, config: StudyConfig) -> None:
    """Check that a shared database has no other study of the same name.

    Raises:
        UsageError: It has one; all keys that differ are listed, with both values.
    """
    stored = {study.study_name: study.user_attrs for study in storage.get_all_studies()}.get(config.name)
    if stored is None:
        return
    if store.CONFIGURATION not in stored:
        changed = ["it was not created by autodistill"]
    else:
        changed = differences(StudyConfig.load(stored[store.CONFIGURATION], {}), config)
    if changed:
        raise UsageError(
            f"{config.storage} holds another study called {config.name!r}:\n"
            + "\n".join(f"  - {line}" for line in changed)
            + "\nUse the same settings to resume it, or another --name for a new study."
        )
