"""What one training does, in types: a candidate's mappings are parsed here, once, at the entrance of a training.

A :class:`Candidate` carries plain mappings, because an evaluation of the user's own may have parameters of any name.
A training has a loss mix and a recipe. Everything below this module takes those.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from autodistill.core.records import MULTICLASS, Candidate, Params, TaskKind
from autodistill.training.distillation.loss_mix import TEACHER, LossMix
from autodistill.training.loop.recipe import Recipe


@dataclass(frozen=True)
class TrainingSpec:
    """The training of one candidate.

    Attributes:
        number: trial number in the study, from 0.
        student: architecture of the student.
        mix: settings of the minimised loss.
        recipe: settings of the training.
        teacher: name of the teacher among several; ``None`` for the study's first or only one.
        seed: random seed of the trial.
        start_rung: highest rung that is already reported; above 0 if the trial continues from its checkpoint.
        settings_key: key of student, loss mix and recipe as they were proposed; see ``Candidate.key``.
        proposed: the sections ``distillation`` and ``train`` as they were proposed, for the files of the student.
    """

    number: int
    student: Params
    mix: LossMix
    recipe: Recipe
    teacher: str | None
    seed: int
    start_rung: int
    settings_key: str
    proposed: Mapping[str, Params] = field(default_factory=dict)

    @staticmethod
    def of(candidate: Candidate, shared: Mapping[str, Any], *, kind: TaskKind = MULTICLASS) -> TrainingSpec:
        """Parse a candidate.

        Args:
            candidate: candidate of a study that trains students.
            shared: settings shared by all trials (``Task.training``); those of the candidate override them. The label
                smoothing of the recipe is that of the loss mix, unless the mix has its own.
            kind: task of the study: one class per image, or any number of labels.

        Raises:
            UnknownNameError: a key, loss, term, policy or optimizer does not exist.
            UsageError: a value has the wrong type, is out of range, or would have no effect.
        """
        recipe = Recipe.parse(shared, candidate.train, kind=kind)
        return TrainingSpec(
            number=candidate.number,
            student=candidate.student,
            mix=LossMix.parse({"label_smoothing": recipe.label_smoothing, **candidate.distillation}, kind=kind),
            recipe=recipe,
            teacher=candidate.distillation.get(TEACHER),
            seed=candidate.seed,
            start_rung=candidate.start_rung,
            settings_key=candidate.key(),
            proposed={"distillation": dict(candidate.distillation), "train": dict(candidate.train)},
        )
