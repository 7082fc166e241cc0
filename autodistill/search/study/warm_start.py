"""Warm start: a study begins with the front of another study.

The front of the other study, in an order spread over its axes, is put at the head of the queue: its students and
recipes are trained again with this study's data and teacher, and the model learns from them first. No trial of the
other study is on this study's front. Known costs need not be copied: costs measured on this machine for the same
images and classes are in the memory that all studies share (``training/costs/cost_memory.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from autodistill.core.errors import ConfigError, UsageError
from autodistill.core.records import TrialRecord
from autodistill.search.objectives.pareto import epsilon_net_order
from autodistill.search.objectives.values_as_losses import axis_losses
from autodistill.search.space import moves

if TYPE_CHECKING:
    from autodistill.search.space.space import Space
    from autodistill.search.study.study import Study

TAKEN = 6
"""Students of each other study that are tried first; about half of an initial design."""

_KEY = "warm_start"


def warm_start(study: Study, other: Study, folder: Path) -> str:
    """Enqueue the front of another study, only once even if the study is resumed.

    Args:
        study: the new study.
        other: the study whose front is used.
        folder: folder of the other study; also the key under which the warm start is recorded.

    Returns:
        Message about what was done; empty if it was done before.

    Raises:
        UsageError: no front student fits the space.
    """
    done: dict[str, Any] = dict(study.optuna.user_attrs.get(_KEY, {}))
    if str(folder) in done:
        return ""
    fitting, members = fitting_students(study.space, study.seed, other, folder)
    for values in fitting[:TAKEN]:
        study.enqueue(study.space.nest(values))
    taken = min(len(fitting), TAKEN)
    study.optuna.set_user_attr(_KEY, {**done, str(folder): {"enqueued": taken}})
    return f"warm start: {taken} of {members} front students of {folder} are tried first"


def fitting_students(space: Space, seed: int, other: Study, folder: Path) -> tuple[list[Mapping[str, Any]], int]:
    """Return the front students of another study that fit a space; nothing is written.

    Args:
        space: space of the new study.
        seed: seed of the new study.
        other: the study whose front is used.
        folder: folder of the other study, for messages.

    Returns:
        Values in ``space`` of the front students that it contains, and the size of the front.

    Raises:
        UsageError: no front student fits the space.
    """
    members = _spread(other)
    fitting = [values for t in members if (values := _translated(space, seed, other, t)) is not None]
    if not fitting:
        what = "has no front yet" if not members else "shares no student with this search space"
        raise UsageError(f"cannot warm-start from {folder}: it {what}. Leave out --warm-start, or widen the space.")
    return fitting, len(members)


def _spread(other: Study) -> list[TrialRecord]:
    """Return the front of the trials as trained, in an order of which every prefix is spread over the front.

    Variants are left out: a variant is the same candidate as its trial.
    """
    members = list(other.front().trained().trials)
    if not members:
        return []
    losses = axis_losses(other.objectives, [t.values for t in members])
    return [members[i] for i in epsilon_net_order(losses)]


def _translated(space: Space, seed: int, other: Study, trial: TrialRecord) -> Mapping[str, Any] | None:
    """Return the trial's values in ``space``, missing ones drawn; ``None`` if its student is not in the space."""
    sections = {"student": trial.student, "distillation": trial.distillation, "train": trial.train}
    try:
        values = other.space.flatten(sections)
    except ConfigError:
        return None
    rng = np.random.default_rng([seed, trial.number])
    out = moves.complete(space, values, rng)
    student = {name for name in (*values, *out) if name.startswith("student.")}
    same = all(name in out and name in values and out[name] == values[name] for name in student)
    return out if same else None
