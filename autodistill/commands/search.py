"""``autodistill search``: from flags and a study file to a running search, and what it says at the end."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autodistill.commands.live import stopped
from autodistill.commands.output import command, print_json, say
from autodistill.commands.reading import RUNS
from autodistill.commands.tables import print_front
from autodistill.config_errors import unknown_key
from autodistill.errors import ConfigError, InterruptedTrialError, UsageError, UserCodeError

if TYPE_CHECKING:
    from autodistill.config import StudyConfig
    from autodistill.search.budget import Budget
    from autodistill.search.front import Front
    from autodistill.search.study import Study

DEFAULT_BUDGET = "5m"
VERIFY_SHARE = 0.3  # of a time budget, with --verify
_SPACE_SECTIONS = ("student", "distillation", "train")
_FLAGS = {
    "data.root": "--data-root",
    "data.image_size": "--image-size",
    "data.train_size": "--train-size",
    "teacher.weights": "--teacher-weights",
    "constraints": "--constraint",
}

EXAMPLES = """
  autodistill search --data digits --budget 5m --workers 2 --dir runs/digits
  autodistill search --data image_folder --data-root photos --image-size 64 --budget 2h
  autodistill search study.yaml --constraint 'params <= 1e6' --set student.family=resnet,convnext
  autodistill search runs/digits --budget 30m      go on with a study
"""


def search(
    study: Annotated[
        Path | None, typer.Argument(metavar="STUDY", help="A study file, or the folder of a study to go on with.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Where the images come from: digits, fashion_mnist, image_folder …")
    ] = None,
    data_root: Annotated[str | None, typer.Option(metavar="DIR", help="Folder of the images' files.")] = None,
    image_size: Annotated[int | None, typer.Option(metavar="PX", help="Pixels per side that the student sees.")] = None,
    train_size: Annotated[
        int | None, typer.Option(metavar="N", help="Images kept for training; all by default.")
    ] = None,
    teacher: Annotated[
        str | None, typer.Option(help="auto, a folder of 'autodistill teach', a timm name, an ONNX file …")
    ] = None,
    teacher_weights: Annotated[
        str | None, typer.Option(metavar="FILE", help="Weights, where --teacher is only an architecture.")
    ] = None,
    space: Annotated[
        str | None, typer.Option(help="A built-in search space ('autodistill spaces ls') or a YAML file.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Narrow the space (student.family=resnet,convnext) or set a key (training.batch_size=128).",
        ),
    ] = None,
    budget: Annotated[
        str | None, typer.Option(help="30m, 2h, 40trials, 600epochs, 3gpu-hours; joined by commas.")
    ] = None,
    objectives: Annotated[str | None, typer.Option(metavar="A,B,C", help="Axes of the front.")] = None,
    constraint: Annotated[
        list[str] | None, typer.Option(metavar="'X <= N'", help="A bound, e.g. 'params <= 1e6'; may be repeated.")
    ] = None,
    sampler: Annotated[str | None, typer.Option(help="front, gp, tpe, nsga2, nsga3, random or qmc.")] = None,
    epochs: Annotated[int | None, typer.Option(metavar="N", help="Epochs of the top rung.")] = None,
    rungs: Annotated[str | None, typer.Option(help="auto, off, or {eta: 3, lowest: 0.05}.")] = None,
    no_rungs: Annotated[
        bool, typer.Option("--no-rungs", help="Train every candidate to the end; the same as --rungs off.")
    ] = False,
    warm_start: Annotated[
        list[Path] | None,
        typer.Option("--warm-start", metavar="DIR", help="Try another study's front first; may be repeated."),
    ] = None,
    survey: Annotated[str | None, typer.Option(help="auto, off, or how many students to measure first.")] = None,
    workers: Annotated[int | None, typer.Option(metavar="N", help="Candidates trained at once.")] = None,
    engine: Annotated[str | None, typer.Option(help="local or ray.")] = None,
    ray_address: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="A running Ray cluster, or auto on one of its nodes.")
    ] = None,
    trust_network: Annotated[
        bool,
        typer.Option("--trust-network", help="Use a Ray cluster without tokens: anyone on its network can run code."),
    ] = False,
    directory: Annotated[
        Path | None, typer.Option("--dir", metavar="DIR", help="Folder of the study; runs/NAME by default.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the study.")] = None,
    seed: Annotated[int | None, typer.Option(metavar="N", help="Seed of everything random.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the configuration and an estimate; write nothing.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Verify the front at the end; three tenths of a time budget are kept back.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the front as JSON.")] = False,
) -> None:
    """Search students and how to distil them, until the budget is spent. The same command again resumes."""
    from autodistill.config import StudyConfig

    overrides = {
        "data": data,
        "data.root": data_root,
        "data.image_size": image_size,
        "data.train_size": train_size,
        "teacher": teacher,
        "teacher.weights": teacher_weights,
        "space": space,
        "budget": budget,
        "objectives": objectives,
        "constraints": constraint or None,
        "sampler": sampler,
        "epochs": epochs,
        "rungs": _rungs(rungs, no_rungs),
        "warm_start": [str(folder) for folder in warm_start or ()] or None,
        "survey": None if survey is None else value_of(survey),
        "workers": workers,
        "engine": engine,
        "name": name,
        "seed": seed,
        **settings(set_ or []),
    }
    source, folder = _source_of(study, directory)
    config = StudyConfig.load(source, overrides, flags=flags_of(overrides))
    if config.budget is None:
        config = config.model_copy(update={"budget": DEFAULT_BUDGET})
    folder = folder or RUNS / config.name
    if dry_run:
        _dry_run(config, folder, as_json)
    else:
        if verify and config.data is None:
            raise UsageError("--verify needs images; this study has an evaluation of its own.")
        options = _engine_options(config.engine, ray_address, trust_network)
        _run(config, folder, as_json, options, verify_share=VERIFY_SHARE if verify else 0.0)


def _rungs(rungs: str | None, no_rungs: bool) -> Any:
    """The key of both flags about rungs.

    Raises:
        UsageError: they contradict each other.
    """
    if not no_rungs:
        return None if rungs is None else value_of(rungs)
    if rungs not in (None, "off"):
        raise UsageError(f"--no-rungs and --rungs {rungs} contradict each other; keep one.")
    return "off"


def _engine_options(engine: str, ray_address: str | None, trust_network: bool) -> dict[str, Any]:
    """Keywords of the engine from its flags.

    Raises:
        UsageError: a flag of Ray's for another engine.
    """
    given = {"address": ray_address, "trust_network": trust_network or None}
    options = {key: value for key, value in given.items() if value is not None}
    if options and engine != "ray":
        raise UsageError(f"--ray-address and --trust-network are for --engine ray; the engine is {engine!r}.")
    return options


def settings(texts: Sequence[str]) -> dict[str, Any]:
    """The overrides of ``--set KEY=VALUE``: a key of the space narrows it, any other one is a key of the study.

    Raises:
        ConfigError: all texts that are not understood.
    """
    from autodistill.config import StudyConfig

    out: dict[str, Any] = {}
    problems = []
    for text in texts:
        key, equals, value = text.partition("=")
        section = key.split(".", 1)[0]
        if not equals or not key.strip():
            problems.append(f"--set {text!r}: write KEY=VALUE, e.g. student.family=resnet,convnext")
        elif section in _SPACE_SECTIONS:
            out.setdefault("set", {})[key] = value_of(value)
        elif section in StudyConfig.model_fields and section != "set":
            out[key] = value_of(value)
        else:
            known = [*_SPACE_SECTIONS, *(name for name in StudyConfig.model_fields if name != "set")]
            problems.append(f"--set {key}: {unknown_key(section, tuple(known))}")
    if problems:
        raise ConfigError(problems, "the flags")
    return out


def value_of(text: str) -> Any:
    """A flag's value as YAML reads it; commas outside brackets make a list.

    Raises:
        ConfigError: it is not YAML.
    """
    from autodistill import strict_yaml

    if "," in text and text.strip()[:1] not in ("[", "{", '"', "'"):
        return [value_of(part.strip()) for part in text.split(",") if part.strip()]
    return strict_yaml.load(text, "flag")[0] if text.strip() else ""


def flags_of(overrides: Mapping[str, Any]) -> dict[str, str]:
    """Key to the flag it came from, for messages about it."""
    return {
        key: _FLAGS.get(key, f"--{key}" if "." not in key else f"--set {key}")
        for key, value in overrides.items()
        if value is not None
    }


def _source_of(study: Path | None, directory: Path | None) -> tuple[Path | None, Path | None]:
    """The study file to read, and the folder, where the arguments name one."""
    if study is None or not study.is_dir():
        return study, directory
    if directory is not None and directory.resolve() != study.resolve():
        raise UsageError(f"two study folders are given, {study} and --dir {directory}; keep one.")
    if not (study / "study.db").is_file():
        raise UsageError(
            f"{study} is not a study: it has no study.db. Give a study file, or use --dir for a new study."
        )
    return study / "study.yaml", study


def _dry_run(config: StudyConfig, folder: Path, as_json: bool) -> None:
    from autodistill import strict_yaml
    from autodistill.config_names import check
    from autodistill.engines.estimate import estimate
    from autodistill.search.opening import study_parts

    _announce(config, folder)
    parts = study_parts(config)
    check(config, parts["space"])
    figures = estimate(config, parts["space"], parts["rungs"])
    if as_json:
        print_json({"configuration": config.resolved(), "directory": str(folder), "estimate": figures.to_json()})
        return
    sys.stdout.write(strict_yaml.dump(config.resolved()))
    say()
    for line in figures.lines():
        say(line)
    say("Nothing was written. Start it: " + this_command(without="--dry-run"))


def _run(
    config: StudyConfig, folder: Path, as_json: bool, options: Mapping[str, Any], *, verify_share: float = 0.0
) -> None:
    _announce(config, folder)
    from autodistill.commands.live import Progress
    from autodistill.config_names import check
    from autodistill.engines.run import search as run_search
    from autodistill.search.opening import build, study_parts

    check(config, study_parts(config)["space"])
    existed = folder.exists()
    study: Study | None = None
    try:
        study = build(config, folder.resolve())
        for note in study.notes:
            say(f"  {note}")
        kept = verify_share * (study.budget.seconds or 0.0)
        study.keep_back(kept)
        with Progress() as progress:
            front = run_search(study, progress=progress, **options)
    except (UsageError, UserCodeError):
        if not existed and (study is None or not study.trials()):
            shutil.rmtree(folder, ignore_errors=True)  # wrong input leaves nothing behind
            with contextlib.suppress(OSError):
                folder.parent.rmdir()  # only if it is empty now
        raise
    except (KeyboardInterrupt, SystemExit, InterruptedTrialError) as stop:
        raise typer.Exit(_interrupted(study, stop)) from None
    verifying = verify_share > 0 and front.trials
    verified = _verify(folder, kept, options, as_json=True) if verifying and as_json else {}
    _finish(study, front, folder, as_json, verified)
    if verifying and not as_json:
        _verify(folder, kept, options, as_json=False)


def _verify(folder: Path, kept: float, options: Mapping[str, Any], *, as_json: bool) -> dict[str, Any]:
    """Verify the front with the time that was kept back; its part of the JSON of ``search``."""
    from autodistill.commands.verify import run as run_verify
    from autodistill.search.budget import Budget

    limit = Budget(seconds=kept) if kept else None
    again = command("verify", folder)
    return {"verified": run_verify(folder, show=not as_json, again=again, budget=limit, **options).to_json()}


def _interrupted(study: Study | None, stop: BaseException) -> int:
    """Say how to go on; returns the exit code."""
    if study is None:
        return 130
    ended = study.budget.exhausted(study.spent)
    if isinstance(stop, InterruptedTrialError) and ended:
        say(f"error: {ended} before the first trial: {stop}.")
        say(f"Give more: {this_command()} --budget {_more(study.budget)}")
        return UsageError.exit_code
    stopped(study.spent.seconds, Counter(t.state.value for t in study.trials()), this_command())
    return stop.code if isinstance(stop, SystemExit) and isinstance(stop.code, int) else 130


def _announce(config: StudyConfig, folder: Path) -> None:
    """Say what will run and where, before anything slow begins."""
    data = config.data
    space = config.space if isinstance(config.space, str) else "given in the study file"
    resumed = ", resumed" if (folder / "study.db").exists() else ""
    workers = (
        "workers by the devices" if config.workers is None else f"{config.workers} worker{'s' * (config.workers > 1)}"
    )
    say(f"study {config.name} in {folder}{resumed}")
    say(
        f"  data {data.source if data else 'none'} · teacher {config.teacher.source} · space {space} · "
        f"{config.epochs} epochs · sampler {config.sampler}"
    )
    bounds = f" · {' · '.join(config.constraints)}" if config.constraints else ""
    say(f"  objectives {', '.join(config.objectives)}{bounds} · budget {config.budget} · {config.engine}, {workers}")


def _finish(study: Study, front: Front, folder: Path, as_json: bool, more: Mapping[str, Any]) -> None:
    """The front on stdout; why the search ended, files and next commands on stderr."""
    trials = study.trials()
    counts = ", ".join(f"{n} {state}" for state, n in Counter(t.state.value for t in trials).items()) or "no trial"
    ended = study.ended or study.budget.exhausted(study.spent) or "no candidate is left"
    say(f"ended: {ended} ({counts})")
    paused = sum(t.reason == "PAUSED" for t in trials)
    if paused:
        say(f"{paused} trials are paused; more budget goes on with the best of them.")
    waste = study.waste()
    if waste.trials:
        say(f"{waste.line()}.")
    if as_json:
        print_json({**front.to_json(), "waste": waste.to_json(), **more})
    elif front.trials:
        print_front(front, trials)
    if not front.trials:
        say("The front is empty: no trial reached the top rung. Give more budget, or fewer --epochs.")
    say("files: " + "  ".join(str(folder / name) for name in ("front.png", "front.csv", "front.json", "study.db")))
    say("next:")
    best = front.knee() or (front.trials[0] if front.trials else None)
    if best is not None:
        say("  " + command("show", best.number, folder))
    say("  " + command("trials", folder))
    say("  " + command("search", folder, "--budget", _more(study.budget)) + "   (goes on)")


def _more(budget: Budget) -> str:
    """Twice the budget, as text."""
    return str(
        replace(
            budget,
            seconds=None if budget.seconds is None else budget.seconds * 2,
            trials=None if budget.trials is None else budget.trials * 2,
            epochs=None if budget.epochs is None else budget.epochs * 2,
            device_seconds=None if budget.device_seconds is None else budget.device_seconds * 2,
        )
    )


def this_command(without: str = "") -> str:
    """The command line of this process, ready to paste."""
    return command(*(argument for argument in sys.argv[1:] if argument != without))
