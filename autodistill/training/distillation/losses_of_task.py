"""The distillation losses that serve a task, and why others cannot teach it."""

from __future__ import annotations

from autodistill.core.errors import UsageError
from autodistill.core.records import MULTICLASS, MULTILABEL, TaskKind
from autodistill.core.registry import Registry
from autodistill.training.distillation.distillation_losses import loss_info, losses
from autodistill.training.distillation.loss_info import LossFunction, LossInfo, describe
from autodistill.training.distillation.multilabel_losses import infos, multilabel_losses


def losses_of(kind: TaskKind) -> Registry[LossFunction]:
    """Return the losses that serve a task: one class per image, or several labels per image."""
    return multilabel_losses if kind == MULTILABEL else losses


def info_of(name: str, kind: TaskKind = MULTICLASS) -> LossInfo:
    """Return keywords, ranges and published weights of a loss in the form that serves a task.

    Raises:
        UnknownNameError: no loss is registered as ``name``.
        UsageError: the loss cannot serve the task.
    """
    if reason := why_not(name, kind):
        raise UsageError(reason)
    if kind == MULTICLASS:
        return loss_info(name)
    function = multilabel_losses.get(name)
    return infos.get(name) or describe(function, name)


def least_classes(name: str, kind: TaskKind) -> int:
    """Return the smallest number of classes that a loss can teach; 2 for one that does not serve the task."""
    return info_of(name, kind).least_classes if name in losses_of(kind) else 2


def why_not(name: str, kind: TaskKind, classes: int | None = None) -> str:
    """Return why a loss cannot teach a task or a number of classes; empty if it can, or is not registered at all.

    Args:
        name: name of a distillation loss.
        kind: task of the study.
        classes: number of classes; ``None`` if it is not known.
    """
    registry, other = losses_of(kind), losses if kind == MULTILABEL else multilabel_losses
    if name not in registry:
        if name not in other:
            return ""
        return f"loss {name!r} cannot serve task: {kind}; allowed: {', '.join(registry.names())}."
    if name == "none" or classes is None:
        return ""
    info = info_of(name, kind)
    if classes >= info.least_classes:
        return ""
    reason = f": {info.why_least}" if info.why_least else ""
    return (
        f"loss {name!r} cannot teach {classes} classes, since it has no gradient there{reason}; it needs at least "
        f"{info.least_classes}."
    )
