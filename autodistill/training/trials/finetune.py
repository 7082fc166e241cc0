"""Fine-tuning of a network that was changed after its trial, with the trial's images, teacher cache and loss mix."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from autodistill.core.records import Candidate, Task, WorkerContext
from autodistill.training.deployed.pruning import Masks, apply_masks
from autodistill.training.runtime import measurement_lock
from autodistill.training.trials.evaluate import Trial, WorkerState
from autodistill.training.trials.starting_point import StartingPoint
from autodistill.training.trials.training_spec import TrainingSpec
from autodistill.training.trials.trial_files import student_facts


class FineTuner:
    """Fine-tunes changed networks of one trial.

    Args:
        task: task of the study.
        candidate: candidate of the trial.
        epochs: epochs of each fine-tuning, and length of its schedule.
        threads: CPU threads.
    """

    def __init__(self, task: Task, candidate: Candidate, *, epochs: int, threads: int = 1) -> None:
        spec = TrainingSpec.of(candidate, task.training, kind=task.kind)
        views = spec.recipe.cached_views(task.rungs[-1])  # as in the trial, to reuse its cache
        self.worker = WorkerState(replace(task, rungs=(epochs,)), WorkerContext(threads=threads))
        self.epochs = epochs
        # The learning rate is that of the trial, from warm-up to zero. With a smaller one accuracy recovered less after
        # pruning (digits, 30 % of the channels: 0.958 after six epochs, 0.903 at three tenths of the rate).
        recipe = replace(spec.recipe, views=views, freeze=0)  # the classifier is trained already
        self._trial = Trial(self.worker, replace(spec, recipe=recipe))
        facts = student_facts(task.directory, candidate.number)  # the weights it started from may be gone
        statistics = (tuple(facts["mean"]), tuple(facts["std"]))
        self._trial.__dict__["start"] = StartingPoint(spec.student, statistics)

    def train(
        self, model: nn.Module, masks: Masks | None = None, *, tick: Callable[[], None] = lambda: None
    ) -> nn.Module:
        """Train ``model`` and return it in eval mode on the CPU.

        Args:
            model: network to train; it is changed in place.
            masks: masks of weights that stay zero.
            tick: function called before every step; it may raise to stop the training there.

        Raises:
            DivergedError: the loss is not finite.
        """
        trainer = self._trial.trainer(model.train())

        def before_step() -> None:
            measurement_lock.yield_to_measurement(self.worker.devices, waiting=self.worker.waiting)
            tick()
            apply_masks(trainer.model, masks or {})

        try:
            trainer.run(self.epochs, tick=before_step)
        finally:
            measurement_lock.release()
        out = trainer.evaluation_model().cpu().to(memory_format=torch.contiguous_format)
        apply_masks(out, masks or {})
        found: nn.Module = out.eval()
        return found
