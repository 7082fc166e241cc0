"""Reading of whatever can be read in a study's database, healthy or damaged, without Optuna."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from optuna.distributions import json_to_distribution

from autodistill.search.storage.backups import open_to_read

ENDED = ("COMPLETE", "PRUNED", "FAIL")

_TRIALS = "SELECT trial_id, number, study_id, state, datetime_start, datetime_complete FROM trials"
_OF_TRIALS = {
    "params": "SELECT trial_id, param_name, param_value, distribution_json FROM trial_params",
    "user_attrs": "SELECT trial_id, key, value_json FROM trial_user_attributes",
    "system_attrs": "SELECT trial_id, key, value_json FROM trial_system_attributes",
    "values": "SELECT trial_id, objective, value FROM trial_values",
}


@dataclass
class Salvaged:
    """What a database holds.

    Attributes:
        trials: facts of each trial by number: ``state`` (Optuna's), ``values``, ``params``, ``user_attrs``,
            ``system_attrs``, ``started``, ``ended``; ``damaged`` if a part of it could not be read.
        user_attrs: attributes of the study.
        system_attrs: internal attributes of the study: notes of the dashboard, the sampler's memory.
        name: name of the study; empty if it could not be read.
        problem: why the database is not healthy; empty if it is.
    """

    trials: dict[int, dict[str, Any]] = field(default_factory=dict)
    user_attrs: dict[str, Any] = field(default_factory=dict)
    system_attrs: dict[str, Any] = field(default_factory=dict)
    name: str = ""
    problem: str = ""


def salvage(path: Path) -> Salvaged:
    """Read a database as far as possible; a file that is missing or no database gives nothing and a ``problem``."""
    found = Salvaged()
    if not path.is_file() or not path.stat().st_size:
        found.problem = "empty" if path.is_file() else "missing"
        return found
    try:
        with contextlib.closing(open_to_read(path)) as connection:
            _read(connection, found)
    except sqlite3.DatabaseError as error:
        found.problem = found.problem or str(error)
    return found


def has_ended(facts: Mapping[str, Any]) -> bool:
    """Return whether a trial has ended."""
    return facts.get("state") in ENDED


def better(one: Mapping[str, Any] | None, other: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the facts that tell more of one trial; of equals the first."""
    if one is None or (other is not None and _rank(other) > _rank(one)):
        return None if other is None else dict(other)
    return dict(one)


def _rank(facts: Mapping[str, Any]) -> tuple[bool, bool, int]:
    attributes = facts.get("user_attrs", {})
    rungs = sum(key.startswith("rung:") for key in attributes)
    return not facts.get("damaged", False) and "candidate" in attributes, has_ended(facts), rungs


def _read(connection: sqlite3.Connection, found: Salvaged) -> None:
    check = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]  # indices too, unlike the quick check
    found.problem = "" if check == "ok" else str(check).partition("\n")[0]
    studies = _rows(connection, "SELECT study_id, study_name FROM studies", "study_id", found)
    if not studies:
        found.problem = found.problem or "it holds no study"
        return
    study, found.name = studies[0]
    for table, into in (("study_user_attributes", found.user_attrs), ("study_system_attributes", found.system_attrs)):
        for key, text in _rows(connection, f"SELECT key, value_json FROM {table}", "rowid", found):
            with contextlib.suppress(ValueError, TypeError):
                into[key] = json.loads(text)
    numbers: dict[int, int] = {}
    for identifier, number, of, state, began, ended in _rows(connection, _TRIALS, "trial_id", found):
        if of == study:
            numbers[identifier] = number
            found.trials[number] = {"number": number, "state": state, "started": began, "ended": ended}
            found.trials[number] |= {"params": {}, "user_attrs": {}, "system_attrs": {}, "values": []}
    for part, query in _OF_TRIALS.items():
        for identifier, *row in _rows(connection, query, "trial_id", found):
            if identifier in numbers:
                _take(found.trials[numbers[identifier]], part, row, found)
    for facts in found.trials.values():
        facts["values"] = [value for _, value in sorted(facts["values"])]
        if facts["state"] == "COMPLETE" and not facts["values"]:
            facts["damaged"] = True


def _take(facts: dict[str, Any], part: str, row: Iterable[Any], found: Salvaged) -> None:
    try:
        if part == "values":
            facts["values"].append(tuple(row))
        elif part == "params":
            name, value, kind = row
            facts["params"][name] = json_to_distribution(kind).to_external_repr(value)
        else:
            key, text = row
            facts[part][key] = json.loads(text)
    except (ValueError, TypeError, KeyError, IndexError) as error:
        facts["damaged"] = True
        found.problem = found.problem or f"a part of trial {facts['number']} is damaged ({type(error).__name__})"


def _rows(connection: sqlite3.Connection, query: str, order: str, found: Salvaged) -> list[tuple[Any, ...]]:
    """Return the rows of a query; where a page is damaged, those before it and those behind it."""
    rows: dict[tuple[Any, ...], None] = {}
    for direction in ("ASC", "DESC"):
        try:
            for row in connection.execute(f"{query} ORDER BY {order} {direction}"):
                rows[row] = None
            break
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            found.problem = found.problem or str(error)
    return list(rows)
