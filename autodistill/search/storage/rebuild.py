"""Writing of a study's database anew, from the facts of its trials."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, distribution_to_json

from autodistill.core.errors import ResourceError
from autodistill.core.records import Objective, State
from autodistill.search.storage.backups import DATABASE
from autodistill.search.storage.study_folder import load_or_create, open_storage

LOST = "lost with the damaged database: neither a copy nor a result file tells of it"


def rebuild(
    directory: Path,
    name: str,
    objectives: Sequence[Objective],
    trials: Mapping[int, Mapping[str, Any]],
    *,
    kinds: Mapping[int, Mapping[str, BaseDistribution]],
    user_attrs: Mapping[str, Any],
    system_attrs: Mapping[str, Any],
) -> str:
    """Write a new database into a study's folder; the old one is kept under a dated name.

    Args:
        directory: folder of the study, whose lock is held.
        name: name of the study.
        objectives: objectives of the study.
        trials: facts by number, see :class:`~autodistill.search.storage.salvage.Salvaged`; missing numbers become
            FAIL trials, since later trials and their files keep their own numbers.
        kinds: distribution of each parameter that is stored, by trial.
        user_attrs: attributes of the study.
        system_attrs: internal attributes of the study.

    Returns:
        Name of the old database; empty if there was none.

    Raises:
        ResourceError: there is no room for it.
    """
    with tempfile.TemporaryDirectory(dir=directory, prefix=".repair-") as scratch:
        storage = open_storage(Path(scratch))
        study = load_or_create(storage, name, objectives)
        for key, value in user_attrs.items():
            study.set_user_attr(key, value)
        for key, value in system_attrs.items():
            if not key.startswith("study:"):  # metric names, which have just been set
                storage.set_study_system_attr(study._study_id, key, value)
        identifier = study._study_id
        _dispose(storage)
        path = Path(scratch) / DATABASE
        try:
            with contextlib.closing(sqlite3.connect(path)) as connection:
                _fill(connection, identifier, trials, kinds)
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                connection.execute("PRAGMA journal_mode=DELETE")
        except sqlite3.OperationalError as error:
            raise ResourceError(f"cannot write {path}: {error}. Free space on this disk.") from error
        with path.open("rb") as file:
            os.fsync(file.fileno())
        old = _put_away(directory)
        os.replace(path, directory / DATABASE)
    return old


def _dispose(storage: Any) -> None:
    backend = getattr(storage, "_backend", storage)
    backend.engine.dispose()


def _put_away(directory: Path) -> str:
    """Rename the old database and the files that SQLite keeps beside it; return its new name."""
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    old = directory / DATABASE
    for suffix in ("-wal", "-shm", ""):
        path = directory / f"{DATABASE}{suffix}"
        if path.exists():
            os.replace(path, directory / f"{DATABASE}.damaged-{stamp}{suffix}")
    kept = directory / f"{DATABASE}.damaged-{stamp}"
    return kept.name if kept.exists() and old.name else ""


def _fill(
    connection: sqlite3.Connection,
    study: int,
    trials: Mapping[int, Mapping[str, Any]],
    kinds: Mapping[int, Mapping[str, BaseDistribution]],
) -> None:
    now = time.strftime("%Y-%m-%d %H:%M:%S.000000")
    rows: dict[str, list[tuple[Any, ...]]] = {table: [] for table in _INSERTS}
    for number in range(max(trials, default=-1) + 1):
        facts, identifier = trials.get(number) or _lost(), number + 1
        began, state = facts.get("started") or now, facts["state"]
        ended = None if state in ("RUNNING", "WAITING") else facts.get("ended") or began
        rows["trials"].append((identifier, number, study, state, began if state != "WAITING" else None, ended))
        for name, kind in kinds.get(number, {}).items():
            value = kind.to_internal_repr(facts["params"][name])
            rows["trial_params"].append((identifier, name, float(value), distribution_to_json(kind)))
        for table, part in (("trial_user_attributes", "user_attrs"), ("trial_system_attributes", "system_attrs")):
            rows[table] += [(identifier, key, json.dumps(value)) for key, value in facts.get(part, {}).items()]
        if state == "COMPLETE":
            finals = enumerate(facts["values"])
            rows["trial_values"] += [(identifier, place, float(value), "FINITE") for place, value in finals]
    with connection:
        for table, statement in _INSERTS.items():
            connection.executemany(statement, rows[table])


def _lost() -> dict[str, Any]:
    told = {"state": State.FAIL.value, "reason": "WORKER_LOST", "message": LOST}
    return {"state": optuna.trial.TrialState.FAIL.name, "params": {}, "user_attrs": told}


_INSERTS = {
    "trials": "INSERT INTO trials (trial_id, number, study_id, state, datetime_start, datetime_complete) "
    "VALUES (?, ?, ?, ?, ?, ?)",
    "trial_params": "INSERT INTO trial_params (trial_id, param_name, param_value, distribution_json) "
    "VALUES (?, ?, ?, ?)",
    "trial_user_attributes": "INSERT INTO trial_user_attributes (trial_id, key, value_json) VALUES (?, ?, ?)",
    "trial_system_attributes": "INSERT INTO trial_system_attributes (trial_id, key, value_json) VALUES (?, ?, ?)",
    "trial_values": "INSERT INTO trial_values (trial_id, objective, value, value_type) VALUES (?, ?, ?, ?)",
}
