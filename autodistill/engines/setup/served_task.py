"""What of a search space cannot serve a study's task or number of classes: losses and training settings.

What the user wrote is refused by name before anything runs. Choices of a built-in space are left out instead, so that
no sampler proposes them; ``left_out`` of the study file records them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from autodistill.config.study_file import StudyConfig
from autodistill.core.errors import AutodistillError
from autodistill.core.records import MULTICLASS, MULTILABEL, TaskKind

if TYPE_CHECKING:
    from autodistill.search.space.space import Space

LOSS, SAMPLER = "distillation.loss", "train.sampler"
Reasons = dict[str, dict[Any, str]]
"""Parameter name to its unusable choices, each with the reason."""


def leave_out_unusable(config: StudyConfig, space: Space) -> tuple[StudyConfig, list[str]]:
    """Leave out what cannot serve the task of a new study from its built-in space.

    Args:
        config: configuration of a new study.
        space: its search space.

    Returns:
        The configuration with ``left_out`` filled in, and messages for the user.
    """
    if config.data is None or not _is_built_in(config):
        return config, []
    found = unusable_choices(space, config.task, lambda: class_count(config))
    found = {name: choices for name, choices in found.items() if name not in config.set}
    if not found:
        return config, []
    left_out = {name: list(choices) for name, choices in found.items()}
    notes = [f"left out of the space: {reason}" for choices in found.values() for reason in choices.values()]
    return config.model_copy(update={"left_out": left_out}), notes


def unusable_choices(space: Space, kind: TaskKind, classes: Callable[[], int | None]) -> Reasons:
    """Return the choices of a space that cannot serve a task or a number of classes, with reasons.

    Args:
        space: search space.
        kind: task of the study.
        classes: returns the number of classes, or ``None`` if it is not known; called only if a loss depends on it.
    """
    from autodistill.training.distillation.losses_of_task import least_classes, why_not
    from autodistill.training.loop.recipe import Recipe

    found: Reasons = {}
    losses = [str(choice) for choice in _choices(space, LOSS)]
    count = classes() if any(least_classes(name, kind) > 2 for name in losses) else None
    for name in losses:
        if reason := why_not(name, kind, count):
            found.setdefault(LOSS, {})[name] = reason
    for choice in _choices(space, SAMPLER):
        if reason := Recipe(sampler=str(choice)).why_not(kind):
            found.setdefault(SAMPLER, {})[choice] = reason
    return found


def class_count(config: StudyConfig) -> int | None:
    """Return the number of classes, from the images if their source does not know it; ``None`` if unreadable."""
    from autodistill.training.data.datasets import class_names, load_images
    from autodistill.training.runtime.cache_folder import cache_folder

    assert config.data is not None
    try:
        names = class_names(config.data)
        return len(names if names is not None else load_images(config.data, cache_folder().absolute()).classes)
    except AutodistillError:  # reported where the images are read
        return None


def space_task_problems(config: StudyConfig, space: Space) -> list[str]:
    """Return why choices of a user's own space cannot serve the study, with what to write instead."""
    if _is_built_in(config) and not {LOSS, SAMPLER} & set(config.set):  # nothing of it was written by the user
        return []
    problems = []
    for name, choices in unusable_choices(space, config.task, lambda: class_count(config)).items():
        good = [str(choice) for choice in _choices(space, name) if choice not in choices]
        fix = f"leave it out: --set {name}={','.join(good)}" if good else f"give {name} another value"
        problems += [f"{name}: {reason.rstrip('.')}; {fix}" for reason in choices.values()]
    return problems


def other_task(name: str, kind: TaskKind) -> str:
    """Return why a measure is not computed in a study of a task, if it serves the other one; else an empty text."""
    from autodistill.training.loop.measures import measures_of

    other = MULTICLASS if kind == MULTILABEL else MULTILABEL
    if name in measures_of(kind) or name not in measures_of(other):
        return ""
    return f"objective {name!r} cannot serve task: {kind}; allowed: {', '.join(measures_of(kind).names())}"


def _is_built_in(config: StudyConfig) -> bool:
    from autodistill.search.space.builtin import space_names

    return isinstance(config.space, str) and config.space in space_names()


def _choices(space: Space, name: str) -> tuple[Any, ...]:
    """Return the choices of a categorical parameter, or the value of a constant; empty if the space has neither."""
    for parameter in space.parameters:
        if parameter.name == name:
            return tuple(getattr(parameter.distribution, "choices", ()))
    return tuple(constant.value for constant in space.constants if constant.name == name)
