"""Builds student networks from plain mappings such as ``{"family": "resnet", "width": 16, "depth": 2}``.

The families are in ``families/``. A student that cannot be built is infeasible and is not trained.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from autodistill.core.errors import (
    AutodistillError,
    InfeasibleError,
    UnknownNameError,
    UsageError,
    WeightsError,
    first_line,
)
from autodistill.training.students.families import Family, Shape, families
from autodistill.training.students.matching import copy_fitting
from autodistill.training.students.resolution import RESOLUTION, resolution_of, side_of
from autodistill.training.weights.loading import LoadedWeights

__all__ = ["build_student", "check_student", "describe", "families", "validate"]

TIMM = "timm"
"""Family of all other timm networks, given by name: ``{"family": "timm", "model": "tiny_vit_5m_224"}``."""


def validate(student: Mapping[str, Any], *, image_size: int | None = None) -> dict[str, Any]:
    """Check a student and return it with all parameters of its family, without building it.

    Args:
        student: family and parameters; missing parameters get their defaults.
        image_size: pixels per side, to check whether the family takes this size; ``None`` skips the check.

    Raises:
        UnknownNameError: The family, a parameter or the timm network does not exist. The message lists the nearest.
        UsageError: A value has the wrong type or is out of bounds, or the family does not take this image size.
    """
    if "family" not in student:
        raise UsageError(f"student {dict(student)} names no family; give one of {', '.join(families.names())}.")
    name = student["family"]
    if name == TIMM:
        return _validate_timm(student)
    entry = _family(name)
    where = f"student.{name}"
    for key in student:
        if key not in ("family", RESOLUTION) and entry.parameter(key) is None:
            names = [*(one.name for one in entry.parameters), RESOLUTION]
            raise UnknownNameError(f"parameter of family {name}", key, names)
    out: dict[str, Any] = {"family": name}
    for one in entry.parameters:
        out[one.name] = one.check(student.get(one.name, one.default), where)
    resolution = resolution_of(student)
    side = resolution or image_size
    if side is not None and not entry.smallest <= side <= entry.largest:
        setting = "data.image_size" if resolution is None else "student.resolution"
        raise UsageError(
            f"family {name} takes images of {entry.smallest} to {entry.largest} px, got {side}; "
            f"choose another family or {setting}."
        )
    return out if resolution is None else {**out, RESOLUTION: resolution}


def build_student(
    student: Mapping[str, Any],
    *,
    image_size: int,
    channels: int,
    num_classes: int,
    weights: LoadedWeights | None = None,
    seed: int = 0,
) -> nn.Module:
    """Build the network of ``student``, in training mode, on the CPU.

    Args:
        student: family and parameters.
        image_size: pixels per side of the study's images; those of the input, if the student has no resolution.
        channels: channels of the input.
        num_classes: number of logits.
        weights: weights to start from (``starting_weights.read_for``). They have to fit a named variant or a network of
            ``timm``; a family of free width gets the slices that fit.
        seed: seed of the initial weights; the state of the global generator is restored.

    Returns:
        A module that maps floats ``(n, channels, side, side)`` to logits ``(n, num_classes)``; the side is that of
        ``resolution.side_of``.

    Raises:
        UsageError: The student is invalid (see ``validate``).
        WeightsError: The weights do not fit the network.
        InfeasibleError: The network cannot be built for these images, or its resolution is larger than they are.
    """
    filled = validate(student)
    side = side_of(student, image_size)
    name = filled["family"]
    free = name != TIMM and not _family(name).pretrained
    shape = Shape(side, channels, num_classes, None if free else weights)
    if name != TIMM:
        entry = _family(name)
        if not entry.smallest <= side <= entry.largest:
            raise InfeasibleError(f"family {name} takes {entry.smallest} to {entry.largest} px, not {side}.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model = _build_timm(filled, shape) if name == TIMM else _family(name).build(filled, shape)
        except (AutodistillError, MemoryError):
            raise
        except Exception as error:
            raise InfeasibleError(_build_error(filled, shape, error)) from error
    if free and weights is not None:
        copied = copy_fitting(model, weights.tensors, same_classes=weights.keeps_classifier)
        if not copied.layers:
            raise WeightsError(f"no layer of {describe(filled)} fits the weights {weights.source.text}.")
    return model.train()


def check_student(student: Mapping[str, Any], *, image_size: int, channels: int, num_classes: int) -> None:
    """Check that ``student`` can be built and trained, by one training step on two random images.

    Raises:
        InfeasibleError: The student cannot be built, or its forward or backward pass fails.
    """
    model = build_student(student, image_size=image_size, channels=channels, num_classes=num_classes)
    step(
        model,
        image_size=side_of(student, image_size),
        channels=channels,
        num_classes=num_classes,
        name=describe(student),
    )


def step(model: nn.Module, *, image_size: int, channels: int, num_classes: int, name: str = "student") -> None:
    """Run one forward and backward pass of ``model`` on two random images; gradients are cleared afterwards.

    Raises:
        InfeasibleError: A pass fails, the logits have another shape, or the loss is not finite.
    """
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, channels, image_size, image_size, generator=generator)
    with torch.random.fork_rng(devices=[]):
        try:
            logits = model(images)
            loss = logits.float().square().mean()
            loss.backward()
        except Exception as error:
            where = f"on {channels} x {image_size} x {image_size} px"
            raise InfeasibleError(f"{name} fails {where}: {first_line(error)}") from error
    model.zero_grad(set_to_none=True)
    if tuple(logits.shape) != (2, num_classes) or not math.isfinite(loss.item()):
        raise InfeasibleError(f"{name} gives logits {tuple(logits.shape)}, not finite (2, {num_classes}).")


def describe(student: Mapping[str, Any]) -> str:
    """Return a short name for display, e.g. ``resnet w16 d2``; width and depth are always included.

    Other parameters are left out if they have their default.
    """
    name = str(student.get("family", "?"))
    seen = f" {student[RESOLUTION]} px" if RESOLUTION in student else ""
    if name == TIMM:
        return str(student.get("model", TIMM)) + seen
    if name not in families:
        return name
    if "variant" in student:
        name = str(student["variant"])
    entry = families.get(str(student["family"]))
    parts = [name]
    for one in entry.parameters:
        value = student.get(one.name, one.default)
        if one.name in {"width", "depth"}:
            parts.append(f"{one.name[0]}{value}")
        elif one.name != "variant" and value != one.default:
            parts.append(one.name if value is True else f"no-{one.name}" if value is False else f"{one.name} {value}")
    return " ".join(parts) + seen


def _family(name: Any) -> Family:
    if isinstance(name, str) and name in families:
        return families.get(name)
    raise UnknownNameError("student family", name, [*families.names(), TIMM])


def _validate_timm(student: Mapping[str, Any]) -> dict[str, Any]:
    """Do the work of ``validate`` for the family ``timm``."""
    import timm

    for key in student:
        if key not in {"family", "model", RESOLUTION}:
            raise UnknownNameError("parameter of family timm", key, ["model", RESOLUTION])
    model = student.get("model")
    known = timm.list_models()
    if not isinstance(model, str) or model.split(".")[0] not in known:
        raise UnknownNameError("timm network (student.model)", model, known)
    resolution = resolution_of(student)
    return {"family": TIMM, "model": model, **({} if resolution is None else {RESOLUTION: resolution})}


def _build_timm(student: Mapping[str, Any], shape: Shape) -> nn.Module:
    """Build a timm network by name; the image size is passed to networks that take it."""
    from autodistill.training.students.families.timm_models import create

    try:
        return create(student["model"], shape, img_size=shape.image_size)
    except TypeError:  # most convolutional networks take any size and have no such keyword
        return create(student["model"], shape)


def _build_error(student: Mapping[str, Any], shape: Shape, error: Exception) -> str:
    where = f"for {shape.channels} x {shape.image_size} x {shape.image_size} px"
    return f"{describe(student)} cannot be built {where}: {first_line(error)}"
