"""Quick reading of a study's trials from SQLite, a row for each: Optuna builds objects that take twenty times as long.

Attributes stay text until they are used: a study of 100,000 trials has a million of them.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import sqlalchemy
from optuna.distributions import json_to_distribution
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import TrialState

_TRIALS = sqlalchemy.text(
    "SELECT trial_id, number, state, (SELECT group_concat('\"' || replace(replace(key, '\\', '\\\\'), '\"', '\\\"') || "
    "'\": ' || value_json, ', ') FROM trial_user_attributes AS one WHERE one.trial_id = trials.trial_id) "
    "FROM trials WHERE study_id = :study AND state != 'WAITING' ORDER BY number"
)
_VALUES = sqlalchemy.text(
    "SELECT trial_id, value, value_type FROM trial_values WHERE trial_id IN (SELECT trial_id FROM trials WHERE "
    "study_id = :study) ORDER BY trial_id, objective"
)
_CONSTRAINTS = sqlalchemy.text(
    "SELECT trial_id, value_json FROM trial_system_attributes WHERE key = 'constraints' AND trial_id IN (SELECT "
    "trial_id FROM trials WHERE study_id = :study)"
)
_PARAMS = sqlalchemy.text(
    "SELECT trial_id, param_name, param_value, distribution_json FROM trial_params WHERE trial_id IN (SELECT trial_id "
    "FROM trials WHERE study_id = :study) ORDER BY trial_id, param_id"
)
_INFINITE = {"INF_POS": math.inf, "INF_NEG": -math.inf}


@dataclass(frozen=True)
class TrialRow:
    """One trial.

    Attributes:
        identifier: its id in the storage.
        number: its number in the study.
        state: Optuna's state.
        attributes: its user attributes as the text of a JSON object.
        values: objective values, in order; empty if it has none.
        constraints: stored violations of the constraints; ``None`` if there are none.
    """

    identifier: int
    number: int
    state: TrialState
    attributes: str
    values: tuple[float, ...] = ()
    constraints: list[float] | None = None


def sqlite_of(storage: BaseStorage) -> RDBStorage | None:
    """Return the SQLite storage behind a storage; ``None`` if it is another kind."""
    backend = getattr(storage, "_backend", storage)  # Optuna wraps a database in a cache
    return backend if isinstance(backend, RDBStorage) and backend.engine.dialect.name == "sqlite" else None


def read_rows(storage: RDBStorage, study: int) -> list[TrialRow]:
    """Return the trials of a study by number, except enqueued ones.

    Raises:
        json.JSONDecodeError: stored constraints are no JSON; attributes are not looked at.
    """
    key, values, constraints = {"study": study}, dict[int, tuple[float, ...]](), dict[int, list[float]]()
    with storage.engine.connect() as connection:
        for identifier, value, kind in connection.execute(_VALUES, key):
            own = value if kind == "FINITE" else _INFINITE.get(kind, math.nan)
            values[identifier] = (*values.get(identifier, ()), own)
        for identifier, text in connection.execute(_CONSTRAINTS, key):
            constraints[identifier] = json.loads(text)
        return [
            TrialRow(
                identifier,
                number,
                TrialState[state],
                f"{{{attributes or ''}}}",
                values.get(identifier, ()),
                constraints.get(identifier),
            )
            for identifier, number, state, attributes in connection.execute(_TRIALS, key)
        ]


def read_params(storage: RDBStorage, study: int) -> dict[int, dict[str, Any]]:
    """Return the parameter values of each trial, by its id in the storage."""
    kinds: dict[str, Any] = {}
    params: dict[int, dict[str, Any]] = {}
    with storage.engine.connect() as connection:
        for identifier, name, value, kind in connection.execute(_PARAMS, {"study": study}):
            if kind not in kinds:
                kinds[kind] = json_to_distribution(kind)
            params.setdefault(identifier, {})[name] = kinds[kind].to_external_repr(value)
    return params
