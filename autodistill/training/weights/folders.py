"""Folders in which autodistill keeps a network: of ``teach``, of a finished trial, and of ``export``.

Each holds the weights and the facts from which the network is built again. Reading one runs no code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from autodistill.core.errors import StoreError, WeightsError
from autodistill.core.records import MULTICLASS
from autodistill.training.runtime.durable_files import MANIFEST, read_folder, tensors_from
from autodistill.training.weights.files import SUFFIXES, read_weights, within

TEACHER_JSON, TEACHER_WEIGHTS = "teacher.json", "teacher.safetensors"
STUDENT_JSON, STUDENT_WEIGHTS = "student.json", "student.safetensors"
CONFIG, WEIGHTS = "config.json", "model.safetensors"
"""Facts and weights in a folder that timm reads too, of ``export`` or of another program."""

BESIDE = {TEACHER_WEIGHTS: TEACHER_JSON, STUDENT_WEIGHTS: STUDENT_JSON, WEIGHTS: CONFIG}
"""File with the weights, to the file with the facts."""

PROVENANCE = "provenance.json"
"""What ``export`` knows of the origin of a student."""

STUDENT = "student"
"""Folder of a finished student, inside that of its trial."""

ARCHITECTURE = "autodistill_student"
"""Name under which timm builds a student that only autodistill can build."""

_TEACHER = "teacher"  # folder of a study's own teacher, inside that of the study
_STUDY = "study.yaml"
_PREFERRED = (WEIGHTS, "pytorch_model.bin", "pytorch_model.pth", "model.pth")  # as in timm


def trial_folder(directory: str | Path, number: int) -> Path:
    """Return the folder of trial ``number`` of the study in ``directory``."""
    return Path(directory) / "checkpoints" / f"trial-{number:05d}"


@dataclass(frozen=True)
class StoredNetwork:
    """A network in a folder.

    Attributes:
        file: the file with its weights.
        student: family and parameters; ``None`` if only timm knows the network.
        name: name of the network in timm; empty if only autodistill knows it.
        arguments: further keywords with which timm builds it.
        image_size: pixels per side of its input; ``None`` if unknown, as are the next five.
        channels: channels of its input.
        mean: mean per channel that its input is normalized with.
        std: standard deviation per channel.
        classes: names of its classes.
        count: number of its classes.
        licence: licence of its weights; empty if unknown.
        verified: whether the folder has a manifest with the hashes of its files.
        task: task that it was trained for, ``multiclass`` or ``multilabel``; empty if unknown.
    """

    file: Path
    student: Mapping[str, Any] | None = None
    name: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    image_size: int | None = None
    channels: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    classes: tuple[str, ...] | None = None
    count: int | None = None
    licence: str = ""
    verified: bool = False
    task: str = ""

    def tensors(self) -> dict[str, Tensor]:
        """Read the weights; files with a manifest are compared with it first.

        Raises:
            WeightsError: a file is missing or damaged.
        """
        if not self.verified:
            return read_weights(self.file)
        try:
            return dict(tensors_from(read_folder(self.file.parent)[0][self.file.name]))
        except (StoreError, KeyError, ValueError) as error:
            raise WeightsError(f"weights {self.file}: {error}") from error


def find_network(path: Path) -> StoredNetwork:
    """Find the network that a folder holds, or that one of its files belongs to.

    Args:
        path: a folder of ``teach`` or ``export``, of a study that trained its own teacher, or of a finished trial; any
            folder with a ``config.json`` of timm; or one of the files in such a folder.

    Raises:
        WeightsError: the folder does not exist or holds no network. The message says what was expected.
    """
    folder = path.parent if path.name in (TEACHER_JSON, TEACHER_WEIGHTS, STUDENT_JSON, STUDENT_WEIGHTS) else path
    if not folder.is_dir():
        raise WeightsError(f"weights {path}: that folder does not exist.")
    for place, facts, weights in (
        (folder, TEACHER_JSON, TEACHER_WEIGHTS),
        (folder, STUDENT_JSON, STUDENT_WEIGHTS),
        (folder / STUDENT, STUDENT_JSON, STUDENT_WEIGHTS),
        (folder / _TEACHER, TEACHER_JSON, TEACHER_WEIGHTS),
    ):
        if (place / facts).is_file():
            return _own(place, facts, weights)
    if (folder / CONFIG).is_file():
        return read_config(folder, weight_file(folder))
    if (folder / _STUDY).is_file():
        raise WeightsError(f"weights {path}: a study has many networks; name a trial, such as {path}#12.")
    raise WeightsError(
        f"weights {path}: that is a folder; {within(folder)} A folder with a network is one of 'autodistill teach' or "
        f"'autodistill export', or has {CONFIG} and {WEIGHTS}."
    )


def find_trial(directory: Path, number: int) -> StoredNetwork:
    """Find the finished student of a trial.

    Raises:
        WeightsError: there is no such study, or the trial has no finished student.
    """
    if not (directory / _STUDY).is_file():
        raise WeightsError(f"weights {directory}#{number}: {directory} is not a study (it has no {_STUDY}).")
    folder = trial_folder(directory, number) / STUDENT
    if not (folder / STUDENT_JSON).is_file():
        have = sorted(
            int(one.parent.name.rpartition("-")[2]) for one in directory.glob(f"checkpoints/trial-*/{STUDENT}")
        )
        listed = ", ".join(map(str, have[:10])) + (", …" if len(have) > 10 else "")
        raise WeightsError(
            f"weights {directory}#{number}: trial {number} has no finished student. Trials that have: "
            f"{listed or 'none'}."
        )
    return find_network(folder)


def _own(folder: Path, facts_name: str, weights_name: str) -> StoredNetwork:
    """Read the facts that autodistill wrote beside a network."""
    try:
        facts = json.loads((folder / facts_name).read_bytes())
        made = facts.get("weights", {})  # absent in folders of older versions
        return StoredNetwork(
            folder / weights_name,
            student=dict(facts["architecture"]),
            image_size=int(facts["image_size"]),
            channels=int(facts["channels"]),
            mean=tuple(map(float, facts["mean"])),
            std=tuple(map(float, facts["std"])),
            classes=tuple(map(str, facts["classes"])),
            count=len(facts["classes"]),
            licence="own" if made is None else str(made.get("licence", "")),
            verified=(folder / MANIFEST).is_file(),
            task=str(facts.get("task", MULTICLASS)),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"weights {folder} are incomplete or damaged: {type(error).__name__} {error}.") from error


def read_config(folder: Path, file: Path) -> StoredNetwork:
    """Read the ``config.json`` of a folder in the format of timm's ``local-dir:``.

    Args:
        folder: folder of the configuration.
        file: file with the weights, which need not be there yet.

    Raises:
        WeightsError: the configuration cannot be read.
    """
    from timm.models._hub import load_model_config_from_path

    try:
        config, name, arguments = load_model_config_from_path(folder)
        arguments = dict(arguments or {})
        channels, side = config.get("input_size", (3, None))[0], config.get("input_size", (3, None))[-1]
        arguments.pop("in_chans", None)
        arguments.pop("num_classes", None)
        student = arguments.get("student") if name == ARCHITECTURE else _exported(folder)
        labels = config.get("label_names")
        return StoredNetwork(
            file,
            student=dict(student) if student is not None else None,
            name="" if name == ARCHITECTURE else str(name),
            arguments={} if name == ARCHITECTURE else arguments,
            image_size=None if side is None else int(side),
            channels=int(channels),
            mean=tuple(map(float, config["mean"])) if config.get("mean") else None,
            std=tuple(map(float, config["std"])) if config.get("std") else None,
            classes=tuple(map(str, labels)) if isinstance(labels, list) else None,
            count=None if config.get("num_classes") is None else int(config["num_classes"]),
            licence=str(config.get("license") or _started_from(folder) or card_licence(folder / "README.md")).lower(),
            verified=(folder / MANIFEST).is_file(),
            task=str(_provenance(folder).get("task", "")),
        )
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise WeightsError(f"weights {folder}: {CONFIG} cannot be read: {type(error).__name__} {error}.") from error


def _exported(folder: Path) -> Mapping[str, Any] | None:
    """Return family and parameters of a student, from what ``export`` wrote beside it; ``None`` without it."""
    found = _provenance(folder).get("student")
    return found if isinstance(found, Mapping) else None


def _started_from(folder: Path) -> str:
    """Return the licence of the weights that an exported student started from; empty if unknown."""
    found = _provenance(folder).get("initial_weights", {})
    return "own" if found is None else str(found.get("licence", "")) if isinstance(found, Mapping) else ""


def _provenance(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / PROVENANCE).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def weight_file(folder: Path) -> Path:
    """Return the file with the weights in a folder that timm reads; of several, the one that timm takes.

    Raises:
        WeightsError: there is none.
    """
    named = [folder / name for name in _PREFERRED if (folder / name).is_file()]
    others = sorted(
        (one for one in folder.iterdir() if one.suffix in SUFFIXES), key=lambda one: SUFFIXES.index(one.suffix)
    )
    if not named and not others:
        raise WeightsError(f"weights {folder}: there is a {CONFIG}, but no file with weights; expected {WEIGHTS}.")
    return (named or others)[0]


def card_licence(card: Path) -> str:
    """Return the licence in the front matter of a model card; empty if there is none."""
    from autodistill.core import strict_yaml
    from autodistill.core.errors import AutodistillError

    try:
        text = card.read_text(encoding="utf-8")
        if not text.startswith("---"):
            return ""
        matter, _ = strict_yaml.load(text.split("---", 2)[1], str(card))
    except (OSError, UnicodeDecodeError, IndexError, AutodistillError):
        return ""
    found = matter.get("license") if isinstance(matter, Mapping) else None
    return found.lower() if isinstance(found, str) else ""
