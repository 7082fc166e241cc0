"""Writing of the report: a study as one self-contained HTML file.

The report begins with the answers (the best student within each bound, the gain from distillation, the uncertainty),
followed by figures and tables. Parts for which a study has no figures are replaced by a short explanation.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autodistill.core.records import LATENCY, Objective, State, TrialRecord
from autodistill.core.teacher_distance import to_teacher
from autodistill.core.wording import (
    complete_counted,
    counted,
    distillation_words,
    student_words,
    students_counted,
    why_empty,
)
from autodistill.delivery.figures.axes import choose_axes
from autodistill.delivery.figures.front_figure import ACCURACY
from autodistill.delivery.figures.trial_facts import figure_of
from autodistill.delivery.report import tables
from autodistill.delivery.report.answers import ALWAYS_MS, Answer, Answers, answers_of
from autodistill.delivery.report.glossary import glossary
from autodistill.delivery.report.growth import growth_part
from autodistill.delivery.report.tables import Table
from autodistill.search.objectives.within_teacher import nearest_lines

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from autodistill.search.results.front import Front
    from autodistill.search.results.verified import Verified
    from autodistill.search.study.study import Study

_MOST_DRAWINGS = 24


@dataclass(frozen=True)
class HtmlReport:
    """A written report.

    Attributes:
        path: path of the file.
        bytes: size of the file.
        facts: answers and totals, the stable format of ``report --json``.
    """

    path: Path
    bytes: int
    facts: Mapping[str, Any]


def write_report(
    study: Study, path: str | Path, *, price_per_hour: float | None = None, folder: str | Path | None = None
) -> HtmlReport:
    """Write the report of ``study``, finished or not, into one HTML file.

    Args:
        study: the study; it may be opened for reading only.
        path: path of the file; an existing file is replaced.
        price_per_hour: price per device-hour, in any currency.
        folder: path of the study in commands shown in the report; if omitted, only the folder's name.

    Raises:
        StoreError: the study's verification is damaged.
    """
    from autodistill.delivery.report.page import render
    from autodistill.search.results.verified import read_verified
    from autodistill.search.storage.study_folder import write_atomically

    front, trials = study.front(), study.trials()
    verified = read_verified(study.directory) if study.directory is not None else None
    images = study.optuna.user_attrs.get("sources", {}).get("validation_images")
    answers = answers_of(front, trials, verified, images)
    cost = tables.cost_facts(study, verified, price_per_hour)
    parts = {
        **_summary(study, front, answers, verified, folder),
        **_front_part(front, trials, verified),
        **growth_part(study, front),
        **_importance_part(study),
        "range_bounds": f"{edge[0].upper()}{edge[1:]}." if (edge := study.bounds_line()) else "",
        **_trials_part(study, trials, cost),
        **_drawings_part(study, front),
        "glossary": glossary(),
        "environment": tables.environment_table(study, verified, _versions()),
    }
    figures = _figures(study, front, trials, verified, parts)
    extra = {
        "first": {"name": front.objectives[0].name, "direction": front.objectives[0].direction},
        "best": None if answers.best is None else answers.best.name,
        "candidates": [answer.to_json() for answer in answers.candidates],
    }
    parts["curves"] = [(name, str(f.layout.title.text)) for name, f in figures.items() if name.startswith("curves-")]
    target = Path(path)
    text = render(parts, figures, extra).encode("utf-8", "replace").decode()  # names of folders may be no UTF-8
    write_atomically(target, text)
    return HtmlReport(target, len(text.encode()), {**_json(study, front, answers, trials), "cost": cost})


def _json(study: Study, front: Front, answers: Answers, trials: Sequence[TrialRecord]) -> dict[str, Any]:
    return {
        "study": study.name,
        "verified": answers.verified,
        "unverified": answers.missing,
        "best": None if answers.best is None else answers.best.to_json(),
        "bounded": None if answers.metric is None else answers.metric.name,
        "within": [{"bound": b, "trial": a.trial, "name": a.name} for b, a in answers.bounds],
        "teacher": dict(front.teacher),
        "to_teacher": {t.called: to_teacher(t.values, front.teacher) for t in front.trials},
        "reach": None if front.reach is None else front.reach.to_json(),
        "nearest": None if (found := study.nearest()) is None else found.to_json(),
        "trials": {state.value: n for state in State if (n := sum(t.state is state for t in trials))},
    }


def _summary(
    study: Study, front: Front, answers: Answers, verified: Verified | None, folder: str | Path | None
) -> dict[str, Any]:
    """Return the variables of the first parts of the page: answers, verification and gains."""
    metric = answers.metric
    name = answers.objective.name
    trials = study.trials()
    counts = ", ".join(f"{n} {s.value}" for s in State if (n := sum(t.state is s for t in trials))) or "no trial"
    empty = why_empty(trials, study.constraints)
    loosen = " or loosen the bound in a new one" if any(t.state is State.COMPLETE for t in trials) else ""
    words = None if metric is None else _metric_words(metric, answers)
    within = None if words is None else answers.within(float(words["start"]))
    found, reach = study.nearest(), front.reach
    lacking = [] if found is None or reach is None else nearest_lines(found, reach)
    notes = [f"{note[0].upper()}{note[1:]}." for note in study.teacher_notes()]
    return {
        "name": study.name,
        "lead": _lead(front, trials),
        "contents": _contents(verified is not None),
        "status": _status(answers, verified, front, folder or (study.directory or Path("DIR")).name),
        "best": answers.best,
        "verified": answers.verified,
        "partly": answers.missing > 0,
        "metric_words": {"best": _best_words(answers, within, words)},
        "metric": words,
        "within": within,
        "bounds": None if metric is None else _bounds_table(answers, metric, verified),
        "teacher_words": " ".join(filter(None, [_teacher_words(front, answers, verified), *notes, *lacking])),
        "nothing": " ".join(
            [f"{empty[0].upper()}{empty[1:]} ({counts}), so there is no front: continue the search{loosen}.", *lacking]
        ),
        "first": name,
        "verification": None if verified is None else tables.verified_table(verified),
        "by_class": None if verified is None else tables.class_table(verified),
        "class_words": "" if verified is None else tables.class_words(verified),
        "verification_words": "" if verified is None else tables.verification_words(verified),
        "gains": tables.gain_table(front, trials, verified),
        "no_gains": "Unknown: no student was trained both with and without distillation. 'verify' trains the "
        "undistilled twin of every student on the front.",
    }


def _lead(front: Front, trials: Sequence[TrialRecord]) -> str:
    """Summarise the number of trials, their states and the size of the front."""
    meanings = {
        State.COMPLETE: "trained to the end",
        State.PRUNED: "stopped or refused",
        State.PARTIAL: "paused or unfinished",
        State.FAIL: "failed",
        State.RUNNING: "running",
    }
    counts = [(n, meaning) for s, meaning in meanings.items() if (n := sum(t.state is s for t in trials))]
    ended = ", ".join(f"{n} {meaning}" for n, meaning in counts)
    members = len({t.number for t in front.trials})
    forms = f", in {len(front.trials)} forms" if len(front.trials) > members else ""
    return (
        f"Report of an autodistill search. {counted(len(trials), 'trial')}"
        f"{f': {ended}' if ended else ''}; {members} on the front of "
        f"{', '.join(o.name for o in front.objectives)}{forms}."
    )


def _best_words(answers: Answers, within: Answer | None, words: Mapping[str, str] | None) -> str:
    """Return the label of the first answer, also naming the default bound if it excludes some student."""
    name = f"Best in {answers.objective.name}"
    if within is None or words is None or answers.best is None or within.name != answers.best.name:
        return name
    if not answers.excludes(float(words["start"])):
        return name
    return f"{name}, also with {words['label']} at most {words['start']} {words['unit']}".rstrip()


def _contents(verified: bool) -> list[tuple[str, str]]:
    parts = [("short", "In short"), ("front", "The front"), ("verified", "Verification"), ("gain", "Gain")]
    parts += [("growth", "Hypervolume"), ("curves", "Rung curves"), ("importance", "Importance")]
    parts += [("settings", "Settings"), ("stopped", "Stopped"), ("students", "Students"), ("cost", "Cost")]
    return [
        part
        for part in [*parts, ("words", "Glossary"), ("environment", "Environment")]
        if verified or part[0] != "verified"
    ]


def _status(answers: Answers, verified: Verified | None, front: Front, folder: str | Path) -> dict[str, str] | None:
    """Return the warning above the answers; ``None`` if every figure is verified."""
    if not answers.candidates:
        return None
    if answers.missing:
        size = len(front.trained())
        return {
            "head": f"{size - answers.missing} of {counted(size, 'student')} on the front are verified.",
            "words": "The figures of the others are from the search and biased upwards. For a fair comparison, the "
            "best is chosen by the figures of the search, among all that did not fall off. 'autodistill verify "
            f"{shlex.quote(str(folder))}' verifies the others without repeating finished runs.",
        }
    if not answers.verified:
        return {
            "head": "These figures are from the search and biased upwards.",
            "words": f"The best of {complete_counted((*front.trials, *front.others))} is selected by the validation "
            "figure that is shown here, from one run each; the test split has not been opened. Differences between "
            f"neighbours on the front may be chance. 'autodistill verify {shlex.quote(str(folder))}' trains the front "
            "again with several seeds and measures it on the test split.",
        }
    if verified is not None and not verified.complete:
        return {
            "head": "Verification is unfinished.",
            "words": f"{verified.finished} of {verified.planned} runs are done; repeat the same command to continue.",
        }
    return None


def _metric_words(metric: Objective, answers: Answers) -> dict[str, str]:
    known = [bound for bound, _ in answers.bounds]
    excluding = [bound for bound in known if answers.excludes(bound)] or known
    default = metric.name == LATENCY and (answers.excludes(ALWAYS_MS) or not known)
    start = ALWAYS_MS if default else (excluding[len(excluding) // 2] if excluding else 1.0)
    unit = {"count": "", "fraction": ""}.get(metric.unit, metric.unit)
    label = "latency p50" if metric.name == LATENCY else metric.name
    return {"label": label, "unit": unit, "start": f"{start:.15g}"}


def _bounds_table(answers: Answers, metric: Objective, verified: Verified | None) -> Table:
    rows = []
    for bound, answer in answers.bounds:
        words = f"≤ {figure_of(bound, metric.unit)} {metric.unit if metric.unit not in ('count', '') else ''}".strip()
        what = ", ".join(part for part in (answer.student, answer.distillation) if part)
        cost = "" if answer.cost is None else figure_of(answer.cost, metric.unit)
        value = figure_of(answer.value, answers.objective.unit)
        rows.append((words, answer.name, what, value, cost, answer.gain_short, answer.sure_short))
    name = answers.objective.name
    columns = (metric.name, "trial", "student", name, f"its {metric.name}", "gain from distillation", "how sure")
    note = ""
    if answers.verified and verified is not None and metric.name == LATENCY and metric.name in verified.of_files:
        note = f"Latency of the exported file: {verified.latency}. The front below shows the latency in the search."
    return Table(columns, tuple(rows), (name, f"its {metric.name}"), note)


def _teacher_words(front: Front, answers: Answers, verified: Verified | None) -> str:
    """Compare the teacher with the best student, both measured on the same images."""
    best: Answer | None = answers.best
    first = front.objectives[0]
    row = verified.teacher_row() if verified is not None and best is not None and best.verified else None
    if row is not None and first.name in row.means:
        reached = row.means[first.name]
        apart = _apart(best, first, reached)
        return f"The teacher reaches {figure_of(reached, first.unit)} on the same test images.{apart}"
    if best is None or first.name not in front.teacher or best.verified:
        return ""
    reached = front.teacher[first.name]
    apart = _apart(best, first, reached)
    return f"The teacher reaches {figure_of(reached, first.unit)} on the same validation images.{apart}"


def _apart(best: Answer | None, first: Objective, teacher: float) -> str:
    """Return a sentence on the distance of the most accurate student from its teacher, with a leading space."""
    if best is None or first.name != ACCURACY:
        return ""
    points = round(100.0 * (best.value - teacher), 1)
    many = "" if abs(points) == 1 else "s"
    apart = f"{abs(points):g} point{many} {'below' if points < 0 else 'above'}" if points else "level with"
    return f" The most accurate student is {apart} it."


def _front_part(front: Front, trials: Sequence[TrialRecord], verified: Verified | None) -> dict[str, Any]:
    if not front.trials:
        return {"front": None, "front_words": ""}
    knee = front.knee()
    complete = (*front.trials, *front.others)
    ended = sum(t.state is State.COMPLETE for t in trials)
    within = " within the bounds" if len({t.number for t in complete}) < ended else ""
    among = f"{complete_counted(complete)}{within}"
    words = f"{students_counted(front.trials)} that no other trial beats in every objective, among {among}."
    if front.scale is not None:
        words += f" The front dominates {front.hypervolume_share:.1%} of the reference box."
    if front.teacher:
        words += " The star is the teacher."
    drawn = verified is not None and choose_axes(front.objectives).up.name == ACCURACY
    return {
        "front": tables.front_table(front, trials, knee),
        "front_words": words + (" Diamonds are verified means on the test split." if drawn else ""),
    }


def _importance_part(study: Study) -> dict[str, Any]:
    from autodistill.search.analysis.importance import LEAST, importance_shares, left_out

    complete = sum(t.state is State.COMPLETE for t in study.trials())
    if complete < LEAST:
        why = f"This needs at least {LEAST} COMPLETE trials; there {'is' if complete == 1 else 'are'} {complete}."
        return {"importance": None, "no_importance": why, "shares": {}}
    shares = {name: part for name, part in importance_shares(study).items() if part}
    if not shares:
        why = "No setting varies among enough of them, or no objective varies."
        return {"importance": None, "no_importance": why, "shares": {}}
    names = list(dict.fromkeys(name for part in shares.values() for name in part))
    names.sort(key=lambda name: -max(part.get(name, 0.0) for part in shares.values()))
    rows = tuple((name, *(f"{part[name]:.3f}" if name in part else "-" for part in shares.values())) for name in names)
    table = Table(("setting", *shares), rows, tuple(shares))
    return {"importance": table, "no_importance": "", "shares": shares, "left_out": ", ".join(left_out(study))}


def _trials_part(study: Study, trials: Sequence[TrialRecord], cost: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "stopped": tables.stopped_table(trials),
        "saved": tables.saved_by_stopping(trials, float(study.rungs.levels[-1])),
        "cost": tables.cost_table(cost, trials),
        "cost_words": tables.cost_words(cost),
        "priced": cost["money"] is not None,
    }


def _drawings_part(study: Study, front: Front) -> dict[str, Any]:
    """Draw the front's students, rebuilt from the facts stored with their weights."""
    drawings, missing = [], 0
    networks = list({t.number: t for t in front.trials}.values())  # all forms of a trial share a network
    for trial in networks[:_MOST_DRAWINGS]:
        svg = _drawing(study, trial)
        missing += svg is None
        if svg is not None:
            what = ", ".join(p for p in (student_words(trial.student), distillation_words(trial.distillation)) if p)
            drawings.append({"title": f"Trial {trial.number}: {what}", "svg": svg})
    notes = []
    if missing:
        notes.append(f"{missing} cannot be drawn, because their files are missing.")
    if len(networks) > _MOST_DRAWINGS:
        notes.append(f"The first {_MOST_DRAWINGS} of {len(networks)} are drawn.")
    none = "No student's network is kept in this study" if front.trials else "There is no front yet"
    return {"drawings": drawings, "drawings_note": " ".join(notes), "no_drawings": f"{none}, so none is drawn."}


def _drawing(study: Study, trial: TrialRecord) -> Any:
    """Return the SVG of one student; ``None`` if it was not trained here or its files are missing."""
    from markupsafe import Markup

    from autodistill.core.errors import AutodistillError

    if study.directory is None or not (study.directory / "checkpoints").is_dir():
        return None
    from autodistill.delivery.figures.diagram import stages_svg, student_stages
    from autodistill.training.trials.trial_files import student_facts

    try:
        stages = student_stages(student_facts(study.directory, trial.number))
    except AutodistillError:
        return None
    return Markup(stages_svg(stages, f"Trial {trial.number}"))


def _figures(
    study: Study,
    front: Front,
    trials: Sequence[TrialRecord],
    verified: Verified | None,
    parts: dict[str, Any],
) -> dict[str, go.Figure]:
    """Return all figures by the id of their element; also remove ``steps`` and ``shares`` from ``parts``."""
    from autodistill.delivery.figures import study_figures as figures
    from autodistill.delivery.figures.parallel_figure import parallel_figure

    out: dict[str, go.Figure] = {}
    members, dominated = [t.number for t in front.trials], [t.number for t in front.others]
    steps, shares = parts.pop("steps"), parts.pop("shares")
    confusion = _confusion(verified)
    parts["confusion"] = confusion is not None
    if confusion is not None:
        out["confusion"] = confusion
    if front.trials:
        out["front"] = figures.front_figure(front, trials, verified=_means(verified))
    for name in ("seconds", "epochs", "finished") if steps else ():
        out[f"growth-{name}"] = figures.hypervolume_figure(steps, against=name)
    for objective in [o for o in study.objectives if o.stage == "trained"]:
        figure = figures.rung_curves_figure(trials, objective, on_front=members, dominated=dominated)
        if figure.data:
            out[f"curves-{len(out)}"] = figure
    if shares:
        out["importance-plot"] = figures.importance_figure(shares)
    complete = [*front.trials, *front.others]
    parts["parallel"], parts["bounded"] = len(complete) > 1, bool(study.constraints)
    if parts["parallel"]:
        out["parallel-plot"] = parallel_figure(complete, study.objectives, on_front=[t.form for t in front.trials])
    return out


def _confusion(verified: Verified | None) -> go.Figure | None:
    """Draw the decisions of the best student on the verified front beside its teacher's; ``None`` if unknown."""
    from autodistill.delivery.figures.confusion_figure import confusion_figure

    best = next((row for row in verified.front if row.confusion), None) if verified is not None else None
    return None if verified is None or best is None else confusion_figure(verified, best)


def _means(verified: Verified | None) -> dict[int, tuple[float, float]]:
    rows = verified.students if verified is not None else ()
    return {r.trial: (r.accuracy.mean, r.accuracy.std or 0.0) for r in rows if r.trial is not None and r.accuracy}


def _versions() -> dict[str, str]:
    from autodistill.search.storage.versions import versions

    return versions()
