"""The tables of a report: the front, gains from distillation, stopped trials, cost and environment."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from autodistill.core.budget import format_seconds
from autodistill.core.records import LATENCY, State, TrialRecord
from autodistill.core.teacher_distance import points_words, to_teacher
from autodistill.core.wording import counted, distillation_words, latency_words, student_words
from autodistill.delivery.figures.trial_facts import figure_of
from autodistill.delivery.report.answers import gain_verdict
from autodistill.search.results.gain import BASIS, Pairs, UndistilledRuns, gain_over_undistilled

if TYPE_CHECKING:
    from autodistill.search.results.front import Front
    from autodistill.search.results.verified import Figure, Verified, VerifiedRow
    from autodistill.search.study.study import Study

REASONS = {
    "RUNG_RULE": "stopped at a rung: other trials were more promising for the front",
    "INFEASIBLE": "violates a constraint; refused before training",
    "INFEASIBLE_BUILD": "cannot be built for these images; refused before training",
    "CRASH": "its student crashes the worker on this machine; given up, and not proposed again",
    "DUPLICATE": "proposed before; refused",
    "OUTSIDE": "was enqueued with settings that the space does not have; refused",
    "TIME": "could not be finished in the time left; refused, and may be proposed again",
    "PAUSED": "waits at a rung: other trials were more promising so far; may continue when the study is resumed",
    "NAN": "the loss was no longer a number",
    "NON_FINITE": "reported an invalid value: not finite, or a fraction outside 0 to 1",
    "OOM": "out of memory",
    "WORKER_LOST": "its worker died",
    "HUNG": "its training hung several times",
    "ATTEMPTS": "failed in several attempts",
    "IMAGES": "its worker read other images than the search began with; that ended the search",
    "ENDED_EARLY": "its evaluation ended before the top rung without being stopped",
    "ERROR": "an error in its own code",
    "BUDGET": "the budget ended; continues when the study is resumed",
    "INTERRUPTED": "interrupted; continues when the study is resumed",
}
_EXAMPLES = 3
_MOST_ROWS = 200
_COUNTED = 1000  # largest number of trials from which seeds and versions are collected


@dataclass(frozen=True)
class Table:
    """A table of text cells; columns named in ``right`` hold numbers; ``note`` is shown below the table."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    right: tuple[str, ...] = ()
    note: str = ""


def front_table(front: Front, trials: Sequence[TrialRecord], knee: TrialRecord | None) -> Table:
    """Return the table of the front's members with their settings, and their form if there are several forms."""
    names = [o.name for o in front.objectives]
    forms = any(t.variant != "fp32" for t in front.trials)
    known = any(to_teacher(t.values, front.teacher) is not None for t in front.trials)
    rows, runs = [], UndistilledRuns(trials)
    for trial in front.trials[:_MOST_ROWS]:
        gain = gain_over_undistilled(trial, runs, front.objectives[0])
        rows.append(
            (
                f"{trial.number}{' (knee)' if knee is not None and trial.form == knee.form else ''}",
                *([trial.variant] if forms else []),
                student_words(trial.student),
                distillation_words(trial.distillation),
                student_words(trial.train),
                *(figure_of(trial.values[o.name], o.unit) for o in front.objectives),
                *([points_words(to_teacher(trial.values, front.teacher))] if known else []),
                "" if gain is None else f"{gain:+.4f}",
            )
        )
    more = f"The first {_MOST_ROWS} of {len(front.trials)}." if len(front.trials) > _MOST_ROWS else ""
    variant = ["variant"] if forms else []
    if known:
        names.append("to the teacher")
        own = [figure_of(front.teacher[o.name], o.unit) if o.name in front.teacher else "" for o in front.objectives]
        rows.append(("teacher", *([""] if forms else []), "", "", "", *own, "", ""))
        if front.reach is not None and not all(front.counts(t.values) for t in front.trials):
            more = f"{more} Students that are not {front.reach.words()} count as no gain.".strip()
    columns = ("trial", *variant, "student", "distillation", "recipe", *names, "gain in the search")
    if not any(row[-1] for row in rows):
        return Table(columns[:-1], tuple(row[:-1] for row in rows), tuple(names), more)
    return Table(columns, tuple(rows), (*names, "gain in the search"), more)


def verified_table(verified: Verified) -> Table:
    """Return the table of verified figures, in the order of ``verify``."""
    rows = []
    for row in verified.rows:
        rows.append(
            (
                row.kind if row.trial is None else f"{row.kind} {row.trial}",
                row.name,
                _interval(row.accuracy),
                *(_interval(row.figures.get(name)) for name in verified.measured),
                "" if row.searched is None else f"{row.searched:.4f}",
                "" if row.flattered is None else f"{row.flattered:+.4f}",
                "" if row.agreement is None else f"{row.agreement.mean:.4f}",
                "" if row.ece is None else f"{row.ece.mean:.4f}",
                "" if row.file_bytes is None else f"{row.file_bytes:,}",
                "" if row.file_latency_ms is None else f"{row.file_latency_ms:.3g}",
                row.error or _verdict(row),
            )
        )
    columns = (
        "row", "student", "test accuracy ± std [95 %]", *verified.measured, "in the search", "flattered by",
        "agreement", "ECE", "ONNX bytes", "ONNX ms", "verdict",
    )  # fmt: skip
    note = (
        f"{verified.test_images:,} test images, {counted(verified.epochs, 'epoch')} each, trained on {verified.refit}. "
    )
    note += " ".join(part for part in (f"Files: {verified.latency}.", verified.judged) if part)
    return Table(columns, tuple(rows), columns[2:-1], note)


def class_table(verified: Verified) -> Table | None:
    """Return recall and precision of each class on the test images; ``None`` where they are not known.

    The classes that the best student on the verified front loses most against its teacher are first.
    """
    shown = [row for row in verified.front if row.recalls]
    if not shown:
        return None
    best, others = shown[0], shown[1:]
    figures = [one for one in verified.by_class(best) if one.images or one.recall is not None]
    rows = [
        (
            one.name,
            f"{one.images:,}" if one.images else "",
            _share(one.recall),
            _share(one.teacher_recall),
            "" if one.teacher_recall is None else f"{-one.lost:+.3f}",
            _share(one.precision),
            _share(one.teacher_precision),
            f"{one.taken_for} ({one.share:.1%})" if one.taken_for else "",
            *(_share(row.recalls[one.index]) for row in others),
        )
        for one in figures[:_MOST_ROWS]
    ]
    columns = (
        "class", "images", "recall", "teacher's recall", "difference", "precision", "teacher's precision",
        "most often taken for", *(f"recall, trial {row.trial}" for row in others),
    )  # fmt: skip
    note = (
        f"Of trial {best.trial}, unless another is named. Recall: share of the images of a class that are decided as "
        "it; precision: share of the images decided as a class that are of it."
    )
    more = f" The first {_MOST_ROWS} of {len(figures)} classes." if len(figures) > _MOST_ROWS else ""
    return Table(columns, tuple(rows), (*columns[1:7], *columns[8:]), note + more)


def class_words(verified: Verified) -> str:
    """Name the classes that the best student loses most, and those that a student never recognises."""
    shown = [row for row in verified.front if row.recalls]
    if not shown:
        return ""
    losing = verified.losing_classes(shown[0])[:_EXAMPLES]
    words = []
    if losing:
        named = ", ".join(f"{one.name} ({one.recall:.2f} instead of {one.teacher_recall:.2f})" for one in losing)
        words.append(f"Against its teacher, trial {shown[0].trial} loses most in the recall of {named}.")
    for row in shown:
        never = [name for name, recall in zip(verified.classes, row.recalls, strict=True) if recall == 0.0]
        if never:
            words.append(f"Trial {row.trial} never recognises {_listed(never)}.")
    return " ".join(words)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def verification_words(verified: Verified) -> str:
    """Summarise the verified front, the students that fell off it, and the bias of the search's figures."""
    fallen = [str(row.trial) for row in verified.fallen]
    noisy = [str(row.trial) for row in verified.front if row.rivals]
    words = [
        f"{verified.seen} of the {counted(verified.front_before, 'student')} on the front of the search "
        f"{'was' if verified.seen == 1 else 'were'} verified{'.' if verified.whole else '; verdicts are among these.'}"
    ]
    kept = len(verified.front)
    words.append(f"{counted(kept, 'student')} {'is' if kept == 1 else 'are'} on the verified front.")
    words.append(f"Fell off: trial {', '.join(fallen)}." if fallen else "None fell off.")
    if noisy:
        words.append(f"Within noise of a cheaper student: trial {', '.join(noisy)}.")
    if verified.flattery:
        words.append(verified.flattery)
    return " ".join(words)


def _verdict(row: VerifiedRow) -> str:
    words = {"stays": "on the front", "joins": "joins the front", "falls": "fell off", "outside": "not on the front"}
    verdict = words.get(row.verdict, "")
    rivals = _listed([str(n) for n in row.rivals], 4)
    return f"{verdict}, within noise of {rivals}" if verdict and row.rivals else verdict


def gain_table(front: Front, trials: Sequence[TrialRecord], verified: Verified | None) -> Table | None:
    """Return the comparison of distilled and undistilled students; ``None`` if no pair was trained."""
    rows = [_verified_pair(row, verified) for row in verified.students if row.gain] if verified else []
    known = {row[0] for row in rows}
    first = front.objectives[0]
    complete = [t for t in trials if t.state is State.COMPLETE]
    members = {t.number for t in front.trials}
    runs = UndistilledRuns(complete)
    paired = [(t, gain) for t in complete if (gain := gain_over_undistilled(t, runs, first)) is not None]
    paired.sort(key=lambda pair: (pair[0].number not in members, -pair[1]))
    for trial, gain in paired[:_MOST_ROWS]:
        if str(trial.number) not in known:
            value = trial.values[first.name]
            plain = first.loss(gain + first.loss(value))
            rows.append(
                (
                    str(trial.number),
                    student_words(trial.student),
                    distillation_words(trial.distillation),
                    figure_of(value, first.unit),
                    figure_of(plain, first.unit),
                    f"{gain:+.4f}",
                    "the search: recipes may differ, not verified",
                )
            )
    if not rows:
        return None
    columns = ("trial", "student", "distillation", "distilled", "undistilled", "gain", "how sure")
    return Table(columns, tuple(rows), ("distilled", "undistilled", "gain"), _pairs_note(paired))


def _pairs_note(paired: Sequence[tuple[TrialRecord, float]]) -> str:
    """Describe the comparison behind the gains of the search, and how often distillation was better."""
    if not paired:
        return ""
    found = Pairs.of(gain for _, gain in paired).line()
    return f"Gains of the search are {BASIS}." + (f" There, {found}." if found else "")


def _verified_pair(row: VerifiedRow, verified: Verified | None) -> tuple[str, ...]:
    assert row.gain is not None
    twin = verified.twin(row.trial) if verified is not None and row.trial is not None else None
    gain = row.gain
    sure = gain_verdict(gain)
    return (
        str(row.trial),
        row.name,
        distillation_words(row.distillation),
        _spread(row.accuracy),
        _spread(twin.accuracy) if twin is not None else "",
        f"{gain.mean:+.4f}",
        f"verified, {counted(gain.seeds, 'seed')}, 95 % interval {gain.low:+.4f} to {gain.high:+.4f}: {sure}",
    )


def stopped_table(trials: Sequence[TrialRecord]) -> Table | None:
    """Return the trials that did not reach the top rung, by reason, with examples; ``None`` if all did."""
    groups: dict[tuple[str, str], list[TrialRecord]] = {}
    for trial in trials:
        if trial.state is not State.COMPLETE:
            groups.setdefault((trial.state.value, trial.reason), []).append(trial)
    rows = []
    for (state, reason), members in sorted(groups.items(), key=lambda item: -len(item[1])):
        some = "; ".join(
            f"trial {t.number}: {t.message or student_words(t.student)}"[:160] for t in members[:_EXAMPLES]
        )
        rows.append(
            (
                reason or state,
                REASONS.get(reason, "still running, or its driver died" if state == "RUNNING" else ""),
                str(len(members)),
                f"{sum(t.epochs for t in members):g}",
                format_seconds(sum(t.seconds for t in members)),
                some,
            )
        )
    columns = ("reason", "meaning", "trials", "epochs", "time of work", "examples")
    return Table(columns, tuple(rows), ("trials", "epochs", "time of work")) if rows else None


def saved_by_stopping(trials: Sequence[TrialRecord], top: float) -> str:
    """Describe how much training the rung rule saved, in one sentence; empty if it stopped no trial."""
    stopped = [t for t in trials if t.reason == "RUNG_RULE"]
    if not stopped:
        return ""
    trained = [t for t in trials if t.epochs > 0]
    spared = sum(max(0.0, top - t.epochs) for t in stopped)
    share = spared / (spared + sum(t.epochs for t in trained))
    return (
        f"The rung rule stopped {len(stopped)} of {len(trained)} trained trials and saved {spared:,.0f} epochs, "
        f"{share:.0%} of what training all of them to the top would have taken."
    )


def cost_facts(study: Study, verified: Verified | None, price: float | None) -> dict[str, Any]:
    """Return hours, epochs, trials and money spent on search and verification."""
    spent = study.spent
    hours = spent.device_seconds / 3600
    checked = verified.seconds / 3600 if verified is not None else 0.0
    return {
        "wall_hours": spent.seconds / 3600,
        "device_hours": hours,
        "devices": study.devices,
        "verify_device_hours": checked,
        "epochs": spent.epochs,
        "trials": spent.trials,
        "price_per_hour": price,
        "money": None if price is None else (hours + checked) * price,
    }


def cost_words(facts: Mapping[str, Any]) -> str:
    """Describe the cost in sentences."""
    wall, device = _long(facts["wall_hours"]), _long(facts["device_hours"])
    words = (
        f"The search took {wall} of wall-clock time and {device} of device time for "
        f"{counted(round(facts['epochs']), 'epoch')} in {counted(facts['trials'], 'trial')}."
    )
    if facts["verify_device_hours"]:
        words += f" Verification took another {_long(facts['verify_device_hours'])} of device time."
    if facts["money"] is not None:
        words += f" At {facts['price_per_hour']:g} per device-hour that is {facts['money']:,.2f}."
    return words


def _long(hours: float) -> str:
    """Format hours in words: ``1.5 hours``, ``1.67 minutes``, ``1 hour``."""
    figure, unit = (f"{hours:.3g}", "hour") if hours >= 1 else (f"{60 * hours:.3g}", "minute")
    return f"{figure} {unit}{'' if figure == '1' else 's'}"


def cost_table(facts: Mapping[str, Any], trials: Sequence[TrialRecord]) -> Table:
    """Return the table of device time and money by kind of work."""
    price = facts["price_per_hour"]

    def money(seconds: float) -> str:
        return "" if price is None else f"{seconds / 3600 * price:,.2f}"

    def taken(*states: State) -> float:
        return float(facts["devices"]) * sum(t.seconds for t in trials if t.state in states)

    parts = [
        ("trials that reached the top rung", taken(State.COMPLETE)),
        ("trials that were stopped", taken(State.PRUNED)),
        ("trials that failed", taken(State.FAIL)),
        ("unfinished trials", taken(State.PARTIAL, State.RUNNING)),
    ]
    accounted = sum(seconds for _, seconds in parts)
    parts.append(("other work of the workers", max(0.0, facts["device_hours"] * 3600 - accounted)))
    parts.append(("search, all device time", facts["device_hours"] * 3600))
    parts.append(("verification", facts["verify_device_hours"] * 3600))
    rows = tuple((name, format_seconds(s), f"{s / 3600:.4g}", money(s)) for name, s in parts if s > 0.5)
    columns: tuple[str, ...] = ("what", "device time", "device-hours", "money")
    if price is None:
        return Table(columns[:3], tuple(row[:3] for row in rows), columns[1:3])
    return Table(columns, rows, columns[1:], f"At {price:g} per device-hour, in the currency of that price.")


def _image_counts(sources: Mapping[str, Any]) -> str:
    """Return the numbers of training, validation and unlabelled images in words."""
    out = f"{sources.get('train_images'):,} training, {sources.get('validation_images'):,} validation"
    if further := sources.get("unlabelled_images"):
        left_out = sources.get("unlabelled_images_left_out", 0)
        out += f", {further:,} unlabelled ({left_out:,} left out as copies)"
    return out


def environment_table(study: Study, verified: Verified | None, written_with: Mapping[str, str]) -> Table:
    """Return the table of everything the figures depend on: settings, versions, machines, seeds, fingerprints."""
    attributes = study.optuna.user_attrs
    candidates = [t.user_attrs.get("candidate", {}) for t in study.optuna.get_trials(deepcopy=False)[-_COUNTED:]]
    rows: list[tuple[str, str]] = [*_settings(study)]
    sources: Mapping[str, Any] = attributes.get("sources", {})
    if sources:
        size, channels = sources.get("image_size"), sources.get("channels")
        classes = [str(name) for name in sources.get("classes", ())]
        rows += [
            ("images", _image_counts(sources)),
            (
                "input",
                f"{_count(channels, 'channel')} of {size} by {size} pixels, {len(classes)} classes: {_listed(classes)}",
            ),
        ]
    data = sources.get("data") or (verified.data if verified else "")
    teacher = sources.get("teacher") or (verified.teacher if verified else "")
    rows += [("data fingerprint", data or "not recorded"), ("teacher hash", teacher or "not recorded")]
    rows += [("teacher", f"{name} {figure_of(value, '')}") for name, value in study.teacher_values().items()]
    for machine in attributes.get("machines", ()):
        rows.append(("machine of the search", _machine(machine)))
    if not attributes.get("machines"):
        rows.append(("machine of the search", "not recorded"))
    for name, versions in _versions(candidates).items():
        rows.append((f"version of {name}", ", ".join(sorted(versions))))
    seeds = sorted({int(c["seed"]) for c in candidates if "seed" in c})
    rows.append(("seed of the study", str(study.seed)))
    if seeds:
        rows.append(("seeds of the trials", _listed([str(seed) for seed in seeds])))
    if verified is not None:
        used = next((row.seeds for row in verified.students if row.seeds), ())
        rows.append(("seeds of the verification", _listed([str(seed) for seed in used])))
    rows.append(("report written with", ", ".join(f"{k} {v}" for k, v in written_with.items())))
    rows.append(("report written on", datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")))
    return Table(("what", "value"), tuple(rows))


def _settings(study: Study) -> Iterable[tuple[str, str]]:
    config = study.config
    yield "study", study.name
    yield "objectives", ", ".join(f"{o.name} ({o.direction})" for o in study.objectives)
    if study.constraints:
        yield "constraints", ", ".join(map(str, study.constraints))
    yield (
        "rungs",
        f"{', '.join(map(str, study.rungs.levels))} epochs" + ("" if study.rungs.stopping else ", no stopping"),
    )
    if config is None:
        return
    yield "sampler", str(config.sampler)
    yield "search space", config.space if isinstance(config.space, str) else "given with the study"
    if config.data is not None:
        yield "data", config.data.source
        yield "teacher source", config.teacher.source.replace("\\", "/").rpartition("/")[2]  # without folder names
        if any(o.name == LATENCY for o in study.objectives):
            yield "latency is measured on", latency_words(config.latency)


def _machine(facts: Mapping[str, Any]) -> str:
    parts = [str(facts.get("processor", "")), f"{facts.get('cores')} cores", f"{facts.get('memory_gib')} GiB"]
    parts += [str(gpu) for gpu in facts.get("gpus", ())]
    return ", ".join([*parts, str(facts.get("system", "")), _count(facts.get("workers"), "worker")])


def _versions(candidates: Sequence[Mapping[str, Any]]) -> dict[str, set[str]]:
    out: dict[str, set[str]] = {}
    for candidate in candidates:
        for name, version in candidate.get("versions", {}).items():
            out.setdefault(str(name), set()).add(str(version))
    return out


def _count(number: Any, name: str) -> str:
    return f"{number} {name}{'' if number == 1 else 's'}"


def _listed(words: Sequence[str], most: int = 12) -> str:
    rest = f" … ({len(words)} in total)" if len(words) > most else ""
    return ", ".join(words[:most]) + rest


def _spread(figure: Figure | None) -> str:
    if figure is None:
        return ""
    return f"{figure.mean:.4f}" if figure.std is None else f"{figure.mean:.4f} ± {figure.std:.4f}"


def _interval(figure: Figure | None) -> str:
    if figure is None or figure.low is None:
        return _spread(figure)
    return f"{_spread(figure)} [{figure.low:.4f}, {figure.high:.4f}]"
