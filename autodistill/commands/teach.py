"""``autodistill teach``: trains or fine-tunes a teacher."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from autodistill.commands.console.output import command, number, print_json, say
from autodistill.commands.console.reading import DataOption, DataRootOption, ResizeOption, TrainSizeOption
from autodistill.commands.console.this_command import this_command
from autodistill.commands.search import flags_of, value_of
from autodistill.core.errors import ConfigError, InterruptedTrialError, UsageError
from autodistill.core.records import DataSpec

TEACH = """
  autodistill teach --data fashion_mnist --data-root data/fashion --dir teachers/fashion
  autodistill teach --data image_folder --data-root photos --image-size 64 --model resnet18 --pretrained
"""


def teach(
    data: DataOption = None,
    data_root: DataRootOption = None,
    image_size: Annotated[
        int | None,
        typer.Option(metavar="PX", help="Side of the square input, in pixels. Default: the source's own."),
    ] = None,
    train_size: TrainSizeOption = None,
    resize: ResizeOption = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="A timm model. Default: a residual network that fits the image size."),
    ] = None,
    pretrained: Annotated[
        bool, typer.Option("--pretrained", help="Start from timm's pretrained weights (downloads them).")
    ] = False,
    epochs: Annotated[
        int | None,
        typer.Option(metavar="N", help="Length of the training. Default: by number and size of the images.", min=1),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A training setting, e.g. lr=0.004. May be repeated."),
    ] = None,
    directory: Annotated[
        Path | None,
        typer.Option("--dir", "--out", metavar="DIR", help="Folder of the teacher. Default: teachers/DATA."),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Where to train: cpu, cuda, cuda:1 … Default: a GPU if there is one.")
    ] = None,
    seed: Annotated[
        int, typer.Option(metavar="N", min=0, help="Random seed of weights, image order and augmentation.")
    ] = 0,
    replace: Annotated[
        bool, typer.Option("--replace", help="Overwrite a finished teacher with other settings in the folder.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print folder and accuracy of the teacher as JSON.")] = False,
) -> None:
    """Train or fine-tune a teacher on your images. Run again to resume; a finished teacher is kept."""
    from autodistill.config.study_file import StudyConfig

    keys = {
        "data": data,
        "data.root": data_root,
        "data.image_size": image_size,
        "data.train_size": train_size,
        "data.resize": resize,
    }
    config = StudyConfig.load(None, keys, flags=flags_of(keys))
    if config.data is None:
        raise UsageError("a teacher is trained on images, but no data source is given; add --data.")
    from autodistill.training.data import datasets

    datasets.check_source(config.data)  # before torch, which takes seconds to load
    folder = directory or Path("teachers") / config.name
    settings = {
        "epochs": epochs,
        "recipe": _recipe(set_ or []),
        "pretrained": pretrained,
        "seed": seed,
        "replace": replace,
    }
    facts = _teach(config.data, model, folder, device or _device(), settings)
    if as_json:
        print_json(facts)
    say(f"teacher in {folder}: validation accuracy {number(facts['accuracy'], 'fraction')}")
    given = [part for key, value in keys.items() if value is not None for part in (flags_of(keys)[key], value)]
    say("next:\n  " + command("search", *given, "--teacher", folder, "--budget", "30m"))


def _teach(data: DataSpec, model: str | None, folder: Path, device: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Read the images, train the teacher with progress, and check the finished teacher.

    Args:
        data: The images.
        model: Name of a timm model; ``None`` for the default.
        folder: Folder of the teacher.
        device: Torch device of the training.
        settings: Further keywords of ``training.trials.teach.teach``.

    Returns:
        Folder, validation accuracy, number of classes, and whether the teacher is weak.
    """
    say(f"teacher in {folder}: reading {data.source}")
    from autodistill.engines.monitor.progress import Progress
    from autodistill.engines.monitor.teaching import TeachingProgress
    from autodistill.engines.monitor.watch import Snapshot, Watch
    from autodistill.training.data import datasets
    from autodistill.training.teachers import load as teachers
    from autodistill.training.teachers.checking import preflight
    from autodistill.training.trials.teach import teach as train

    datasets.check_files(data)
    images = datasets.load_images(data)
    datasets.warn_of_cut(data, images)
    watch, training = Watch(), TeachingProgress()
    with Progress() as show, watch.signals():

        def progress(epoch: float, length: float, metrics: Mapping[str, float]) -> None:
            show(Snapshot("teacher", training.words(epoch, length, metrics), epoch / length))

        try:
            spec = train(
                images, model, directory=folder, device=device, announce=say, progress=progress,
                should_stop=watch.should_stop, **settings,
            )  # fmt: skip
        except InterruptedTrialError as stopped:
            say(f"Stopped: {stopped} Continue: {this_command()}")
            raise typer.Exit(128 + (watch.signal or 2)) from None
    found = preflight.preflight(teachers.load_teacher(spec, images, device), images, accept_weak=True)
    for note in found.notes:
        say(f"note: {note}.")
    return {"teacher": str(folder), "accuracy": found.accuracy, "classes": len(images.classes), "weak": found.weak}


def _recipe(texts: list[str]) -> dict[str, Any]:
    """Parse training settings of ``--set KEY=VALUE``, with or without ``training.`` before the key.

    Raises:
        ConfigError: Some texts have no ``=``; all of them are listed.
    """
    problems = [f"--set {text!r}: write KEY=VALUE, e.g. lr=0.004" for text in texts if "=" not in text]
    if problems:
        raise ConfigError(problems, "the flags")
    pairs = (text.split("=", 1) for text in texts)
    return {key.removeprefix("training."): value_of(value) for key, value in pairs}


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
