"""Check of all names of a study before anything is written: families, losses, settings, data, teacher, engine.

Candidates are drawn from the space and parsed by the code that will train them, so that a misspelt name is reported now
rather than by the first trial with it. For a study of images this loads torch, which takes seconds, so checks without
torch come first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from autodistill.config.study_file import StudyConfig
from autodistill.config.values import overruled
from autodistill.core.errors import AutodistillError, ConfigError, nearest
from autodistill.core.records import LATENCY, MULTICLASS, DataSpec, TaskKind, TeacherSpec
from autodistill.core.teacher_choice import members
from autodistill.engines.setup.initial_weights import ask_early
from autodistill.engines.setup.served_task import other_task, space_task_problems

if TYPE_CHECKING:
    from autodistill.search.space.space import Space

_DRAWS_PER_BRANCH = 20
ALWAYS = ("accuracy", "loss", "agreement")
"""Measures that every report has."""


def check_first(config: StudyConfig, *, resumed: bool = False) -> None:
    """Check what needs no torch: engine, rungs, data source, and that the folder of the images exists.

    Args:
        config: Configuration of the study.
        resumed: Whether the study exists with the same settings; only the engine is checked then, since a study may be
            opened for reading on a machine without its images.

    Raises:
        ConfigError: There are problems; all are listed.
    """
    from autodistill.engines import engines

    problems: list[str] = []
    _collect(problems, partial(engines.get, config.engine))
    if not resumed:
        problems += overruled(config.rungs, config.epochs)
    if config.data is not None and not resumed:
        from autodistill.training.data.datasets import check_source as check_data
        from autodistill.training.data.datasets import check_task

        _collect(problems, partial(check_data, config.data))
        _collect(problems, partial(check_task, config.data, config.task))
    _refuse(problems)


def check_study(config: StudyConfig, space: Space, *, resumed: bool = False) -> None:
    """Check the names that :func:`check_first` left out: families, losses, settings, teachers and metrics.

    Args:
        config: Configuration of the study.
        space: Its search space, with all restrictions.
        resumed: Whether the study exists with the same settings; nothing is checked then.

    Raises:
        ConfigError: There are unknown names or impossible values; all are listed.
    """
    if resumed:
        return
    problems = _without_effect(space, config.training)
    if config.data is not None:
        ask_early(space, config.training, config.teacher)
        for teacher in members(config.teacher).values():
            _collect(problems, partial(_check_teacher, teacher, config.data, config.task))
        other_tasks = space_task_problems(config, space)
        problems += other_tasks or space_problems(space, config.training, config.data.image_size, config.task)
        problems += metric_problems(config)
        problems += _unused_ratio(config, space)
    _refuse(problems)


def metric_problems(config: StudyConfig) -> list[str]:
    """Return what is wrong with objectives, constraints and measures: those that nothing computes, and bad functions.

    Args:
        config: of a study with images, which has no evaluation of its own.
    """
    from autodistill.search.objectives.objectives import parse_constraint, resolve
    from autodistill.training.costs.counts import cost_metrics
    from autodistill.training.loop.measures import load_measure, measures_of

    problems: list[str] = []
    measures = measures_of(config.task)
    for where in config.measures.values():
        _collect(problems, partial(load_measure, where))
    built_in = [name for name in config.measures if name in measures or name in ALWAYS]
    problems += [f"measures: {name!r} is the name of a built-in measure; choose another" for name in built_in]
    trained = {*ALWAYS, *measures.names(), *config.measures}
    computed = {*trained, *cost_metrics.names(), LATENCY}
    wanted = {one.name: one.stage for one in resolve(config.objectives, measured=config.measures)}
    for text in config.constraints:
        wanted.setdefault(parse_constraint(text, [*computed, *wanted]).metric, "known")
    for name, stage in wanted.items():
        if reason := other_task(name, config.task):
            problems.append(reason)
        elif name not in computed or (stage == "trained" and name not in trained):
            close = nearest(name, sorted(trained if stage == "trained" else computed), 1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            problems.append(
                f"objective {name!r} is computed by nothing; {hint}A measure of logits and labels is declared in the "
                f"study file as measures: {{{name}: module:function}}, a known cost by a plugin (autodistill.costs)"
            )
    return problems


def _unused_ratio(config: StudyConfig, space: Space) -> list[str]:
    """Return the problem of a ratio of unlabelled images in a study that has none."""
    section = space.section("train")
    names = [*(one.name for one in section.parameters), *(one.name for one in section.constants)]
    searched = "train.unlabelled_ratio" in names
    if (
        config.data is None
        or config.data.unlabelled is not None
        or not (searched or "unlabelled_ratio" in config.training)
    ):
        return []
    where = "train" if searched else "training"
    return [f"{where}.unlabelled_ratio: the study has no unlabelled images; give --unlabelled DIR, or leave it out"]


def _without_effect(space: Space, training: Mapping[str, Any]) -> list[str]:
    """Return the problems of shared training settings that the space overrides in every trial."""
    from autodistill.search.space.distributions import contains, describe

    problems = []
    parameters = [p for p in space.parameters if p.section == "train"]
    fixed = {one.name: one.value for one in space.constants if one.section == "train"}
    for key, value in training.items():
        name = f"train.{key}"
        searched = next((p for p in parameters if p.key == key), None)
        if searched is not None:
            use = value if contains(searched.distribution, value) else "VALUE"
            reason = f"the space searches {name} ({describe(searched.distribution)}), so this would have no effect"
            fix = f"write --set {name}={use}, or in a study file set: {{{name}: {use}}}"
            problems.append(f"training.{key}: {reason}; {fix}")
        elif fixed.get(name, value) != value:
            reason = f"the space fixes {name} to {fixed[name]!r}, so this would have no effect"
            problems.append(f"training.{key}: {reason}; change it in the space")
    return problems


def space_problems(
    space: Space,
    training: dict[str, Any] | None = None,
    image_size: int | None = None,
    kind: TaskKind = MULTICLASS,
) -> list[str]:
    """Return the problems of candidates drawn from every branch of ``space``: families, losses and recipes.

    Args:
        space: Search space.
        training: Settings shared by all trials.
        image_size: Image side in pixels, to check that the families support it; ``None`` skips this check.
        kind: Task of the study: one class per image, or any number of labels.
    """
    from autodistill.training.distillation.loss_mix import LossMix
    from autodistill.training.loop.recipe import Recipe
    from autodistill.training.students.build import validate

    problems: list[str] = []
    if nameless := _without_family(space):
        return [nameless]  # once, instead of once per candidate
    settings = dict(training or {})
    _collect(problems, partial(Recipe.parse, settings, kind=kind))
    for candidate in _draws(space):
        _collect(problems, partial(validate, candidate["student"], image_size=image_size))
        _collect(problems, partial(LossMix.parse, candidate["distillation"], kind=kind))
        _collect(problems, partial(Recipe.parse, settings, candidate["train"], kind=kind))
    return list(dict.fromkeys(problems))


def _without_family(space: Space) -> str:
    """Return the problem of a space whose students have no family; empty if they have one."""
    keys = [one.name.split(".", 1)[1] for one in space.entries if one.section == "student"]
    if "family" in keys:
        return ""
    close = nearest("family", [key for key in keys if "." not in key], 1)
    meant = f" student.{close[0]} is unknown; did you mean 'family'?" if close else ""
    from autodistill.training.students.build import families

    return f"student: family is missing;{meant} Give one of, or a list of: {', '.join(families.names())}."


def _draws(space: Space) -> Iterator[dict[str, dict[str, Any]]]:
    """Yield candidates that together cover every choice of every categorical parameter."""
    import numpy as np

    rng = np.random.default_rng(0)
    for _ in range(_DRAWS_PER_BRANCH):
        yield space.nest(space.sample(rng))
    for parameter in space.parameters:
        for choice in getattr(parameter.distribution, "choices", ()):
            for _ in range(3):
                values = space.reach(parameter.name, choice, rng)
                if values is not None:
                    yield space.nest(values)


def _check_teacher(spec: TeacherSpec, data: DataSpec, kind: TaskKind) -> None:
    from autodistill.training.data.datasets import class_names
    from autodistill.training.teachers.load import check_teacher as check_teacher
    from autodistill.training.trials.teach import require_weights, starting_network

    given = {key: spec.options.get(key) for key in ("model", "weights", "pretrained")}
    if spec.source == "auto" and (given["weights"] or given["pretrained"]):
        side = data.image_size or 0
        _, source = starting_network(given["model"], given["weights"], pretrained=True, image_size=side)
        require_weights(source, pretrained=False)

    def classes() -> int | None:
        names = class_names(data)
        return None if names is None else len(names)

    check_teacher(spec, classes, kind=kind)


def _refuse(problems: list[str]) -> None:
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)), "the study")


def _collect(problems: list[str], call: Callable[[], Any]) -> None:
    try:
        call()
    except ConfigError as error:
        problems.extend(error.problems)
    except AutodistillError as error:
        problems.append(str(error))
