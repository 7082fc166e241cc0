"""Preparation of a study of images before its first trial: images, a checked teacher, and a survey of students.

All of it counts against the budget. Results that already exist in the study's folder are reused.
"""

from __future__ import annotations

import math
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autodistill.core.budget import format_seconds
from autodistill.core.errors import AutodistillError, ConfigError, InfeasibleError, UsageError
from autodistill.core.records import LATENCY, MULTILABEL, EvaluateFactory, Params, State, SurveyRow, Task, TeacherSpec
from autodistill.core.teacher_choice import accepts_weak, members
from autodistill.engines.driving.worker import Isolated
from autodistill.engines.monitor.teaching import TeachingProgress
from autodistill.engines.monitor.watch import Watch
from autodistill.engines.setup.initial_weights import fetch_all, with_weights
from autodistill.engines.setup.left_out import leave_out_crashed
from autodistill.engines.setup.provenance import check_sources, image_facts, record_sources, sources
from autodistill.engines.timing.cold_views import cold_views, searches_embeddings, setting_values
from autodistill.engines.timing.survey_pool import SURVEY_SHARE, Fits, draw_pool, has_survey, pool_size
from autodistill.search.study.readings import TEACHER_NOTES
from autodistill.search.study.study import Study

if TYPE_CHECKING:
    from torch import nn

    from autodistill.config.study_file import StudyConfig
    from autodistill.training.costs.cost_memory import CostMemory
    from autodistill.training.data.datasets import ImageData
    from autodistill.training.survey.time_limit import Hours
    from autodistill.training.teachers.teacher import Teacher

COUNTED = ("params", "macs")
"""Costs that are counted for every student."""

Surveyed = Sequence[tuple[Params, Mapping[str, float]]]
"""Students with their known costs."""


def prepare(study: Study, watch: Watch, *, device: str = "cpu") -> EvaluateFactory:
    """Load the images, train or check the teacher, and survey a pool of students.

    Args:
        study: A study with a configuration.
        watch: Receives the progress of every stage.
        device: Torch device of the teacher for its checks.

    Returns:
        Factory of the evaluator of one worker; it can be pickled for worker processes.

    Raises:
        DataError: The images cannot be used.
        TeacherError: The teacher cannot be used.
        UsageError: The study has no data, or its trials had other images or another teacher.
    """
    from autodistill.training.data import datasets
    from autodistill.training.runtime.cache_folder import cache_folder
    from autodistill.training.teachers.checking import preflight
    from autodistill.training.trials.evaluate import discard, evaluator

    config: StudyConfig = study.config
    if config.data is None:
        raise UsageError("this study has no data; give data= and teacher=, or evaluate= with your own evaluation.")
    if cold := cold_views(study.space, config.training):
        warnings.warn(cold, stacklevel=2)
    directory = study.directory or Path(tempfile.mkdtemp(prefix="autodistill-"))
    fetch_all(with_weights(study.space, config.training)[1], watch)
    watch.stage("data", f"reading {config.data.source}")
    cache = cache_folder().absolute()
    data = _images(study, config, cache, watch)
    check_sources(study, image_facts(data))
    leave_out_crashed(study, data, watch, device)
    if not accepts_weak(config.teacher):
        preflight.check_enough(data)
    metrics = tuple(dict.fromkeys([*(o.name for o in study.objectives), *(c.metric for c in study.constraints)]))
    surveyed = has_survey(config.survey, study.objectives)
    teaching = config.teacher.source == "auto"
    if surveyed and teaching:  # to find a wrong space or latency command before the teacher is trained for minutes
        _survey(study, config, data, metrics, watch)
    teacher = _teacher(study, config, data, directory, watch, cache=cache, device=device)
    if surveyed and not teaching and not watch.should_stop():
        _survey(study, config, data, metrics, watch)
    task = Task(
        data=config.data,
        teacher=teacher,
        directory=str(directory),
        rungs=study.rungs.levels,
        metrics=metrics,
        latency=config.latency,
        training=config.training,
        cache=str(cache),
        variants=config.variants,
        measures=config.measures,
        weights=study.space.weights,
        kind=config.task,
        images=datasets.images_key(data),
    )
    study.after = lambda number, state: discard(task, number) if state in (State.PRUNED, State.FAIL) else None
    return Isolated(evaluator, task)


def _images(study: Study, config: StudyConfig, cache: Path, watch: Watch) -> ImageData:
    """Read and check the images of a study, with progress; for a new study, say what is unusual about them.

    Raises:
        DataError: The images cannot be used, or training and test part do not agree.
    """
    from autodistill.training.data import datasets

    def decoding(done: int, total: int) -> None:
        watch.stage("data", f"decoding images: {done:,} of {total:,}", done / total)

    assert config.data is not None
    begun = study.spent.epochs > 0
    with datasets.decoding_shown(decoding):
        datasets.check_files(config.data, cache, begun=begun)
        data = datasets.load_images(config.data, cache)
        datasets.check_task(config.data, config.task, data)
        if not begun:  # a study with trials has to keep its images
            datasets.warn_of_cut(config.data, data)
            datasets.check_parts(config.data, data, cache)
    watch.stage(
        "data",
        f"{len(data.train.labels):,} training and {len(data.val.labels):,} validation images of "
        f"{data.image_size} px {'with' if data.kind == MULTILABEL else 'in'} {len(data.classes)} "
        f"{'labels' if data.kind == MULTILABEL else 'classes'}"
        + (f"; {data.unlabelled.words()}" if data.unlabelled is not None else ""),
    )
    return data


def _teacher(
    study: Study, config: StudyConfig, data: ImageData, directory: Path, watch: Watch, *, cache: Path, device: str
) -> TeacherSpec:
    """Return the checked teacher, after training it if there is none; of several, store the values of the best."""
    from autodistill.training.distillation.initialise import unlike_teacher
    from autodistill.training.loop.recipe import Recipe
    from autodistill.training.teachers import load as teachers
    from autodistill.training.teachers.cache.open_caches import OpenCaches
    from autodistill.training.teachers.checking import preflight
    from autodistill.training.teachers.folder import TEACHER_JSON
    from autodistill.training.teachers.plain_answers import asker

    spec = config.teacher
    if spec.source == "auto":
        folder = directory / "teacher"
        if study.spent.epochs > 0 and (folder / TEACHER_JSON).is_file():  # trained students must keep their teacher
            watch.stage("teacher", "reusing the teacher that was trained before")
            spec = TeacherSpec(str(folder), accept_weak=spec.accept_weak)
        else:
            spec = _teach(config, data, folder, watch, device)
    copied = "teacher" in setting_values(study.space, config.training, "init", Recipe.init)
    embedded = searches_embeddings(study.space)

    def checked(teacher: Teacher, done: int, total: int) -> None:
        watch.stage("teacher", f"{teacher.name}: checked on {done:,} of {total:,} validation images", done / total)

    ask = asker(data, OpenCaches(cache / "teacher"), config.data.seed if config.data else 0, checked)
    trained = [o.name for o in study.objectives if o.stage == "trained"]
    best, facts, values, notes = -1.0, dict[str, Any](), dict[str, float](), list[str]()
    for one in members(spec).values():
        teacher = teachers.load_teacher(one, data, device)
        found = preflight.preflight(
            teacher,
            data,
            accept_weak=spec.accept_weak or one.accept_weak,
            ask=ask,
            memory=cache,
            own=config.measures,
        )
        watch.stage("teacher", f"{found.name}, validation {found.merit_words}")
        if embedded:
            teacher.embedding_width()  # fails now instead of in the first trial with an embedding term
        notes += found.notes
        for note in found.notes:
            watch.stage("teacher", note)
        if copied and (unlike := unlike_teacher(teacher, data)):
            warnings.warn(unlike, stacklevel=3)
        if found.merit > best:
            best, facts = found.merit, sources(data, teacher)
            wanted = {name: found.values[name] for name in trained if name in found.values}
            values = {"accuracy": found.accuracy, **wanted, **_teacher_costs(study, teacher, config, watch)}
    record_sources(study, facts)
    study.set_teacher_values(values)
    study.optuna.set_user_attr(TEACHER_NOTES, notes)
    _report_bounds(study, watch)
    return spec


def _report_bounds(study: Study, watch: Watch) -> None:
    """Report the accuracy from which a student counts, now that the teacher's accuracy is known."""
    for one in study.constraints:
        if one.below is not None:
            watch.stage("teacher", f"students must satisfy {one}")
    if (reach := study.reach()) is not None and reach.soft:
        watch.stage(
            "teacher",
            f"students more than {reach.points:g} points below the teacher ({reach.bound:.4g}) count as no gain; "
            "--within off counts them",
        )


def _teach(config: StudyConfig, data: ImageData, folder: Path, watch: Watch, device: str) -> TeacherSpec:
    """Train a teacher in the study's folder, with progress."""
    from autodistill.training.trials.teach import teach

    training = TeachingProgress()

    def announce(plan: str) -> None:
        watch.stage("teacher", f"no teacher is given: {plan}", 0.0)

    def progress(epoch: float, epochs: float, metrics: Mapping[str, float]) -> None:
        watch.stage("teacher", f"training a teacher: {training.words(epoch, epochs, metrics)}", epoch / epochs)

    watch.stage("teacher", "training a teacher")
    taught = teach(
        data,
        config.teacher,
        directory=folder,
        device=device,
        seed=config.seed,
        announce=announce,
        progress=progress,
        should_stop=watch.should_stop,
        replace=True,
    )
    return replace(taught, accept_weak=config.teacher.accept_weak)


def _teacher_costs(study: Study, teacher: Teacher, config: StudyConfig, watch: Watch) -> dict[str, float]:
    """Return the known costs of the teacher, measured like those of students and stored; empty if it has no network."""
    from torch import nn

    from autodistill.training.costs.cost_memory import CostMemory, cache_folder
    from autodistill.training.costs.counts import cost_metrics, known_costs
    from autodistill.training.runtime.devices import is_spread

    shape = {"image_size": teacher.image_size, "channels": teacher.preprocessing.channels}
    model = teacher.network
    if not isinstance(model, nn.Module) or is_spread(model):
        return {}
    names = [o.name for o in study.objectives if o.name in cost_metrics]
    timed = any(o.name == LATENCY for o in study.objectives) and config.latency.table is None
    memory = CostMemory(cache_folder())
    key = memory.key({"teacher": teacher.fingerprint}, shape, 0)
    known = memory.get(key, names, config.latency if timed else None)
    if known is not None:
        return known
    costs: dict[str, float] = {}
    try:
        costs |= known_costs(model, **shape, metrics=names)
        if timed:
            costs[LATENCY] = _teacher_latency(model, config, shape, watch)
    except AutodistillError:  # a teacher without known costs can still be used
        return {}
    memory.put(key, costs, config.latency)
    memory.save()
    return costs


def _teacher_latency(model: nn.Module, config: StudyConfig, shape: Mapping[str, int], watch: Watch) -> float:
    """Measure the teacher's latency in ms; a noisy value is kept, since it only serves for comparison."""
    from autodistill.training.costs import latency_protocol as latency
    from autodistill.training.costs import latency_targets as latency_sources
    from autodistill.training.runtime import measurement_lock

    if config.latency.command is not None:
        return latency_sources.latency_elsewhere({}, model, config.latency, **shape)
    watch.stage("teacher", "measuring its latency")
    with measurement_lock.exclusive(
        config.latency.device, waiting=measurement_lock.Waiting(watch.should_stop, _shown(watch, "teacher"))
    ):
        return latency.measure_latency(model, config.latency, **shape).p50_ms


def _shown(watch: Watch, stage: str) -> Callable[[str, float], None]:
    """Return a callback that shows what a stage of the set-up waits for."""

    def waits(what: str, seconds: float) -> None:
        del seconds  # waiting time counts as time of the stage
        if what:
            watch.stage(stage, what, 0.0)

    return waits


def _survey(study: Study, config: StudyConfig, data: ImageData, metrics: Sequence[str], watch: Watch) -> None:
    """Measure a pool of students of the space, and pass their costs to the study, with a cost model for all others.

    Raises:
        ConfigError: No student can be built, or none satisfies the constraints.
    """
    from autodistill.training.costs.cost_memory import CostMemory, cache_folder
    from autodistill.training.survey.predicted_costs import UnsurveyedCosts, fitted

    hours = _hours(config, study.budget.seconds)
    memory = CostMemory(cache_folder())
    # counts help the sampler at no extra cost, even if they are not objectives of the study
    known = list(dict.fromkeys([*(name for name in metrics if _is_known(study, name)), *COUNTED]))
    shape, classes = {"image_size": data.image_size, "channels": data.channels}, len(data.classes)
    rows = _earlier_rows(study, config, known, shape, classes, memory) or _measured_pool(
        study, config, known, shape, classes, memory=memory, watch=watch, hours=hours
    )
    good = [(row.student, row.costs) for row in rows if not row.error]
    if not good and watch.should_stop():
        return
    if not good:
        first = next((row.error for row in rows if row.error), "the space has no student")
        raise ConfigError([f"no student of the space can be built for these images: {first}"], "search space")
    model = None if config.latency.table is not None else fitted(rows, shape, classes, memory)
    if model is not None:
        watch.stage("survey", f"latency of unsurveyed students is predicted: {model.leave_one_out()}")
    others = UnsurveyedCosts(
        known, shape, classes, target=config.latency, memory=memory, model=model, constraints=study.constraints
    )
    study.set_known_costs(good, others)
    if watch.should_stop():  # an incomplete survey cannot show whether any student satisfies the constraints
        return
    fitting = _count_fitting(study, good)
    watch.stage("survey", f"{len(good)} students measured, {fitting} within the constraints", 1.0)


def _earlier_rows(
    study: Study, config: StudyConfig, known: Sequence[str], shape: Mapping[str, int], classes: int, memory: CostMemory
) -> list[SurveyRow]:
    """Return the stored survey of a study that has trials, so that it resumes at once; empty if there is none.

    A larger budget alone does not enlarge the survey; trials that wait come first.
    """
    from autodistill.search.storage.survey_file import earlier_survey, read_survey
    from autodistill.training.costs.cost_memory import machine
    from autodistill.training.costs.family_code import family_code

    if study.directory is None or not study.spent.epochs:
        return []
    try:
        every, _ = read_survey(study.directory)
    except AutodistillError:  # missing or damaged: measure again
        return []
    code = {name: family_code(name) for name in {str(row.student.get("family", "")) for row in every}}
    rows = earlier_survey(study.directory, config.latency, machine=machine(config.latency), code=code)
    rows = [row for row in rows if row.costs.keys() >= set(known)]
    for row in rows:
        memory.put(memory.key(row.student, shape, classes), row.settled, config.latency)
    memory.save()
    return rows


def _measured_pool(
    study: Study,
    config: StudyConfig,
    known: Sequence[str],
    shape: Mapping[str, int],
    classes: int,
    *,
    memory: CostMemory,
    watch: Watch,
    hours: Hours,
) -> list[SurveyRow]:
    """Measure the known costs of a pool within the time limit, reuse those of earlier surveys, and store all of them.

    Up to half of the time is used to find students that satisfy constraints on counted costs.
    """
    from autodistill.search.storage.survey_file import earlier_survey, write_survey
    from autodistill.training.costs.cost_memory import machine
    from autodistill.training.costs.family_code import family_code
    from autodistill.training.survey.latency_model import LEAST
    from autodistill.training.survey.survey import survey

    count = pool_size(config.survey, study.budget.seconds)
    fits = _fits(study, shape, classes, memory, watch)
    half = time.monotonic() + hours.left(hours.least) / 2
    students = draw_pool(
        study.space,
        count,
        seed=study.seed,
        fits=fits,
        others=LEAST,
        enough=lambda: time.monotonic() > half,
    )
    students = [student for student in students if not study.is_forbidden(student)]
    if watch.should_stop():
        return []
    code = {name: family_code(name) for name in {str(one.get("family", "")) for one in students}}
    when: dict[str, Any] = {"machine": machine(config.latency), "code": code}
    for row in () if study.directory is None else earlier_survey(study.directory, config.latency, **when):
        memory.put(memory.key(row.student, shape, classes), row.settled, config.latency)
    memory.save()

    def progress(done: int, total: int) -> None:
        left = hours.left(done)
        time_left = f", {format_seconds(round(max(left, 0.0)))} left for the survey" if left < math.inf else ""
        watch.stage("survey", f"known costs of {done} of {total} students{time_left}", done / total)

    def counting(done: int, total: int) -> None:
        watch.stage("survey", f"counted the costs of {done} of {total} students; latency is measured next", 0.0)

    rows = survey(
        students,
        **shape,
        num_classes=classes,
        metrics=known,
        target=config.latency,
        memory=memory,
        progress=progress,
        should_stop=watch.should_stop,
        hours=hours,
        counting=counting,
        waits=_shown(watch, "survey"),
    )
    if study.directory is not None:
        write_survey(study.directory, rows, config.latency, **when)
    if len(rows) < len(students) and not watch.should_stop():
        watch.stage("survey", _out_of_time(len(rows), len(students)))
    return rows


def _hours(config: StudyConfig, seconds: float | None) -> Hours:
    """Return the time limit of the survey: its share of the budget, or twice that if the latency model needs more.

    A number of students set by the user is measured without a time limit.
    """
    from autodistill.training.survey.latency_model import LEAST
    from autodistill.training.survey.time_limit import ALWAYS, Hours

    if seconds is None or config.survey != "auto":
        return ALWAYS
    now, share = time.monotonic(), SURVEY_SHARE * seconds
    return Hours(now + share, least=LEAST, last=now + 2 * share)


def _out_of_time(measured: int, total: int) -> str:
    """Return the message about a survey that reached its time limit."""
    from autodistill.training.survey.latency_model import LEAST

    count = f"the time limit of the survey was reached with {measured} of {total} students measured"
    if measured >= LEAST:
        return f"{count}; the latency of others is predicted until a trial measures it"
    return (
        f"{count}; predicting the latency of others needs {LEAST}, so the search uses only these. Use a larger "
        "budget, or --survey N in a new study, to measure more."
    )


def _count_fitting(study: Study, surveyed: Surveyed) -> int:
    """Count the surveyed students that satisfy all constraints.

    Raises:
        ConfigError: None does; the message states the nearest values.
    """
    fitting = sum(all(c.violation(costs) <= 0 for c in study.constraints) for _, costs in surveyed)
    if not fitting:
        bounds = ", ".join(map(str, study.constraints))
        raise ConfigError(
            [
                f"none of {len(surveyed)} surveyed students satisfies {bounds} ({_nearest(study, surveyed)}); "
                "loosen a constraint, or widen the space"
            ],
            "constraints",
        )
    return fitting


def _fits(study: Study, shape: Mapping[str, int], classes: int, memory: CostMemory, watch: Watch) -> Fits | None:
    """Return a function that checks the constraints on counted costs; ``None`` if there are no such constraints."""
    from autodistill.core.records import LatencyTarget
    from autodistill.training.costs.counts import cost_metrics
    from autodistill.training.survey.predicted_costs import UnsurveyedCosts

    bounds = [one for one in study.constraints if one.metric in cost_metrics]
    if not bounds:
        return None
    costs = UnsurveyedCosts([one.metric for one in bounds], shape, classes, target=LatencyTarget(), memory=memory)
    watch.stage("survey", f"looking for students within {', '.join(map(str, bounds))}")

    def fits(student: Params) -> bool:
        if watch.should_stop():
            return False
        try:
            found = costs(student)
        except InfeasibleError:  # the survey reports the reason
            return False
        return all(one.violation(found) <= 0 for one in bounds)

    return fits


def _nearest(study: Study, surveyed: Surveyed) -> str:
    """Return, for each constraint on a known cost, the value nearest to its bound."""
    words = []
    for bound in study.constraints:
        values = [costs[bound.metric] for _, costs in surveyed if bound.metric in costs]
        if values:
            least = bound.operator == "<="
            words.append(f"the {'least' if least else 'most'} {bound.metric} is {(min if least else max)(values):g}")
    return ", ".join(words)


def _is_known(study: Study, metric: str) -> bool:
    from autodistill.search.objectives.objectives import objectives

    own = {o.name: o for o in study.objectives}
    return (own.get(metric) or objectives.get(metric)).stage == "known"
