"""Loading of networks from an exported folder, a trial or a verification."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from autodistill.core.errors import UsageError
from autodistill.search.results.verified import verified_folder

if TYPE_CHECKING:
    from torch import nn


def load(folder: str | Path) -> nn.Module:
    """Load the network of an exported folder, in eval mode on the CPU.

    Every file is compared with its SHA-256 in the folder's manifest before it is parsed; loading never runs code from
    the folder.

    Args:
        folder: folder written by ``autodistill export`` with the format ``safetensors``.

    Returns:
        A module whose input is images ``(n, channels, side, side)``, normalized as described in ``preprocess.json``.

    Raises:
        UsageError: the folder holds no exported student, or one that is not a torch network.
        StoreError: a file is damaged.
    """
    from autodistill.training.deployed.timm_files import CONFIG, WEIGHTS, read_timm
    from autodistill.training.runtime.durable_files import MANIFEST, read_folder

    path = Path(folder)
    if not (path / MANIFEST).is_file():
        raise UsageError(
            f"{path} is not an exported student: it has no {MANIFEST}. Write one with 'autodistill export'."
        )
    files, made = read_folder(path)
    if (variant := made.get("variant", "fp32")) != "fp32":
        raise UsageError(
            f"{path} holds the {variant} form of trial {made['trial']}, which is not a torch network; run its "
            f"predict.py or its ONNX file. For a torch network, export again with --trial {made['trial']}."
        )
    if CONFIG not in files or WEIGHTS not in files:
        raise UsageError(f"{path} holds no {WEIGHTS}; export it again with the format safetensors.")
    return read_timm(path)


def load_trial(directory: str | Path, number: int) -> nn.Module:
    """Load the finished student of a trial, in eval mode on the CPU.

    Raises:
        StoreError: the trial has no finished student, or the student is damaged.
    """
    from autodistill.training.trials.trial_files import load_student

    return load_student(directory, number)


def load_verified(directory: str | Path, trial: int) -> nn.Module:
    """Load the verified student of a trial in eval mode on the CPU; its seed is the first, so it is not selected.

    Raises:
        UsageError: the trial was not verified.
        StoreError: the weights are missing or damaged.
    """
    from autodistill.training.trials.retraining import load_run

    return load_run(verified_folder(directory, trial))[0]


def verified_facts(directory: str | Path, trial: int) -> dict[str, Any]:
    """Read the facts of the student of :func:`load_verified`, with the keys of ``trial_files.student_facts``.

    Raises:
        UsageError: the trial was not verified.
        StoreError: the files are missing or damaged.
    """
    from autodistill.training.trials.retraining import load_run

    return load_run(verified_folder(directory, trial))[1]
