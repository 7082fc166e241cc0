"""Warm start: a study begins with what another study found.

The front of the other study, spread over its axes, is put at the head of the queue: its students and recipes are
trained again here, under this study's data and teacher, and are the first that the model learns from. Nothing of the
other study is on this one's front. Known costs need no taking over: what was measured on this machine for the same
images and classes is in the memory that all studies share (``training/cost_memory.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from autodistill.errors import ConfigError, UsageError
from autodistill.records import TrialRecord
from autodistill.search import proposals
from autodistill.search.front import axis_losses
from autodistill.search.pareto import epsilon_net_order

if TYPE_CHECKING:
    from autodistill.search.study import Study

TAKEN = 6
"""Students of each other study that are tried first: about half of a first design."""

_KEY = "warm_start"


def warm_start(study: Study, folder: Path) -> str:
    """Enqueue what another study found; once, whatever is resumed.

    Args:
        study: the new one.
        folder: of the other one.

    Returns:
        What was done, in words; empty when it was done before.

    Raises:
        UsageError: the folder is not a study, or nothing of it fits the space.
    """
    from autodistill.search.opening import open_to_read

    done: dict[str, Any] = dict(study.optuna.user_attrs.get(_KEY, {}))
    if str(folder) in done:
        return ""
    if study.directory is not None and folder.resolve() == study.directory.resolve():
        raise UsageError(f"study {folder} cannot be warm-started from itself; name another study's folder.")
    other = open_to_read(folder)
    members = _spread(other)
    fitting = [(t, values) for t in members if (values := _translated(study, other, t)) is not None]
    if not fitting:
        what = "has no front yet" if not members else "shares no student with this search space"
        raise UsageError(f"cannot warm-start from {folder}: it {what}. Leave out --warm-start, or widen the space.")
    for _, values in fitting[:TAKEN]:
        study.enqueue(study.space.nest(values))
    taken = min(len(fitting), TAKEN)
    study.optuna.set_user_attr(_KEY, {**done, str(folder): {"enqueued": taken}})
    return f"warm start: {taken} of {len(members)} front students of {folder} are tried first"


def _spread(other: Study) -> list[TrialRecord]:
    """The front of the trials as they were trained, in an order whose every prefix is spread over it.

    A variant is the same trial once more, and here it would be the same candidate.
    """
    members = list(other.front().trained().trials)
    if not members:
        return []
    losses = axis_losses(other.objectives, [t.values for t in members])
    return [members[i] for i in epsilon_net_order(losses)]


def _translated(study: Study, other: Study, trial: TrialRecord) -> Mapping[str, Any] | None:
    """The trial's parameters in the study's space, other ones drawn; ``None`` if its student is not in the space."""
    sections = {"student": trial.student, "distillation": trial.distillation, "train": trial.train}
    try:
        values = other.space.flatten(sections)
    except ConfigError:
        return None
    rng = np.random.default_rng([study.seed, trial.number])
    out = proposals.complete(study.space, values, rng)
    student = {name for name in (*values, *out) if name.startswith("student.")}
    same = all(name in out and name in values and out[name] == values[name] for name in student)
    return out if same else None
