"""``autodistill search``: turns flags and a study file into a configuration, and starts the search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from autodistill.commands.console.reading import (
    RUNS,
    DataOption,
    DataRootOption,
    DropDuplicatesOption,
    ResizeOption,
    TrainSizeOption,
)
from autodistill.commands.search_run import dry_run as show_plan
from autodistill.commands.search_run import run
from autodistill.config.problems import unknown_key
from autodistill.core.errors import ConfigError, UsageError

DEFAULT_BUDGET = "5m"
VERIFY_SHARE = 0.3  # share of a time budget that --verify reserves
_SPACE_SECTIONS = ("student", "distillation", "train")
_FLAGS = {
    "data.root": "--data-root",
    "data.image_size": "--image-size",
    "data.train_size": "--train-size",
    "data.resize": "--resize",
    "data.drop_duplicates": "--drop-duplicates",
    "data.unlabelled": "--unlabelled",
    "teacher.weights": "--teacher-weights",
    "constraints": "--constraint",
    "slots_per_gpu": "--slots-per-gpu",
}

EXAMPLES = """
  autodistill search --data digits --budget 5m --workers 2 --dir runs/digits
  autodistill search --data image_folder --data-root photos --image-size 64 --budget 2h
  autodistill search --data manifest --data-root labels.csv --image-size 64 --budget 2h
  autodistill search study.yaml --constraint 'params <= 1e6' --set student.family=resnet,convnext
  autodistill search runs/digits --budget 30m      continue a study
"""


def search(
    study: Annotated[
        Path | None, typer.Argument(metavar="STUDY", help="A study file, or the folder of a study to continue.")
    ] = None,
    data: DataOption = None,
    data_root: DataRootOption = None,
    image_size: Annotated[
        int | None,
        typer.Option(metavar="PX", help="Side of the student's square input, in pixels. Default: the source's own."),
    ] = None,
    train_size: TrainSizeOption = None,
    resize: ResizeOption = None,
    drop_duplicates: DropDuplicatesOption = False,
    task: Annotated[
        str | None,
        typer.Option(
            help="multiclass (one class per image) or multilabel (any number of labels per image). Default: multiclass."
        ),
    ] = None,
    unlabelled: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Folder with further images, at any depth and without labels; the teacher's answers are their target. "
            "Copies of validation and test images are left out.",
        ),
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            help="auto (train one first), a folder made by 'autodistill teach', a timm model name, an ONNX file … "
            "Default: auto."
        ),
    ] = None,
    teacher_weights: Annotated[
        str | None, typer.Option(metavar="FILE", help="File with the weights, if --teacher only names an architecture.")
    ] = None,
    space: Annotated[
        str | None,
        typer.Option(
            help="A built-in search space ('autodistill spaces ls') or a YAML file. Default: chosen by image size."
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Narrow the space (student.family=resnet,convnext) or set a key of the study "
            "(training.batch_size=128). May be repeated.",
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            help="When to stop: 30m, 2h, 40trials, 600epochs, 3gpu-hours. Join several limits by commas; the first one "
            f"reached ends the search. Counted over all resumes. Default: {DEFAULT_BUDGET}."
        ),
    ] = None,
    objectives: Annotated[
        str | None,
        typer.Option(metavar="A,B,C", help="Metrics to trade off. Default: accuracy,params,latency_ms."),
    ] = None,
    constraint: Annotated[
        list[str] | None,
        typer.Option(metavar="'X <= N'", help="Bound on a metric, e.g. 'params <= 1e6'. May be repeated."),
    ] = None,
    within: Annotated[
        str | None,
        typer.Option(
            metavar="POINTS",
            help="Accept only students at most this many percentage points of accuracy below the teacher, e.g. 5. "
            "Default: auto (students more than 20 points below count as no gain); off: they count.",
        ),
    ] = None,
    sampler: Annotated[
        str | None,
        typer.Option(
            help="Algorithm that proposes candidates: front, gp, tpe, nsga2, nsga3, random or qmc. Default: front."
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(metavar="N", help="Epochs of a full training (the top rung). Default: chosen by budget and data."),
    ] = None,
    rungs: Annotated[
        str | None,
        typer.Option(
            help="Epoch levels at which only the better trials continue: auto, off, or e.g. {eta: 3, lowest: 0.05}. "
            "Default: auto."
        ),
    ] = None,
    no_rungs: Annotated[
        bool, typer.Option("--no-rungs", help="Train every candidate to the end. Same as --rungs off.")
    ] = False,
    warm_start: Annotated[
        list[Path] | None,
        typer.Option(
            "--warm-start", metavar="DIR", help="Folder of another study, whose front is tried first. May be repeated."
        ),
    ] = None,
    survey: Annotated[
        str | None,
        typer.Option(
            help="Number of students whose size and latency are measured before any training; auto or off. "
            "Default: auto."
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(metavar="N", help="Number of candidates trained in parallel. Default: one per GPU, or one."),
    ] = None,
    slots_per_gpu: Annotated[
        str | None,
        typer.Option(metavar="N", help="Number of workers that share one GPU; auto measures how many fit. Default: 1."),
    ] = None,
    engine: Annotated[
        str | None, typer.Option(help="local (this machine) or ray (Ray Tune, also on a cluster). Default: local.")
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Database server that stores the trials: postgresql://user@host/db, mysql://… Default: SQLite in the "
            "study's folder.",
        ),
    ] = None,
    ray_address: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Address of a running Ray cluster, or auto on one of its nodes. Default: start a private Ray here.",
        ),
    ] = None,
    ray_storage: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Storage for checkpoints (s3://…) if Ray's workers cannot read the study's folder.",
        ),
    ] = None,
    trust_network: Annotated[
        bool,
        typer.Option(
            "--trust-network", help="Use a Ray cluster without authentication: anyone on its network can run code."
        ),
    ] = False,
    directory: Annotated[
        Path | None, typer.Option("--dir", metavar="DIR", help="Folder of the study. Default: runs/NAME.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the study. Default: the data source.")] = None,
    seed: Annotated[int | None, typer.Option(metavar="N", help="Random seed of the search. Default: 0.")] = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write TensorBoard scalars and hparams per trial to DIR/tensorboard.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the configuration and an estimate of the search; write nothing.")
    ] = False,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Run 'verify' at the end; it gets 30 % of a time budget."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the front as JSON.")] = False,
) -> None:
    """Search for students and the best way to distil them until the budget is spent. Run again to resume."""
    from autodistill.config.study_file import StudyConfig

    overrides = {
        "data": data,
        "data.root": data_root,
        "data.image_size": image_size,
        "data.train_size": train_size,
        "data.resize": resize,
        "data.drop_duplicates": drop_duplicates or None,
        "task": task,
        "data.unlabelled": unlabelled,
        "teacher": teacher,
        "teacher.weights": teacher_weights,
        "space": space,
        "budget": budget,
        "objectives": objectives,
        "constraints": constraint or None,
        "within": None if within is None else value_of(within),
        "sampler": sampler,
        "epochs": epochs,
        "rungs": _rungs(rungs, no_rungs),
        "warm_start": [str(folder) for folder in warm_start or ()] or None,
        "survey": None if survey is None else value_of(survey),
        "workers": workers,
        "slots_per_gpu": None if slots_per_gpu is None else value_of(slots_per_gpu),
        "engine": engine,
        "storage": storage,
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
        show_plan(config, folder, as_json)
    else:
        if verify and config.data is None:
            raise UsageError("--verify needs images, but this study uses its own evaluation; leave out --verify.")
        options = _engine_options(config.engine, ray_address, ray_storage, trust_network)
        run(config, folder, as_json, tensorboard, options, verify_share=VERIFY_SHARE if verify else 0.0)


def _rungs(rungs: str | None, no_rungs: bool) -> Any:
    """Return the study's key ``rungs`` from ``--rungs`` and ``--no-rungs``.

    Raises:
        UsageError: The flags contradict each other.
    """
    if not no_rungs:
        return None if rungs is None else value_of(rungs)
    if rungs not in (None, "off"):
        raise UsageError(f"--no-rungs and --rungs {rungs} contradict each other; use one of them.")
    return "off"


def _engine_options(
    engine: str, ray_address: str | None, ray_storage: str | None, trust_network: bool
) -> dict[str, Any]:
    """Return the keywords of the engine from its flags.

    Raises:
        UsageError: A Ray flag is used with another engine, or the storage cannot be used.
    """
    given = {"address": ray_address, "storage": ray_storage, "trust_network": trust_network or None}
    options = {key: value for key, value in given.items() if value is not None}
    if options and engine != "ray":
        raise UsageError(
            f"--ray-address, --ray-storage and --trust-network are for --engine ray; the engine is {engine!r}."
        )
    if ray_storage is not None:
        from autodistill.engines.driving.remote_study import url_of

        options["storage"] = url_of(ray_storage)  # report a wrong URL before anything is written
    return options


def settings(texts: Sequence[str]) -> dict[str, Any]:
    """Parse ``--set KEY=VALUE``: a key of the space narrows the space, any other key sets a key of the study.

    Raises:
        ConfigError: Some texts cannot be parsed; all of them are listed.
    """
    from autodistill.config.study_file import StudyConfig

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
    """Parse the value of a flag as YAML; commas outside brackets make a list.

    Raises:
        ConfigError: The value is not valid YAML.
    """
    from autodistill.core import strict_yaml

    if "," in text and text.strip()[:1] not in ("[", "{", '"', "'"):
        return [value_of(part.strip()) for part in text.split(",") if part.strip()]
    return strict_yaml.load(text, "flag")[0] if text.strip() else ""


def flags_of(overrides: Mapping[str, Any]) -> dict[str, str]:
    """Map each key that is set to the flag that set it, for error messages."""
    restrictions = {f"set.{name}": f"--set {name}" for name in overrides.get("set") or ()}
    return restrictions | {
        key: _FLAGS.get(key, f"--{key}" if "." not in key else f"--set {key}")
        for key, value in overrides.items()
        if value is not None and key != "set"
    }


def _source_of(study: Path | None, directory: Path | None) -> tuple[Path | None, Path | None]:
    """Return the study file to read and the study's folder; either is ``None`` if no argument names it."""
    if study is None or not study.is_dir():
        return study, directory
    if directory is not None and directory.resolve() != study.resolve():
        raise UsageError(f"two study folders are given, {study} and --dir {directory}; give one.")
    from autodistill.search.storage.study_folder import is_study

    if not is_study(study):
        raise UsageError(
            f"{study} is not a study: it has no study.db. Give a study file, or use --dir for a new study."
        )
    return study / "study.yaml", study
