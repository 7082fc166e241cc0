"""Choice among several teachers by the search, one per trial: ``teacher: [runs/a, runs/b]`` in a study file.

The list becomes one ``TeacherSpec`` with the source ``choice``, and the space gets a parameter ``distillation.teacher``
with the names of the teachers, active if the loss is not ``none``. An *ensemble* differs: it is one teacher, the mean
of several.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from autodistill.core.errors import UnknownNameError, UsageError
from autodistill.core.records import TeacherSpec

CHOICE = "choice"
PARAMETER = "teacher"
ANSWER = ("class_map", "outputs")
"""Options about a teacher's outputs: which of them are the classes, and whether they are e.g. logits."""

INPUT = ("image_size", "channels", "mean", "std", *ANSWER)
"""Options of every teacher, about its input and its outputs."""


def from_list(value: Any) -> Any:
    """Convert a list of teachers to the mapping of one choice; return anything else unchanged."""
    return {"source": CHOICE, "options": {"members": list(value)}} if isinstance(value, (list, tuple)) else value


def members(spec: TeacherSpec) -> dict[str, TeacherSpec]:
    """Return the teachers of a choice by name: the last part of their weights or source, made unique by a number.

    A spec that is not a choice is returned as its only member, with an empty name.

    Raises:
        UsageError: There are fewer than two teachers, one is itself a choice or must be trained first, or has unknown
            keys.
        UnknownNameError: The choice has an option, which no teacher would get.
    """
    if spec.source != CHOICE:
        return {"": spec}
    for name in spec.options:
        if name != "members":
            hint = "Write options with the teacher they belong to: {source: NAME, options: {…}}."
            raise UnknownNameError("option of several teachers", name, ("members",), hint)
    given = spec.options.get("members", ())
    if not isinstance(given, (list, tuple)) or len(given) < 2:
        raise UsageError(f"teacher is a list of {len(given)}; a choice needs at least two, give one without a list.")
    out: dict[str, TeacherSpec] = {}
    for member in given:
        one = _spec(member)
        name = label = PurePath(one.weights or one.source).name
        count = 2
        while name in out:
            name, count = f"{label}-{count}", count + 1
        out[name] = one
    return out


def accepts_weak(spec: TeacherSpec) -> bool:
    """Return whether every teacher of ``spec`` is accepted even if it is no better than chance."""
    return spec.accept_weak or all(one.accept_weak for one in members(spec).values())


def member(spec: TeacherSpec, name: str | None) -> TeacherSpec:
    """Return the teacher called ``name``; the first one if ``name`` is ``None``.

    Raises:
        UnknownNameError: The study has no such teacher.
    """
    found = members(spec)
    if name is None:
        return next(iter(found.values()))
    if name not in found or not name:
        raise UnknownNameError("teacher of the study", name, [one for one in found if one])
    return found[name]


def with_parameter(space: Mapping[str, Any], spec: TeacherSpec) -> dict[str, Any]:
    """Add the parameter ``distillation.teacher`` to ``space`` if ``spec`` is a choice and the space lacks it."""
    section = dict(space.get("distillation") or {})
    if spec.source != CHOICE or PARAMETER in section:
        return dict(space)
    names: Any = list(members(spec))
    losses = section.get("loss")
    losses = losses.get("values") if isinstance(losses, Mapping) else losses
    if isinstance(losses, (list, tuple)) and "none" in losses:
        rest = [loss for loss in losses if loss != "none"]
        names = {"values": names, "when": {"loss": rest}}
    return {**space, "distillation": {**section, PARAMETER: names}}


def _spec(value: Any) -> TeacherSpec:
    if isinstance(value, TeacherSpec):
        one = value
    else:
        try:
            one = TeacherSpec(**value) if isinstance(value, Mapping) else TeacherSpec(str(value))
        except TypeError as error:
            raise UsageError(f"teacher {value!r} of the list: {error}.") from error
    if one.source in (CHOICE, "auto"):
        raise UsageError(
            f"teacher {one.source!r} cannot be one of several; train a teacher with `autodistill teach` and list it."
        )
    return one
