"""Rebuilding of a damaged study from everything in its folder that can be read: ``autodistill repair``.

Sources, each with what it tells of a trial: the damaged database, its copies, the results file, and the files of
students and checkpoints. Of each trial, the source that tells most is taken.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autodistill.config.study_file import StudyConfig
from autodistill.core.errors import AutodistillError, ConfigError, StoreError, UsageError
from autodistill.core.records import Candidate, Objective, State
from autodistill.core.strict_yaml import dump
from autodistill.engines.setup.study_setup import study_parts
from autodistill.search.space.space import Space
from autodistill.search.storage import study_folder as store
from autodistill.search.storage.backups import copies, remove_leftovers
from autodistill.search.storage.rebuild import rebuild
from autodistill.search.storage.results_file import RESULTS, read_results
from autodistill.search.storage.salvage import Salvaged, better, has_ended, salvage

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Facts = dict[str, Any]

_TOLD, _ONLY_STORED = ("state", "values", "params", "user_attrs"), ("started", "ended", "system_attrs")
"""What every source tells of a trial, and what only a database does."""


@dataclass(frozen=True)
class Repaired:
    """What a repair found and did.

    Attributes:
        sources: what was read, with what it holds or why it is damaged.
        trials: number of trials by state after the repair.
        lost: numbers of trials of which nothing was found.
        restored: numbers of trials that the database lacked, or of which it had less.
        kept: new name of the damaged database; empty if nothing was rebuilt.
        study_file: whether the study file was written anew.
    """

    sources: Mapping[str, str]
    trials: Mapping[str, int]
    lost: Sequence[int]
    restored: Sequence[int]
    kept: str = ""
    study_file: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    @property
    def needed(self) -> bool:
        """Whether anything was wrong."""
        return bool(self.kept or self.restored or self.lost or self.study_file)


def repair(directory: Path) -> Repaired:
    """Rebuild the study in a folder; a healthy one is left as it is.

    Raises:
        UsageError: the folder is no study, or its trials are in a database server.
        StudyInUseError: a search is running in it.
        StoreError: neither a study file nor a readable database tells what the study is.
        ResourceError: there is no room for a new database.
    """
    if not directory.is_dir():
        raise UsageError(f"{directory} is not a folder. Give the folder of a study.")
    with store.folder_lock(directory):
        remove_leftovers(directory)
        databases = _databases(directory)
        config, written = _configuration(directory, databases)
        parts = study_parts(config)
        space, objectives = parts["space"], tuple(parts["objectives"])
        results, torn = read_results(directory)
        files, damaged = _from_files(directory, space, objectives)
        sources = _sources(databases, results, torn, files, damaged)
        own = databases[store.DATABASE]
        merged = _merged([_checked(results, own), *(one.trials for one in databases.values()), results, files])
        restored = [number for number, facts in sorted(merged.items()) if _more(facts, own.trials.get(number))]
        lost = sorted(set(range(max(merged, default=-1) + 1)) - merged.keys())
        kept = ""
        if own.problem or restored:
            kept = rebuild(
                directory,
                own.name or next((one.name for one in databases.values() if one.name), config.name),
                objectives,
                merged,
                kinds={number: _kinds(facts, space) for number, facts in merged.items()},
                user_attrs=_attributes(databases, merged, config),
                system_attrs=_newest(databases, "system_attrs"),
            )
    states = Counter(_state(facts) for facts in merged.values())
    return Repaired(sources, dict(states), lost, restored, kept or ("none" if own.problem else ""), written)


def _databases(directory: Path) -> dict[str, Salvaged]:
    """Read the database and its copies, by file name: the database first, then the copies, newest first."""
    newest = sorted(copies(directory), key=lambda path: path.stat().st_mtime, reverse=True)
    return {path.name: salvage(path) for path in (directory / store.DATABASE, *newest)}


def _configuration(directory: Path, databases: Mapping[str, Salvaged]) -> tuple[StudyConfig, bool]:
    """Return what the study is, and whether its study file was written anew."""
    path = directory / store.STUDY_FILE
    stored = next((c for one in databases.values() if (c := one.user_attrs.get(store.CONFIGURATION))), None)
    try:
        config = StudyConfig.load(path) if path.is_file() else None
        why = "is missing"
    except (AutodistillError, ValueError, OSError) as error:
        config, why = None, f"cannot be read ({str(error).partition(chr(10))[0]})"
    if config is not None:
        if config.storage is not None:
            raise UsageError(
                f"the trials of {directory} are in the database {config.storage}, which has its own backups; repair is "
                f"for studies in a {store.DATABASE}."
            )
        return config, False
    if stored is None:
        raise StoreError(
            f"{path} {why}, and no database here tells what the study is. Write the study file again (see 'autodistill "
            "init') with the settings of the search, put it there, and repair again."
        )
    try:
        config = StudyConfig.load(stored, {})
    except ConfigError as error:
        raise StoreError(f"{path} {why}, and the settings in the database are of another version: {error}") from error
    if path.exists():
        os.replace(path, path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}"))
    store.write_atomically(path, dump(config.resolved()))
    return config, True


def _from_files(directory: Path, space: Space, objectives: Sequence[Objective]) -> tuple[dict[int, Facts], list[str]]:
    """Return the facts of trials whose student or checkpoint is on the disk, and the damaged ones among these files."""
    found: dict[int, Facts] = {}
    damaged: list[str] = []
    folders = sorted((directory / "checkpoints").glob("trial-*"))
    if not folders:  # torch takes seconds to import
        return found, damaged
    from autodistill.training.runtime.durable_files import read_folder
    from autodistill.training.trials.trial_files import STUDENT

    for folder in folders:
        number = int(text) if (text := folder.name.removeprefix("trial-")).isdigit() else None
        names = [STUDENT] if (folder / STUDENT).is_dir() else []
        for name in (*names, *sorted((p.name for p in folder.glob("step-*")), reverse=True)):
            try:
                content = read_folder(folder / name)[0]
                facts = json.loads(content["student.json" if name == STUDENT else "facts.json"])
                made = None if number is None else _of_file(number, facts, space, objectives)
            except (StoreError, KeyError, ValueError, TypeError) as error:
                damaged.append(f"{folder.name}/{name}: {error}")
                continue
            if made is not None:
                found[made["number"]] = made
                break
    return found, damaged


def _of_file(number: int, facts: Facts, space: Space, objectives: Sequence[Objective]) -> Facts | None:
    """Return a trial as a student's or a checkpoint's facts tell it; ``None`` if they do not tell its candidate."""
    about = facts.get("candidate") or {**facts, "student": facts.get("architecture")}
    sections = {name: about[name] for name in ("student", "distillation", "train") if isinstance(about.get(name), dict)}
    if len(sections) < 3:
        return None
    student, distillation, train = sections.values()
    candidate = Candidate(number, student, distillation, train, int(about.get("seed", 0)))
    told: Facts = {"candidate": {**sections, "seed": candidate.seed, "key": candidate.key()}}
    for rung, report in facts["reports"].items():
        work = {key: report[key] for key in ("epochs", "seconds", "teacher_seconds") if key in report}
        told[f"rung:{rung}"] = {**report["values"], **work}
        told |= {f"variant:{name}": {"values": v} for name, v in _values_of_variants(report).items()}
    params = {name: value for name, value in space.flatten(sections).items() if value is not None}
    last = told.get(f"rung:{max(map(int, facts['reports']), default=0)}", {})
    values = [last.get(objective.name) for objective in objectives]
    if "architecture" in facts and None not in values:
        told |= {"state": State.COMPLETE.value, "reason": "", "message": "rebuilt from the student's files"}
        return {"number": number, "state": "COMPLETE", "values": values, "params": params, "user_attrs": told}
    told |= {"state": State.PARTIAL.value, "reason": "INTERRUPTED", "message": "rebuilt from its checkpoint"}
    return {"number": number, "state": "RUNNING", "params": params, "user_attrs": told}


def _values_of_variants(report: Mapping[str, Any]) -> dict[str, Any]:
    return {name: v["values"] for name, v in report.get("variants", {}).items() if v.get("values") is not None}


def _merged(sources: Sequence[Mapping[int, Mapping[str, Any]]]) -> dict[int, Facts]:
    """Return of each trial the facts of the source that tells most; of equals the first source's."""
    merged: dict[int, Facts] = {}
    for source in sources:
        for number, facts in source.items():
            found = better(merged.get(number), facts)
            if found is not None:
                merged[number] = found
    return merged


def _checked(results: Mapping[int, Facts], own: Salvaged) -> dict[int, Facts]:
    """Return trials as the results file has them, unless they went on since: its lines have a checksum."""
    merged = {}
    for number, facts in results.items():
        stored = own.trials.get(number, {}).get("user_attrs", {})
        went_on = stored.get("state") == State.RUNNING.value or _rungs(stored) > _rungs(facts["user_attrs"])
        if has_ended(facts) or not went_on:
            times = {key: own.trials[number].get(key) for key in _ONLY_STORED} if number in own.trials else {}
            merged[number] = {**facts, **times}
    return merged


def _rungs(attributes: Mapping[str, Any]) -> int:
    return sum(key.startswith("rung:") for key in attributes)


def _more(facts: Mapping[str, Any], own: Mapping[str, Any] | None) -> bool:
    """Whether the database lacks a trial, or tells less or something else of it than the source that is taken."""
    return own is None or own.get("damaged", False) or any(facts.get(key) != own.get(key) for key in _TOLD)


def _kinds(facts: Mapping[str, Any], space: Space) -> dict[str, BaseDistribution]:
    """Return the distribution of each parameter of a trial; one outside the space has its own value alone."""
    from optuna.distributions import CategoricalDistribution

    known = {parameter.name: parameter.distribution for parameter in space.parameters}
    kinds: dict[str, BaseDistribution] = {}
    for name, value in facts.get("params", {}).items():
        kind = known.get(name)
        try:
            fits = kind is not None and kind._contains(kind.to_internal_repr(value))
        except ValueError:
            fits = False
        kinds[name] = kind if fits and kind is not None else CategoricalDistribution([value])
    return kinds


def _newest(databases: Mapping[str, Salvaged], part: str) -> dict[str, Any]:
    """Return the attributes of a study; of each key the newest value that can be read."""
    merged: dict[str, Any] = {}
    for one in reversed(list(databases.values())):
        merged |= getattr(one, part)
    return merged


def _attributes(
    databases: Mapping[str, Salvaged], trials: Mapping[int, Mapping[str, Any]], config: StudyConfig
) -> dict[str, Any]:
    """Return the study's attributes; what it has spent is at least what its trials tell."""
    merged = {store.CONFIGURATION: config.resolved(), **_newest(databases, "user_attrs")}
    told = [facts.get("user_attrs", {}).get("spent") for facts in trials.values()]
    known = [spent for spent in (merged.get("spent"), *told) if isinstance(spent, dict)]
    if known:
        names = {name for spent in known for name in spent}
        merged["spent"] = {name: max(spent.get(name) or 0 for spent in known) for name in sorted(names)}
    return merged


def _sources(
    databases: Mapping[str, Salvaged],
    results: Mapping[int, Any],
    torn: int,
    files: Mapping[int, Facts],
    damaged: Sequence[str],
) -> dict[str, str]:
    """Say what each source holds."""
    said = {}
    for name, one in databases.items():
        health = f"damaged ({one.problem})" if one.problem else "healthy"
        said[name] = f"{health}, {len(one.trials)} trials can be read" if one.trials else health
    said[RESULTS] = f"{len(results)} trials" + (f", {torn} damaged lines" if torn else "")
    students = sum(has_ended(facts) for facts in files.values())
    said["checkpoints/"] = f"{students} finished students, {len(files) - students} unfinished trainings"
    return said | {f"checkpoints/{text.partition(': ')[0]}": "damaged" for text in damaged}


def _state(facts: Mapping[str, Any]) -> str:
    """Return a trial's state in the words of the commands."""
    open_ = facts["state"] in ("RUNNING", "WAITING")
    return str(facts.get("user_attrs", {}).get("state", facts["state"])) if open_ else str(facts["state"])
