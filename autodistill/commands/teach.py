"""``autodistill teach``: trains or fine-tunes a teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autodistill.commands.console.output import command, number, print_json, say
from autodistill.commands.console.reading import (
    DataOption,
    DataRootOption,
    DropDuplicatesOption,
    ResizeOption,
    TrainSizeOption,
)
from autodistill.commands.console.this_command import this_command
from autodistill.commands.search import flags_of, value_of
from autodistill.commands.search import settings as parsed
from autodistill.core.errors import ConfigError, InterruptedTrialError, UsageError
from autodistill.core.records import MULTILABEL, DataSpec

if TYPE_CHECKING:
    from autodistill.config.study_file import StudyConfig

TEACH = """
  autodistill teach --data fashion_mnist --data-root data/fashion --dir teachers/fashion
  autodistill teach --data manifest --data-root labels.csv --image-size 64
  autodistill teach --data image_folder --data-root photos --image-size 64 --model resnet18 --pretrained
  autodistill teach --data image_folder --data-root photos --weights teachers/shapes --dir teachers/photos
  autodistill teach --data image_folder --data-root photos --model vit_small_patch14_dinov2 --freeze
"""
_OWN_SIZE = ("digits", "fashion_mnist", "cifar10", "cifar100", "synthetic", "synthetic_scenes")
"""Sources whose images have a size of their own; those of others are scaled."""


def teach(
    data: DataOption = None,
    data_root: DataRootOption = None,
    image_size: Annotated[
        int | None,
        typer.Option(metavar="PX", help="Side of the square input, in pixels. Default: the source's own."),
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
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="A timm model. Default: a residual network that fits the image size."),
    ] = None,
    pretrained: Annotated[
        bool, typer.Option("--pretrained", help="Start from timm's pretrained weights (downloads them).")
    ] = False,
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="Start from these weights: a timm name, hf-hub:OWNER/NAME, local-dir:DIR, a file, a folder of teach "
            "or export, or a trial, STUDY#12.",
        ),
    ] = None,
    freeze: Annotated[
        bool,
        typer.Option(
            "--freeze",
            help="Keep the pretrained --model as it is and fit a classifier to its features, computed once per view.",
        ),
    ] = False,
    unfreeze: Annotated[
        int, typer.Option(metavar="N", min=0, help="With --freeze: train the whole network for N epochs afterwards.")
    ] = 0,
    input_size: Annotated[
        int | None,
        typer.Option(
            metavar="PX", min=8, help="With --freeze: side of the network's input. Default: by image size and patches."
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(metavar="N", help="Length of the training. Default: by number and size of the images.", min=1),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="A training setting (lr=0.004), or a key of the data (data.options.label=kind). May be repeated.",
        ),
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
        "data.drop_duplicates": drop_duplicates or None,
        "task": task,
    }
    texts = [text for text in set_ or [] if text.startswith("data.")]
    given = _flags(keys, texts)
    keys |= parsed(texts)
    config = StudyConfig.load(None, keys, flags=flags_of(keys))
    if config.data is None:
        raise UsageError("a teacher is trained on images, but no data source is given; add --data.")
    from autodistill.training.data import datasets

    datasets.check_task(config.data, config.task)
    datasets.check_source(config.data)  # before torch, which takes seconds to load
    spec = config.data
    if pretrained or weights:
        spec = _sized(spec, model, weights, pretrained=pretrained)
        if spec != config.data:
            given += ["--image-size", spec.image_size]
    folder = directory or Path("teachers") / config.name
    settings = {
        "epochs": epochs,
        "recipe": _recipe([text for text in set_ or [] if text not in texts]),
        "pretrained": pretrained,
        "weights": weights,
        "freeze": freeze,
        "unfreeze": unfreeze,
        "input_size": input_size,
        "seed": seed,
        "replace": replace,
    }
    facts = _teach(config.model_copy(update={"data": spec}), model, folder, device or _device(), settings)
    shown = "mAP", facts.get("average_precision")
    if config.task != MULTILABEL:
        shown = "accuracy", facts["accuracy"]
    if as_json:
        print_json(facts)
    say(f"teacher in {folder}: validation {shown[0]} {number(shown[1], 'fraction')}")
    say("next:\n  " + command("search", *given, "--teacher", folder, "--budget", "30m"))


def _sized(data: DataSpec, model: str | None, weights: str | None, *, pretrained: bool) -> DataSpec:
    """Check that the weights can be had, and return the images at the size that they were trained with.

    The size of the images is only chosen where neither the user nor the source does.

    Raises:
        UsageError: The weights do not exist or do not name their network, or the hub cannot be reached.
    """
    from autodistill.training.weights import hub

    hub.ask()  # answered while torch is loaded
    from autodistill.training.trials.teach import require_weights, starting_network

    _, source = starting_network(model, weights, pretrained=pretrained, image_size=data.image_size or 0)
    require_weights(source, pretrained=pretrained and not weights)
    side = None if source is None else source.image_size
    if data.image_size is not None or side is None or data.source in _OWN_SIZE or ":" in data.source:
        return data
    say(f"images of {side} px, as the weights were trained with; --image-size chooses another size")
    return replace(data, image_size=side)


def _flags(keys: Mapping[str, Any], texts: Sequence[str]) -> list[Any]:
    """Return the flags that set the keys of the data again, as parts of a command."""
    flags = flags_of(keys)
    out: list[Any] = []
    for key, value in keys.items():
        if value is not None:
            out += [flags[key]] if value is True else [flags[key], value]
    return [*out, *(part for text in texts for part in ("--set", text))]


def _teach(
    config: StudyConfig, model: str | None, folder: Path, device: str, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Read the images, train the teacher with progress, and check the finished teacher.

    Args:
        config: The images and their task.
        model: Name of a timm model; ``None`` for the default.
        folder: Folder of the teacher.
        device: Torch device of the training.
        settings: Further keywords of ``training.trials.teach.teach``.

    Returns:
        Folder, validation accuracy, number of classes, and whether the teacher is weak.
    """
    data = config.data
    assert data is not None
    say(f"teacher in {folder}: reading {data.source}")
    from autodistill.engines.monitor.progress import Progress
    from autodistill.engines.monitor.teaching import TeachingProgress
    from autodistill.engines.monitor.watch import Snapshot, Watch
    from autodistill.training.data import datasets
    from autodistill.training.teachers import load as teachers
    from autodistill.training.teachers.checking import preflight
    from autodistill.training.trials.teach import teach as train

    with (
        Progress() as show,
        datasets.decoding_shown(
            lambda done, total: show(Snapshot("data", f"decoding images: {done:,} of {total:,}", done / total))
        ),
    ):
        datasets.check_files(data)
        images = datasets.load_images(data)
    datasets.check_task(data, config.task, images)
    datasets.warn_of_cut(data, images)
    datasets.check_parts(data, images)
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
    shown = found.values if found.several else {"accuracy": found.accuracy}
    return {"teacher": str(folder), **shown, "classes": len(images.classes), "weak": found.weak}


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
