"""Several teachers of which the search chooses one for each trial: ``teacher: [runs/a, runs/b]`` in a study file.

The list becomes one ``TeacherSpec`` with the source ``choice``, and the space gets a parameter ``distillation.teacher``
with the teachers' names, asked for wherever the loss is not ``none``. Light: the search, the training and the
configuration all read it. An *ensemble* is another thing: one teacher that is the mean of several.
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
"""Options that say which of a teacher's outputs the classes are, and what these are."""

INPUT = ("image_size", "channels", "mean", "std", *ANSWER)
"""Options that every teacher takes: what it is fed, and how its outputs are read."""


def from_list(value: Any) -> Any:
    """A list of teachers as the mapping of one choice; anything else as it is."""
    return {"source": CHOICE, "options": {"members": list(value)}} if isinstance(value, (list, tuple)) else value


def members(spec: TeacherSpec) -> dict[str, TeacherSpec]:
    """The teachers to choose from by name: the last part of their weights or source, made unique by a number.

    A spec that is no choice is its own only member, called by an empty name.

    Raises:
        UsageError: fewer than two, one that is itself a choice or has to be taught, or unknown keys.
        UnknownNameError: an option that none of them would see.
    """
    if spec.source != CHOICE:
        return {"": spec}
    for name in spec.options:
        if name != "members":
            hint = "Write the options of one of several teachers with that one: {source: NAME, options: {…}}."
            raise UnknownNameError("option of several teachers", name, ("members",), hint)
    given = spec.options.get("members", ())
    if not isinstance(given, (list, tuple)) or len(given) < 2:
        raise UsageError(f"teacher is a list of {len(given)}; a choice needs at least two, else give the one itself.")
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
    """Whether every teacher of ``spec`` may be no better than chance."""
    return spec.accept_weak or all(one.accept_weak for one in members(spec).values())


def member(spec: TeacherSpec, name: str | None) -> TeacherSpec:
    """The teacher called ``name``; the first one where a trial names none.

    Raises:
        UnknownNameError: there is no such teacher in the study.
    """
    found = members(spec)
    if name is None:
        return next(iter(found.values()))
    if name not in found or not name:
        raise UnknownNameError("teacher of the study", name, [one for one in found if one])
    return found[name]


def with_parameter(space: Mapping[str, Any], spec: TeacherSpec) -> dict[str, Any]:
    """``space`` with ``distillation.teacher``, where ``spec`` is a choice and the space does not have it already."""
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
            f"teacher {one.source!r} cannot be one of several; `autodistill teach` makes one that can be listed."
        )
    return one
