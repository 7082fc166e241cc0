"""Options of a teacher: their meaning, and the refusal of options that its kind would ignore."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from autodistill.core.errors import UnknownNameError, UsageError
from autodistill.core.records import TeacherSpec
from autodistill.core.teacher_choice import INPUT
from autodistill.training.data.datasets import ImageData
from autodistill.training.teachers.teacher import Preprocessing


def expected(spec: TeacherSpec, default: Preprocessing, data: ImageData) -> Preprocessing:
    """Return the preprocessing that the network expects: ``default``, overridden by the options.

    Raises:
        UsageError: a value is invalid, or the length of ``class_map`` differs from the number of classes of ``data``.
    """
    found = default.override({key: value for key, value in spec.options.items() if key in INPUT})
    if len(found.class_map) not in (0, len(data.classes)):
        raise UsageError(f"class_map has {len(found.class_map)} entries; expected {len(data.classes)}.")
    return found


def keywords(spec: TeacherSpec) -> dict[str, Any]:
    """Return the options that are passed to the architecture or the factory."""
    return {key: value for key, value in spec.options.items() if key not in INPUT}


def check_options(spec: TeacherSpec, kind: str, allowed: Sequence[str]) -> None:
    """Refuse options and weights that a teacher of this ``kind`` would ignore.

    Raises:
        UnknownNameError: an option is unknown; the message names the nearest ones.
        UsageError: weights are given.
    """
    refuse_weights(spec, f"{kind} needs none")
    for name in spec.options:
        if name not in allowed:
            raise UnknownNameError(f"option of the teacher {spec.source} ({kind})", name, allowed)


def refuse_weights(spec: TeacherSpec, why: str) -> None:
    """Refuse weights that would be ignored, for the reason ``why``.

    Raises:
        UsageError: weights are given.
    """
    if spec.weights is not None:
        raise UsageError(f"teacher {spec.source} has the weights {spec.weights}, but {why}: leave them out.")


def only_cpu(spec: TeacherSpec, what: str) -> None:
    """Refuse any device other than the CPU.

    Raises:
        UsageError: another device is given.
    """
    if spec.device not in (None, "cpu"):
        raise UsageError(f"teacher.device is {spec.device!r}; {what} runs on the CPU, leave the key out.")


def members_of(spec: TeacherSpec) -> list[TeacherSpec]:
    """Return the members of an ensemble.

    Raises:
        UsageError: no members are given, or one has unknown keys.
    """
    given = spec.options.get("members")
    if not isinstance(given, list | tuple) or not given:
        raise UsageError("an ensemble needs options.members, a list such as [{source: runs/a}, {source: runs/b}].")
    try:
        return [TeacherSpec(**one) if isinstance(one, Mapping) else TeacherSpec(str(one)) for one in given]
    except TypeError as error:
        raise UsageError(f"a member of the ensemble {list(given)}: {error}.") from error
