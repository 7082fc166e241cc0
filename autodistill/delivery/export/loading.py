"""Reads networks back: of an exported folder, and of a trial."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from autodistill.core.errors import UsageError
from autodistill.search.results.verified import verified_folder

if TYPE_CHECKING:
    from torch import nn


def load(folder: str | Path) -> nn.Module:
    """The network of an exported folder, in eval mode, on the CPU.

    Every file is compared with the SHA-256 in the folder's manifest before it is parsed; nothing in it can run code.

    Args:
        folder: made by ``autodistill export`` with the format ``safetensors``.

    Returns:
        A module that takes images normalized as ``preprocess.json`` says, ``(n, channels, side, side)``.

    Raises:
        UsageError: there is no exported student in it, or one in another form than a torch network.
        StoreError: a file is damaged.
    """
    from autodistill.training.deployed.timm_files import CONFIG, WEIGHTS, read_timm
    from autodistill.training.runtime.durable_files import MANIFEST, read_folder

    path = Path(folder)
    if not (path / MANIFEST).is_file():
        raise UsageError(
            f"{path} is not an exported student: it has no {MANIFEST}. Make one with 'autodistill export'."
        )
    files, made = read_folder(path)
    if (variant := made.get("variant", "fp32")) != "fp32":
        raise UsageError(
            f"{path} holds the {variant} form of trial {made['trial']}, which is no torch network; run predict.py "
            f"in it, or its ONNX file. For the network, export again with --trial {made['trial']}."
        )
    if CONFIG not in files or WEIGHTS not in files:
        raise UsageError(f"{path} holds no {WEIGHTS}; export it again with the format safetensors.")
    return read_timm(path)


def load_trial(directory: str | Path, number: int) -> nn.Module:
    """The finished student of a trial, in eval mode, on the CPU.

    Raises:
        StoreError: the trial has no finished student, or it is damaged.
    """
    from autodistill.training.trials.trial_files import load_student

    return load_student(directory, number)


def load_verified(directory: str | Path, trial: int) -> nn.Module:
    """The verified student of a trial (its first seed, which no result chose), in eval mode, on the CPU.

    Raises:
        UsageError: the trial was not verified.
        StoreError: its weights are missing or damaged.
    """
    from autodistill.training.trials.retraining import load_run

    return load_run(verified_folder(directory, trial))[0]


def verified_facts(directory: str | Path, trial: int) -> dict[str, Any]:
    """What is known of the student of :func:`load_verified`: the keys of ``training.trial_files.student_facts``.

    Raises:
        UsageError, StoreError: as there.
    """
    from autodistill.training.trials.retraining import load_run

    return load_run(verified_folder(directory, trial))[1]
