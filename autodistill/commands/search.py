"""``autodistill search``: from flags and a study file to a running search, and what it says at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from autodistill.commands.console.reading import RUNS
from autodistill.commands.search_run import dry_run as show_plan
from autodistill.commands.search_run import run
from autodistill.config.problems import unknown_key
from autodistill.core.errors import ConfigError, UsageError

DEFAULT_BUDGET = "5m"
VERIFY_SHARE = 0.3  # of a time budget, with --verify
_SPACE_SECTIONS = ("student", "distillation", "train")
_FLAGS = {
    "data.root": "--data-root",
    "data.image_size": "--image-size",
    "data.train_size": "--train-size",
    "data.resize": "--resize",
    "teacher.weights": "--teacher-weights",
    "constraints": "--constraint",
    "slots_per_gpu": "--slots-per-gpu",
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
    resize: Annotated[
        str | None,
        typer.Option(metavar="HOW", help="crop, squash or letterbox: how images become square; crop by default."),
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
    within: Annotated[
        str | None,
        typer.Option(
            metavar="POINTS",
            help="Only students at most so many points of accuracy below the teacher, e.g. 5; off also seeks those "
            "more than 20 below.",
        ),
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
    slots_per_gpu: Annotated[
        str | None, typer.Option(metavar="N", help="Workers that share one GPU; auto measures how many fit.")
    ] = None,
    engine: Annotated[str | None, typer.Option(help="local or ray.")] = None,
    storage: Annotated[
        str | None,
        typer.Option(metavar="URL", help="A database server for the trials: postgresql://user@host/db, mysql://…"),
    ] = None,
    ray_address: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="A running Ray cluster, or auto on one of its nodes.")
    ] = None,
    ray_storage: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Where Ray's workers keep checkpoints, so that they need not see the study's folder: s3://…",
        ),
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
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write scalars and hparams per trial into DIR/tensorboard.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the configuration and an estimate; write nothing.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Verify the front at the end; three tenths of a time budget are kept back.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the front as JSON.")] = False,
) -> None:
    """Search students and how to distil them, until the budget is spent. The same command again resumes."""
    from autodistill.config.study_file import StudyConfig

    overrides = {
        "data": data,
        "data.root": data_root,
        "data.image_size": image_size,
        "data.train_size": train_size,
        "data.resize": resize,
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
            raise UsageError("--verify needs images; this study has an evaluation of its own.")
        options = _engine_options(config.engine, ray_address, ray_storage, trust_network)
        run(config, folder, as_json, tensorboard, options, verify_share=VERIFY_SHARE if verify else 0.0)


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


def _engine_options(
    engine: str, ray_address: str | None, ray_storage: str | None, trust_network: bool
) -> dict[str, Any]:
    """Keywords of the engine from its flags.

    Raises:
        UsageError: a flag of Ray's for another engine, or a storage that cannot be used.
    """
    given = {"address": ray_address, "storage": ray_storage, "trust_network": trust_network or None}
    options = {key: value for key, value in given.items() if value is not None}
    if options and engine != "ray":
        raise UsageError(
            f"--ray-address, --ray-storage and --trust-network are for --engine ray; the engine is {engine!r}."
        )
    if ray_storage is not None:
        from autodistill.engines.driving.remote_study import url_of

        options["storage"] = url_of(ray_storage)  # a wrong one is said before anything is written
    return options


def settings(texts: Sequence[str]) -> dict[str, Any]:
    """The overrides of ``--set KEY=VALUE``: a key of the space narrows it, any other one is a key of the study.

    Raises:
        ConfigError: all texts that are not understood.
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
    """A flag's value as YAML reads it; commas outside brackets make a list.

    Raises:
        ConfigError: it is not YAML.
    """
    from autodistill.core import strict_yaml

    if "," in text and text.strip()[:1] not in ("[", "{", '"', "'"):
        return [value_of(part.strip()) for part in text.split(",") if part.strip()]
    return strict_yaml.load(text, "flag")[0] if text.strip() else ""


def flags_of(overrides: Mapping[str, Any]) -> dict[str, str]:
    """Key to the flag it came from, for messages about it."""
    restrictions = {f"set.{name}": f"--set {name}" for name in overrides.get("set") or ()}
    return restrictions | {
        key: _FLAGS.get(key, f"--{key}" if "." not in key else f"--set {key}")
        for key, value in overrides.items()
        if value is not None and key != "set"
    }


def _source_of(study: Path | None, directory: Path | None) -> tuple[Path | None, Path | None]:
    """The study file to read, and the folder, where the arguments name one."""
    if study is None or not study.is_dir():
        return study, directory
    if directory is not None and directory.resolve() != study.resolve():
        raise UsageError(f"two study folders are given, {study} and --dir {directory}; keep one.")
    from autodistill.search.storage.study_folder import is_study

    if not is_study(study):
        raise UsageError(
            f"{study} is not a study: it has no study.db. Give a study file, or use --dir for a new study."
        )
    return study / "study.yaml", study
