"""Running a search from the command line: dry run, search, and the summary that is printed at the end."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from autodistill.commands.console.output import command, print_json, say
from autodistill.commands.console.tables import found_by_verify, nearest_json, print_front, say_nearest
from autodistill.commands.console.this_command import this_command
from autodistill.core.budget import format_seconds
from autodistill.core.errors import InterruptedTrialError, ResourceError, StudyInUseError, UsageError, UserCodeError
from autodistill.core.records import State
from autodistill.core.wording import why_empty

if TYPE_CHECKING:
    from autodistill.config.study_file import StudyConfig
    from autodistill.core.budget import Budget, Spent
    from autodistill.core.records import TrialRecord
    from autodistill.engines.monitor.budget_warning import BudgetWarning
    from autodistill.engines.monitor.progress import Progress
    from autodistill.engines.monitor.watch import Snapshot
    from autodistill.search.results.front import Front
    from autodistill.search.space.space import Space
    from autodistill.search.study.study import Study


UNKNOWN = 300.0
"""Budget in seconds that is suggested when too little was measured to estimate what the search needs."""


def dry_run(config: StudyConfig, folder: Path, as_json: bool) -> None:
    """Print the configuration and an estimate of the search; write nothing."""
    from autodistill.core import strict_yaml
    from autodistill.engines.setup.check_names import check_first, check_study

    check_first(config, resumed=_resumed(folder))
    from autodistill.engines.setup.initial_weights import InitialWeights, with_weights
    from autodistill.engines.setup.served_task import leave_out_unusable
    from autodistill.engines.setup.study_setup import check_same, config_rungs, config_space, study_parts
    from autodistill.engines.timing.cold_views import cold_views
    from autodistill.engines.timing.estimate import estimate, forecast
    from autodistill.engines.timing.top_rung import Length, choose_length

    config = check_same(folder.resolve(), config)
    _announce(config, folder)
    notes: list[str] = []
    if not _resumed(folder):
        config, notes = leave_out_unusable(config, config_space(config))
    parts = study_parts(config)
    check_study(config, parts["space"])
    initial = InitialWeights()
    if config.data is not None:
        parts["space"], initial = with_weights(parts["space"], config.training)
    _check_warm_starts(config, folder, parts["space"])
    if cold := cold_views(parts["space"], config.training):
        say(f"warning: {cold}")
    length = Length(config) if _resumed(folder) else choose_length(config, parts["space"], say=_doing)
    config, rungs = length.config, config_rungs(length.config)
    figures = None
    if length.times is not None:
        figures = forecast(config, rungs, length.times)
    elif not length.seconds:  # nothing has been timed yet
        figures = estimate(config, parts["space"], rungs, say=_doing)
    if as_json:
        print_json(
            {"configuration": config.resolved(), "directory": str(folder), "estimate": figures and figures.to_json()}
        )
        return
    sys.stdout.write(strict_yaml.dump(config.resolved()))
    say()
    for line in [
        *notes,
        *initial.lines(),
        *(figures.lines() if figures else []),
        *([length.message] if length.message else []),
    ]:
        say(line)
    say("Nothing was written. Start the search: " + this_command(without="--dry-run"))


def _doing(words: str) -> None:
    """Print what the set-up is doing now."""
    say(f"  {words} …")


def _check_warm_starts(config: StudyConfig, folder: Path, space: Space) -> None:
    """Check the studies of ``warm_start``, except those that a resumed study has already used.

    Raises:
        UsageError: One of them is not a study, or has no student that fits this space.
    """
    from autodistill.engines.setup.study_setup import STUDY_FILE, open_other
    from autodistill.search.study.warm_start import fitting_students

    stored = folder / STUDY_FILE
    done = type(config).load(stored).warm_start if stored.is_file() else ()
    for other in config.warm_start:
        if other not in done:
            fitting_students(space, config.seed, open_other(folder, Path(other)), Path(other))


def run(
    config: StudyConfig,
    folder: Path,
    as_json: bool,
    tensorboard: bool,
    options: Mapping[str, Any],
    *,
    verify_share: float = 0.0,
) -> None:
    """Run the search, print its results, and verify the front if ``verify_share`` is above 0.

    Args:
        config: Configuration of the study.
        folder: Folder of the study.
        as_json: Print the front as JSON instead of a table.
        tensorboard: Also write TensorBoard files.
        options: Keywords of the engine.
        verify_share: Share of a time budget that is reserved for verification, in [0, 1].
    """
    from autodistill.engines.setup.check_names import check_first

    check_first(config, resumed=_resumed(folder))
    from autodistill.engines.setup.study_setup import build_checked_study, check_same

    config = check_same(folder.resolve(), config)
    _announce(config, folder)
    from autodistill.api import search as run_search
    from autodistill.engines.monitor.progress import Progress

    existed, parent_existed = folder.exists(), folder.parent.exists()
    study: Study | None = None
    try:
        study = build_checked_study(config, folder.resolve(), say=_doing)
        for note in study.notes:
            say(f"  {note}")
        kept = verify_share * (study.budget.seconds or 0.0)
        study.keep_back(kept)
        with Progress() as progress:
            watcher = _with_tensorboard(study, folder, progress) if tensorboard else progress
            front = run_search(study, progress=watcher, **options)
    except (UsageError, UserCodeError):
        of_another = study is None and (folder / "study.yaml").exists()  # a study of ours writes it last
        if not (existed or of_another or (study is not None and study.trials())):
            _remove_empty(folder, parent=not parent_existed)  # wrong input leaves nothing behind
        raise
    except (KeyboardInterrupt, SystemExit, InterruptedTrialError) as stop:
        raise typer.Exit(_interrupted(study, stop)) from None
    verifying = verify_share > 0 and front.trials
    verified = _verify(folder, kept, options, as_json=True) if verifying and as_json else {}
    _finish(study, front, folder, as_json, verified, progress.shortage)
    if verifying and not as_json:
        _verify(folder, kept, options, as_json=False)  # prints the next commands itself
    else:
        _say_next(study, front, folder, verified=bool(verifying), short=progress.shortage)


def _verify(folder: Path, kept: float, options: Mapping[str, Any], *, as_json: bool) -> dict[str, Any]:
    """Verify the front within the reserved ``kept`` seconds; return its part of the JSON of ``search``."""
    from autodistill.commands.verify import run as run_verify
    from autodistill.core.budget import Budget

    limit = Budget(seconds=kept) if kept else None
    again = command("verify", folder)
    return {"verified": run_verify(folder, show=not as_json, again=again, budget=limit, **options).to_json()}


def _with_tensorboard(study: Study, folder: Path, progress: Progress) -> Callable[[Snapshot], None]:
    """Return a progress callback that also writes TensorBoard files."""
    from autodistill.delivery.dashboard.tensorboard import FOLDER, TensorBoard

    board = TensorBoard(folder / FOLDER, study.trials())
    say(f"  TensorBoard: tensorboard --logdir {folder / FOLDER}")

    def both(snapshot: Snapshot) -> None:
        progress(snapshot)
        if snapshot.stage in ("search", "done"):
            board.sync(study.trials())

    return both


def _interrupted(study: Study | None, stop: BaseException) -> int:
    """Print how to resume an interrupted search, and return the exit code."""
    code = stop.code if isinstance(stop, SystemExit) and isinstance(stop.code, int) else 130
    if study is None:
        return code
    ended = study.budget.exhausted(study.spent)
    if isinstance(stop, InterruptedTrialError) and ended:
        say(f"error: {ended} before the first trial: {str(stop).rstrip('.')}.")
        from autodistill.engines.monitor.budget_warning import rounded

        needed = 2 * study.spent.seconds / stop.done if stop.done else UNKNOWN  # set-up, and as long for the search
        more = _more(study.budget, study.spent, rounded(needed))
        say(f"Use a larger budget: {this_command(without='--budget', value=True)} --budget {more}")
        return UsageError.exit_code
    counts = ", ".join(f"{n} {state}" for state, n in Counter(t.state.value for t in study.trials()).items())
    spent = format_seconds(round(study.spent.seconds))
    say(f"Stopped after {spent} ({counts or 'no trial'}). Resume: {this_command()}")
    return code


def _remove_empty(folder: Path, *, parent: bool) -> None:
    """Remove a new study without trials, unless another process holds it; its ``parent`` too, where that is empty."""
    from autodistill.search.storage.study_folder import folder_lock, has_trials

    if not folder.exists():
        return
    with contextlib.suppress(StudyInUseError, ResourceError), folder_lock(folder):
        if has_trials(folder):
            return
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            if parent:
                folder.parent.rmdir()


def _resumed(folder: Path) -> bool:
    """Return whether the folder already holds a study."""
    return any((folder / name).exists() for name in ("study.db", "study.yaml"))


def _announce(config: StudyConfig, folder: Path) -> None:
    """Print what will run and where, before anything slow begins."""
    data = config.data
    space = config.space if isinstance(config.space, str) else "given in the study file"
    resumed = ", resumed" if _resumed(folder) else ""
    workers = (
        "one worker per device" if config.workers is None else f"{config.workers} worker{'s' * (config.workers > 1)}"
    )
    say(f"study {config.name} in {folder}{resumed}")
    say(
        f"  data {data.source if data else 'none'} · teacher {config.teacher.source} · space {space} · "
        f"{_length(config)} · sampler {config.sampler}"
    )
    bounds = f" · {' · '.join(config.constraints)}" if config.constraints else ""
    say(f"  objectives {', '.join(config.objectives)}{bounds} · budget {config.budget} · {config.engine}, {workers}")


def _length(config: StudyConfig) -> str:
    from autodistill.engines.setup.study_setup import config_rungs

    by_budget = config.data is not None and config.epochs is None
    return "epochs chosen by the budget" if by_budget else f"{config_rungs(config).levels[-1]} epochs"


def _finish(
    study: Study, front: Front, folder: Path, as_json: bool, more: Mapping[str, Any], short: BudgetWarning | None
) -> None:
    """Print the front on stdout, and on stderr why the search ended and which files it wrote."""
    _note_for_dashboard(study, folder)
    trials = study.trials()
    counts = ", ".join(f"{n} {state}" for state, n in Counter(t.state.value for t in trials).items()) or "no trial"
    ended = study.ended or study.budget.exhausted(study.spent) or "no candidate is left"
    say(f"ended: {ended} ({counts})")
    paused = sum(t.reason == "PAUSED" for t in trials)
    if paused:
        waiting = "1 trial is" if paused == 1 else f"{paused} trials are"
        say(f"{waiting} paused; a larger budget continues the best of them.")
    for note in study.teacher_notes():
        say(f"note: {note}.")
    waste = study.waste()
    if waste.telling:
        say(f"{waste.line()}.")
    if as_json:
        range_bounds = [bound.to_json() for bound in study.range_bounds()]
        shown = {**front.to_json(), "epochs": study.rungs.levels[-1], **nearest_json(study)}
        print_json({**shown, "waste": waste.to_json(), "range_bounds": range_bounds, **more})
    elif front.trials:
        print_front(front, trials, found_by_verify(front)[0])
    if bounds := study.bounds_line():
        say(f"{bounds}.")
    if not front.trials:
        say(_why_empty(study, trials, short))
    if not as_json:
        say_nearest(study)
    say(
        "files: "
        + "  ".join(str(folder / name) for name in ("front.png", "front.csv", "front.json", _trials_in(study)))
    )


def _why_empty(study: Study, trials: list[TrialRecord], short: BudgetWarning | None) -> str:
    if any(t.state is State.COMPLETE for t in trials):
        reason = why_empty(trials, study.constraints)
        return f"The front is empty: {reason}; loosen a constraint, or run again with a larger budget."
    if not trials:
        return (
            "The front is empty: reading the images, the survey and the teacher used up the budget. Run again with a "
            "larger budget; the teacher is kept."
        )
    advice = (
        short.advice(_larger(study, short))
        if short is not None
        else "use a larger budget, or fewer --epochs in a new study"
    )
    return f"The front is empty: no trial reached the top rung; {advice}."


def _say_next(study: Study, front: Front, folder: Path, *, verified: bool, short: BudgetWarning | None) -> None:
    say("next:")
    best = front.knee() or (front.trials[0] if front.trials else None)
    if best is not None:
        form = "" if best.variant == "fp32" else f", in its {best.variant} form"
        say("  " + command("show", best.number, folder) + f"   (the knee of the front{form})")
        if not verified and getattr(study.config, "data", None) is not None:
            say("  " + command("verify", folder) + "   (retrain the front with new seeds, evaluate on the test split)")
        say("  " + command("report", folder) + "   (write one HTML file)")
    say("  " + command("dashboard", folder) + "   (open the study in the browser)")
    say("  " + command("search", folder, "--budget", _larger(study, short)) + "   (continue with a larger budget)")


def _note_for_dashboard(study: Study, folder: Path) -> None:
    """Store notes and figures in the database, so that a plain ``optuna-dashboard`` shows them too."""
    from autodistill.delivery.dashboard.notes import annotate
    from autodistill.search.storage.study_folder import folder_lock

    with contextlib.suppress(StudyInUseError), folder_lock(folder):  # the process that holds the lock writes them
        annotate(study)


def _trials_in(study: Study) -> str:
    return "study.yaml" if getattr(study.config, "storage", None) is not None else "study.db"


def _larger(study: Study, short: BudgetWarning | None) -> str:
    """Return a budget with which a study that has spent its own can continue."""
    needed = short.budget if short is not None else 0.0 if study.trials() else UNKNOWN
    return _more(study.budget, study.spent, needed)


def _more(budget: Budget, spent: Spent, seconds: float = 0.0) -> str:
    """Double the budget until at least a fifth is unspent; a time budget becomes at least ``seconds``."""
    larger = {name: _doubled(limit, getattr(spent, name)) for name, limit in vars(budget).items() if limit is not None}
    if "seconds" in larger:
        larger["seconds"] = max(larger["seconds"], seconds)
    return str(replace(budget, **larger))


def _doubled(limit: float, spent: float) -> Any:
    while True:
        limit *= 2
        if spent <= 0.8 * limit:
            return limit
